"""A gate for continuous integration: does a network leak more than is allowed?"""

import math
import re
from typing import NamedTuple

from mialib.measures import Estimate
from mialib.reporting.vocabulary import with_interval

METRICS = ("auc", "tpr_at_0.01", "tpr_at_0.001")
_CONDITION = re.compile(r"\s*(?P<metric>\w+(?:\.\d+)?)_increase\s*>\s*(?P<most>[+-]?[\d.]+(?:e[+-]?\d+)?)\s*")


class GateError(Exception):
    """The gate is not passed; `networks` are those that are why."""

    status = 1

    def __init__(self, message: str, networks: list[str]):
        super().__init__(message)
        self.networks = networks


class LeaksMore(GateError):
    """At least one network leaks more than is allowed: its whole interval lies above."""

    status = 3


class CannotTell(GateError):
    """No network is known to leak more than is allowed, and of at least one it cannot be told."""

    status = 4


class Condition(NamedTuple):
    """metric: one of `METRICS`. most: the largest rise against the baseline that is allowed."""

    metric: str
    most: float


def condition(text: str) -> Condition:
    """A gate as it is written on the command line: "auc_increase > 0.02" is what must not be.

    Raises:
        ValueError: anything else.
    """
    found = _CONDITION.fullmatch(text)
    if not found or found["metric"] not in METRICS:
        valid = ", ".join(f"{metric}_increase" for metric in METRICS)
        raise ValueError(f"the gate is {text!r}; it must be 'NAME > NUMBER' with a NAME of {valid}")
    return Condition(found["metric"], float(found["most"]))


def check(rises: dict[str, Estimate], metric: str, most: float, refused: str = "") -> None:
    """Pass silently where each rise is known to be at most `most`.

    Args:
        rises: network -> metric of the network minus that of the baseline.
        refused: why no verdict can be given at all, if so.

    Raises:
        LeaksMore, CannotTell: see there.
    """
    if refused:
        raise CannotTell(f"no verdict can be given: {refused}", list(rises))

    def told(names):
        return "; ".join(f"{name} {_told(rises[name])}" for name in names)

    above = [name for name, rise in rises.items() if rise.low > most]
    if above:
        raise LeaksMore(f"{metric} rises by more than {most:g}: {told(above)}", above)
    open_ = [name for name, rise in rises.items() if not rise.high <= most]
    if open_:
        raise CannotTell(f"whether {metric} rises by more than {most:g} cannot be told: {told(open_)}", open_)


def _told(rise: Estimate) -> str:
    return "(too few others to resolve it)" if math.isnan(rise.value) else with_interval(rise, "+")
