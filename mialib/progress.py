"""Progress of long work: what runs, how far it is, how long it will take.

One display at a time, drawn by tqdm: work inside other work (the training of networks inside an attack) moves the outer bar
by parts of a step and puts its name behind it. It goes to stderr. On a terminal it is one line, never wider than the
terminal, that moves twice a second. In a notebook, which gets each refresh as a message of its own, it moves every two
seconds, and not at all for what is done by then. Elsewhere, in the log of a job, it is a whole line every 30 seconds.

Inside a notebook that `mialib run` executes, stderr would end up in the stored outputs. There the environment variable
`MIALIB_PROGRESS` names a file that takes the states, one a line as JSON; the command reads and draws them (`Watch`).
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

from tqdm import tqdm

# seconds between two refreshes
_TERMINAL, _NOTEBOOK, _LOG, _FILE = 0.5, 2.0, 30.0, 0.5
_NARROW = 80  # columns; fewer have no room for counts
_LEAST = 6  # columns of the bar
_COUNTS = " {n:.0f}/{total:.0f} {unit}"
_FORMAT = "{desc} {percentage:3.0f}%|{bar}|" + _COUNTS + " [{elapsed}<{remaining}]"
_open: list["Bar"] = []  # outermost first; only that one is drawn
_logged = [time.time()]  # when the last line went to a log, of whichever bar


class Line(tqdm):
    """What is drawn of the outermost bar.

    Args:
        before: what stands before the names of what runs.
    """

    monitor_interval = 0  # without tqdm's own thread

    def __init__(self, file, total: int, what: str, unit: str, before: str = ""):
        self.before, self.names = before, [what]
        self.in_log = not file.isatty() and not _is_notebook(file)
        pace = _TERMINAL if file.isatty() else _LOG if self.in_log else _NOTEBOOK
        options = {"mininterval": pace, "miniters": 0, "smoothing": 0, "leave": False}
        # a moment's delay: nothing is drawn by the constructor
        delay = _NOTEBOOK if pace == _NOTEBOOK else 1e-9
        super().__init__(
            total=total, unit=unit, file=file, delay=delay, dynamic_ncols=file.isatty(), **options
        )
        if self.in_log:
            self.last_print_t = _logged[0]

    def move(self, place: float) -> None:
        if self.n < (place := min(place, self.total)):  # a counted step has been drawn by its parts
            self.update(place - self.n)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        if not self.in_log:
            return super().display(msg, pos)
        if msg is None:
            self.fp.write(f"{self}\n")
            self.fp.flush()
            _logged[0] = time.time()
        return False  # there is nothing to clear

    def __str__(self) -> str:
        known = self.format_dict
        if not self.names:  # nothing of which it is known how far it is
            return _cut(self.before, (known["ncols"] or 1000) - 1)
        start = f"{self.before}, " if self.before else ""
        if self.in_log:
            text = (
                "{percentage:.0f} %, {n:.0f} of {total:.0f} {unit}, {elapsed} elapsed, {remaining} remaining"
            )
            return start + " > ".join(self.names) + ": " + self._formatted(known, text)
        width = known["ncols"] and known["ncols"] - 1  # a terminal wraps after its last column
        form = _FORMAT.replace(_COUNTS, "") if width and width < _NARROW - 1 else _FORMAT
        names = " > ".join(self.names)
        if width:
            others = len(self._formatted(known, form.replace("{desc}", "").replace("{bar}", "")))
            room = width - others - len(start) - _LEAST - 1
            fitting = (" > ".join(self.names[:count]) for count in range(len(self.names), 0, -1))
            names = next((one for one in fitting if len(one) <= room), _cut(self.names[0], room))
        return self._formatted(known, form.replace("{desc}", "{desc}:"), f"{start}{names}", width)

    @staticmethod
    def _formatted(known: dict, form: str, prefix: str = "", columns: int | None = None) -> str:
        units = known["unit"] + ("" if known["total"] == 1 or known["unit"].endswith("y") else "s")
        return tqdm.format_meter(
            **known | {"bar_format": form, "prefix": prefix, "ncols": columns, "unit": units}
        )


class _Told:
    """As `Line`, but the states go to a file from which another process draws them."""

    def __init__(self, file, total: int, what: str, unit: str):
        self.n, self.names = 0.0, [what]
        self._file, self._total, self._unit = file, total, unit
        self._began = self._last = time.time()

    def move(self, place: float) -> None:
        self.n = max(self.n, min(place, self._total))
        if (now := time.time()) - self._last >= _FILE:
            self._last = now
            state = {"names": self.names, "n": self.n, "total": self._total}
            self._say(state | {"unit": self._unit, "began": self._began})

    def close(self) -> None:
        if self._last != self._began:
            self._say(None)

    def _say(self, state: dict | None) -> None:
        self._file.write(json.dumps(state) + "\n")
        self._file.flush()


class Watch:
    """Draws on stderr how far a notebook is that another process executes, from its cells and the file of its states.

    Args:
        title: the notebook and the run; in a log it begins each line.
    """

    def __init__(self, path: str, title: str, cells: int):
        self.cell, self._cells, self._title = 0, cells, title
        self._began, self._due = time.time(), 0.0
        self._line = Line(sys.stderr, cells, "", "cell")
        self._line.names = []
        self._file = open(path, encoding="utf-8")
        self._rest = ""

    def step(self) -> None:
        """Read what is new, and draw if it is time to."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        if lines:
            self._take(json.loads(lines[-1]))
        line, now = self._line, time.time()
        if now - (_logged[0] if line.in_log else self._due) < line.mininterval:
            return
        self._due = line.last_print_t = now
        gone = tqdm.format_interval(now - self._began)
        many, number = self._cells, min(self.cell + 1, self._cells)
        long = f"{self._title}: cell {number} of {many}, {gone} since the start"
        line.before = long if line.in_log else f"{gone} cell {number}/{many}"
        line.refresh()

    def close(self) -> None:
        self._line.close()
        self._file.close()

    def _take(self, state: dict | None) -> None:
        line = self._line
        line.names = state["names"] if state else []
        if state:
            line.n, line.total, line.unit, line.start_t = (state[k] for k in ("n", "total", "unit", "began"))


