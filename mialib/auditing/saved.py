"""Saved answers in one file: an .npz with `labels`, `member`, and each network's answers under its name.

Where there are imitations of the networks, their answers (s, n, classes) stand under "shadow_" and the network's name, and
what they learned (s, n) under `shadow_member`.
"""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mialib.auditing.shadows import SavedShadows
from mialib.auditing.weights import near

NEEDED = ("labels", "member")
SHADOW = "shadow_"


class Saved(NamedTuple):
    """answers: name -> (n, classes); labels, member: (n,). shadows: of imitations, None where there are none."""

    answers: dict[str, np.ndarray]
    labels: np.ndarray
    member: np.ndarray
    shadows: SavedShadows | None = None


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
    networks = {
        name: one for name, one in arrays.items() if name not in NEEDED and not name.startswith(SHADOW)
    }
    theirs = {name[len(SHADOW) :]: one for name, one in arrays.items() if name.startswith(SHADOW)}
    needed = (*NEEDED, SHADOW + "member") if theirs else NEEDED
    lacking = [name for name in needed if name not in arrays]
    if lacking or not networks:
        lacking += [] if networks else ["the answers of a network under its name"]
        raise ValueError(f"{path}: it lacks {', '.join(lacking)}; it holds {', '.join(arrays) or 'nothing'}")
    member = theirs.pop("member", None)
    shadows = None if member is None else SavedShadows(theirs, member)
    return Saved(networks, arrays["labels"], arrays["member"], shadows)
