"""Files below the data root: verified, never overwritten, downloaded where they are missing, and errors that say all."""

import errno
import functools
import gzip
import hashlib
import http.server
import os
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from mialib.data import download, load, loaders
from mialib.data.download import Source
from tests.data.test_formats import write_tgz
from tests.data.test_loaders import purchase


def test_root_is_argument_then_environment_then_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MIALIB_DATA", str(tmp_path / "environment"))
    assert download.data_root(tmp_path / "argument") == (tmp_path / "argument").resolve()
    assert download.data_root() == (tmp_path / "environment").resolve()
    monkeypatch.delenv("MIALIB_DATA")
    assert download.data_root().name == "mialib"
    assert download.data_root("~/data") == Path.home().resolve() / "data"


# One file


CONTENT = b"the official file"
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
NOWHERE = "http://127.0.0.1:9/file"  # the discard port: nobody answers


def source(checksum, url=NOWHERE, advice=""):
    return Source("toy", "folder/file", url, checksum, advice)


@pytest.fixture
def file(tmp_path):
    """The official file below the root tmp_path."""
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("checksum", [SHA256, MD5, None], ids=["sha256", "md5", "none published"])
def test_a_file_that_is_there_is_not_downloaded(tmp_path, file, checksum):
    assert download.fetch(source(checksum), tmp_path) == file
    assert file.read_bytes() == CONTENT and list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("checksum", [SHA256, MD5], ids=["sha256", "md5"])
def test_a_file_with_another_checksum_is_refused_and_left_in_place(tmp_path, file, checksum):
    file.write_bytes(b"other")
    found = hashlib.new(checksum.split(":")[0], b"other").hexdigest()
    with pytest.raises(ValueError, match=f"(?s)'toy': corrupt file: {file}.*expected {checksum}.*{found}"):
        download.fetch(source(checksum), tmp_path)
    assert file.read_bytes() == b"other"


def test_a_record_does_not_stand_for_a_published_checksum(tmp_path, file):
    file.write_bytes(b"forged")
    download.record(file)
    with pytest.raises(ValueError, match=f"(?s)corrupt file: {file}.*expected {SHA256}, found"):
        download.fetch(source(SHA256), tmp_path)
    file.write_bytes(CONTENT)
    assert download.fetch(source(SHA256), tmp_path) == file  # a record of something else does no harm


def test_the_record_of_a_file_that_is_built_here_stands_before_the_published_checksum(tmp_path, file):
    built = replace(source(SHA256), built=True)
    assert download.fetch(built, tmp_path) == file
    file.write_bytes(b"built here")
    with pytest.raises(ValueError, match=f"expected {SHA256}, found"):
        download.fetch(built, tmp_path)
    download.record(file)
    assert download.fetch(built, tmp_path) == file
    file.write_bytes(CONTENT)  # what is published is not what was recorded
    with pytest.raises(
        ValueError, match=r"(?s)recorded in .*file\.sha256; delete it if you replaced the file"
    ):
        download.fetch(built, tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"of before", b"\xff\xfe", b"a" * 63, b"a" * 65, b"A" * 64], ids=repr
)
def test_a_record_that_is_none_is_named(tmp_path, file, content):
    file.with_name("file.sha256").write_bytes(content)
    with pytest.raises(ValueError, match=r"(?s)'toy': corrupt file: .*file\.sha256\n.*SHA-256.*delete it"):
        download.fetch(source(None), tmp_path)


def test_a_record_is_there_whole_or_not_at_all(file, monkeypatch):
    def stop(*args):
        assert not file.with_name("file.sha256").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt), download.reading(source(None), file):
        pass
    assert list(file.parent.iterdir()) == [file]


# What a .gz holds

