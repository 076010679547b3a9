"""Progress of long work: what runs, how far it is, how long it will take.

One display at a time: work inside other work (the training of networks inside an attack) moves the outer bar by parts of
a step and puts its name behind it. A bar goes to stderr. On a terminal it moves twice a second; elsewhere (a notebook
sends each refresh as a message of its own) every two seconds, and not at all for what is done by then. Inside a notebook
that `mialib run` executes, stderr would end up in the stored outputs; there the environment variable `MIALIB_PROGRESS`
names a file that the command follows and shows on the terminal instead.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

from tqdm import tqdm

_TERMINAL = {"mininterval": 0.5, "dynamic_ncols": True}
_ELSEWHERE = {"mininterval": 2.0, "delay": 2.0}  # seconds
_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} {unit} [{elapsed}<{remaining}{postfix}]"
_open: list["Bar"] = []  # outermost first; only that one is drawn


class Bar:
    """A row of steps, moved by `update(steps)`."""

    def __init__(self, total: int, what: str, shown: tqdm, outer: "Bar | None"):
        self._total, self._what, self._shown, self._outer = total, what, shown, outer
        self._done = 0.0

    def update(self, steps: float = 1) -> None:
        self._done += steps
        self._move(self._done)

    def _move(self, place: float) -> None:
        if self._outer is not None:
            self._outer._move(self._outer._done + min(place / max(self._total, 1), 1.0))
        elif place > self._shown.n:  # a step that is counted when it ends has been drawn by its parts
            self._shown.update(place - self._shown.n)


@contextmanager
def bar(total: int, what: str, unit: str) -> Iterator[Bar]:
    """A bar of `total` steps; inside another one it moves that one."""
    with nullcontext(_open[0]._shown) if _open else _drawn(total, what, unit) as shown:
        made = Bar(total, what, shown, _open[-1] if _open else None)
        _open.append(made)
        _name_inner()
        try:
            yield made
        finally:
            _open.remove(made)
            _name_inner()


def follow(items: Iterable, what: str, unit: str, total: int | None = None) -> Iterator:
    """Iterate over `items` behind a bar; `total`: their number, where `items` cannot say."""
    with bar(len(items) if total is None else total, what, unit) as shown:
        for item in items:
            yield item
            shown.update()


@contextmanager
def _drawn(total: int, what: str, unit: str) -> Iterator[tqdm]:
    path = os.path.expanduser(os.environ.get("MIALIB_PROGRESS", ""))
    file = open(path, "a", buffering=1) if path else sys.stderr
    pace = _TERMINAL if file.isatty() else _ELSEWHERE
    look = {"desc": what, "unit": unit, "bar_format": _FORMAT, "leave": False}
    try:
        with tqdm(total=total, file=file, **look, **pace) as shown:
            yield shown
    finally:
        if path:
            file.close()


def _name_inner() -> None:
    """Behind the bar stands what runs inside it."""
    for outermost in _open[:1]:
        outermost._shown.set_postfix_str(", ".join(inner._what for inner in _open[1:]), refresh=False)
