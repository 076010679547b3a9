"""What attackers find in each network of a study from outside: the strongest attack, and how much it finds.

Two attackers, by what they have:

- `by_half`: they are given half of the members and of the others (`knowing="half"`), fit every attack on them, choose the
  one that tells them apart best, and are scored on the other half. So neither thresholds nor the choice of the attack have
  seen what is counted. The choice is made by two-fold cross-fitting within the given half: each attack judges what it was
  not fitted on.
- `by_imitations`: they have imitations of the networks, learn from these, and choose the attack that finds most in them, each
  of which plays the target against the others. They are scored on all candidates; the network itself has had no say.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy
import torch
from torch import Tensor

from mialib.asking import Views
from mialib.attacks import suites, threshold
from mialib.measures import Estimate, epsilon, intervals, metrics
from mialib.study import Attacker, Study
from mialib.training.hooks import Attack

RATES = (0.01, 0.001)  # false-positive rates at which true-positive rates are told
POWER = 0.8
DELTA = 1e-5  # of the (epsilon, delta) that is bounded from below


@dataclass(frozen=True)
class Judged:
    """What was found of one network.

    Args:
        attack: the strongest attack's name, and its `margin` float64 (n,) on the candidates that it is scored on.
        member, label, example: bool (n,), int64 (n,) and int64 (n,): which of these are members, their classes, and their
            rows in what the user gave. The candidates are in random order.
        expected: the AUC by which the attack was chosen, from data on which it is not scored.
        anew: float64 (s,), its AUC on each imitation of the network, as if that one were attacked; (0,) without imitations.
    """

    attack: str
    margin: np.ndarray
    member: np.ndarray
    label: np.ndarray
    example: np.ndarray
    expected: float = float("nan")
    anew: np.ndarray = field(default_factory=lambda: np.empty(0))

    @cached_property
    def auc(self) -> Estimate:
        return metrics.auc(self.member, self.margin)

    @cached_property
    def tpr(self) -> dict[float, Estimate]:
        """The true-positive rate at each of `RATES`; nan where there are too few non-members."""
        return {rate: metrics.tpr_at_fpr(self.member, self.margin, rate) for rate in RATES}

    @cached_property
    def epsilon(self) -> float:
        """A lower bound on epsilon: a training that draws its members by fair coins and is (epsilon, `DELTA`)-private with a
        smaller one gives itself away that much in less than 5 % of audits (`measures.epsilon.of_one_run`).

        For the guesses to be fair, as many members as others are guessed about.
        """
        sides = [np.flatnonzero(side) for side in (self.member, ~self.member)]
        fair = np.sort(np.concatenate([side[: min(map(len, sides))] for side in sides]))
        return epsilon.of_one_run(self.member[fair], self.margin[fair], delta=DELTA)


@dataclass(frozen=True)
class Difference:
    """What is found of one network more than of another, on the same examples: differences with 95 % intervals.

    Args:
        auc: paired by example (DeLong).
        tpr: at each of `RATES`; the interval joins those of both rates as if they were independent (Zou & Donner 2008), which
            is on the safe side where examples that one network gives away are given away by the other too.
        detectable: the smallest true difference of the AUC that would have been found four times in five.
        each: float64 (s,), differences of the AUC between the imitations of both; (0,) without imitations.
    """

    auc: Estimate
    tpr: dict[float, Estimate]
    detectable: float
    each: np.ndarray = field(default_factory=lambda: np.empty(0))

    @cached_property
    def anew(self) -> Estimate | None:
        """The mean of `each`, with an interval over their trainings (Student's t): what to expect, on average, of networks
        that are trained anew. None without imitations."""
        return Estimate(*metrics.over_targets(self.each)) if len(self.each) else None


@dataclass(frozen=True)
class OnCanaries:
    """What the recipe of a network leaks of examples with a wrong label.

    Args:
        attack, auc: the attack, and its mean AUC over imitations as targets, with an interval over their trainings.
        epsilon: a lower bound on the epsilon of the recipe: the largest of the targets' bounds, each at 5 % divided by
            their number.
        ceiling: the largest bound that could have been found with these canaries and coins, by an attacker who is never wrong.
        canaries, targets: how many there are.
    """

    attack: str
    auc: Estimate
    epsilon: float
    ceiling: float
    canaries: int
    targets: int


def by_half(study: Study, wanted: Mapping[str, Mapping[str, Attack[Views]]]) -> dict[str, Judged]:
    """Attack each named arm with its suite, by an attacker who knows half, and keep the strongest attack's margins."""
    found = {}
    for key, suite in wanted.items():
        study.attack(suite, study.arms[key], knowing="half")
        one = study.attacker(study.arms[key], knowing="half")
        expected = _expected(one, suite)
        name = max(expected, key=expected.__getitem__)
        found[key] = _judged(study, one, name, expected[name])
    return found


def by_imitations(study: Study, wanted: Mapping[str, Mapping[str, Attack[Views]]]) -> dict[str, Judged]:
    """Attack each named arm of `outside.of_imitated` with its suite, by an attacker who has its imitations.

    Its first target is the network, all others are imitations that play the target.
    """
    found = {}
    for key, suite in wanted.items():
        study.attack(suite, study.arms[key])
        one = study.attacker(study.arms[key])
        aucs = {name: study.values(one, "auc", name)[1:] for name in suite}
        name = max(aucs, key=lambda attack: aucs[attack].mean())
        found[key] = _judged(study, one, name, float(aucs[name].mean()), aucs[name])
    return found


def on_canaries(study: Study, judged: Mapping[str, Judged]) -> dict[str, OnCanaries]:
    """What the attack that is the strongest on each network finds of canaries: a study of `outside.of_canaries`."""
    found, member = {}, study.member.numpy()
    for key, one in judged.items():
        arm = study.arms[key]
        known = threshold.ATTACKS | suites.yardstick(len(study.roles.teachers[0]))
        study.attack({one.attack: known[one.attack]}, arm)
        margins = study.margins(arm, one.attack)[:, 0].numpy()
        auc = metrics.over_targets(study.values(arm, "auc", one.attack))
        auc = Estimate(auc.value, max(auc.low, 0.0), min(auc.high, 1.0))
        bound, ceiling = _largest_bound(member, margins), _largest_bound(member, member)
        found[key] = OnCanaries(one.attack, auc, bound, ceiling, member.shape[1], len(study))
    return found


def _largest_bound(member: np.ndarray, margin: np.ndarray) -> float:
    """Over targets, each at the level divided by their number; member bool and margin float (targets, canaries)."""
    level = epsilon.LEVEL / len(member)
    pairs = zip(member, margin.astype(float), strict=True)
    return max(epsilon.of_one_run(*pair, delta=DELTA, level=level) for pair in pairs)


def surest(found: Iterable[Judged]) -> Judged:
    """The one that was expected to find most: an attacker who can do several things does that."""
    return max(found, key=lambda one: one.expected)


def difference(a: Judged, b: Judged) -> Difference:
    """What is found of a minus what is found of b."""
    auc = metrics.paired_difference(a.member, a.margin, b.margin, "auc")
    tpr = {rate: _apart(one, b.tpr[rate]) for rate, one in a.tpr.items()}
    return Difference(auc, tpr, detectable(auc), a.anew - b.anew)


def detectable(difference: Estimate) -> float:
    """The true difference that an interval as wide as this one would show with the probability `POWER`.

    From the normal approximation: (z_0.975 + z_0.8) standard errors.
    """
    of_interval, of_power = scipy.special.ndtri([(1 + intervals.CONFIDENCE) / 2, POWER])
    half = max(difference.high - difference.value, difference.value - difference.low)
    return float(half * (of_interval + of_power) / of_interval)


def _judged(
    study: Study, one: Attacker, attack: str, expected: float, anew: np.ndarray | None = None
) -> Judged:
    """The first target of an attacker, by one of their attacks."""
    return Judged(
        attack,
        study.margins(one, attack)[0].mean(0).numpy(),
        one.member[0].numpy(),
        one.labels[0].numpy(),
        one.scored[0].numpy(),
        expected,
        np.empty(0) if anew is None else anew,
    )


def _apart(a: Estimate, b: Estimate) -> Estimate:
    """a - b; each end from the distances of both values to their own ends."""
    low = (a.value - b.value) - np.hypot(a.value - a.low, b.high - b.value)
    high = (a.value - b.value) + np.hypot(a.high - a.value, b.value - b.low)
    return Estimate(a.value - b.value, float(low), float(high))


def _expected(attacker: Attacker, suite: Mapping[str, Attack[Views]]) -> dict[str, float]:
    """Each attack's AUC within the given half, each half of it judged by what was fitted on the other."""
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
    return found


def _folds(member: Tensor) -> Sequence[Tensor]:
    """Two halves of the rows, with half of the members each."""
    sides = [side.nonzero()[:, 0] for side in (member, ~member)]
    return [torch.cat([side[fold::2] for side in sides]).sort().values for fold in (0, 1)]
