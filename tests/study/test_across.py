"""Across arms: the fair rival, shares and accuracies by hand, rank correlations over networks."""

import numpy as np
import pytest
import torch

from mialib import study
from mialib.attacks import threshold
from mialib.measures import decisions
from mialib.study import across


@pytest.fixture
def four(made):
    """Arms of test and reserve accuracy 0.7, 0.71, 0.72 and 0.9, mean over two targets."""
    arms = [made.made(key) for key in "abcd"]
    for arm, value in zip(arms, (0.70, 0.71, 0.72, 0.90), strict=True):
        made.note(arm, "test_accuracy", [value - 0.1, value + 0.1])
        made.note(arm, "reserve_accuracy", [value - 0.1, value + 0.1])
        made.note(arm, "generalization_gap", [0.1, 0.3])
    return arms


def leaks(arms, *means):
    """Of each arm two attacks on two targets: the better one finds the mean, hardly varying."""
    values = [np.array([mean - 0.001, mean + 0.001]) for mean in means]
    return {arm: [one - 0.3, one * [1, 1.0001]] for arm, one in zip(arms, values, strict=True)}


def against(made, arms, *means, slack=0.05):
    return across.at_equal_accuracy(made, arms[0], arms[1:], leaks(arms, *means), slack)


def test_every_rival_as_accurate_must_leak_more(made, four):
    found = against(made, four, 0.6, 0.8, 0.7, 0.9)
    assert found.settled and found.closest is four[2] and found.difference.low > 0
    assert found.apart == pytest.approx(0.02)
    assert found.difference.value == pytest.approx(0.1, abs=1e-3)
    found = against(made, four, 0.75, 0.8, 0.7, 0.9)
    assert found.settled and found.difference.value == pytest.approx(-0.05, abs=1e-3)
    assert found.difference.high < 0


def test_a_rival_that_is_more_accurate_and_leaks_less_has_won(made, four):
    """With the only ones as accurate, which leak more, the arm would stand as the better one."""
    found = against(made, four, 0.75, 0.8, 0.8, 0.6)
    assert found.settled and found.closest is four[3] and found.difference.high < 0
    alone = against(made, [four[0], four[3]], 0.75, 0.6)
    assert alone.settled and alone.difference.high < 0


def test_an_arm_that_is_more_accurate_and_leaks_less_has_won(made, four):
    a, b, c, d = four
    found = against(made, [d, a, b, c], 0.6, 0.5, 0.7, 0.5)  # one beaten on both sides is enough
    assert found.settled and found.difference.low > 0
    assert found.difference.value == pytest.approx(0.1, abs=1e-3)


def test_another_choice_settles_nothing(made, four):
    a, d = four[0], four[3]
    assert not against(made, [a, d], 0.6, 0.8).settled  # more accurate, leaks more
    assert not against(made, [d, a], 0.8, 0.6).settled  # less accurate, leaks less


def test_between_two_rivals_an_arm_must_beat_both(made):
    low, middle, high = arms = [made.made(key) for key in ("low", "middle", "high")]
    for arm, value in zip(arms, (0.5, 0.7, 0.9), strict=True):
        made.note(arm, "reserve_accuracy", [value, value])
    for worse, better, settled, won in (
        (0.8, 0.9, True, True),
        (0.6, 0.9, False, None),  # two other choices
        (0.8, 0.6, True, False),
    ):
        found = against(made, [middle, low, high], 0.7, worse, better)
        assert found.settled is settled
        assert won is None or (found.difference.value > 0) is won


def test_the_slack_itself_is_near_enough(made):
    arms = [made.made(key) for key in "ab"]
    for arm, value in zip(arms, (0.75, 0.5), strict=True):
        made.note(arm, "reserve_accuracy", [value, value])
    assert against(made, arms, 0.7, 0.6, slack=0.25).settled
    assert not against(made, arms, 0.7, 0.6, slack=0.2499).settled


def test_rivals_are_needed(made, four):
    with pytest.raises(ValueError, match="rivals is empty; 'a' needs at least one"):
        against(made, four[:1], 0.7)


@pytest.mark.filterwarnings("error")
def test_the_share_lost_by_hand(made):
    before, after, useless = (made.made(key) for key in ("before", "after", "useless"))
    made.note(before, "auc", [0.9, 0.7], attack="samia")
    made.note(after, "auc", [0.6, 0.8], attack="samia")
    made.note(useless, "auc", [0.5, 0.5], attack="samia")
    assert across.share_lost(made, before, after, "auc", "samia") == pytest.approx([0.75, -0.5])
    assert across.share_lost(made, before, useless, "auc", "samia") == pytest.approx([1, 1])
    assert not np.isfinite(across.share_lost(made, useless, before, "auc", "samia")).any()
    assert np.isnan(across.share_lost(made, useless, useless, "auc", "samia")).all()


def test_accuracies_apart_by_hand(made, four):
    made.note(other := made.made("other"), "test_accuracy", [0.5, 0.5])
    made.note(other, "generalization_gap", [0.4, 0.2])
    found = across.accuracies_apart(made, four[0], other)
    assert found == pytest.approx({"test": 0.2, "training": 0.1})


def test_rank_correlations_count_the_same_network_once():
    leak = {"a": np.array([0.6, 0.6]), "b": np.array([0.7, 0.5]), "c": np.array([0.8, 0.4])}
    gap = {"a": np.array([0.1, 0.1]), "b": np.array([0.2, 0.2]), "c": np.array([0.9, 0.9])}
    found = across.rank_correlations(leak, gap=gap, loss={arm: -one for arm, one in gap.items()})
    assert found["gap"] == pytest.approx([1.0, -1.0]) and found["loss"] == pytest.approx([-1.0, 1.0])
    # a second outlier would turn the correlation if it counted; what is left out of the first quantity does not
    leak |= {"d": np.array([0.1, 0.1])}
    gap |= {"d": np.array([0.5, 0.5]), "e": np.array([0.0, 0.0])}
    once = across.rank_correlations(leak, gap=gap)["gap"]
    twins = {f"{i}": leak["d"] for i in range(5)}
    again = across.rank_correlations(leak | twins, gap=gap | dict.fromkeys(twins, gap["d"]))["gap"]
    assert once == pytest.approx(again) and once[0] == pytest.approx(0.4)


def test_a_measure_without_rows_is_judged_on_each_target(made):
    arm = made.made("a")
    made.attack({"confidence": threshold.confidence}, [arm], measures={})
    found = study.judged(made, arm, "confidence", decisions.tpr)
    margins = made.margins(arm, "confidence")[:, 0]
    expected = [
        float((one[member] > 0).double().mean()) for one, member in zip(margins, made.member, strict=True)
    ]
    assert found.tolist() == pytest.approx(expected) and made.rows == []


def test_a_measure_of_a_target_is_the_mean_over_its_trainings(made, monkeypatch):
    arm = made.made("a")
    margins = torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.setattr(made, "margins", lambda who, attack: margins)
    found = study.judged(made, arm, "nn", decisions.tpr)
    shares = [(own[:, member] > 0).double().mean() for own, member in zip(margins, made.member, strict=True)]
    assert found.tolist() == pytest.approx([float(share) for share in shares])
