"""Readers of the official file formats: from a path to arrays, with no knowledge of data sets or downloads.

Every reader raises ValueError, or the error of the library that reads, on content it does not understand.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import scipy.io

from mialib.data import archives

IDX_UINT8 = 0x08
LIMIT = 2**30  # bytes of content that are read, unless the caller sets another limit


def read_idx(path: Path, limit: int = LIMIT) -> np.ndarray:
    """An IDX file of unsigned bytes, gzipped or not, as MNIST's: 2 zero bytes, type, rank, big-endian uint32 sizes,
    then data.

    Returns uint8 of the shape in the header. Source: http://yann.lecun.com/exdb/mnist/, "The IDX file
    format".
    """
    with archives.unpacked(path, limit) as file:
        content = file.read()
    if len(content) < 4 or content[:3] != bytes((0, 0, IDX_UINT8)):
        raise ValueError(f"not an IDX file of unsigned bytes, it begins with {content[:4]!r}")
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4).tolist()
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if values.size != math.prod(shape):
        raise ValueError(f"the IDX header promises shape {shape}, there are {values.size} bytes of data")
    return values.reshape(shape)


def read_tar_table(path: Path, member: str, columns: int, limit: int = LIMIT) -> np.ndarray:
    """One text member of a (compressed) tar: comma-separated integers 0..255, quoted or not, no header.

    Returns uint8 (rows, columns).
    """
    longest = 16 * columns + 64  # bytes of a line: a field takes at most six, and some spaces
    with archives.open_tar(path, limit) as (archive, members):
        files = {item.name.removeprefix("./"): item for item in members if archives.is_plain(item)}
        if member not in files:
            raise ValueError(f"no member {member!r}, it holds {sorted(files)[:20]}")
        lines = _lines(archive.extractfile(files[member]), longest)
        first = next(lines, "")
        if (width := first.count(",") + 1) != columns:
            raise ValueError(f"member {member!r} has {width} columns, expected {columns}")
        # no comment lines: a row that looks like one must not be lost silently
        return np.loadtxt(
            chain([first], lines), np.uint8, comments=None, delimiter=",", quotechar='"', ndmin=2
        )


def _lines(file: BinaryIO, longest: int) -> Iterator[str]:
    while line := file.readline(longest + 1):
        if len(line) > longest:
            raise ValueError(f"a line of more than {longest} characters")
        yield line.decode("ascii")


def read_npz(path: Path, names: Sequence[str], limit: int = LIMIT) -> list[np.ndarray]:
    """The arrays `names` of an .npz file, without pickles."""
    with archives.open_zip(path, limit) as archive:
        held = sorted(archive.namelist())
    absent = [name for name in names if f"{name}.npy" not in held]
    if absent:
        raise ValueError(f"no arrays {absent}, it holds {held[:20]}")
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[name] for name in names]


def read_mat(path: Path, names: Sequence[str], limit: int = LIMIT) -> list[np.ndarray]:
    """The arrays `names` of a MATLAB 5 file."""
    sizes = {name: math.prod(shape) for name, shape, _ in scipy.io.whosmat(str(path))}
    absent = [name for name in names if name not in sizes]
    if absent:
        raise ValueError(f"no arrays {absent}, it holds {sorted(sizes)[:20]}")
    if max(path.stat().st_size, *(sizes[name] for name in names)) > limit:
        raise ValueError(f"it unpacks to more than {archives.size_of(limit)}, the most that is read of it")
    content = scipy.io.loadmat(str(path), variable_names=list(names))
    return [content[name] for name in names]
