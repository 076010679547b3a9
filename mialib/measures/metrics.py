"""How well an attack tells members from non-members, with intervals; `decisions` has further measures.

Every measure of an attack takes `member` (n,), bool or 0/1 with 1 = member, and `margin` (n,), real numbers
or +-inf where larger means more likely a member and > 0 is the attacker's decision; numpy arrays or tensors.
Rates are 0..1. Every interval is 95%: over examples for one target model, over targets in `over_targets`; these are
different things. A value that cannot be resolved is nan. Bad input (unequal lengths, nan margins, one group empty) raises
ValueError. Inputs are never changed.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
import scipy
from torch import Tensor

from mialib.measures import intervals
from mialib.measures.intervals import CONFIDENCE

PAIRED = ("auc", "balanced_accuracy")  # metrics that `paired_difference` knows
_Z = float(scipy.special.ndtri((1 + CONFIDENCE) / 2))


class Estimate(NamedTuple):
    """A value and the ends of its 95% interval; nan if there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


class WithTest(Estimate):
    """An `Estimate` together with its test.

    p: boundary -> two-sided p-value, 0..1, of "the true value is the boundary": at most 0.05 exactly if the interval
        excludes the boundary, nan if the test says nothing about it. None: the test is not known.
    paired: what a difference is paired by, usually "target"; "example" within one target; "" if nothing is subtracted.
    """

    p: Callable[[float], float] | None
    paired: str

    @classmethod
    def of(cls, estimate: Estimate, p: Callable[[float], float] | None, paired: str = "target") -> Self:
        tested = cls(*estimate)
        tested.p, tested.paired = p, paired
        return tested


def auc(member, margin) -> Estimate:
    """Area under the ROC curve: the chance that a member's margin exceeds a non-member's, ties counting half.

    The interval is that of `intervals.area`, from the standard error of DeLong et al. 1988 (by mid-ranks as in Sun & Xu
    2014); nan with fewer than two members or non-members.
    """
    members, nonmembers = groups(member, margin)
    wins, losses = _placements(members, nonmembers)
    value, variance = float(wins.mean()), _mean_variance(wins) + _mean_variance(losses)
    return Estimate(value, *intervals.area(value, variance, min(len(wins), len(losses))))


def balanced_accuracy(member, margin) -> Estimate:
    """Mean of the true-positive and the true-negative rate of the decision margin > 0; 0.5 is guessing.

    The interval is that of `intervals.mean_of_shares`.
    """
    members, nonmembers = groups(member, margin)
    right = (members > 0).sum(), (nonmembers <= 0).sum()
    of = len(members), len(nonmembers)
    value = (right[0] / of[0] + right[1] / of[1]) / 2
    return Estimate(float(value), *intervals.mean_of_shares(right, of))


def tpr_at_fpr(member, margin, max_fpr: float) -> Estimate:
    """Largest true-positive rate at a false-positive rate of at most `max_fpr`, in (0, 1].

    nan if that rate cannot be resolved: fewer than 1 / max_fpr non-members, or bare decisions (all margins +-1, or only
    two distinct values). The threshold is chosen on these very examples. The interval allows for that
    (`intervals.rate_at_quantile`). The value does not, and is too high on average where max_fpr * n_nonmembers is a
    handful: 0.133 for a true 0.092 with 100 non-members at 1 %.
    """
    if not 0 < max_fpr <= 1:
        raise ValueError(f"max_fpr is {max_fpr}; it must be in (0, 1]")
    members, nonmembers = groups(member, margin)
    allowed = math.floor(max_fpr * len(nonmembers) + 1e-9)  # false positives; 0.29 * 100 is 28.999...
    if allowed < 1 or _bare_decisions(members, nonmembers):
        return Estimate(math.nan)
    if allowed >= len(nonmembers):
        return Estimate(1.0, 1.0, 1.0)  # every example may be called a member
    # Only margins above the (allowed + 1)-th largest non-member can be called members; its ties cannot.
    threshold = np.sort(nonmembers)[-(allowed + 1)]
    value = float((members > threshold).mean())
    low, high = intervals.rate_at_quantile(members, nonmembers, max_fpr)
    return Estimate(value, min(low, value), max(high, value))


