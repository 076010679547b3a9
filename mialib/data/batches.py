"""CIFAR's batches: pickles that Python 2 wrote, read without doing what a pickle says.

A pickle is a program. Here every name in it stands for a note of its arguments, so nothing is called, not even numpy. A
program that is longer than any batch, or asks for more memory than its length, is refused unread.
"""

import io
import pickle
import pickletools
from pathlib import Path

import numpy as np

from mialib.data import archives

PIXELS = 3 * 32 * 32
STEPS = 2_000_000  # opcodes; the longest batch, CIFAR-100's training part, has some 400,000
# where old and new versions of numpy keep what makes arrays
NAMES = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


def read_batch(path: Path, labels: str, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (n, 3072), 1024 red, 1024 green, 1024 blue, and labels int64 (n,) of a batch of CIFAR-10 or -100.

    labels: their key, "labels" or "fine_labels". Source: https://www.cs.toronto.edu/~kriz/cifar.html.
    Raises pickle.UnpicklingError or ValueError for anything else.
    """
    with archives.unpacked(path, limit) as file:
        content = file.read()
    batch = unpickle(content)
    if not isinstance(batch, dict) or not {"data", labels} <= batch.keys():
        found = sorted(map(repr, batch))[:20] if isinstance(batch, dict) else type(batch).__name__
        raise ValueError(f"no batch with 'data' and {labels!r}, it holds {found}")
    x, y = _pixels(batch["data"]), batch[labels]
    if not isinstance(y, list) or not all(type(label) is int and abs(label) < 2**31 for label in y):
        raise ValueError(f"{labels!r} are no whole numbers")
    if len(y) != len(x):
        raise ValueError(f"{len(x)} pictures, but {len(y)} {labels!r}")
    return x, np.array(y, np.int64)


def unpickle(content: bytes) -> object:
    """The lists, dicts, strings and numbers of a pickle; an array is a `Note`.

    Raises pickle.UnpicklingError where it names anything but numpy's arrays or is too long; other errors of the library
    where it is broken.
    """
    for step, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        # a place in the memo far beyond the end: it costs memory and says nothing
        if step >= STEPS or ("PUT" in opcode.name and not 0 <= argument <= step):
            raise pickle.UnpicklingError("too long a program for a batch")
    return _Unpickler(io.BytesIO(content), encoding="latin1").load()


class Note:
    """Stands for a thing in a pickle: keeps the arguments that it was called with and the state that it was given."""

    __slots__ = ("arguments", "state")

    def __init__(self, arguments: tuple = ()):
        self.arguments, self.state = arguments, None

    def __call__(self, *arguments) -> "Note":
        return Note(arguments)

    def __setstate__(self, state) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Note:
        if (module, name) not in NAMES:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which no batch needs; nothing was run"
            )
        return Note()  # a fresh one, so that a pickle changes nothing that stays


def _pixels(array: object) -> np.ndarray:
    """uint8 (n, 3072) of a note of an array; its state: version, shape, type, whether in Fortran's order, bytes."""
    try:
        _, shape, kind, is_fortran, raw = array.state
        raw = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
        rows, columns = (int(size) for size in shape)
        fits = kind.arguments[0] == "u1" and not is_fortran and rows > 0
    except (AttributeError, TypeError, ValueError, IndexError):
        raise ValueError("'data' is no array of bytes with two axes") from None
    if not fits or columns != PIXELS or len(raw) != rows * PIXELS:
        raise ValueError(f"'data' is no array of bytes of shape (n, {PIXELS}), but of shape {shape}")
    return np.frombuffer(raw, np.uint8).reshape(rows, PIXELS)