INSIDE = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """packed(name, content): root/folder/name, and the source of folder/file.gz whose own checksum fits nothing."""
    monkeypatch.setattr(download.pooch, "retrieve", lambda *args, **options: pytest.fail("downloaded"))

    def packed(name, content):
        path = tmp_path / "folder" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return Source("toy", "folder/file.gz", NOWHERE, SHA256, unpacked=INSIDE, limit=100)

    return packed


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("file.gz", gzip.compress(CONTENT, 1)),
        ("file.gz", gzip.compress(CONTENT[:5]) + gzip.compress(CONTENT[5:])),
        ("file", CONTENT),
        ("file.gz", CONTENT),
    ],
    ids=["packed anew", "in two parts", "unpacked", "unpacked under the same name"],
)
def test_the_right_bytes_are_taken_however_they_are_packed(tmp_path, packed, name, content):
    assert download.fetch(packed(name, content), tmp_path) == tmp_path / "folder" / name
    assert [path.name for path in (tmp_path / "folder").iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("file.gz", gzip.compress(b"other")),
        ("file", b"other"),
        ("file.gz", gzip.compress(CONTENT)[:-3]),
        ("file.gz", gzip.compress(CONTENT + bytes(10**6))),
        ("file.gz", b"\x1f\x8b\x08nonsense"),
    ],
    ids=["other", "other, unpacked", "cut", "too long", "no gzip"],
)
def test_other_bytes_are_refused_however_they_are_packed(tmp_path, packed, name, content):
    with pytest.raises(
        ValueError, match=rf"(?s)corrupt file: \S*{name}\n.*expected {SHA256}, or {INSIDE} unpacked, found"
    ):
        download.fetch(packed(name, content), tmp_path)


def test_what_cannot_be_downloaded_says_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        download.fetch(source(SHA256, url=None, advice="Ask its owner."), tmp_path)
    for part in ("'toy'", str(tmp_path / "folder" / "file"), SHA256, "Ask its owner.", "MIALIB_DATA"):
        assert part in str(error.value)
    assert "get it from" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("checksum", "recorded"), [(None, True), (SHA256, False)], ids=["none published", "published"]
)
def test_only_what_nobody_publishes_is_recorded_when_read(tmp_path, file, checksum, recorded):
    with download.reading(source(checksum), file) as path:
        assert path == file
    record = file.with_name("file.sha256")
    assert record.exists() == recorded
    if recorded:
        assert record.read_text() == f"{SHA256.removeprefix('sha256:')}  file\n"  # as sha256sum -c reads it


def test_a_record_is_written_once(file):
    file.with_name("file.sha256").write_text("of before")
    with download.reading(source(None), file):
        pass
    assert file.with_name("file.sha256").read_text() == "of before"


@pytest.mark.parametrize(
    "error",
    [ValueError("odd"), OSError("odd"), EOFError("odd"), KeyError("odd"), tarfile.TarError("odd")],
    ids=repr,
)
def test_an_error_while_reading_means_a_corrupt_file_and_no_record(file, error):
    with pytest.raises(
        ValueError, match="(?s)corrupt file.*no published checksum.*cannot be read: .*odd"
    ) as raised:
        with download.reading(source(None), file):
            raise error
    assert raised.value.__cause__ is error
    assert list(file.parent.iterdir()) == [file]


def test_errors_that_carry_no_words_are_called_by_their_name(file):
    with pytest.raises(ValueError, match="it cannot be read: ZeroDivisionError"):
        with download.reading(source(None), file):
            raise ZeroDivisionError


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), OSError(errno.ENOSPC, "full"), PermissionError(errno.EACCES, "no")],
    ids=repr,
)
def test_what_is_no_fault_of_the_file_stays_as_it_is(file, error):
    with pytest.raises(type(error)) as raised, download.reading(source(None), file):
        raise error
    assert raised.value is error and list(file.parent.iterdir()) == [file]


# Through a loader


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server of tmp_path/web, standing in for the origin of the tabular sets."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as web:
        threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(loaders, "SHOKRI", f"http://127.0.0.1:{web.server_port}/")
        yield folder
        web.shutdown()


