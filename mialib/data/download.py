"""Find, verify and, where it is missing, download the official files of a data set.

A file is trusted after its checksum matched. Checksums are written "algorithm:hex". Where nobody publishes
one (`checksum=None`), the SHA-256 of the file is logged once it was read to its end and kept beside it as
`<file>.sha256`, and every later load is verified against that: it guards against a file that changes, not
against one that was wrong at first. A file that is there is never overwritten, moved or deleted, and a root
that holds all files is not written to (except for that record, where it can be written to).
"""

import logging
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import pooch

log = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "MIALIB_DATA"
_OFFLINE = ContextVar("nothing is downloaded", default=False)


@dataclass(frozen=True)
class Source:
    """One official file: `path` below the data root, `url` None where it cannot be downloaded as it is."""

    dataset: str
    path: str
    url: str | None
    checksum: str | None  # "md5:..." or "sha256:...", None: none is published
    advice: str = ""  # how to get the file where a download alone does not do it


def data_root(root: str | Path | None = None) -> Path:
    """Folder of the data files: the argument, else $MIALIB_DATA, else the user's cache. Not created here."""
    chosen = root or os.environ.get(ENVIRONMENT_VARIABLE) or pooch.os_cache("mialib")
    return Path(chosen).expanduser().resolve()


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
    if path.is_file():
        verify(source, path)
    elif source.url is None or _OFFLINE.get():
        raise missing(source, path)
    else:
        _download(source, path)
    return path


def verify(source: Source, path: Path) -> None:
    """Compare the file with the checksum recorded beside it, else with the published one, if there is either.

    The record comes first because `faces.build` writes one for files that are built here: two builds hold
    the same arrays, but not always the same bytes.
    """
    beside = _record_path(path)
    expected = f"sha256:{beside.read_text().split()[0]}" if beside.is_file() else source.checksum
    if expected is None:
        return
    algorithm, digest = expected.split(":", 1)
    actual = pooch.file_hash(str(path), alg=algorithm)
    if actual != digest:
        origin = f" (recorded in {beside}; delete it if you replaced the file)" if beside.is_file() else ""
        raise corrupt(source, path, f"expected {expected}{origin}, found {algorithm}:{actual}")


@contextmanager
def reading(source: Source, path: Path) -> Iterator[Path]:
    """Around the reading of a fetched file: an error becomes `corrupt`, success records the checksum."""
    try:
        yield path
    except (
        OSError,
        EOFError,
        KeyError,
        ValueError,
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        actual = f"sha256:{pooch.file_hash(str(path))}"
        expected = source.checksum or "no published checksum"
        problem = f"expected {expected}, found {actual}; it cannot be read: {error}"
        raise corrupt(source, path, problem) from error
    if source.checksum is None and not _record_path(path).is_file():
        record(path)


def record(path: Path) -> None:
    """Write `<file>.sha256` beside the file, as `sha256sum -c` reads it; only logged where that cannot be."""
    digest = pooch.file_hash(str(path))
    log.info("%s: no checksum is published, found sha256:%s", path, digest)
    try:
        _record_path(path).write_text(f"{digest}  {path.name}\n")
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
