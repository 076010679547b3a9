"""Reading rows: one number for each target or class, differences and how they are paired, agreement between classes."""

import functools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from mialib import streams
from mialib.measures import Estimate, WithTest
from mialib.study.attackers import Attacker


class Difference(WithTest):
    """A difference that knows how it is paired.

    paired: by "target" (interval over targets) or by "example" (of one target); "itself" if a setting was compared with
        itself: the difference is 0 whatever is true, and no claim is judged by it.
    """

    @classmethod
    def of(cls, estimate: Estimate, paired: str) -> "Difference":
        difference = cls(*estimate)
        difference.paired = paired
        difference.p = estimate.p if isinstance(estimate, WithTest) else None
        return difference

    def __repr__(self) -> str:
        how = "compared with itself" if self.paired == "itself" else f"paired by {self.paired}"
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}], {how}"


class Strongest(NamedTuple):
    """The strongest attack.

    who, attack: the attacker, and the name of the attack.
    values: float64 (targets,).
    """

    who: Attacker
    attack: str
    values: np.ndarray

    @property
    def name(self) -> str:
        """The attack, and the attacker's name if it matters."""
        adversary = self.who.columns["adversary"]
        return f"{self.attack}, {adversary}" if adversary else self.attack


def strongest(found: Mapping[tuple[Attacker, str], np.ndarray], what: str) -> Strongest:
    """The attack with the highest mean; attacks that are not resolved on every target come last.

    Raises:
        ValueError: there is none; `what` names it.
    """
    if not found:
        raise ValueError(f"{what}: no attack was run")
    best = max(found, key=lambda one: np.nan_to_num(found[one].mean(), nan=-np.inf))
    return Strongest(*best, found[best])


def by_target(rows: Sequence[dict]) -> np.ndarray:
    """The value of each target, in the order of their numbers, (targets,) float64: the mean over its trainings.

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


def agreement(per_class: np.ndarray, other: np.ndarray | None = None) -> WithTest:
    """Do targets agree on which classes leak? Correlation of each target's classes (t, c) with the others' mean, averaged.

    With `other` (t, c), a second quantity: each target's classes by the first with the others' mean by the second.
    Classes that some target could not measure are left out. nan below three targets, where both correlations are the
    same.

    The correlations share their data, so no interval over them holds (Student's t is wrong in 18 % of noise). Instead
    the range of chance is drawn, in two ways, with both quantities of a class treated alike: the classes of each target
    are permuted, or their deviations from the target's median change sign. The first is exact if the classes of a
    target that agrees with none are exchangeable. If some are measured on few examples they are not, and it alone is
    wrong in up to 25 % a side. The second is exact if the deviations are symmetric, however wide each of them is. An
    end is the value minus what the highest, or the lowest, 2.5 % reach in either way, kept within -1..1: 0 is outside
    if both decide at 2.5 % a side. The ends say how far chance carries, not how well the targets agree.
    """
    value = round(float(correlations(per_class, other).mean()), 12) if len(per_class) >= 3 else math.nan
    if math.isnan(value):
        return WithTest.of(Estimate(math.nan), None, paired="")
    by_chance = _by_chance(per_class, per_class if other is None else other)
    # 0 is outside where value > the 50th from above: (1 + 49) / (1 + 1,999) is 2.5 %
    rank = (DRAWS + 1) * 25 // 1000
    low, high = value - by_chance[:, -rank].max(), value - by_chance[:, rank - 1].min()
    p = functools.partial(_two_sided, value, by_chance)
    return WithTest.of(Estimate(value, max(float(low), -1.0), min(float(high), 1.0)), p, paired="")


DRAWS = 1999


def _by_chance(per_class: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The mean correlations, (2, DRAWS) from low to high: classes permuted, and signs changed; always the same draws."""
    measured = ~(np.isnan(per_class) | np.isnan(other)).any(0)
    both = np.stack([per_class[:, measured], other[:, measured]])
    order, signs = _draws(*both[0].shape)
    permuted = (np.take_along_axis(one[None], order, axis=-1) for one in both)
    flipped = ((one - np.median(one, axis=1, keepdims=True)) * signs for one in both)
    found = [_correlation(one, two.sum(1, keepdims=True) - two).mean(1) for one, two in (permuted, flipped)]
    return np.sort(
        np.nan_to_num(found, nan=0.0).round(12)
    )  # equal ones must tie, in whatever order they were added


@functools.lru_cache(8)
def _draws(targets: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Orders of each target's classes, and signs of theirs, each (DRAWS, targets, classes)."""
    generator = streams.generator(0, "agreement")
    first, second = torch.rand(2, DRAWS, targets, classes, generator=generator).numpy()
    return first.argsort(-1), np.where(second < 0.5, -1.0, 1.0)


def _two_sided(value: float, by_chance: np.ndarray, boundary: float) -> float:
    """Two-sided p-value of "only chance agrees", the larger of the two; nan for any boundary but 0."""
    if boundary != 0:
        return math.nan
    tails = np.minimum((by_chance >= value).sum(1), (by_chance <= value).sum(1))
    return min(1.0, 2 * (1 + float(tails.max())) / (1 + DRAWS))


def correlations(per_class: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
    """The correlations of `agreement`, (targets,); they share data, so their spread gives no interval."""
    other = per_class if other is None else other
    measured = ~(np.isnan(per_class) | np.isnan(other)).any(0)
    other = other[:, measured]
    return _correlation(per_class[:, measured], other.sum(0) - other)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation over the last axis; nan where one side does not vary."""
    a, b = (one - one.mean(-1, keepdims=True) for one in (a, b))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