@contextmanager
def watched(path: str, title: str, cells: int) -> Iterator[Watch]:
    """A `Watch` that looks by itself, three times a second."""
    watch, over = Watch(path, title, cells), threading.Event()

    def look() -> None:
        while not over.wait(0.3):
            watch.step()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()
        watch.close()


class Bar:
    """A row of steps, moved by `update(steps)`."""

    def __init__(self, total: int, what: str, shown: Line | _Told, outer: "Bar | None"):
        self._total, self._what, self._shown, self._outer = total, what, shown, outer
        self._done = 0.0

    def update(self, steps: float = 1) -> None:
        self._done += steps
        self._move(self._done)

    def _move(self, place: float) -> None:
        if self._outer is not None:
            self._outer._move(self._outer._done + min(place / max(self._total, 1), 1.0))
        else:
            self._shown.move(place)


@contextmanager
def bar(total: int, what: str, unit: str) -> Iterator[Bar]:
    """A bar of `total` steps; inside another one it moves that one."""
    with nullcontext(_open[0]._shown) if _open else _drawn(total, what, unit) as shown:
        made = Bar(total, what, shown, _open[-1] if _open else None)
        _open.append(made)
        shown.names = [each._what for each in _open]
        try:
            yield made
        finally:
            _open.remove(made)
            shown.names = [each._what for each in _open] or [what]


def follow(items: Iterable, what: str, unit: str, total: int | None = None) -> Iterator:
    """Iterate over `items` behind a bar; `total`: their number, where `items` cannot say."""
    with bar(len(items) if total is None else total, what, unit) as shown:
        for item in items:
            yield item
            shown.update()


@contextmanager
def _drawn(total: int, what: str, unit: str) -> Iterator[Line | _Told]:
    path = os.path.expanduser(os.environ.get("MIALIB_PROGRESS", ""))
    file = open(path, "a", encoding="utf-8") if path else sys.stderr
    shown = (_Told if path else Line)(file, total, what, unit)
    try:
        yield shown
    finally:
        shown.close()
        if path:
            file.close()


def _is_notebook(file) -> bool:
    """Whether it sends what it is given to a notebook."""
    return type(file).__module__.partition(".")[0] == "ipykernel"


def _cut(text: str, columns: int) -> str:
    return text if len(text) <= columns else text[: max(columns - 2, 0)] + ".."