def roc(member, margin) -> tuple[np.ndarray, np.ndarray]:
    """False- and true-positive rates, each (k + 1,) from 0 to 1, at the k distinct margins as thresholds."""
    members, nonmembers = groups(member, margin)
    values, inverse = np.unique(np.concatenate([members, nonmembers]), return_inverse=True)

    def rates(index):
        counts = np.bincount(index, minlength=len(values))[::-1]  # the largest margin first
        return np.concatenate([[0.0], np.cumsum(counts) / len(index)])

    return rates(inverse[len(members) :]), rates(inverse[: len(members)])


def paired_difference(member, margin_a, margin_b, metric: str) -> Estimate:
    """`metric` ("auc" or "balanced_accuracy") of a minus that of b, for two margins of the same candidates.

    Margins are (n,), or (trainings, n) of attack networks, in which case the mean of their metrics counts. The interval
    uses the pairing: DeLong's covariance for the AUC; for balanced accuracy the variance of the per-example difference
    of correctness among members and among non-members. Normal approximation, clipped to [-1, 1]. Equal margins give
    exactly 0 with no width.
    """
    if metric not in PAIRED:
        raise ValueError(f"metric is {metric!r}; it must be {' or '.join(map(repr, PAIRED))}")
    of_each = {"auc": _placements, "balanced_accuracy": _right}
    # each example's contribution to the metric, so that the variances of the differences hold the covariances: of the
    # placements var(a - b) is DeLong's var(a) + var(b) - 2 cov(a, b)
    a, b = (
        [
            np.mean(side, axis=0)
            for side in zip(
                *(of_each[metric](*groups(member, one)) for one in np.atleast_2d(margin)), strict=True
            )
        ]
        for margin in (margin_a, margin_b)
    )
    members, others = (one - two for one, two in zip(a, b, strict=True))
    if metric == "auc":
        return _normal(members.mean(), _mean_variance(members) + _mean_variance(others), bounds=(-1.0, 1.0))
    variance = (_mean_variance(members) + _mean_variance(others)) / 4
    return _normal((members.mean() + others.mean()) / 2, variance, bounds=(-1.0, 1.0))


def over_targets(values, confidence: float = CONFIDENCE) -> WithTest:
    """Mean over targets (n,) with Student's t interval, which is nan for one target; all is nan if any value is.

    confidence: of the interval, in (0, 1); the p-value does not depend on it.
    """
    values = vector("values", values)
    if len(values) == 0:
        raise ValueError("values is empty; it must hold one number for each target")
    mean = float(values.mean())
    if len(values) == 1:
        return WithTest.of(Estimate(mean), None)
    error = math.sqrt(_mean_variance(values))
    half = _quantile((1 + confidence) / 2, len(values) - 1) * error
    p = functools.partial(_student, mean, error, len(values) - 1)
    return WithTest.of(Estimate(mean, mean - half, mean + half), p)


@functools.cache  # the same few values again and again
def _quantile(share: float, degrees: int) -> float:
    return float(scipy.stats.t.ppf(share, degrees))


def _student(mean: float, error: float, degrees: int, boundary: float) -> float:
    """Two-sided p-value of "the true mean is `boundary`"; if there is no spread, 1 at the mean and 0 elsewhere."""
    if error == 0.0:
        return float(mean == boundary)
    return float(2 * scipy.stats.t.sf(abs(mean - boundary) / error, degrees))


