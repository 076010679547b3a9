"""The least, the largest and the best of several things: intervals that hold although the extreme was not known before.

"A beats every other" is about the least of the differences A - B, A - C, ...; "one of them beats A" about the largest.
It is wrong to pick the extreme by its mean and keep its own interval: the largest of ten equal means lies above what it
estimates. (One thing against the best of ten, independent noise, 3 to 10 targets, simulated: 10 to 14 % of verdicts are
wrong on that side, where 2.5 % are promised.) Here an end that only *one* of k things has to reach is taken at a level
divided by k (Bonferroni); an end that *all* have to reach is not. The intervals hold in at least 95 % whatever the
dependence, and are wider than needed where things are alike.

Values are float64 (targets,), one number for each target. Intervals are over the targets, by `metrics.over_targets`.
"""

import functools
from collections.abc import Iterable

import numpy as np

from mialib.measures import metrics
from mialib.measures.metrics import CONFIDENCE, Estimate, WithTest


def every(differences: Iterable[np.ndarray]) -> WithTest:
    """The least of several differences, each (targets,): above a boundary where every one of them is.

    Value and lower end are the minima of those at 95 %. The upper end is the minimum of those at a level divided by the
    number of differences, since one of them below the boundary is enough to refute the claim.
    """
    return _largest([[list(differences)]])


def at_least_one(differences: Iterable[np.ndarray]) -> WithTest:
    """The largest of several differences, each (targets,): above a boundary if one of them is; `every`, turned over."""
    return _largest([[[one] for one in differences]])


def best_against_best(ours: Iterable[np.ndarray], others: Iterable[np.ndarray]) -> WithTest:
    """The best of ours minus the best of the others, each (targets,): above 0 if one of ours beats every other.

    For claims like "the best attack finds more here than there", where the best attack may differ.
    """
    return best_against_weakest(ours, [others])


def best_against_weakest(ours: Iterable[np.ndarray], groups: Iterable[Iterable[np.ndarray]]) -> WithTest:
    """The best of ours minus the least of the groups' bests: above 0 if one of ours beats all of some group.

    For claims like "one of these defences leaves the best attack less than this network does": ours are the attacks on
    the network, each group holds those on one defence.
    """
    ours = list(ours)
    return _largest([[[one - other for other in others] for one in ours] for others in map(list, groups)])


def weakest_against_best(groups: Iterable[Iterable[np.ndarray]], others: Iterable[np.ndarray]) -> WithTest:
    """`best_against_weakest` with the signs turned: above 0 if each group has one that beats every other.

    For claims like "every rival leaves the best attack more than this defence does".
    """
    turned = best_against_weakest(others, groups)
    p = functools.partial(_turned, turned.p) if turned.p else None
    return WithTest.of(Estimate(-turned.value, -turned.high, -turned.low), p)


def _largest(groups: list[list[list[np.ndarray]]]) -> WithTest:
    """The largest, over groups g and rows i, of the least over j of [g][i][j]; nan if one is not resolved.

    At the true values theta the lower end max_gi min_j low_gij is too high only if for some g and i the end low_gij is above
    theta_gij at its least j. That is one chance in each, so each is taken at a level divided by the number of pairs (g,
    i). In a group of differences a_i - b_j the max min is also the min max. So its upper end min_j max_i high_gij is
    too low only if for some j it is so at the largest i: a level divided by the number of columns. The largest of the
    groups needs no more.

    Raises:
        ValueError: there are none.
    """
    if not groups or not all(group and group[0] for group in groups):
        raise ValueError("there is nothing to compare with; such a claim has no result")
    pairs = sum(map(len, groups))
    value, low, high = [], [], []
    for group in groups:
        value.append(_ends(group, "value").min(1).max())  # numpy passes nan on
        low.append(_ends(group, "low", pairs).min(1).max())
        high.append(_ends(group, "high", len(group[0])).max(0).min())
    single = [[[metrics.over_targets(one) for one in row] for row in group] for group in groups]
    known = all(one.p for group in single for row in group for one in row)
    p = functools.partial(_two_sided, single) if known else None
    return WithTest.of(Estimate(*(float(np.max(ends)) for ends in (value, low, high))), p)


def _ends(differences: list[list[np.ndarray]], end: str, number: int = 1) -> np.ndarray:
    """One end of the interval of each difference, at a level divided by `number`."""
    confidence = 1 - (1 - CONFIDENCE) / number
    return np.array(
        [[getattr(metrics.over_targets(one, confidence), end) for one in row] for row in differences]
    )


def _two_sided(groups: list[list[list[WithTest]]], boundary: float) -> float:
    """Two-sided p-value of "the largest of the least is `boundary`", from the p-values of the single differences."""
    above, below, pairs = [], [], sum(map(len, groups))
    for group in groups:
        signs = np.sign([[one.value - boundary for one in row] for row in group])
        p = np.array([[one.p(boundary) for one in row] for row in group])
        above.append(pairs * np.where(signs > 0, p, 1.0).max(1).min())
        below.append(p.shape[1] * np.where(signs < 0, p, 1.0).max(0).min())
    return float(min(1.0, min(above), max(below)))


def _turned(p, boundary: float) -> float:
    return p(-boundary)
