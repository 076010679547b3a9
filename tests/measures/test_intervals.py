"""Coverage, simulated: how often an interval holds the true value that it is to hold 95 % of the time."""

import math

import numpy as np
import pytest
from scipy import stats

from mialib.measures import decisions, intervals, metrics

NORMAL, HEAVY = stats.norm, stats.t(3)


def drawn(distribution, n, shift, seed):
    """`member` (2n,) and margins (2n,): n members, `shift` above as many others."""
    random = np.random.default_rng(seed)
    margins = distribution.rvs(size=2 * n, random_state=random)
    margins[:n] += shift
    return np.arange(2 * n) < n, margins


def coverage(measure, truth, distribution, n, shift, repetitions):
    """Shares of intervals that hold the truth, that lie above it, and that lie below it."""
    found = [measure(*drawn(distribution, n, shift, seed)) for seed in range(repetitions)]
    below, above = np.mean([one.low > truth for one in found]), np.mean([one.high < truth for one in found])
    return 1 - below - above, below, above


def area(distribution, shift):
    """P(member > other), by the convolution with itself."""
    if distribution is NORMAL:
        return NORMAL.cdf(shift / math.sqrt(2))
    x = np.linspace(-60, 60, 200_001)
    return float(np.trapezoid(distribution.pdf(x) * distribution.cdf(x + shift), x))


def at_quantile(distribution, shift, fpr):
    return float(distribution.sf(distribution.isf(fpr) - shift))


SHORT, LONG = 400, 5000
AREAS = [
    (n, shift, kind) for n in (10, 25, 100, 1000) for shift in (0.0, 1.0, 2.5) for kind in (NORMAL, HEAVY)
]
RATES = [
    (n, fpr, shift, kind)
    for n, fpr in ((25, 0.1), (100, 0.01), (100, 0.1), (1000, 0.01), (1000, 0.001), (10_000, 0.001))
    for shift in (1.0, 3.0)
    for kind in (NORMAL, HEAVY)
]


def lowest(repetitions):
    """What 0.93 may fall to by chance in as many repetitions: four standard errors."""
    return 0.93 - 4 * math.sqrt(0.95 * 0.05 / repetitions) * (repetitions < LONG)


def check_area(n, shift, kind, repetitions):
    found, *_ = coverage(metrics.auc, area(kind, shift), kind, n, shift, repetitions)
    assert lowest(repetitions) <= found, (n, shift, found)


def check_rate(n, fpr, shift, kind, repetitions):
    truth = at_quantile(kind, shift, fpr)

    def measure(member, margin):
        return metrics.tpr_at_fpr(member, margin, fpr)

    found, *_ = coverage(measure, truth, kind, n, shift, repetitions)
    assert lowest(repetitions) <= found, (n, fpr, shift, found)
    if fpr * n >= 10 and repetitions == LONG:
        assert found <= 0.985, (n, fpr, shift, found)


@pytest.mark.parametrize(("n", "shift", "kind"), [one for one in AREAS if one[0] <= 100 and one[2] is NORMAL])
def test_the_auc_is_held_also_of_few_examples_and_near_one(n, shift, kind):
    check_area(n, shift, kind, SHORT)


@pytest.mark.parametrize(
    ("n", "fpr", "shift", "kind"),
    [one for one in RATES if one[0] <= 1000 and one[1] >= 0.01 and one[3] is NORMAL],
)
def test_the_rate_at_a_chosen_threshold_is_held(n, fpr, shift, kind):
    if fpr * n >= 1:
        check_rate(n, fpr, shift, kind, SHORT)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "shift", "kind"), AREAS)
def test_the_auc_is_held_in_five_thousand_repetitions(n, shift, kind):
    check_area(n, shift, kind, LONG)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "fpr", "shift", "kind"), RATES)
def test_the_rate_is_held_in_five_thousand_repetitions(n, fpr, shift, kind):
    if fpr * n >= 1:
        check_rate(n, fpr, shift, kind, LONG if n < 10_000 else 1000)


def test_precision_at_a_recall_is_held():
    n, shift, recall = 200, 1.0, 0.5
    false = NORMAL.sf(NORMAL.isf(recall) + shift)
    truth = recall / (recall + false)

    def measure(member, margin):
        return decisions.precision_at_recall(member, margin, recall)

    found, *_ = coverage(measure, truth, NORMAL, n, shift, SHORT)
    assert lowest(SHORT) <= found


def test_groups_that_are_apart_leave_room_below():
    low, high = intervals.area(1.0, 0.0, 10)
    assert (low, high) == (pytest.approx(0.025**0.1), 1.0)
    assert intervals.area(0.0, 0.0, 10) == (0.0, pytest.approx(1 - low))
    assert all(math.isnan(end) for end in intervals.area(0.5, math.nan, 1))


def test_ties_and_one_allowed_false_positive_are_conservative():
    scores, others = np.array([1.0, 1.0, 1.0, 0.0]), np.zeros(100)
    low, high = intervals.rate_at_quantile(scores, others, 0.01)
    assert low == 0.0 and high > 0.75
    assert intervals.rate_at_quantile(np.full(50, 2.0), np.arange(1000) / 1000, 0.1)[1] == 1.0


def test_an_interval_depends_on_the_order_alone():
    member, margin = drawn(NORMAL, 200, 1.0, 0)
    once, again = (metrics.tpr_at_fpr(member, one, 0.05) for one in (margin, np.exp(margin)))
    assert once == again
