"""The report as text for a terminal or a log: no line is longer than 80 columns."""

import itertools
import textwrap

import pandas as pd

WIDTH = 80
# at most: two networks stand side by side, and a difference with its interval on one line
TITLE, CELL = 29, 23
GAP = "  "

Lines = list[str]


def text(report) -> str:
    """The verdict, the table and what was found, of a `report.Report`."""
    said = [_folded(one) for one in report.sentences]
    kept = sorted(
        (one for one in report.findings if one.kind != "refused"), key=lambda one: one.kind != "warning"
    )
    found = [_folded(f"{one.kind}: {one.text}") for one in kept]  # warnings first
    return "\n".join([*said, "", *_tables(report.table), *found])


def _tables(frame: pd.DataFrame) -> Lines:
    """A column for each network and a line for each title, as many networks side by side as fit."""
    titles = [_wrapped(one, TITLE) for one in ("", *frame.columns)]
    columns = [[_wrapped(cell, CELL) for cell in (name, *line)] for name, line in frame.iterrows()]
    lines, room = [], WIDTH - _width(titles)
    while columns:
        used = itertools.accumulate(len(GAP) + _width(column) for column in columns)
        count = max(1, sum(one <= room for one in used))
        lines += [*_side_by_side([titles, *columns[:count]]), ""]
        columns = columns[count:]
    return lines


def _side_by_side(columns: list[list[Lines]]) -> Lines:
    """The lines of a table, from the lines of each cell of each column."""
    lines = []
    for cells in zip(*columns, strict=True):
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            padded = (f"{part:{_width(column)}}" for part, column in zip(parts, columns, strict=True))
            lines.append(GAP.join(padded).rstrip())
    return lines


def _width(cells: list[Lines]) -> int:
    return max(len(part) for cell in cells for part in cell)


def _wrapped(cell, width: int) -> Lines:
    said = "" if pd.isna(cell) else str(cell)  # nan: a column of the user's that this network has not
    return textwrap.wrap(said, width, break_on_hyphens=False) or [""]


def _folded(line: str) -> str:
    return textwrap.fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
