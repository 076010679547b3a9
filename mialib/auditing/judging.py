"""What attackers find in each network of a study from outside: the strongest attack, and how much it finds.

An attacker is given half of the members and of the others (`knowing="half"`), fits every attack on them, chooses the one that
tells them apart best, and is scored on the other half. So neither thresholds nor the choice of the attack have seen what is
counted. The choice is made by two-fold cross-fitting within the given half: each attack judges what it was not fitted on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy
import torch
from torch import Tensor

from mialib.asking import Views
from mialib.measures import Estimate, intervals, metrics
from mialib.study import Attacker, Study
from mialib.training.hooks import Attack

RATES = (0.01, 0.001)  # false-positive rates at which true-positive rates are told
POWER = 0.8


@dataclass(frozen=True)
class Judged:
    """What was found of one network.

    Args:
        attack: the strongest attack's name, and its `margin` float64 (n,) on the candidates that it is scored on.
        member, label, example: bool (n,), int64 (n,) and int64 (n,): which of these are members, their classes, and their
            rows in what the user gave.
    """

    attack: str
    margin: np.ndarray
    member: np.ndarray
    label: np.ndarray
    example: np.ndarray

    @cached_property
    def auc(self) -> Estimate:
        return metrics.auc(self.member, self.margin)

    @cached_property
    def tpr(self) -> dict[float, Estimate]:
        """The true-positive rate at each of `RATES`; nan where there are too few non-members."""
        return {rate: metrics.tpr_at_fpr(self.member, self.margin, rate) for rate in RATES}


@dataclass(frozen=True)
class Difference:
    """What is found of one network more than of another, on the same examples: differences with 95 % intervals.

    Args:
        auc: paired by example (DeLong).
        tpr: at each of `RATES`; the interval joins those of both rates as if they were independent (Zou & Donner 2008), which
            is on the safe side where examples that one network gives away are given away by the other too.
        detectable: the smallest true difference of the AUC that would have been found four times in five.
    """

    auc: Estimate
    tpr: dict[float, Estimate]
    detectable: float


def judged(study: Study, suites: Mapping[str, Mapping[str, Attack[Views]]]) -> dict[str, Judged]:
    """Attack each named arm with its suite, by an attacker who knows half, and keep the strongest attack's margins."""
    found = {}
    for key, suite in suites.items():
        study.attack(suite, study.arms[key], knowing="half")
        one = study.attacker(study.arms[key], knowing="half")
        name = _strongest(one, suite)
        found[key] = Judged(
            name,
            study.margins(one, name)[0].mean(0).numpy(),
            one.member[0].numpy(),
            one.labels[0].numpy(),
            one.scored[0].numpy(),
        )
    return found


def difference(a: Judged, b: Judged) -> Difference:
    """What is found of a minus what is found of b."""
    auc = metrics.paired_difference(a.member, a.margin, b.margin, "auc")
    tpr = {rate: _apart(one, b.tpr[rate]) for rate, one in a.tpr.items()}
    return Difference(auc, tpr, detectable(auc))


def detectable(difference: Estimate) -> float:
    """The true difference that an interval as wide as this one would show with the probability `POWER`.

    From the normal approximation: (z_0.975 + z_0.8) standard errors.
    """
    of_interval, of_power = scipy.special.ndtri([(1 + intervals.CONFIDENCE) / 2, POWER])
    half = max(difference.high - difference.value, difference.value - difference.low)
    return float(half * (of_interval + of_power) / of_interval)


def _apart(a: Estimate, b: Estimate) -> Estimate:
    """a - b; each end from the distances of both values to their own ends."""
    low = (a.value - b.value) - np.hypot(a.value - a.low, b.high - b.value)
    high = (a.value - b.value) + np.hypot(a.high - a.value, b.value - b.low)
    return Estimate(a.value - b.value, float(low), float(high))


def _strongest(attacker: Attacker, suite: Mapping[str, Attack[Views]]) -> str:
    """The attack with the largest AUC within the given half, each half of it judged by what was fitted on the other."""
    (lesson,) = attacker.lessons()
    member = lesson.member[0]
    folds = _folds(member)
    found = {}
    for name, attack in suite.items():
        margin = torch.empty(len(member), dtype=torch.float64)
        for fitted, rest in (folds, folds[::-1]):
            target, teacher = lesson.shadows.rows(rest[None]), lesson.shadows.rows(fitted[None])
            margin[rest] = attack(target, teacher, member[fitted][None], 0)
        found[name] = metrics.auc(member, margin).value
    return max(found, key=found.__getitem__)


def _folds(member: Tensor) -> Sequence[Tensor]:
    """Two halves of the rows, with half of the members each."""
    sides = [side.nonzero()[:, 0] for side in (member, ~member)]
    return [torch.cat([side[fold::2] for side in sides]).sort().values for fold in (0, 1)]
