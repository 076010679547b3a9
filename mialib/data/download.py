"""Find, verify and, where it is missing, download the official files of a data set.

A file is trusted once its checksum matches. Checksums are written "algorithm:hex". Where nobody publishes one
(`checksum=None`), the first good reading of the file logs its SHA-256 and keeps it beside the file as `<file>.sha256`;
every later load is verified against that. This guards against a file that changes, not against one that was wrong at
first. Beside a file whose checksum is published such a record counts for nothing, unless `faces.build` makes such a
file. A file that is there is never overwritten, moved or deleted. A root that holds all files is not written to (except
for that record, where it can be written to).
"""

import errno
import hashlib
import logging
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import pooch

from mialib import places
from mialib.data import archives
from mialib.store import write

log = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "MIALIB_DATA"
_OF_THE_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_OFFLINE = ContextVar("nothing is downloaded", default=False)


@dataclass(frozen=True)
class Source:
    """One official file: `path` below the data root, `url` None where it cannot be downloaded as it is."""

    dataset: str
    path: str
    url: str | None
    checksum: str | None  # "md5:..." or "sha256:...", None: none is published
    advice: str = ""  # how to get the file where a download alone is not enough
    unpacked: str | None = (
        None  # checksum of the content of a .gz; a file packed anew, or unpacked, is as good
    )
    built: bool = False  # `faces.build` makes such a file too; then its record stands for the checksum
    limit: int = 2**30  # bytes that its content may take; the official file takes fewer


def data_root(root: str | Path | None = None) -> Path:
    """Folder of the data files: the argument, else $MIALIB_DATA, else the user's cache. It is not created here.

    Raises:
        ValueError: there is no home folder for its `~`.
    """
    chosen = root or os.environ.get(ENVIRONMENT_VARIABLE) or pooch.os_cache("mialib")
    return places.at(chosen, ENVIRONMENT_VARIABLE).resolve()


@contextmanager
def offline() -> Iterator[None]:
    """Within it nothing is downloaded: a file that is not there is missing."""
    token = _OFFLINE.set(True)
    try:
        yield
    finally:
        _OFFLINE.reset(token)


def fetch(source: Source, root: Path) -> Path:
    """Path of the verified file below `root`, downloaded (with a progress bar on stderr) if it is missing.

    Raises FileNotFoundError if it is missing and cannot be downloaded, ValueError if its checksum is wrong.
    """
    path = root / source.path
    plain = path.with_suffix("")
    if path.is_file():
        verify(source, path)
    elif source.unpacked is not None and plain.is_file():
        verify(source, plain)
        return plain
    elif source.url is None or _OFFLINE.get():
        raise missing(source, path)
    else:
        _download(source, path)
    return path


def verify(source: Source, path: Path) -> None:
    """Compare the file with the published checksum, or with the recorded one where that counts; a file may have neither.

    A record counts where nothing is published, and for files that `faces.build` makes: two builds hold the same
    arrays, but not always the same bytes.
    """
    beside = _record_path(path)
    is_recorded = (source.checksum is None or source.built) and beside.is_file()
    expected = f"sha256:{_recorded(source, beside)}" if is_recorded else source.checksum
    if expected is None:
        return
    algorithm, digest = expected.split(":", 1)
    actual = pooch.file_hash(str(path), alg=algorithm)
    if actual == digest:
        return
    problem = f"expected {expected}" + (
        f" (recorded in {beside}; delete it if you replaced the file)" if is_recorded else ""
    )
    if source.unpacked is not None:
        problem += f", or {source.unpacked} unpacked"
        if _content_checksum(source, path) == source.unpacked:
            return
    raise corrupt(source, path, f"{problem}, found {algorithm}:{actual}")


def _recorded(source: Source, beside: Path) -> str:
    with open(beside, "rb") as file:
        match = re.match(rb"[0-9a-f]{64}(?=\s|$)", file.read(100))
    if match is None:
        raise corrupt(
            source, beside, "it must begin with the SHA-256 of the file it stands beside; delete it"
        )
    return match[0].decode()


def _content_checksum(source: Source, path: Path) -> str | None:
    """The checksum of what a file holds, packed or not; None where it cannot be unpacked, or holds too much."""
    algorithm = source.unpacked.split(":")[0]
    digest = hashlib.new(algorithm)
    try:
        with archives.unpacked(path, source.limit) as file:
            while part := file.read(2**20):
                digest.update(part)
    except (OSError, EOFError, ValueError, zlib.error):
        return None
    return f"{algorithm}:{digest.hexdigest()}"


@contextmanager
def reading(source: Source, path: Path) -> Iterator[Path]:
    """Wraps the reading and checking of a fetched file: an error becomes `corrupt`, success records the checksum.

    What the system says of the place (full, read-only, forbidden) is no fault of the file and is raised as it is.
    """
    try:
        yield path
    except Exception as error:  # readers of forged bytes raise what they raise; the cause stays attached
        if isinstance(error, OSError) and error.errno in _OF_THE_PLACE:
            raise
        actual = f"sha256:{pooch.file_hash(str(path))}"
        expected = source.checksum or "no published checksum"
        reason = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        problem = f"expected {expected}, found {actual}; it cannot be read: {reason}"
        raise corrupt(source, path, problem) from error
    if source.checksum is None and not _record_path(path).is_file():
        record(path)


def record(path: Path, digest: str | None = None) -> None:
    """Write `<file>.sha256` beside the file, as `sha256sum -c` reads it; where that is impossible, only log it.

    digest: the SHA-256 in hex of a file that is not there yet, so that the file is never there without its record.
    """
    digest = digest or pooch.file_hash(str(path))
    log.info("%s: no checksum is published, found sha256:%s", path, digest)
    try:
        write(_record_path(path), f"{digest}  {path.name}\n".encode())
    except OSError as error:  # a read-only root is fine, the file is used without a record
        log.info("%s: not written, so later loads cannot compare: %s", _record_path(path), error)


def missing(source: Source, path: Path, reason: str = "") -> FileNotFoundError:
    """The error for a file (or folder) that is not there."""
    return FileNotFoundError(
        f"data set {source.dataset!r}: not found: {path}"
        + (f"\n  {reason}" if reason else "")
        + f"\n  expected checksum: {source.checksum or 'none is published'}"
        + (f"\n  get it from: {source.url}" if source.url else "")
        + (f"\n  {source.advice}" if source.advice else "")
        + f"\n  then put it there, or set the environment variable {ENVIRONMENT_VARIABLE} (or the argument"
        + f" `root`) to the folder that holds {source.path}"
    )


def corrupt(source: Source, path: Path, problem: str) -> ValueError:
    """The error for a file that cannot be trusted; `problem` says what was expected and what is there."""
    return ValueError(
        f"data set {source.dataset!r}: corrupt file: {path}\n  {problem}"
        "\n  The file was left in place: move it away, then load again"
        + (f", or get it from: {source.url}" if source.url else "")
        + (f"\n  {source.advice}" if source.advice else "")
    )


def _download(source: Source, path: Path) -> None:
    try:
        pooch.retrieve(
            source.url,
            known_hash=source.checksum,
            fname=path.name,
            path=path.parent,
            downloader=pooch.HTTPDownloader(progressbar=True),
        )
    # no network, no such page, no room, or a body with another checksum
    except (OSError, ValueError) as error:
        raise missing(source, path, f"download failed: {type(error).__name__}: {error}") from None


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
