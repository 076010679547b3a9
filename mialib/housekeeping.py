"""What the store holds, and what of it can go: the actions of `mialib cache`.

Ages count from the last use. What cannot be known counts as needed: see `chosen`.
"""

import json
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mialib import uses
from mialib.store import Entry, Store

DAY = 86400.0  # seconds
_AGES = {"a day": 1, "a week": 7, "a month": 30}  # days
_STATES = {"corrupt": "set aside as corrupt", "half": "halves of entries"}
_UNITS = (("d", DAY), ("h", 3600.0), ("min", 60.0))
_ROW = "{:12}  {:>9}  {:>5}  {:22}  {}"
_COLUMNS = 100  # of a line
Run = tuple[str, str]  # notebook, run


class Kept(NamedTuple):
    """An entry with its kind, and in words what made it ("" where it does not say)."""

    entry: Entry
    kind: str
    words: str


@dataclass
class Choice:
    """Entries that can go, and what a reader should know of those that stay, one line each."""

    entries: list[Entry]
    remarks: list[str] = field(default_factory=list)


def described(cache: Store, entries: Iterable[Entry]) -> list[Kept]:
    """The entries, each with what it is. Reads the beginning of each one's JSON."""
    return [
        Kept(one, *(cache.made(one.key) if one.state == "whole" else (_STATES[one.state], "")))
        for one in entries
    ]


def sizes(kept: Iterable[Kept], now: float | None = None) -> str:
    """A table: for each kind the number of entries and their bytes, and the bytes by the time of the last use.

    now: seconds since 1970; default: now.
    """
    now = time.time() if now is None else now
    heads = [f"in {name}" for name in _AGES] + ["before"]
    counts: dict[str, int] = {}
    totals: dict[str, list[int]] = {}
    for one in kept:
        age = _age(one.entry, now)
        column = sum(age > days * DAY for days in _AGES.values())
        for kind in (one.kind, "all"):
            counts[kind] = counts.get(kind, 0) + 1
            totals.setdefault(kind, [0] * len(heads))[column] += one.entry.bytes
    kinds = sorted(counts, key=lambda kind: (kind == "all", -sum(totals[kind]), kind))
    line = "{:24} {:>9} {:>10}" + " {:>12}" * len(heads)
    lines = [line.format("last used", "entries", "bytes", *heads)]
    for kind in kinds:
        by_age = [sized(count) if count else "" for count in totals[kind]]
        lines.append(line.format(kind, counts[kind], sized(sum(totals[kind])), *by_age).rstrip())
    return "\n".join(lines) if counts else "it is empty"


def listed(kept: Iterable[Kept], now: float | None = None) -> str:
    """A line for each entry, those last used first, in at most 100 columns; now: see `sizes`."""
    now = time.time() if now is None else now
    lines = [_ROW.format("key", "bytes", "used", "kind", "made by")]
    for entry, kind, words in sorted(kept, key=lambda one: -one.entry.used):
        line = _ROW.format(entry.key[:12], sized(entry.bytes), _ago(_age(entry, now)), kind[:22], words)
        lines.append(line.rstrip() if len(line) <= _COLUMNS else line[: _COLUMNS - 3] + "...")
    return "\n".join(lines)


def as_json(kept: Iterable[Kept]) -> str:
    """A JSON list of entries, those last used first: key, state, kind, words, bytes; written and used in seconds since 1970."""
    return json.dumps(
        [
            {"key": entry.key, "state": entry.state, "kind": kind, "words": words, "bytes": entry.bytes}
            | {"written": entry.written / 1e9, "used": entry.used / 1e9}
            for entry, kind, words in sorted(kept, key=lambda one: -one.entry.used)
        ],
        indent=1,
    )


def of_runs(cache: Store, runs: Sequence[Run]) -> set[str]:
    """Keys of the entries that some runs used when they were last executed.

    Raises:
        ValueError: a run that has left no note in this store, see `uses`.
    """
    known = uses.notes(cache)
    return {key for run in runs for one in uses.of_run(known, *run) for key in one.used}


def chosen(
    cache: Store,
    *,
    older_than: float | None = None,
    runs: Sequence[Run] = (),
    unused: bool = False,
    only: Sequence[Run] = (),
    now: float | None = None,
) -> Choice:
    """The entries for which everything holds that is asked for; nothing asked for: all.

    Args:
        older_than: seconds since the last use, at least.
        runs: one of these runs uses it, and no other run does.
        unused: no run needs it, as far as that is known. A run of this folder of notebooks counts while its file is in
            params/, a run of another folder always. An entry stays if no run has ever noted it, or if it was used after
            the last run that noted it had finished, say by one that was stopped.
        only: with `unused`: of the runs of this folder these alone count.
        now: seconds since 1970; default: now.

    Raises:
        ValueError: a run that has left no note, a note that cannot be read. OSError: the store cannot be read.
    """
    now = time.time() if now is None else now
    choice = Choice(list(cache.scan()))
    if older_than is not None:
        choice.entries = [one for one in choice.entries if _age(one, now) >= older_than]
    if runs:
        _of_runs_alone(choice, uses.notes(cache), runs)
    if unused:
        _unused(choice, uses.notes(cache), only)
    return choice


