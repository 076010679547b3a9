"""Worker processes that end with the process they work for, however that one ends.

A kernel that is killed cannot tell its workers: they would finish their task, wait for more, and keep their memory.
"""

import os
import threading
import time
from typing import Any

_PACE = 1.0  # seconds between two looks


def tied() -> dict[str, Any]:
    """The options with which `joblib.parallel_config(backend="loky", ...)` makes workers end with the calling process."""
    return {"initializer": end_with, "initargs": (os.getpid(),)}


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
