"""What this process has trained, and what it found trained. For the run's provenance: a run that loads all its models
takes minutes, but training them took hours.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

BEGAN = time.time_ns()  # what came into the store later was trained for this process, if not in it


@dataclass(frozen=True)
class Tally:
    """Models by key; a model that is asked for twice counts once.

    Args:
        trained, found: how many were trained for this process, and how many lay in the store before it.
        seconds: of training, whenever it happened: the sum over all models, one process each.
        precisions: number formats that they were asked for with, in the order of their first use.
    """

    trained: int
    found: int
    seconds: float
    precisions: tuple[str, ...]


_models: dict[str, tuple[bool, float]] = {}  # key -> found in the store, seconds of its training
_precisions: dict[str, None] = {}


def note(keys: Sequence[str], records: Sequence[dict], since: Sequence[int | None], precision: str) -> None:
    """Note that a `fit` has ended.

    Args:
        keys, records: of its models.
        since: when each came into the store, in nanoseconds; None: it was trained just now.
        precision: of its recipe.
    """
    for key, record, when in zip(keys, records, since, strict=True):
        _models.setdefault(key, (when is not None and when < BEGAN, record.get("seconds", 0.0)))
    _precisions.setdefault(precision)


def so_far() -> Tally:
    found = sum(was_there for was_there, _ in _models.values())
    seconds = sum(spent for _, spent in _models.values())
    return Tally(len(_models) - found, found, seconds, tuple(_precisions))


def forget() -> None:
    """Begin anew."""
    _models.clear()
    _precisions.clear()
