"""Worker processes that end with the process they work for, however that one ends, and see one GPU each.

A kernel that is killed cannot tell its workers: they would finish their task, wait for more, and keep their memory.
"""

import os
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

_PACE = 1.0  # seconds between two looks
_SLOTS = 1024  # more than one machine has workers
_handles: list[int] = []  # open as long as this process lives


def tied(gpus: int = 0) -> dict[str, Any]:
    """The options with which `joblib.parallel_config(backend="loky", ...)` makes workers end with the calling process.

    Args:
        gpus: that this machine has; of several each worker sees a single one.
    """
    return {"initializer": begin, "initargs": (os.getpid(), gpus)}


def begin(parent: int, gpus: int = 0) -> None:
    """What a worker does first, see `tied`."""
    end_with(parent)
    if gpus > 1 and (slot := free_slot()) is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = seen_gpu(os.environ.get("CUDA_VISIBLE_DEVICES"), gpus, slot)


def seen_gpu(visible: str | None, gpus: int, slot: int) -> str:
    """The GPU that the worker in a slot sees, as `CUDA_VISIBLE_DEVICES` names it.

    Args:
        visible: those that this process sees, None: all.
    """
    names = [name.strip() for name in visible.split(",")] if visible else [str(i) for i in range(gpus)]
    return names[slot % gpus]


def free_slot(path: Path | None = None) -> int | None:
    """The lowest number that no other worker on this machine has; this process has it until it ends.

    So the worker that follows one that died gets its number, and with it its GPU.

    Args:
        path: the file whose bytes are locked; default: one for each user in the folder for temporary files.

    Returns:
        None where files cannot be locked.
    """
    if os.name != "posix":
        return None
    import fcntl

    path = path or Path(tempfile.gettempdir(), f"mialib-workers-{os.getuid()}")
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    for slot in range(_SLOTS):
        with suppress(OSError):
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
            _handles.append(handle)
            return slot
    os.close(handle)
    return None


def end_with(parent: int) -> None:
    """From here on, end this process within about a second of the end of the one that started it.

    A thread checks who the parent is, since the system gives an orphan another one. (Windows does not; there a worker
    ends after five minutes without work.)

    Args:
        parent: id of the process that started this one; if it is gone already, this one ends at once.
    """

    def watch():
        while os.getppid() == parent:
            time.sleep(_PACE)
        os._exit(1)  # nobody is left to hear an exception

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
