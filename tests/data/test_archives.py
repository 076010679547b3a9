"""Archives that were forged: none writes outside, none unpacks to more than was allowed, none is half unpacked."""

import bz2
import gzip
import io
import tarfile
import tracemalloc
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from mialib.data import archives

FOLDER = "batches"


def tar(path: Path, *members, mode: str = "w:gz") -> Path:
    """Members: (name, content) or a TarInfo."""
    with tarfile.open(path, mode) as archive:
        for member in members:
            info, content = member if isinstance(member, tuple) else (member, b"")
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@contextmanager
def memory_below(limit: int):
    """Python's objects and numpy's arrays, in bytes, at the peak of what runs within."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def zeros(path: Path, mebibytes: int) -> Path:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(mebibytes):
            file.write(bytes(2**20))
    return path


# Streams


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress], ids=["plain", "gz", "bz2"])
def test_content_is_read_packed_or_not_up_to_the_limit(tmp_path, pack):
    (tmp_path / "file").write_bytes(pack(b"0123456789"))
    with archives.unpacked(tmp_path / "file", 10) as stream:
        assert stream.read(4) == b"0123" and stream.tell() == 4 and stream.read() == b"456789"
        assert stream.read() == b"" and stream.seek(8) == 8 and stream.read(1) == b"8"
    for read in (
        lambda stream: stream.read(),
        lambda stream: stream.read(10**12),
        lambda stream: stream.seek(10),
    ):
        with pytest.raises(ValueError, match="unpacks to more than 9 bytes, the most that is read"):
            with archives.unpacked(tmp_path / "file", 9) as stream:
                read(stream)


def test_a_bomb_costs_no_more_memory_than_the_limit(tmp_path):
    bomb = zeros(tmp_path / "bomb.gz", 200)
    assert bomb.stat().st_size < 2**20
    with memory_below(2**23):
        with pytest.raises(ValueError, match="more than 1 MiB"), archives.unpacked(bomb, 2**20) as stream:
            stream.read()
    many = tar(tmp_path / "many.tgz", ("1", bytes(2**26)), ("2", b"?"))
    with memory_below(2**23):
        with (
            pytest.raises(ValueError, match="more than 1 MiB"),
            archives.open_tar(many, 2**20) as (_, members),
        ):
            list(members)


# Tars


def test_members_of_a_tar_are_counted(tmp_path):
    path = tar(tmp_path / "a.tgz", *((str(i), b"") for i in range(5)))
    with archives.open_tar(path, 2**20, most=5) as (_, members):
        assert [member.name for member in members] == list("01234")
    with (
        pytest.raises(ValueError, match="more than 4 members"),
        archives.open_tar(path, 2**20, 4) as (_, members),
    ):
        list(members)


@pytest.mark.parametrize("name", ["pax", "gnu"])
def test_long_names_are_no_way_around_the_limit(tmp_path, name):
    info = tarfile.TarInfo("x" * 2**21)  # a header beside the member's own holds it
    path = tmp_path / "a.tgz"
    with tarfile.open(
        path, "w:gz", format={"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT}[name]
    ) as archive:
        archive.addfile(info)
    with pytest.raises(ValueError, match="more than 1 MiB"), archives.open_tar(path, 2**20) as (_, members):
        list(members)


def test_holes_are_no_content(tmp_path):
    """GNU's sparse files: a member of a thousand million bytes for one header."""
    header = bytearray(special("hole", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[386:398] = b"%011o\0" % 0  # where bytes stand, and how many: none
    header[483:495] = b"%011o\0" % 10**9
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    with archives.open_tar(tmp_path / "a.tar", 2**20) as (_, members):
        (member,) = members
        assert member.size == 10**9 and member.isreg() and not archives.is_plain(member)
    with pytest.raises(ValueError, match="'hole' is a link, a device or has holes"):
        archives.unpack(tmp_path / "a.tar", tmp_path, FOLDER, 2**20)


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_folder_is_unpacked_whole_and_nothing_else_stays(root):
    path = tar(root / "a.tgz", (f"{FOLDER}/1", b"one"), (f"{FOLDER}/x/2", b"two"), ("beside", b"?"))
    archives.unpack(path, root, FOLDER, 2**20)
    assert everything(root) == ["a.tgz", FOLDER, f"{FOLDER}/1", f"{FOLDER}/x", f"{FOLDER}/x/2"]
    assert (root / FOLDER / "x" / "2").read_bytes() == b"two"


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (("../out", b"?"), "out' leads outside"),
        ((f"{FOLDER}/../../out", b"?"), "out' leads outside"),
        (("/out", b"?"), "out' leads outside"),
        (special(f"{FOLDER}/link", tarfile.SYMTYPE, "../../out"), "link' is a link"),
        (special(f"{FOLDER}/link", tarfile.SYMTYPE, "1"), "link' is a link"),
        (special(f"{FOLDER}/link", tarfile.LNKTYPE, f"{FOLDER}/1"), "link' is a link"),
        (special(f"{FOLDER}/pipe", tarfile.FIFOTYPE), "pipe' is a link, a device"),
        (special(f"{FOLDER}/zero", tarfile.CHRTYPE), "zero' is a link, a device"),
        ((f"{FOLDER}/big", bytes(2**21)), "more than 1 MiB"),
    ],
    ids=["up", "up later", "absolute", "link out", "link", "hard link", "pipe", "device", "big"],
)
def test_forged_members_leave_nothing_behind(tmp_path, root, member, words):
    if isinstance(member, tuple) and member[0] == "/out":
        member = (f"{tmp_path}/out", b"?")
    path = tar(root / "a.tgz", (f"{FOLDER}/1", b"one"), member)
    with pytest.raises((ValueError, tarfile.TarError), match=words):
        archives.unpack(path, root, FOLDER, 2**20)
    assert everything(tmp_path) == ["root", "root/a.tgz"]


