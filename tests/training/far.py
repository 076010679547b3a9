"""Calls for workers elsewhere: functions of a module, which other processes import."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from mialib.data import Dataset
from tests.training.test_population import mlp


def double(number: int, pause: float = 0.0) -> int:
    time.sleep(pause)
    return 2 * number


def who() -> int:
    return os.getpid()


def killed_once(mark: str, number: int) -> int:
    """Kills its process the first time."""
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def killed_always() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wrong(number: int) -> None:
    raise FloatingPointError(f"call {number} went wrong")


def seen(data: Dataset) -> tuple[int, int, str]:
    """The process, the object and what it holds."""
    return os.getpid(), id(data), data.fingerprint


def fragile(home: int, mark: str, make_model: Callable = mlp):
    """A network that kills the first process which makes it and is not `home`."""
    if os.getpid() != home:
        killed_once(mark, 0)
    return make_model()