def minimum_detectable(differences) -> Estimate:
    """The true mean difference that differences with the spread of these (n,), one a target, would show four times in five.

    At the two-sided 5 % level of Student's t. The spread is itself estimated from n differences, and the value holds on
    average over that estimate too: with three targets it is 1.6 times, with five 1.3 times what a known spread would need
    (Bloom 1995 takes it as known). The ends are the values for a known spread at the ends of its own 95 % interval. nan
    with fewer than two targets. Report it beside a difference that was not found.
    """
    differences = vector("differences", differences)
    n = len(differences)
    if n < 2:
        return Estimate(math.nan)
    error = math.sqrt(_mean_variance(differences))
    known, estimated = _detectable(n)
    spread = np.sqrt((n - 1) / scipy.stats.chi2.ppf([(1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2], n - 1))
    return Estimate(estimated * error, *(float(one) for one in known * error * spread))


@functools.cache
def _detectable(n: int, power: float = 0.8) -> tuple[float, float]:
    """True difference, in standard errors, found with this power: for a known spread, and for one estimated from n."""
    critical = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
    # estimated spread / true spread, at 500 equally likely places
    ratio = np.sqrt(scipy.stats.chi2.ppf((np.arange(500) + 0.5) / 500, n - 1) / (n - 1))

    def lacking(times, ratio):
        return scipy.stats.nct.sf(critical, n - 1, times * ratio).mean() - power

    return tuple(scipy.optimize.brentq(lacking, 0.1, 100, args=(one,)) for one in (1.0, ratio))


def rises(steps) -> bool:
    """Whether a quantity never falls from one of its steps (k, targets), k > 1, to the next by more than chance explains.

    By chance alone some step is called a fall in 2.5 % of runs: each paired difference is tested on one side at that
    level divided by their number. For one target chance is not known, and any fall counts.
    """
    falls = -np.diff(np.asarray(steps, dtype=np.float64), axis=0)
    confidence = 1 - (1 - CONFIDENCE) / len(falls)
    ends = [over_targets(fall, confidence) for fall in falls]
    return not any(one.value > 0 if math.isnan(one.low) else one.low > 0 for one in ends)


def share(hits: float, n: float) -> Estimate:
    """The share hits / n with the interval of `intervals.share`; nan for n = 0. Counts need not be whole."""
    return Estimate(float(hits / n), *intervals.share(hits, n)) if n else Estimate(math.nan)


def numbers(values) -> np.ndarray:
    """`values` of any shape, an array, list or tensor on any device, as float64."""
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)


def vector(name, values) -> np.ndarray:
    """`values` (n,) as new `numbers`; `name` is for the error."""
    values = numbers(values)
    if values.ndim != 1:
        raise ValueError(f"{name} has shape {values.shape}; it must be one-dimensional")
    return values.copy()


def groups(member, margin) -> tuple[np.ndarray, np.ndarray]:
    """The margins of the members (a,) and of the non-members (b,), checked."""
    member, margin = vector("member", member), vector("margin", margin)
    if len(member) != len(margin):
        raise ValueError(
            f"member has {len(member)} examples but margin has {len(margin)}; they must be the same"
        )
    if not np.isin(member, (0, 1)).all():
        raise ValueError(
            f"member holds {np.setdiff1d(member, (0, 1))[:3]}; it must hold only 1 (member) and 0"
        )
    if np.isnan(margin).any():
        raise ValueError(
            f"margin holds nan for {np.isnan(margin).sum()} of {len(margin)} examples; mend the attack"
        )
    if member.all() or not member.any():
        raise ValueError(
            f"member holds {int(member.sum())} members of {len(member)}; both groups must be present"
        )
    return margin[member == 1], margin[member == 0]


# The measures of every attack in the results table: name -> measure(member, margin) -> Estimate
STANDARD = {
    "balanced_accuracy": balanced_accuracy,
    "auc": auc,
    "tpr_at_0.01": functools.partial(tpr_at_fpr, max_fpr=0.01),
    "tpr_at_0.001": functools.partial(tpr_at_fpr, max_fpr=0.001),
}


def _bare_decisions(members, nonmembers) -> bool:
    margin = np.concatenate([members, nonmembers])
    two_values = margin.min() < margin.max() and np.isin(margin, (margin.min(), margin.max())).all()
    return two_values or (np.abs(margin) == 1).all()


def _placements(members, nonmembers) -> tuple[np.ndarray, np.ndarray]:
    """Each member's share of non-members below it, each non-member's share of members above it; ties half."""
    ranks = scipy.stats.rankdata(np.concatenate([members, nonmembers]))
    wins = (ranks[: len(members)] - scipy.stats.rankdata(members)) / len(nonmembers)
    losses = 1 - (ranks[len(members) :] - scipy.stats.rankdata(nonmembers)) / len(members)
    return wins, losses


def _right(members, nonmembers) -> tuple[np.ndarray, np.ndarray]:
    """Whether the decision margin > 0 gets each member, and each non-member, right."""
    return members > 0, nonmembers <= 0


def _mean_variance(values) -> float:
    """Estimated variance of the mean of `values` (n,); nan for one value."""
    return values.var(ddof=1) / len(values) if len(values) > 1 else math.nan


def _normal(value, variance, bounds) -> Estimate:
    low, high = np.clip([value - _Z * math.sqrt(variance), value + _Z * math.sqrt(variance)], *bounds)
    return Estimate(float(value), float(low), float(high))
