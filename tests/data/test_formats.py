"""Readers of the official formats, on tiny files made here; what they do not understand is refused by name."""

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from mialib.data import formats, load


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_tgz(path: Path, members: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            content = text.encode()
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def table(rows) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


@pytest.mark.parametrize("shape", [(5,), (5, 4), (2, 300, 3)], ids=str)
def test_idx_files_come_back_in_their_shape(tmp_path, shape):
    (tmp_path / "file.gz").write_bytes(gzip.compress(idx(pixels(*shape))))
    found = formats.read_idx(tmp_path / "file.gz")
    assert found.dtype == np.uint8 and np.array_equal(found, pixels(*shape))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello world", "not an IDX file of unsigned bytes, it begins with b'hell'"),
        (bytes((0, 0, 0x0D, 1)) + struct.pack(">If", 1, 0.5), "not an IDX file"),
        (idx(pixels(2, 3))[:-1], r"promises shape \[2, 3\], there are 5 bytes"),
        (idx(pixels(2, 3)) + b"?", r"promises shape \[2, 3\], there are 7 bytes"),
        (b"", "not an IDX file of unsigned bytes, it begins with b''"),
        (b"\0\0\x08", "not an IDX file"),
        (
            b"\0\0\x08\x02" + b"\x80\0\0\0" * 2,
            r"promises shape \[2147483648, 2147483648\], there are 0 bytes",
        ),
        (b"\0\0\x08\xff1234", "smaller than"),
    ],
    ids=["text", "floats", "cut", "too long", "empty", "short", "a product of 2**62", "255 axes"],
)
def test_idx_reader_refuses_what_is_not_idx(tmp_path, content, words):
    (tmp_path / "file.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=words):
        formats.read_idx(tmp_path / "file.gz")


# Tables


@pytest.mark.parametrize("member", ["table", "folder/table", "./table"])
def test_a_table_is_read_from_among_others(tmp_path, member):
    path = write_tgz(tmp_path / "a.tgz", {"other": "?", member: '7,0,255\n"1",2,3\n'})
    found = formats.read_tar_table(path, member.removeprefix("./"), 3)
    assert found.dtype == np.uint8 and found.tolist() == [[7, 0, 255], [1, 2, 3]]


@pytest.mark.parametrize(("text", "columns"), [("1,2,3\n", 3), ("1\n2\n3\n", 1)], ids=["row", "column"])
def test_a_table_of_one_row_or_column_has_two_axes(tmp_path, text, columns):
    path = write_tgz(tmp_path / "a.tgz", {"table": text})
    assert formats.read_tar_table(path, "table", columns).reshape(-1).tolist() == [1, 2, 3]
    assert formats.read_tar_table(path, "table", columns).shape == (3 // columns, columns)


def test_an_archive_is_read_compressed_or_not(tmp_path):
    path = write_tgz(tmp_path / "a.tgz", {"table": "1,2\n"})
    (tmp_path / "a.tar").write_bytes(gzip.decompress(path.read_bytes()))
    for name in ("a.tgz", "a.tar"):
        assert formats.read_tar_table(tmp_path / name, "table", 2).tolist() == [[1, 2]], name


@pytest.mark.parametrize(
    ("member", "text", "words"),
    [
        ("elsewhere", "1,2\n", r"no member 'table', it holds \['elsewhere'\]"),
        ("table", "1,2,3\n", "member 'table' has 3 columns, expected 2"),
        ("table", "1,2\n3\n", "number of columns changed"),
        ("table", "1,256\n", "256"),
        ("table", "a,b\n1,2\n", "'a'"),
        ("table", "", "member 'table' has 1 columns, expected 2"),
        ("table", "1,2\n#1,2\n", "'#1'"),
        ("table", "1,2\n-1,2\n", "'-1'"),
        ("table", "1,2\n1,\xe9\n", "ascii"),
        ("table", "1,2\n1," + "0" * 200 + "\n", "a line of more than 96 characters"),
    ],
    ids=[
        "no such member",
        "too wide",
        "ragged",
        "no byte",
        "header",
        "empty",
        "remark",
        "below 0",
        "letters",
        "long",
    ],
)
def test_a_table_that_is_not_as_expected_is_refused(tmp_path, member, text, words):
    path = write_tgz(tmp_path / "a.tgz", {member: text})
    with pytest.raises(ValueError, match=words):
        formats.read_tar_table(path, "table", 2)


def test_a_table_of_another_width_is_corrupt(tmp_path):
    write_tgz(
        tmp_path / "purchase" / "dataset_purchase.tgz", {"dataset_purchase": table([[1, 0, 1], [2, 1, 1]])}
    )
    with pytest.raises(ValueError, match="has 3 columns, expected 601"):
        load("purchase100", tmp_path)


def test_readers_stop_at_their_limits(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(pixels(100, 100))))
    write_tgz(tmp_path / "a.tgz", {"table": "1,2\n" * 5000})
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((100, 100), np.uint8))
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.zeros((100, 100), np.uint8)}, do_compression=True)
    readers = (
        lambda limit: formats.read_idx(tmp_path / "a.gz", limit),
        lambda limit: formats.read_tar_table(tmp_path / "a.tgz", "table", 2, limit),
        lambda limit: formats.read_npz(tmp_path / "a.npz", ["x"], limit)[0],
        lambda limit: formats.read_mat(tmp_path / "a.mat", ["x"], limit)[0],
    )
    for read in readers:
        assert read(2**20).size == 10_000
        with pytest.raises(ValueError, match="unpacks to more than 9,999 bytes"):
            read(9_999)


def test_links_and_holes_are_no_tables(tmp_path):
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        link = tarfile.TarInfo("table")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(ValueError, match=r"no member 'table', it holds \[\]"):
        formats.read_tar_table(tmp_path / "a.tgz", "table", 2)


def test_arrays_are_read_by_name_and_without_pickles(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.array([None]))
    assert formats.read_npz(tmp_path / "a.npz", ["x"])[0].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"no arrays \['z'\], it holds \['x.npy', 'y.npy'\]"):
        formats.read_npz(tmp_path / "a.npz", ["x", "z"])
    with pytest.raises(ValueError, match="allow_pickle"):
        formats.read_npz(tmp_path / "a.npz", ["y"])
    (tmp_path / "a.npy").write_bytes(b"no zip")
    with pytest.raises(zipfile.BadZipFile):
        formats.read_npz(tmp_path / "a.npy", ["x"])
