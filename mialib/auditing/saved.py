"""Saved answers in one file: an .npz with `labels`, `member`, and each network's answers under its name."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mialib.auditing.weights import near

NEEDED = ("labels", "member")


class Saved(NamedTuple):
    """answers: name -> (n, classes); labels, member: (n,)."""

    answers: dict[str, np.ndarray]
    labels: np.ndarray
    member: np.ndarray


def read(path: str | Path) -> Saved:
    """Read what `numpy.savez("answers.npz", labels=..., member=..., original=..., pruned=...)` wrote.

    Raises:
        ValueError: no such file, another format, pickled objects, or arrays that are missing.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"{path}: there is no such file{near(path.absolute())}; it must be an .npz, as numpy.savez writes it"
        )
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it is a single array")
        with loaded as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: it cannot be read as an .npz of arrays of numbers, as numpy.savez writes it: {error}"
        ) from error
    missing = [name for name in NEEDED if name not in arrays]
    networks = [name for name in arrays if name not in NEEDED]
    if missing or not networks:
        lacking = ", ".join([*missing, *([] if networks else ["the answers of a network under its name"])])
        raise ValueError(f"{path}: it lacks {lacking}; it holds {', '.join(arrays) or 'nothing'}")
    return Saved({name: arrays[name] for name in networks}, *(arrays[name] for name in NEEDED))