def _of_runs_alone(choice: Choice, known: Collection[uses.Note], runs: Sequence[Run]) -> None:
    own = [one for run in runs for one in uses.of_run(known, *run)]
    names = {(one.notebook, one.run) for one in own}
    theirs = {key for one in own for key in one.used}
    others = {key for one in known if (one.notebook, one.run) not in names for key in one.used}
    shared = sum(one.key in theirs & others for one in choice.entries)
    if shared:
        choice.remarks.append(f"entries that stay because other runs use them too: {shared}")
    choice.entries = [one for one in choice.entries if one.key in theirs - others]


def _unused(choice: Choice, known: Collection[uses.Note], only: Sequence[Run]) -> None:
    for run in only:
        uses.of_run(known, *run)
    counts = [one for one in known if _is_needed(one, only)]
    needed = {key for one in counts for key in one.used}
    last: dict[str, int] = {}  # key -> when the last run that noted it had finished
    for one in known:
        for key in one.used | one.before:
            last[key] = max(last.get(key, 0), one.finished)
    foreign = sum(one.place != uses.here() for one in counts)
    without = sorted({one.name for one in known} - {one.name for one in counts})
    never = sum(one.state == "whole" and one.key not in last for one in choice.entries)
    choice.entries = [
        one for one in choice.entries if one.key not in needed and one.used <= last.get(one.key, -1)
    ]
    if without:
        choice.remarks.append(f"runs that do not count: {', '.join(without)}")
    if foreign:
        choice.remarks.append(
            f"runs of other folders or machines, which count as if they will run again: {foreign}"
        )
    if never:
        choice.remarks.append(
            f"entries that stay because no run has noted them (--older-than finds them): {never}"
        )


def _is_needed(note: uses.Note, only: Sequence[Run]) -> bool:
    if note.place != uses.here():
        return True
    return (note.notebook, note.run) in only if only else not note.is_gone


def sized(count: int) -> str:
    """Bytes as people read them: "12 MB"."""
    for unit in ("bytes", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _age(entry: Entry, now: float) -> float:
    """Seconds since the last use."""
    return now - entry.used / 1e9


def _ago(age: float) -> str:
    for unit, seconds in _UNITS:
        if age >= seconds:
            return f"{age / seconds:.0f} {unit}"
    return "now"


def _print_size() -> None:
    cache = Store()
    print(f"{cache.root}\n{sizes(described(cache, cache.scan()))}")


def _print_list(run: Sequence[Run] | None, json: bool) -> None:
    cache = Store()
    entries: Iterable[Entry] = cache.scan()
    if run:
        keys = of_runs(cache, run)
        entries = (one for one in entries if one.key in keys)
    kept = described(cache, entries)
    print(as_json(kept) if json else listed(kept))


def _clear(
    older_than: float | None, run: Sequence[Run] | None, unused: Sequence[Run] | None, all: bool, yes: bool
) -> None:
    """Say what will go, ask, and remove it; the arguments are those of `mialib cache clear`.

    Raises:
        ValueError: nothing is asked for, or --all with conditions; there is no terminal to ask at. See also `chosen`.
    """
    if all == (older_than is not None or bool(run) or unused is not None):
        raise ValueError(
            "cache clear takes conditions (--older-than, --run, --unused), which must all hold, or --all; "
            f"found {'both' if all else 'neither'}"
        )
    cache, given = Store(), unused is not None
    choice = chosen(cache, older_than=older_than, runs=run or (), unused=given, only=unused or ())
    print(f"To be removed from {cache.root}:\n{sizes(described(cache, choice.entries))}")
    for remark in choice.remarks:
        print(remark)
    if not choice.entries or not (yes or _agreed()):
        return
    gone = cache.remove(choice.entries)
    print(f"removed {len(gone)} of {len(choice.entries)} entries, {sized(sum(one.bytes for one in gone))}")
    if len(gone) < len(choice.entries):
        print("the others were written or loaded meanwhile")


def _agreed() -> bool:
    """Whether somebody at the terminal agrees.

    Raises:
        ValueError: there is no terminal.
    """
    if not sys.stdin.isatty():
        raise ValueError(
            "there is no terminal to ask at, so nothing was removed; give --yes to remove without being asked"
        )
    return input("Remove them? [y/N] ").strip().lower() in ("y", "yes")


ACTIONS = {"size": _print_size, "list": _print_list, "clear": _clear}  # of `mialib cache`
