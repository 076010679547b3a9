"""Readers of the official formats, on tiny files made here; what they do not understand is refused by name."""

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

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
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
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
    ],
    ids=["text", "floats", "cut", "too long"],
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
    ],
    ids=["no such member", "too wide", "ragged", "no byte", "header"],
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
