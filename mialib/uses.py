"""Which runs use which entries of the store: each run leaves a note there when it has saved its results.

A plan cannot tell: attack networks are named after the answers that they learn from, and a plan has none. So the process
that runs notes the keys that it loaded or wrote. A note is a file `.runs/*.json` in the store, one for each run of each
folder of notebooks. It holds the keys of the run's last execution (`used`), and those that earlier ones used and the last
did not (`before`). A run that was stopped leaves no note, nor does work outside of runs.
"""

import hashlib
import json
import platform
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mialib import REPO_ROOT, places, store
from mialib.store import Store

FOLDER = ".runs"


class Note(NamedTuple):
    """What a run noted.

    Args:
        place: stands for the folder of notebooks and the machine that it ran from, see `here`.
        finished: nanoseconds since 1970.
        used, before: keys of entries.
    """

    notebook: str
    run: str
    place: str
    finished: int
    used: frozenset[str]
    before: frozenset[str]

    @property
    def name(self) -> str:
        """As in params/: "yuan2022_pruning/location"."""
        return f"{self.notebook}/{self.run}"

    @property
    def is_gone(self) -> bool:
        """Whether the run had its parameter file here, in params/, and has it no more; of other places nobody knows."""
        return self.place == here() and not (REPO_ROOT / "params" / f"{self.name}.yaml").is_file()


def here() -> str:
    """A name for this folder of notebooks on this machine, which tells nobody where it is."""
    return hashlib.sha256(f"{platform.node()}:{REPO_ROOT}".encode()).hexdigest()[:16]


def note(notebook: str, run: str) -> None:
    """Note that a run has finished, and what this process has used of the default store until now.

    A store that cannot be written to gets no note.
    """
    cache = Store()
    used = frozenset(cache.used())
    if not used or places.LEFT_ALONE.get():
        return
    path = _path(cache, notebook, run)
    before = frozenset()
    with suppress(OSError, ValueError):
        old = _read(path)
        before = frozenset(key for key in (old.used | old.before) - used if cache.since(key) is not None)
    content = {"notebook": notebook, "run": run, "place": here(), "finished": time.time_ns()}
    with suppress(OSError):
        keys = {"used": sorted(used), "before": sorted(before)}
        store.write(path, json.dumps(content | keys).encode())


def notes(cache: Store) -> list[Note]:
    """All notes in a store, by name.

    Raises:
        ValueError: a note that cannot be understood. OSError: one that cannot be read.
    """
    found = []
    for path in sorted((cache.root / FOLDER).glob("*.json")):
        with suppress(FileNotFoundError):
            found.append(_read(path))
    return sorted(found, key=lambda one: (one.name, one.place))


def of_run(known: Iterable[Note], notebook: str, run: str) -> list[Note]:
    """The notes of one run: that of this place, else those of all others.

    Raises:
        ValueError: there is none.
    """
    found = [one for one in known if (one.notebook, one.run) == (notebook, run)]
    if not found:
        raise ValueError(
            f"run {notebook}/{run} has no note in this store, so nobody knows what it uses; run it to its end "
            f"('mialib run params/{notebook}/{run}.yaml'): what lies in the store already is only loaded"
        )
    return [one for one in found if one.place == here()] or found


def _path(cache: Store, notebook: str, run: str) -> Path:
    name = hashlib.sha256(json.dumps([here(), notebook, run]).encode()).hexdigest()[:16]
    return cache.root / FOLDER / f"{name}.json"


def _read(path: Path) -> Note:
    try:
        content = json.loads(path.read_bytes())
        texts = [content[name] for name in ("notebook", "run", "place")]
        keys = [frozenset(map(str, content[name])) for name in ("used", "before")]
        return Note(*map(str, texts), int(content["finished"]), *keys)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ValueError(
            f"{path} is no note of a run ({type(error).__name__}: {error}), so what that run uses is not known; remove "
            "the file and run what it may have been once more"
        ) from error
