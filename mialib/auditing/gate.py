"""A gate for continuous integration: does a network leak more than is allowed?"""

import math
import re
from typing import NamedTuple

from mialib.measures import Estimate
from mialib.reporting.vocabulary import with_interval

METRICS = ("auc", "tpr_at_0.01", "tpr_at_0.001")
PASSED, FAILED, UNDECIDED = "passed", "failed", "cannot tell"
_CONDITION = re.compile(
    r"\s*(?P<metric>\w+(?:\.\d+)?)_increase(?:\s+over\s+(?P<than>\S(?:.*\S)?))?"
    r"\s*>\s*(?P<most>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*"
)


class GateError(Exception):
    """The gate is not passed; `networks` are those that are why."""

    status, said = 1, FAILED

    def __init__(self, message: str, networks: list[str]):
        super().__init__(message)
        self.networks = networks


class LeaksMore(GateError):
    """At least one network leaks more than is allowed: its whole interval lies above."""

    status = 3


class CannotTell(GateError):
    """No network is known to leak more than is allowed, and of at least one it cannot be told."""

    status, said = 4, UNDECIDED


STATUSES = {PASSED: 0} | {one.said: one.status for one in (LeaksMore, CannotTell)}  # of the command


class Condition(NamedTuple):
    """What must not be.

    metric: one of `METRICS`. most: the largest rise that is allowed. than: over which network; None: the baseline, "control":
    each network's own control.
    """

    metric: str
    most: float
    than: str | None = None

    def __str__(self) -> str:
        return f"{self.metric}_increase{_over(self.than)} > {self.most:g}"

    @property
    def passed(self) -> str:
        """What is known where it is not so."""
        return f"no rise of {self.metric}{_over(self.than)} above {self.most:g}"


class Outcome(NamedTuple):
    """condition: as it is written. outcome: "passed", "failed" or "cannot tell". text: why. networks: because of which."""

    condition: str
    outcome: str
    text: str
    networks: list[str]


def condition(text: str) -> Condition:
    """A gate as it is written on the command line: "auc_increase > 0.02" is what must not be.

    The rise is over the baseline. "auc_increase over control > 0.02": over each network's own control; instead of
    "control" any network's name.

    Raises:
        ValueError: anything else.
    """
    found = _CONDITION.fullmatch(text)
    if not found or found["metric"] not in METRICS:
        valid = ", ".join(f"{metric}_increase" for metric in METRICS)
        raise ValueError(
            f"the gate is {text!r}; it must be 'NAME > NUMBER' or 'NAME over control > NUMBER' with a NAME of {valid}"
        )
    check_size(most := float(found["most"]))
    return Condition(found["metric"], most, found["than"])


def check_size(most: float) -> None:
    """Raises ValueError for a rise that no rate can have: they lie in 0 to 1, so 2 % is 0.02."""
    if not -1 < most < 1:
        hint = f"; for {most:g} % write {most / 100:g}" if 1 <= abs(most) <= 100 else ""
        raise ValueError(f"the gate allows a rise of {most:g}, and rates lie in 0 to 1{hint}")


def check(rises: dict[str, Estimate], wanted: Condition, refused: str = "") -> None:
    """Pass silently where each rise is known to be at most `wanted.most`.

    Args:
        rises: network -> metric of the network minus that of what it is compared with.
        refused: why no verdict can be given at all, if so.

    Raises:
        LeaksMore, CannotTell: see there.
    """
    if refused:
        raise CannotTell(f"no verdict can be given: {refused}", list(rises))
    rise_of = f"{wanted.metric} rises{_over(wanted.than)} by more than {wanted.most:g}"

    def told(names):
        return "; ".join(f"{name} {_told(rises[name])}" for name in names)

    above = [name for name, rise in rises.items() if rise.low > wanted.most]
    if above:
        raise LeaksMore(f"{rise_of}: {told(above)}", above)
    open_ = [name for name, rise in rises.items() if not rise.high <= wanted.most]
    if open_:
        raise CannotTell(f"whether {rise_of} cannot be told: {told(open_)}", open_)


def _over(than: str | None) -> str:
    return "" if than is None else f" over {than}"


def _told(rise: Estimate) -> str:
    return "(too few others to resolve it)" if math.isnan(rise.value) else with_interval(rise, "+")
