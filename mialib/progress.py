"""Progress of long work: what runs, how far it is, how long it will take.

A bar goes to stderr. Inside a notebook that `mialib run` executes, stderr would end up in the stored outputs; there
the environment variable `MIALIB_PROGRESS` names a file that the command follows and shows on the terminal instead.
"""

import os
import sys

from tqdm import tqdm


def bar(total: int, what: str, unit: str) -> tqdm:
    """A progress bar to be used as a context manager; `update(n)` moves it."""
    path = os.environ.get("MIALIB_PROGRESS")
    file = open(path, "a", buffering=1) if path else sys.stderr
    return tqdm(
        total=total, desc=what, unit=unit, file=file, leave=False, mininterval=0.5, dynamic_ncols=not path
    )


def follow(items, what: str, unit: str, total: int | None = None):
    """Iterate over `items` behind a bar."""
    with bar(len(items) if total is None else total, what, unit) as shown:
        for item in items:
            yield item
            shown.update()
