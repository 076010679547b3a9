"""Whose turn it is: processes that share a store do not make the same entry at the same time.

Whoever makes an entry holds its turn meanwhile. A turn is a lock on one byte of the file `.turns` in the store, the byte that
the entry's key names. The file stays empty, and a lock ends with its process, however that ends. Other machines see it
where the disk passes locks on (NFS does by its lock manager; some cluster disks do not).

Turns save work and guard nothing: without them two processes make an entry twice, and the store keeps one of them whole.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from mialib import places
from mialib.store import Store

T = TypeVar("T")
FILE = ".turns"
PAUSE = 0.5  # seconds between two looks at what another process makes
# One handle a folder, never closed: to close any handle of a file ends all locks that the process has on it.
_handles: dict[Path, int | None] = {}


def are_seen(cache: Store) -> bool:
    """Whether turns in this store are held at all: the disk knows locks, and the store can be written to."""
    return _handle(cache) is not None


def take(cache: Store, key: str) -> bool:
    """Take the turn of an entry, or say that another process has it; never waits. True where turns are not seen.

    A process that has the turn already gets it again.
    """
    handle = _handle(cache)
    if handle is None:
        return True
    import fcntl  # not known everywhere; where it is not, there is no handle

    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(key))
    except OSError:
        return False
    return True


def give(cache: Store, *keys: str) -> None:
    """Give turns back; those that this process does not have stay as they are."""
    handle = _handle(cache)
    if handle is None:
        return
    import fcntl

    for key in keys:
        with suppress(OSError):
            fcntl.lockf(handle, fcntl.LOCK_UN, 1, _byte(key))


def once(cache: Store, key: str, found: Callable[[], T | None], make: Callable[[], T]) -> T:
    """What is found, else what is made, by one process at a time: the others wait and find it.

    Args:
        found: the entry under the key, None where there is none.
        make: makes it and puts it into the store.
    """
    while (entry := found()) is None:
        if take(cache, key):
            try:
                return again if (again := found()) is not None else make()
            finally:
                give(cache, key)
        time.sleep(PAUSE)
    return entry


def _handle(cache: Store) -> int | None:
    if os.name != "posix" or places.LEFT_ALONE.get():
        return None
    if cache.root not in _handles:
        _handles[cache.root] = _opened(cache.root / FILE)
    return _handles[cache.root]


def _opened(path: Path) -> int | None:
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:  # a store that can only be read
        return None
    try:
        fcntl.lockf(handle, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, _LAST)
        fcntl.lockf(handle, fcntl.LOCK_UN, 1, _LAST)
    except BlockingIOError:  # another process asks the same just now
        return handle
    except OSError:  # a disk without locks
        os.close(handle)
        return None
    return handle


_LAST = 2**60  # no key's byte


def _byte(key: str) -> int:
    return int(key[:15], 16)
