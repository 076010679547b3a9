"""Intervals where the textbook's fail: an area near 1, and a rate at a threshold that the same examples chose.

Both are functions of counts and order alone, deterministic, and take milliseconds at 10,000 examples. Their coverage is
simulated in `tests/measures/test_intervals.py`.
"""

import math

import numpy as np
from scipy import special, stats

CONFIDENCE = 0.95
_TAIL = (1 - CONFIDENCE) / 2
_STEPS = 40  # of bisection: far below the last digit that is printed


def area(value: float, variance: float, n: int) -> tuple[float, float]:
    """The ends of the interval of an area under the ROC curve, on the scale of its log-odds.

    value +- 1.96 standard errors there, by the delta method: near 1 a symmetric interval is cut off above and too short
    below. Where the groups are apart there is no variance to estimate: then Clopper and Pearson's bound for n successes in n
    trials, the worst case, in which one group has a single margin.

    Args:
        value, variance: in [0, 1], and its estimated variance; nan gives nan.
        n: of the smaller group.
    """
    if not math.isfinite(variance):
        return math.nan, math.nan
    edge = _TAIL ** (1 / n)
    if value in (0.0, 1.0):
        return (edge, 1.0) if value else (0.0, 1 - edge)
    half = float(stats.norm.ppf(1 - _TAIL)) * math.sqrt(variance) / (value * (1 - value))
    centre = float(special.logit(value))
    return float(special.expit(centre - half)), float(special.expit(centre + half))


def rate_at_quantile(scores: np.ndarray, reference: np.ndarray, share: float) -> tuple[float, float]:
    """The ends of the interval of P(score > t), where t is the threshold that the share of the reference exceeds.

    t is not known. How many of the reference examples exceed it is: K ~ Binomial(n, share), whatever their distribution. So t
    lies between the K-th and the (K + 1)-th largest, and the count of scores above it between two counts. The interval mixes,
    over K, Jeffreys' intervals of these: the lower end takes the lower count, the upper end the upper one. Conservative where
    share * n is small, since then K = 0 is likely, which says nothing from below.

    Args:
        scores, reference: (m,) and (n,), real or infinite.
        share: in (0, 1).
    """
    m, n = len(scores), len(reference)
    scores, largest = np.sort(scores), np.sort(reference)[::-1]
    first, last = stats.binom.ppf([1e-9, 1 - 1e-9], n, share).astype(int)
    k = np.arange(first, last + 1)
    weight = stats.binom.pmf(k, n, share)
    fewest = m - np.searchsorted(scores, largest[np.maximum(k - 1, 0)], side="left")
    most = m - np.searchsorted(scores, largest[np.minimum(k, n - 1)], side="right")
    fewest, most = np.where(k == 0, 0, fewest), np.where(k == n, m, most)
    return (
        _quantile(weight, fewest, m, _TAIL) if (weight[fewest == 0].sum() < _TAIL) else 0.0,
        _quantile(weight, most, m, 1 - _TAIL) if (weight[most == m].sum() < _TAIL) else 1.0,
    )


def _quantile(weight: np.ndarray, hits: np.ndarray, m: int, level: float) -> float:
    """Of the mixture of Beta(hits + 1/2, m - hits + 1/2), by bisection."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        below = weight @ special.betainc(hits + 0.5, m - hits + 0.5, middle)
        low, high = (middle, high) if below < level else (low, middle)
    return (low + high) / 2
