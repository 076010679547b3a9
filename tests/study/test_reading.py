"""Reading rows: every number by hand."""

import numpy as np
import pytest

from mialib import study
from mialib.measures import Estimate
from mialib.study import Difference, reading


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
    assert repr(found) == "+0.1000 [+0.0000, +0.2000], paired by example"


def test_the_strongest_is_not_what_is_unresolved():
    found = {("me", "gap"): np.array([np.nan, 1.0]), ("me", "samia"): np.array([0.01, 0.02])}
    assert reading.strongest(found, "").attack == "samia"
    with pytest.raises(ValueError, match="auc of arm 'a': no attack was run"):
        reading.strongest({}, "auc of arm 'a'")


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
    assert study.agreement(found).value == pytest.approx(1.0)  # alike but for a constant
    unmeasured = np.column_stack([found, [np.nan, 1.0, 2.0]])
    assert study.agreement(unmeasured).value == pytest.approx(1.0)  # that class is left out


def test_a_target_is_compared_with_the_mean_of_the_others():
    first = np.array([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [3.0, 2.0, 1.0]])
    second = np.array([[9.0, 6.0, 3.0], [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]])
    # the others' means by the second: (1.5, 3, 4.5), (5.5, 5, 4.5) and (5, 4, 3)
    assert study.correlations(second) == pytest.approx([-1.0, -1.0, -1.0])
    expected = pytest.approx([1.0, -0.5, 1.0])
    assert study.correlations(first, second) == expected
    assert study.agreement(first, second).value == pytest.approx(0.5)
    # a class that one target could not measure by either quantity is left out for all
    both = np.insert(first, 0, [np.nan, 7.0, 1.0], axis=1), np.insert(second, 0, 5.0, axis=1)
    both = np.insert(both[0], 4, 5.0, axis=1), np.insert(both[1], 4, [7.0, 1.0, np.nan], axis=1)
    assert study.correlations(*both) == expected
