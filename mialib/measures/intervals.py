"""Intervals where the textbook's fail: few examples, an area near 1, a rate at a threshold chosen on the same examples.

All are deterministic functions of counts and order alone, and take milliseconds at 10,000 examples. The table in
`tests/coverage.py` says how often they hold the truth.
"""

import math

import numpy as np
import scipy

CONFIDENCE = 0.95
_TAIL = (1 - CONFIDENCE) / 2
_Z = float(scipy.special.ndtri(1 - _TAIL))
_EXACT = 1e-12  # far below the last digit that is printed


def share(hits: float, n: float) -> tuple[float, float]:
    """The ends of the interval of a probability, estimated from `hits` of n > 0 trials: Agresti & Coull 1998.

    Wilson's interval, made symmetric around its middle. Wilson's own holds the truth in only 84 % where it lies near 0
    or 1, at any n; this one in 93 % and more from 25 examples on, conservative near 0 and 1. Counts need not be whole.
    """
    of = n + _Z**2
    middle = (hits + _Z**2 / 2) / of
    half = _Z * math.sqrt(middle * (1 - middle) / of)
    return max(float(middle - half), 0.0), min(float(middle + half), 1.0)


def mean_of_shares(hits: tuple[float, float], n: tuple[float, float]) -> tuple[float, float]:
    """The ends of the interval of the mean of two independent probabilities: Agresti & Caffo 2000, for a difference.

    One hit and one miss are added to each. (Newcombe's combination of two Wilson intervals falls to 92 % at 25 examples each.)
    """
    middles = [(k + 1) / (of + 2) for k, of in zip(hits, n, strict=True)]
    variance = sum(p * (1 - p) / (of + 2) for p, of in zip(middles, n, strict=True))
    middle, half = float(sum(middles)) / 2, _Z * math.sqrt(variance) / 2
    return max(middle - half, 0.0), min(middle + half, 1.0)


def area(value: float, variance: float, n: int) -> tuple[float, float]:
    """The ends of the interval of an area under the ROC curve, on the scale of its log-odds.

    By the delta method, with the quantile of Student's t for the size of the smaller group. Near 1 a symmetric interval
    is cut off above and too short below, and with 1.96 standard errors 25 tied examples a group hold the truth in 92 %.
    Where the groups do not overlap there is no variance to estimate. Then the bound is Clopper and Pearson's for n
    successes in n trials: the worst case, in which one group has a single margin.

    Args:
        value, variance: in [0, 1], and its estimated variance; nan gives nan.
        n: of the smaller group.
    """
    if not math.isfinite(variance):
        return math.nan, math.nan
    edge = _TAIL ** (1 / n)
    if value in (0.0, 1.0):
        return (edge, 1.0) if value else (0.0, 1 - edge)
    half = scipy.special.stdtrit(n - 1, 1 - _TAIL) * math.sqrt(variance) / (value * (1 - value))
    centre = float(scipy.special.logit(value))
    return float(scipy.special.expit(centre - half)), float(scipy.special.expit(centre + half))


def rate_at_quantile(
    scores: np.ndarray, reference: np.ndarray, share: float, *, share_ties: bool = False
) -> tuple[float, float]:
    """The ends of the interval of P(score > t), where t is the threshold that the share `share` of the reference exceeds.

    t is not known. But the number of reference examples above it is K ~ Binomial(n, share), whatever their
    distribution. So t lies between the K-th and the (K + 1)-th largest, and the count of scores above it between two
    counts. The interval mixes, over K, Jeffreys' intervals of these: the lower end takes the lower count, the upper end
    the upper one. It is conservative where share * n is small, since then K = 0 is likely, which gives no lower bound.

    Args:
        scores, reference: (m,) and (n,), real or infinite.
        share: in (0, 1).
        share_ties: scores that tie with t count in part, in the same share as the tied reference examples: a straight
            piece of the ROC. Else they do not count.
    """
    m, n = len(scores), len(reference)
    first, last = scipy.stats.binom.ppf([1e-9, 1 - 1e-9], n, share).astype(int)
    k = np.arange(first, last + 2)
    above = _above(np.sort(scores), np.sort(reference), k, share_ties)
    weight, fewest, most = scipy.stats.binom.pmf(k[:-1], n, share), above[:-1], above[1:]
    return (
        _quantile(weight, fewest, m, _TAIL) if (weight[fewest == 0].sum() < _TAIL) else 0.0,
        _quantile(weight, most, m, 1 - _TAIL) if (weight[most == m].sum() < _TAIL) else 1.0,
    )


def _above(scores: np.ndarray, reference: np.ndarray, k: np.ndarray, share_ties: bool) -> np.ndarray:
    """How many scores exceed the k-th largest of the reference (both rising): none for k = 0, all beyond the last."""
    m, n = len(scores), len(reference)
    at = reference[n - np.clip(k, 1, n)]
    found = (m - np.searchsorted(scores, at, side="right")).astype(float)
    if share_ties:
        (first, last), (left, right) = (
            [np.searchsorted(one, at, side=side) for side in ("left", "right")] for one in (scores, reference)
        )
        place = k - (n - right)  # place of the k-th among the reference examples that tie with it, from 1
        found += (last - first) * place / (right - left)
    return np.where(k == 0, 0.0, np.where(k > n, float(m), found))


def _quantile(weight: np.ndarray, hits: np.ndarray, m: int, level: float) -> float:
    """A quantile of the mixture of Beta(hits + 1/2, m - hits + 1/2)."""

    def lacking(share):
        return weight @ scipy.special.betainc(hits + 0.5, m - hits + 0.5, share) - level

    return float(scipy.optimize.brentq(lacking, 0.0, 1.0, xtol=_EXACT))