def test_download_shows_progress_and_records_the_checksum(server, tmp_path, capfd):
    archive = write_tgz(server / "dataset_purchase.tgz", purchase())
    root = tmp_path / "root"
    first = load("purchase100", root)
    assert "100%" in capfd.readouterr().err
    record = root / "purchase" / "dataset_purchase.tgz.sha256"
    assert record.read_text() == f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  dataset_purchase.tgz\n"
    archive.unlink()
    assert load("purchase100", root).fingerprint == first.fingerprint  # no second download


def test_a_file_that_differs_from_its_record_is_refused(tmp_path):
    path = write_tgz(tmp_path / "purchase" / "dataset_purchase.tgz", purchase())
    load("purchase100", tmp_path)
    write_tgz(path, purchase(rows=4))
    with pytest.raises(
        ValueError, match=r"(?s)corrupt file.*recorded in .*dataset_purchase.tgz.sha256.*left in place"
    ):
        load("purchase100", tmp_path)


def test_a_root_that_cannot_be_written_to_is_read(tmp_path, monkeypatch):
    path = write_tgz(tmp_path / "purchase" / "dataset_purchase.tgz", purchase())

    def refuse(path, content):  # a folder's mode does not stop an administrator, so the refusal is acted out
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(download, "write", refuse)
    assert len(load("purchase100", tmp_path)) == 3
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_is_misunderstood_is_not_recorded_and_the_right_file_is_taken_next(tmp_path):
    path = tmp_path / "purchase" / "dataset_purchase.tgz"
    wrong = {"dataset_purchase": "".join(f"{label}{',1' * 600}\n" for label in (0, 99))}
    write_tgz(path, wrong)
    with pytest.raises(
        ValueError, match=r"(?s)'purchase100': corrupt file: .*labels 0\.\.99, expected 1\.\.100"
    ):
        load("purchase100", tmp_path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    write_tgz(path, purchase())
    assert len(load("purchase100", tmp_path)) == 3
    assert path.with_name("dataset_purchase.tgz.sha256").exists()


def test_a_truncated_archive_is_corrupt_and_leaves_no_record(tmp_path):
    path = write_tgz(tmp_path / "purchase" / "dataset_purchase.tgz", purchase(rows=50))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"(?s)'purchase100': corrupt file.*cannot be read.*privacytrustlab"):
        load("purchase100", tmp_path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_no_such_page(server, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"(?s)'texas100': not found: .*dataset_texas.tgz.*HTTPError: 404"
    ):
        load("texas100", tmp_path / "root")


def test_download_with_another_checksum_is_not_kept(server, tmp_path):
    (server / "dataset_location.tgz").write_bytes(b"something else")
    with pytest.raises(
        FileNotFoundError, match=r"(?s)download failed.*927203f85a868f8ee17a0ded1dc61699efe602167"
    ):
        load("location", tmp_path / "root")
    assert not (tmp_path / "root" / "location" / "dataset_location.tgz").exists()


def test_offline_error_says_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(loaders, "SHOKRI", "http://127.0.0.1:9/")  # the discard port: nobody answers
    with pytest.raises(FileNotFoundError) as error:
        load("location", tmp_path)
    text = str(error.value)
    for part in (
        "'location'",
        str(tmp_path / "location" / "dataset_location.tgz"),
        "sha256:927203f85a868f8ee17a0ded1dc61699efe602167beabe34fbf45b4b1de94b33",
        "http://127.0.0.1:9/dataset_location.tgz",
        "MIALIB_DATA",
        "download failed",
    ):
        assert part in text
    assert (
        error.value.__cause__ is None and error.value.__suppress_context__
    )  # the message, not urllib's traceback


def test_corrupt_file_error_says_everything_and_keeps_the_file(tmp_path):
    path = tmp_path / "location" / "dataset_location.tgz"
    path.parent.mkdir()
    path.write_bytes(b"not the archive")
    with pytest.raises(ValueError) as error:
        load("location", tmp_path)
    text = str(error.value)
    found = hashlib.sha256(b"not the archive").hexdigest()
    for part in (str(path), "sha256:927203f85a868f8e", found, "https://github.com/privacytrustlab/datasets"):
        assert part in text
    assert path.read_bytes() == b"not the archive"
