"""The attacker's decisions against hand counts, scikit-learn and simulation."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import f1_score, precision_recall_curve, precision_score, recall_score

from mialib.measures import Estimate, decisions, metrics

# tp 3, fn 2, fp 1, tn 4; a margin of exactly 0 is the decision non-member
MEMBER = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
MARGIN = np.array([3, 2, 1, 0, -1, 1, 0, -2, -3, -np.inf])


def sample(seed=0, n=400, decimals=1):
    """Seeded margins with many ties; 40% members."""
    generator = np.random.default_rng(seed)
    member = generator.random(n) < 0.4
    return member, np.round(generator.normal(size=n) + 0.6 * member, decimals)


def test_decisions_by_hand():
    expected = {
        "tpr": 3 / 5,
        "fpr": 1 / 5,
        "advantage": 2 / 5,
        "precision": 3 / 4,
        "f1": 6 / 9,  # 2 tp / (2 tp + fp + fn)
        "precision_nonmember": 4 / 6,
        "recall_nonmember": 4 / 5,
        "f1_nonmember": 8 / 11,
    }
    found = {name: measure(MEMBER, MARGIN) for name, measure in decisions.DECISIONS.items()}
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(expected)
    assert all(estimate.low < estimate.value < estimate.high for estimate in found.values())


@pytest.mark.parametrize("seed", range(3))
def test_decisions_equal_sklearn(seed):
    member, margin = sample(seed)
    for suffix, positive in (("", 1), ("_nonmember", 0)):
        for name, reference in (("precision", precision_score), ("f1", f1_score), ("recall", recall_score)):
            measure = decisions.DECISIONS.get(name + suffix, decisions.tpr)  # members' recall is "tpr"
            expected = reference(member, margin > 0, pos_label=positive)
            assert measure(member, margin).value == pytest.approx(expected, abs=1e-12)
    assert decisions.fpr(member, margin).value == pytest.approx(np.mean(margin[~member] > 0))


@pytest.mark.parametrize(
    ("measure", "hits", "n"),
    [
        ("tpr", 3, 5),
        ("fpr", 1, 5),
        ("precision", 3, 4),
        ("precision_nonmember", 4, 6),
        ("recall_nonmember", 4, 5),
    ],
)
def test_shares_have_wilsons_interval(measure, hits, n):
    interval = stats.binomtest(hits, n).proportion_ci(method="wilson")
    expected = Estimate(hits / n, interval.low, interval.high)
    assert decisions.DECISIONS[measure](MEMBER, MARGIN) == pytest.approx(expected)


def test_the_advantage_is_balanced_accuracy_on_another_scale():
    balanced = metrics.balanced_accuracy(MEMBER, MARGIN)
    assert decisions.advantage(MEMBER, MARGIN) == pytest.approx([2 * part - 1 for part in balanced])
    assert decisions.advantage(MEMBER, -MEMBER).value == 0.0  # nobody is called a member
    reversed_ = decisions.advantage(MEMBER, 1 - 2 * MEMBER)
    assert reversed_.value == reversed_.low == -1.0 and reversed_.high > -1.0


def test_precision_is_nan_where_nobody_is_called():
    silent, loud = -np.ones(10), np.ones(10)
    assert all(math.isnan(part) for part in decisions.precision(MEMBER, silent))
    assert all(math.isnan(part) for part in decisions.precision_nonmember(MEMBER, loud))
    assert decisions.f1(MEMBER, silent).value == decisions.tpr(MEMBER, silent).value == 0.0
    assert decisions.precision(MEMBER, loud).value == 0.5 and decisions.f1(MEMBER, loud).value == 2 / 3


@pytest.mark.parametrize(("tpr", "fpr"), [(0.55, 0.45), (0.9, 0.2), (0.3, 0.1)])
def test_intervals_cover_the_truth_where_the_groups_are_fixed(tpr, fpr):
    generator = np.random.default_rng(0)
    member = np.arange(200) < 100
    truth = {"precision": tpr / (tpr + fpr), "f1": 2 * tpr / (tpr + fpr + 1)}
    covered = dict.fromkeys(truth, 0)
    for _ in range(1000):
        margin = np.where(generator.random(200) < np.where(member, tpr, fpr), 1.0, -1.0)
        for name, value in truth.items():
            estimate = decisions.DECISIONS[name](member, margin)
            covered[name] += estimate.low <= value <= estimate.high
    assert min(covered.values()) >= 935  # 950 less two standard errors; too wide is allowed


# Precision at a recall


def test_precision_at_recall_by_hand():
    margin = np.array([9, 7, 5, 3, 1, 8, 6, 4, 2, 0])
    # the first member comes first, the second after one non-member, ...
    for found in range(1, 6):
        estimate = decisions.precision_at_recall(MEMBER, margin, found / 5)
        assert estimate == pytest.approx(metrics.wilson(found, 2 * found - 1))
    # between two members: all non-members above the next one are called
    assert decisions.precision_at_recall(MEMBER, margin, 0.3).value == pytest.approx(1.5 / 2.5)


def test_ties_are_shared_out():
    member, margin = np.array([1, 0, 1, 1, 0, 0, 0]), np.array([3, 2, 1, 1, 1, 1, 0])
    # two of three members: the first, and one of the two that tie with two non-members, so one of these too
    estimate = decisions.precision_at_recall(member, margin, 2 / 3)
    assert estimate == pytest.approx(metrics.wilson(2, 4))
    # a part of a member: 1 + 0.5 found, half a tied non-member and the one above
    assert decisions.precision_at_recall(member, margin, 0.5) == pytest.approx(metrics.wilson(1.5, 3))
    assert decisions.precision_at_recall(member, margin, 1.0) == pytest.approx(metrics.wilson(3, 6))


def test_the_order_of_ties_and_monotone_transforms_change_nothing():
    member, margin = sample()
    order = np.random.default_rng(1).permutation(len(member))
    for recall in (0.01, 0.25, 0.5, 0.77, 1.0):
        expected = decisions.precision_at_recall(member, margin, recall)
        for same in (2 * margin - 5, np.exp(margin), margin**3):
            assert decisions.precision_at_recall(member, same, recall) == expected
        assert decisions.precision_at_recall(member[order], margin[order], recall) == expected


@pytest.mark.parametrize("recall", [0.001, 0.3, 1.0])
def test_constant_margins_have_the_precision_of_the_base_rate(recall):
    member = np.arange(1000) % 4 == 0
    assert decisions.precision_at_recall(member, np.zeros(1000), recall).value == pytest.approx(0.25)


def test_precision_at_the_recalls_that_occur_is_sklearns():
    member, margin = sample(decimals=9)
    precision, recall, _ = precision_recall_curve(member, margin)
    for one in np.unique(recall[recall > 0]):
        best = precision[
            recall == one
        ].max()  # of all thresholds with this recall the highest calls the fewest
        assert decisions.precision_at_recall(member, margin, one).value == pytest.approx(best)


def test_a_recall_that_is_a_rounding_error_too_large_needs_no_further_member():
    member, margin = np.r_[np.ones(10), np.zeros(50)], np.r_[np.full(3, 9.0), np.zeros(7), np.ones(50)]
    assert 3 * 0.1 > 0.3
    assert decisions.precision_at_recall(member, margin, 3 * 0.1).value == pytest.approx(1.0)


def test_infinite_margins_and_perfect_attacks():
    margin = np.where(MEMBER == 1, np.inf, -np.inf)
    estimate = decisions.precision_at_recall(MEMBER, margin, 1.0)
    assert estimate.value == estimate.high == 1.0 and estimate.low < 0.8
    assert decisions.precision_at_recall(MEMBER, -margin, 0.5).value == pytest.approx(2.5 / 7.5)


@pytest.mark.parametrize("recall", [0.0, -0.1, 1.1, math.nan])
def test_a_recall_out_of_range_is_refused(recall):
    with pytest.raises(ValueError, match="recall is"):
        decisions.precision_at_recall(MEMBER, MARGIN, recall)


def test_tensors_are_accepted_left_alone_and_checked():
    member, margin = torch.tensor(MEMBER), torch.tensor(MARGIN)
    for measure in decisions.DECISIONS.values():
        assert measure(member, margin) == measure(MEMBER, MARGIN)
        with pytest.raises(ValueError, match="both groups"):
            measure([1, 1], [0.0, 1.0])
    assert decisions.precision_at_recall(member, margin, 0.5) == decisions.precision_at_recall(
        MEMBER, MARGIN, 0.5
    )
    assert torch.equal(margin, torch.tensor(MARGIN))
