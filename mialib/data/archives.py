"""Archives that others packed, read within limits: at most as many bytes and members as the caller allows, no links.

A packed file can unpack to a thousand times its size, so every reading has a limit. Readers raise ValueError, or the
error of the library that reads, on what they refuse.
"""

import bz2
import gzip
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

MEMBERS = 100_000  # files and folders in one archive; the largest that is read here has 19,000
_HIDDEN = re.compile(r"(^|/)(\.(?!\.?(/|$))|__MACOSX(/|$))")  # .x and __MACOSX, but not . and ..


class Bounded:
    """A stream for reading that refuses to go past `limit` bytes, by reading or by seeking."""

    def __init__(self, stream: BinaryIO, limit: int):
        self._stream, self._limit = stream, limit

    def read(self, size: int = -1) -> bytes:
        left = self._limit - self._stream.tell()
        content = self._stream.read(left + 1 if size < 0 else min(size, left + 1))
        if len(content) > left:
            raise self._too_long()
        return content

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET and position > self._limit:
            raise self._too_long()
        return self._stream.seek(position, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def _too_long(self) -> ValueError:
        return ValueError(f"it unpacks to more than {size_of(self._limit)}, the most that is read of it")


def size_of(count: int) -> str:
    """A number of bytes as people write it."""
    return f"{count / 2**20:,.0f} MiB" if count >= 2**20 else f"{count:,} bytes"


@contextmanager
def unpacked(path: Path, limit: int) -> Iterator[Bounded]:
    """The content of a file, unpacked if it is a .gz or .bz2 file, whatever its name; at most `limit` bytes of it."""
    with open(path, "rb") as file:
        start = file.read(3)
        file.seek(0)
        if start[:2] == b"\x1f\x8b":
            stream = gzip.GzipFile(fileobj=file, mode="rb")
        else:
            stream = bz2.BZ2File(file) if start == b"BZh" else file
        with stream:
            yield Bounded(stream, limit)


@contextmanager
def open_tar(path: Path, limit: int, most: int = MEMBERS) -> Iterator[tuple[tarfile.TarFile, Iterator]]:
    """A (packed) tar of at most `limit` bytes, and its members in their order, at most `most`."""
    with unpacked(path, limit) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        yield archive, _counted(archive, most)


def _counted(archive: tarfile.TarFile, most: int) -> Iterator[tarfile.TarInfo]:
    for number, member in enumerate(archive):
        if number >= most:
            raise ValueError(f"it has more than {most:,} members, the most that are read")
        yield member


def is_plain(member: tarfile.TarInfo) -> bool:
    """Whether a member is a file with all its bytes: no link, no device, no holes (which cost nothing to pack)."""
    return member.isreg() and not member.issparse()


@contextmanager
def open_zip(path: Path, limit: int, most: int = MEMBERS) -> Iterator[zipfile.ZipFile]:
    """A zip of at most `most` members that unpack to at most `limit` bytes, stored or deflated."""
    if path.stat().st_size > limit:
        raise ValueError(f"the file is larger than {size_of(limit)}, the most that is read of it")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > most:
            raise ValueError(f"it has {len(members):,} members, at most {most:,} are read")
        # a member gives no more bytes than the directory says, so the directory's sum is the bound
        if sum(member.file_size for member in members) > limit:
            raise ValueError(f"it unpacks to more than {size_of(limit)}, the most that is read of it")
        for member in members:
            if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"member {member.filename!r} is encrypted, or neither stored nor deflated")
        yield archive


def is_hidden(name: str) -> bool:
    """Whether any part of the name is hidden or left behind by a tool: .x, .ipynb_checkpoints, ._x, __MACOSX."""
    return _HIDDEN.search(name) is not None


def unpack(path: Path, into: Path, folder: str, limit: int, most: int = MEMBERS) -> None:
    """Unpack the tar's `folder` to into/folder, whole or not at all; if another process is faster, its copy stays.

    Raises:
        ValueError, tarfile.TarError: a member that is a link or leads outside, too much content, or no such folder.
    """
    with tempfile.TemporaryDirectory(prefix=f".{folder}.", dir=into) as temporary:
        with open_tar(path, limit, most) as (archive, members):
            _write_all(archive, members, Path(temporary))
        made = Path(temporary) / folder
        if not made.is_dir():
            raise ValueError(f"no folder {folder!r}, it holds {sorted(os.listdir(temporary))[:20]}")
        try:
            os.rename(made, into / folder)
        except OSError:
            if not (into / folder).is_dir():
                raise


def _write_all(archive: tarfile.TarFile, members: Iterator[tarfile.TarInfo], into: Path) -> None:
    """As tarfile's filter "data" (Python 3.11.4 on), but stricter: plain files and folders only, no rights kept."""
    for member in members:
        path = into / member.name
        if ".." in Path(member.name).parts or not path.is_relative_to(into):
            raise ValueError(f"member {member.name!r} leads outside")
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
        elif is_plain(member):
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.extractfile(member) as content, open(path, "wb") as file:
                shutil.copyfileobj(content, file)
        else:
            raise ValueError(
                f"member {member.name!r} is a link, a device or has holes; files and folders are unpacked"
            )
