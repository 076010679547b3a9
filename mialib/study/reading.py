"""Reading rows: one number a target or a class, differences and how they are paired, agreement between classes."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mialib.measures import Estimate, metrics
from mialib.study.attackers import Attacker


class Difference(Estimate):
    """An `Estimate` that knows how it is paired: by "target" (interval over targets) or by "example" (of one target)."""

    paired: str

    @classmethod
    def of(cls, estimate: Estimate, paired: str) -> "Difference":
        difference = cls(*estimate)
        difference.paired = paired
        return difference

    def __repr__(self) -> str:
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}], paired by {self.paired}"


class Strongest(NamedTuple):
    """The strongest attack.

    who, attack: who ran it, and its name.
    values: float64 (targets,).
    """

    who: Attacker
    attack: str
    values: np.ndarray

    @property
    def name(self) -> str:
        """The attack, and what the attacker is called if there is something to know."""
        adversary = self.who.columns["adversary"]
        return f"{self.attack}, {adversary}" if adversary else self.attack


def strongest(found: Mapping[tuple[Attacker, str], np.ndarray], what: str) -> Strongest:
    """That with the highest mean; what is not resolved on every target comes last.

    Raises:
        ValueError: there is none; `what` names it.
    """
    if not found:
        raise ValueError(f"{what}: no attack was run")
    best = max(found, key=lambda one: np.nan_to_num(found[one].mean(), nan=-np.inf))
    return Strongest(*best, found[best])


def by_target(rows: Sequence[dict]) -> np.ndarray:
    """The value of each target in the order of their numbers, (targets,) float64: the mean over its trainings.

    nan if one of them is not resolved, since the mean of the rest would flatter.

    Raises:
        ValueError: two rows measure the same.
    """
    values: dict[int, dict] = defaultdict(dict)
    for row in rows:
        target, training = row["target"], row["seed"]
        if training in values[target]:
            raise ValueError(
                f"two rows measure {row['metric']} of target {target}, training {training}, attack {row['attack']}: make "
                "arms of what differs"
            )
        values[target][training] = math.nan if row["value"] is None else row["value"]
    return np.array([np.mean(list(values[target].values())) for target in sorted(values)])


def by_class(rows: Sequence[dict], num_classes: int) -> np.ndarray:
    """(targets, num_classes), nan where a target has no members or no non-members of a class."""
    own = [[row for row in rows if row["class"] == number] for number in range(num_classes)]
    return np.stack([by_target(of_class) for of_class in own], axis=1)


def agreement(per_class: np.ndarray, other: np.ndarray | None = None) -> Estimate:
    """Do targets agree on which classes leak? Correlation of each target's classes (t, c) with the others' mean.

    With `other` (t, c), a second quantity: each target's classes by the first with the others' mean by the second.
    Classes that some target could not measure are left out. Interval over the targets.
    """
    return metrics.over_targets(correlations(per_class, other))


def correlations(per_class: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
    """The correlations of `agreement`, (targets,)."""
    other = per_class if other is None else other
    measured = ~(np.isnan(per_class) | np.isnan(other)).any(0)
    rest = [np.delete(other[:, measured], i, axis=0).mean(0) for i in range(len(other))]
    return np.array(
        [np.corrcoef(own, mean)[0, 1] for own, mean in zip(per_class[:, measured], rest, strict=True)]
    )
