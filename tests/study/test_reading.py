"""Reading rows: every number by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mialib import streams, study
from mialib.measures import Estimate, metrics
from mialib.study import Difference, reading
from tests import coverage


def rows_of(values, metric="auc", **columns):
    """Rows of one arm; `values`: of each target one number, or a list of one for each training."""
    return [
        study.tidy_row(metric, value, **columns, target=target, seed=seed)
        for target, trainings in enumerate(values)
        for seed, value in enumerate(trainings if isinstance(trainings, list) else [trainings])
    ]


def test_by_target_averages_the_trainings_first():
    rows = rows_of([[0.5, 0.7], [0.8, 0.9]])
    assert reading.by_target(rows) == pytest.approx([0.6, 0.85])
    assert reading.by_target(rows[::-1]) == pytest.approx([0.6, 0.85])  # by number, not by place


def test_by_target_keeps_what_is_unresolved():
    assert np.isnan(reading.by_target(rows_of([None, 0.6]))).tolist() == [True, False]
    # one training of target 0 is not resolved: the mean of the other would flatter
    assert np.isnan(reading.by_target(rows_of([[None, 0.9], [0.5, 0.6]]))).tolist() == [True, False]


def test_two_rows_of_one_training_are_refused():
    with pytest.raises(ValueError, match="two rows measure auc of target 0, training 0, attack nn"):
        reading.by_target(rows_of([0.5], attack="nn") * 2)


def test_a_difference_is_an_estimate_that_says_how_it_is_paired():
    found = Difference.of(Estimate(0.1, 0.0, 0.2), "example")
    assert isinstance(found, Estimate) and found == Estimate(0.1, 0.0, 0.2) and found.paired == "example"
    assert repr(found) == "+0.1000 [+0.0000, +0.2000], paired by example" and found.p is None
    over = metrics.over_targets([0.1, 0.2, 0.3])
    assert Difference.of(over, "target").p(0.0) == over.p(0.0)
    assert repr(Difference.of(over, "itself")).endswith("compared with itself")


def test_the_strongest_is_not_what_is_unresolved():
    found = {("me", "gap"): np.array([np.nan, 1.0]), ("me", "samia"): np.array([0.01, 0.02])}
    assert reading.strongest(found, "").attack == "samia"
    below = {("me", "samia"): np.array([-0.2, -0.1]), ("me", "zero"): np.array([np.nan, 1.0])}
    assert reading.strongest(below, "").attack == "samia"
    best = {("me", "gap"): np.array([0.9, 0.1]), ("me", "samia"): np.array([0.4, 0.5])}
    found = reading.strongest(best, "")
    assert found.attack == "gap" and found.values.tolist() == [0.9, 0.1]
    with pytest.raises(ValueError, match="auc of arm 'a': no attack was run"):
        reading.strongest({}, "auc of arm 'a'")


@pytest.mark.parametrize("adversary, name", [("", "samia"), ("naive", "samia, naive")])
def test_the_strongest_is_named_with_its_attacker(adversary, name):
    who = SimpleNamespace(columns={"adversary": adversary})
    assert reading.Strongest(who, "samia", np.zeros(2)).name == name


# Classes


def test_per_class_and_agreement_by_hand():
    shape = np.array([0.1, 0.2, 0.4])
    rows = [
        study.tidy_row("confidence_gap", value, target=target, class_=number)
        for target in range(3)
        for number, value in enumerate(shape + target)
    ]
    found = reading.by_class(rows, 3)
    assert found == pytest.approx(shape + np.arange(3)[:, None])
    assert study.agreement(found).value == study.agreement(found).high == 1.0  # alike but for a constant
    unmeasured = np.column_stack([found, [np.nan, 1.0, 2.0]])
    assert study.agreement(unmeasured) == study.agreement(found)  # that class is left out


def test_a_target_is_compared_with_the_mean_of_the_others():
    first = np.array([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [3.0, 2.0, 1.0]])
    second = np.array([[9.0, 6.0, 3.0], [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]])
    # the others' means by the second: (1.5, 3, 4.5), (5.5, 5, 4.5) and (5, 4, 3)
    assert study.correlations(second) == pytest.approx([-1.0, -1.0, -1.0])
    expected = pytest.approx([1.0, -0.5, 1.0])
    assert study.correlations(first, second) == expected
    assert study.agreement(first, second).value == pytest.approx(0.5)
    assert study.agreement(second).value == study.agreement(second).low == -1
    # a class that one target could not measure by either quantity is left out for all
    both = np.insert(first, 0, [np.nan, 7.0, 1.0], axis=1), np.insert(second, 0, 5.0, axis=1)
    both = np.insert(both[0], 4, 5.0, axis=1), np.insert(both[1], 4, [7.0, 1.0, np.nan], axis=1)
    assert study.correlations(*both) == expected
    assert study.agreement(*both) == study.agreement(first, second)


def noise(run, targets, classes):
    generator = streams.generator(run, "test noise of classes", targets, classes)
    return torch.randn(2, targets, classes, generator=generator).numpy()


def test_agreement_is_not_resolved_below_three_targets():
    for targets in (1, 2):
        found = study.agreement(noise(0, targets, 10)[0])
        assert all(math.isnan(end) for end in found) and found.p is None and found.paired == ""


def test_agreement_is_the_same_each_time_and_excludes_0_just_where_the_draws_decide():
    decided = 0
    for run in range(60):
        first, second = noise(run, 4, 8)
        shape = 0.8 * (run % 3 - 1) * np.array([1, -1, 1, -1, 1, -1, 1, -1])
        found = study.agreement(first + abs(shape), second + shape)
        again = study.agreement(first + abs(shape), second + shape)
        assert found == again and found.paired == ""
        found = study.agreement(first + shape, second + 2 * shape)
        assert found.low <= found.value <= found.high
        assert (found.p(0.0) <= 0.05) == (not found.low <= 0 <= found.high)
        decided += found.p(0.0) <= 0.05
        assert math.isnan(found.p(0.1))  # the draws speak of 0 only
    assert 10 < decided < 55


@pytest.mark.parametrize("run", range(3))
def test_the_ends_lie_as_far_away_as_49_of_1999_draws_go(run):
    """2.5 % of 2,000, with the value itself one of them; above for the lower end, below for the upper one; the farther way."""
    first, second = noise(run, 5, 30)
    found, by_chance = study.agreement(first, second), reading._by_chance(first, second)
    assert by_chance.shape == (2, 1999) and -1 < found.low < found.high < 1
    above, below = by_chance - (found.value - found.low), (found.value - found.high) - by_chance
    for beyond in (above, below):
        assert sorted((beyond > 1e-9).sum(1))[1] == 49 and (abs(beyond) <= 1e-9).sum() == 1


@pytest.mark.parametrize("value, p", [(1, 4 / 5), (2, 2 / 5), (-2, 4 / 5), (-1.5, 4 / 5), (0, 1), (-1, 1)])
def test_the_p_value_counts_what_is_as_far_out_by_hand(monkeypatch, value, p):
    monkeypatch.setattr(reading, "DRAWS", 4)
    wide, narrow = [-2, -1, 0, 1], [-0.5, -0.4, 0, 0.4]
    for by_chance in ([wide, wide], [wide, narrow], [narrow, wide]):  # the larger of the two counts
        found = reading._two_sided(value, np.array(by_chance), 0.0)
        assert found == pytest.approx(p) if value else found >= p


@pytest.mark.filterwarnings("error")
def test_a_target_whose_classes_are_alike_has_no_correlation():
    per_class = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [3.0, 5.0, 4.0]])
    assert np.isnan(study.correlations(per_class)).tolist() == [True, False, False]
    found = study.agreement(per_class)
    assert math.isnan(found.value) and found.p is None


def test_agreement_with_few_classes_cannot_be_decided():
    """Two classes have 2^3 orders in three targets: as they are, or all turned round, they agree in one of four."""
    found = study.agreement(np.array([[1.0, 2.0], [1.0, 3.0], [0.0, 1.0]]))
    assert found.value == 1.0 and found.low <= 0 and found.p(0.0) == pytest.approx(2 / 4, abs=0.05)


@pytest.mark.parametrize(("targets", "classes"), [(3, 10), (10, 10), (3, 30)])
@pytest.mark.parametrize("kind", coverage.CLASSES)
def test_agreement_is_rarely_found_in_noise(targets, classes, kind):
    [(above, below, runs)] = coverage.of_classes(kind, targets, classes, 60).values()
    assert runs == 60 and max(above, below) <= 0.03 + 3 * math.sqrt(0.03 * 0.97 / 60)


def test_agreement_of_unequal_classes_is_still_found():
    """Four targets share an order; a tenth class is measured badly."""
    scale = np.where(np.arange(10) < 9, 0.5, 3)
    found = [study.agreement(noise(run, 4, 10)[0] * scale + np.arange(10) / 3) for run in range(40)]
    assert np.mean([one.low > 0 for one in found]) > 0.7
