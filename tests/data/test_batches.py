"""CIFAR's batches: read as Python 2 and 3 wrote them, and whatever else a pickle says is not done."""

import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from mialib.data import batches
from tests.data.test_archives import memory_below
from tests.data.test_formats import pixels

ROWS = pixels(3, 3072)
BATCH = {"data": ROWS, "labels": [1, 0, 9], "filenames": ["a", "b", "c"], "batch_label": "?"}


def python2(x: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 and numpy of 2009 wrote it: protocol 2, strings of bytes."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        + number(0)
        + b"\x85"
        + text(b"b")
        + b"\x87R"
    )
    kind = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) * 2 + number(0) + b"tb"
    raw = b"T" + struct.pack("<i", x.nbytes) + x.tobytes()
    array += (
        b"(" + number(1) + number(x.shape[0]) + number(x.shape[1]) + b"\x86" + kind + b"\x89" + raw + b"tb"
    )
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + b"u."


@pytest.mark.parametrize(
    "content",
    [python2(ROWS, [1, 0, 9]), *(pickle.dumps(BATCH, protocol) for protocol in (3, 4))],
    ids=["2", "3", "4"],
)
def test_batches_of_every_age_are_read(tmp_path, content):
    (tmp_path / "batch").write_bytes(content)
    x, y = batches.read_batch(tmp_path / "batch", "labels", 2**20)
    assert np.array_equal(x, ROWS) and x.dtype == np.uint8
    assert y.tolist() == [1, 0, 9] and y.dtype == np.int64


class Call:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Call(os.mkdir, ("ran",)), "mkdir"),
        (Call(eval, ("__import__('os').mkdir('ran')",)), "eval"),
        (Call(np.fromfile, ("/dev/zero",)), "fromfile"),
        (Call(np.zeros, (10**12,)), "zeros"),
        (io.BytesIO, "BytesIO"),
        (np.dtype, "dtype"),
        (Path("ran"), "Path"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_pickle_runs_anything(tmp_path, monkeypatch, protocol, call, name):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"data": call, "labels": [1, 0, 9]}, protocol)
    Path("batch").write_bytes(content)
    with pytest.raises((pickle.UnpicklingError, ValueError), match="nothing was run|no array of bytes"):
        batches.read_batch(Path("batch"), "labels", 2**20)
    assert os.listdir() == ["batch"]


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02cnumpy\nndarray\n(J\0\0\0\x40J\0\0\0\x40\x86tR.",  # an array of 10**18 bytes
        b"\x80\x02cnumpy\nndarray\n}U\x05stateU\x01xsb.",
        b"\x80\x02cnumpy\ndtype\n(U\x0bV1000000000tR.",
    ],
)
def test_even_numpy_is_not_called(content):
    assert isinstance(batches.unpickle(content), batches.Note)
    assert np.ndarray((1,)).shape == (1,) and np.dtype("u1").itemsize == 1


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]r\xff\xff\xff\x0f.",  # the memo's place 268 million, 4 GB of memory
        b"]p268435455\n.",
        b"]p-1\n.",
        b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"short.",
        b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"short.",
        b"\x80\x04\x95" + (2**40).to_bytes(8, "little") + b"N.",
    ],
    ids=["memo", "memo in words", "memo below 0", "bytes", "string", "frame"],
)
def test_no_pickle_takes_memory_beyond_its_length(content):
    with memory_below(2**22):
        try:
            batches.unpickle(content)
        except (ValueError, pickle.UnpicklingError, EOFError):
            pass


def test_a_pickle_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(batches, "STEPS", 100)
    with pytest.raises(pickle.UnpicklingError, match="too long a program"):
        batches.unpickle(pickle.dumps(list(range(200))))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": ROWS.astype(np.int64)}, "'data' is no array of bytes of shape"),
        ({"data": ROWS[:, :3000]}, r"shape \(n, 3072\), but of shape \(3, 3000\)"),
        ({"data": np.asfortranarray(ROWS)}, "no array of bytes"),
        ({"data": ROWS[0]}, "no array of bytes with two axes"),
        ({"data": ROWS.tobytes()}, "no array of bytes with two axes"),
        ({"data": np.array([[object]])[:0], "labels": []}, "nothing was run|no array"),
        ({"labels": [1, 2]}, "3 pictures, but 2 'labels'"),
        ({"labels": [1, 2, "3"]}, "no whole numbers"),
        ({"labels": [1, 2, True]}, "no whole numbers"),
        ({"labels": [1, 2, 10**30]}, "no whole numbers"),
        ({"labels": (1, 2, 3)}, "no whole numbers"),
    ],
)
def test_batches_that_are_none_are_refused(tmp_path, changes, words):
    (tmp_path / "batch").write_bytes(pickle.dumps(BATCH | changes, 4))
    with pytest.raises((ValueError, pickle.UnpicklingError), match=words):
        batches.read_batch(tmp_path / "batch", "labels", 2**20)


def test_a_batch_of_the_other_kind(tmp_path):
    (tmp_path / "batch").write_bytes(pickle.dumps(BATCH, 4))
    with pytest.raises(ValueError, match="no batch with 'data' and 'fine_labels', it holds .*'labels'"):
        batches.read_batch(tmp_path / "batch", "fine_labels", 2**20)
    (tmp_path / "batch").write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match="it holds list"):
        batches.read_batch(tmp_path / "batch", "labels", 2**20)
