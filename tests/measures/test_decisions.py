"""The attacker's decisions against hand counts, scikit-learn and simulation."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_recall_curve, precision_score, recall_score

from mialib.measures import decisions, metrics

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
@pytest.mark.parametrize(
    "measure, reference, positive",
    [
        ("precision", precision_score, 1),
        ("f1", f1_score, 1),
        ("tpr", recall_score, 1),
        ("precision_nonmember", precision_score, 0),
        ("f1_nonmember", f1_score, 0),
        ("recall_nonmember", recall_score, 0),
    ],
)
def test_decisions_equal_sklearn(measure, reference, positive, seed):
    member, margin = sample(seed)
    expected = reference(member, margin > 0, pos_label=positive)
    assert decisions.DECISIONS[measure](member, margin).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_false_positive_rate_is_the_share_of_nonmembers_called(seed):
    member, margin = sample(seed)
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
def test_shares_are_those_of_counts(measure, hits, n):
    assert decisions.DECISIONS[measure](MEMBER, MARGIN) == metrics.share(hits, n)


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


IN_TURN = np.array([9, 7, 5, 3, 1, 8, 6, 4, 2, 0])  # the first member, a non-member, the second member, ...


@pytest.mark.parametrize("found", range(1, 6))
def test_precision_at_the_recall_of_each_member_by_hand(found):
    estimate = decisions.precision_at_recall(MEMBER, IN_TURN, found / 5)
    assert (
        estimate.value == pytest.approx(found / (2 * found - 1))
        and estimate.low <= estimate.value <= estimate.high
    )


def test_between_two_members_all_nonmembers_above_the_next_one_are_called():
    assert decisions.precision_at_recall(MEMBER, IN_TURN, 0.3).value == pytest.approx(1.5 / 2.5)


def test_ties_are_shared_out():
    member, margin = np.array([1, 0, 1, 1, 0, 0, 0]), np.array([3, 2, 1, 1, 1, 1, 0])
    # two of three members: the first, and one of the two that tie with two non-members, so one of these too
    estimate = decisions.precision_at_recall(member, margin, 2 / 3)
    assert estimate.value == pytest.approx(2 / 4)
    # a part of a member: 1 + 0.5 found, half a tied non-member and the one above
    assert decisions.precision_at_recall(member, margin, 0.5).value == pytest.approx(1.5 / 3)
    assert decisions.precision_at_recall(member, margin, 1.0).value == pytest.approx(3 / 6)


@pytest.mark.parametrize("recall", [0.01, 0.25, 0.5, 0.77, 1.0])
def test_the_order_of_ties_and_monotone_transforms_change_nothing(recall):
    member, margin = sample()
    order = np.random.default_rng(1).permutation(len(member))
    expected = decisions.precision_at_recall(member, margin, recall)
    for name, same in (("line", 2 * margin - 5), ("exp", np.exp(margin)), ("cube", margin**3)):
        assert decisions.precision_at_recall(member, same, recall) == expected, name
    assert decisions.precision_at_recall(member[order], margin[order], recall) == expected


@pytest.mark.parametrize("recall", [1e-12, 0.001, 0.3, 1.0])
def test_constant_margins_have_the_precision_of_the_base_rate(recall):
    member = np.arange(1000) % 4 == 0
    assert decisions.precision_at_recall(member, np.zeros(1000), recall).value == pytest.approx(0.25)


def test_precision_at_the_recalls_that_occur_is_sklearns():
    member, margin = sample(decimals=9)
    precision, recall, _ = precision_recall_curve(member, margin)
    for one in np.unique(recall[recall > 0]):
        # of all thresholds with this recall the highest calls the fewest
        best = precision[recall == one].max()
        value = decisions.precision_at_recall(member, margin, one).value
        assert value == pytest.approx(best), f"recall {one}"


@pytest.mark.parametrize("recall", [0.1, 0.5, 0.9])
def test_the_interval_at_a_recall_is_that_of_the_rate_of_the_others_who_are_called(recall):
    member, margin = sample(decimals=9)
    hits, others = recall * member.sum(), (~member).sum()
    # who finds others where members are let through: the same threshold, called a false-positive rate
    rate = metrics.tpr_at_fpr(~member, margin, recall)
    estimate = decisions.precision_at_recall(member, margin, recall)
    assert estimate.low == pytest.approx(hits / (hits + rate.high * others))
    assert estimate.high == pytest.approx(hits / (hits + rate.low * others))
    assert estimate.low < estimate.value < estimate.high


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


MEASURES = decisions.DECISIONS | {"at a recall": partial(decisions.precision_at_recall, recall=0.5)}


@pytest.mark.parametrize("name", MEASURES)
def test_tensors_are_accepted_left_alone_and_checked(name):
    member, margin = torch.tensor(MEMBER), torch.tensor(MARGIN)
    assert MEASURES[name](member, margin) == MEASURES[name](MEMBER, MARGIN)
    assert torch.equal(margin, torch.tensor(MARGIN))
    assert {type(part) for part in MEASURES[name](member, margin)} == {float}
    with pytest.raises(ValueError, match="both groups"):
        MEASURES[name]([1, 1], [0.0, 1.0])