def test_an_archive_of_something_else(root):
    with pytest.raises(ValueError, match=r"no folder 'batches', it holds \['other'\]"):
        archives.unpack(tar(root / "a.tgz", ("other", b"?")), root, FOLDER, 2**20)
    assert everything(root) == ["a.tgz"]


def test_too_many_members_leave_nothing_behind(root):
    path = tar(root / "a.tgz", *((f"{FOLDER}/{i}", b"") for i in range(5)))
    with pytest.raises(ValueError, match="more than 4 members"):
        archives.unpack(path, root, FOLDER, 2**20, most=4)
    assert everything(root) == ["a.tgz"]


@pytest.fixture
def after_unpacking(monkeypatch):
    """after_unpacking(do): has `do` happen when all is unpacked and nothing is in its place."""

    def after_unpacking(do):
        original = archives._write_all

        def write_all(*args):
            original(*args)
            do()

        monkeypatch.setattr(archives, "_write_all", write_all)

    return after_unpacking


def test_another_process_may_be_faster(root, after_unpacking):
    path = tar(root / "a.tgz", (f"{FOLDER}/1", b"one"))

    def faster():
        assert not (root / FOLDER).exists()  # what is unpacked only in part is not there for others
        (root / FOLDER).mkdir()
        (root / FOLDER / "1").write_bytes(b"theirs")

    after_unpacking(faster)
    archives.unpack(path, root, FOLDER, 2**20)
    assert everything(root) == ["a.tgz", FOLDER, f"{FOLDER}/1"]
    assert (root / FOLDER / "1").read_bytes() == b"theirs"


def test_a_place_that_is_taken_by_something_else_is_an_error(root, after_unpacking):
    after_unpacking(lambda: (root / FOLDER).write_bytes(b"a file"))
    with pytest.raises(OSError):
        archives.unpack(tar(root / "a.tgz", (f"{FOLDER}/1", b"one")), root, FOLDER, 2**20)
    assert (root / FOLDER).read_bytes() == b"a file"


def test_an_interrupted_unpacking_leaves_nothing_behind(root, after_unpacking):
    def interrupt():
        raise KeyboardInterrupt

    after_unpacking(interrupt)
    with pytest.raises(KeyboardInterrupt):
        archives.unpack(tar(root / "a.tgz", (f"{FOLDER}/1", b"one")), root, FOLDER, 2**20)
    assert everything(root) == ["a.tgz"]


# Zips


def write_zip(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_zips_are_read_up_to_the_limits(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"1": bytes(600_000), "2": bytes(400_000)})
    with archives.open_zip(path, 10**6, most=2) as archive:
        assert archive.read("2") == bytes(400_000)
    for limit, most, words in (
        (10**6 - 1, 2, "unpacks to more than"),
        (10**6, 1, "2 members, at most 1"),
        (9, 2, "larger"),
    ):
        with pytest.raises(ValueError, match=words), archives.open_zip(path, limit, most):
            pass


def test_a_zip_gives_no_more_than_its_directory_says(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"1": bytes(10**6)})
    content = path.read_bytes()
    path.write_bytes(content.replace((10**6).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with archives.open_zip(path, 10**6) as archive, pytest.raises(zipfile.BadZipFile):
        assert len(archive.read("1")) <= 10


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_packings_without_a_bound_are_refused(tmp_path, how):
    path = write_zip(tmp_path / "a.zip", {"1": b"one"}, how)
    with pytest.raises(ValueError, match="'1' is encrypted, or neither stored nor deflated"):
        with archives.open_zip(path, 10**6):
            pass


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        (".x", True),
        ("a/.x/b", True),
        ("a/._1.png", True),
        ("__MACOSX/a", True),
        ("a/__MACOSX", True),
        ("..x", True),
        ("a.b/c.png", False),
        ("./a", False),
        ("../a", False),
        ("a/./b/..", False),
        ("__MACOSX2", False),
    ],
)
def test_hidden_names(name, hidden):
    assert archives.is_hidden(name) == hidden


def test_sizes_in_words():
    assert [archives.size_of(n) for n in (7, 2**20, 2**30)] == ["7 bytes", "1 MiB", "1,024 MiB"]
