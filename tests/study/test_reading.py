"""Reading the results table: which rows count, and every number by hand."""

import math

import numpy as np
import pytest

from mialib import study

ORIGINAL = {"compression": "none", "defense": "none"}


PRUNED = {"compression": "l1_unstructured", "level": 0.7, "defense": "none"}


def rows_of(values, metric="auc", **columns):
    """Rows of one setting; `values`: of each target one number, or a list of one for each training."""
    return [
        study.tidy_row(metric, value, **columns, target=target, seed=seed)
        for target, trainings in enumerate(values)
        for seed, value in enumerate(trainings if isinstance(trainings, list) else [trainings])
    ]


# One number a target, and differences


def test_by_target_averages_the_trainings_first():
    rows = rows_of([[0.5, 0.7], [0.8, 0.9]], level=0.0)
    assert study.by_target(rows, level=0.0) == pytest.approx([0.6, 0.85])
    assert study.by_target(rows[::-1], level=0.0) == pytest.approx([0.6, 0.85])  # by number, not by place
    with pytest.raises(ValueError, match="no row of the table has {'level': 0.3}"):
        study.by_target(rows, level=0.3)


def test_by_target_keeps_what_is_unresolved():
    assert np.isnan(study.by_target(rows_of([None, 0.6]))).tolist() == [True, False]
    # one training of target 0 is not resolved: the mean of the other would flatter
    assert np.isnan(study.by_target(rows_of([[None, 0.9], [0.5, 0.6]]))).tolist() == [True, False]


@pytest.mark.parametrize(
    "special",
    [
        {"class": 0},
        {"class_": 0},
        {"variant": "longer"},
        {"attacker_compression": "l1_filter"},
        {"attacker_level": 0.5},
    ],
    ids=str,
)
def test_what_is_special_counts_only_if_named(special):
    rows = rows_of([0.9, 1.0], **PRUNED, **special)
    with pytest.raises(ValueError, match="no row"):
        study.by_target(rows, **PRUNED)
    rows += rows_of([0.5, 0.6], **PRUNED)
    assert study.by_target(rows, **PRUNED) == pytest.approx([0.5, 0.6])
    assert study.by_target(rows, **PRUNED, **special) == pytest.approx([0.9, 1.0])
    assert study.difference(rows, PRUNED, PRUNED | special).value == pytest.approx(0.4)


def test_difference_is_b_minus_a_with_an_interval_over_the_targets():
    rows = rows_of([0.5, 0.6, 0.55], level=0.0) + rows_of([0.6, 0.75, 0.65], level=0.7)
    found = study.difference(rows, {"level": 0.0}, {"level": 0.7}, metric="auc")
    values = np.array([0.1, 0.15, 0.1])
    half = 4.302653 * values.std(ddof=1) / math.sqrt(3)  # Student's t with two degrees of freedom
    assert found == pytest.approx((values.mean(), values.mean() - half, values.mean() + half), abs=1e-6)
    alone = [row for row in rows if row["target"] == 0]
    assert math.isnan(study.difference(alone, {"level": 0.0}, {"level": 0.7}).low)


def test_a_difference_needs_the_same_targets():
    rows = rows_of([0.5, 0.6], level=0.0) + rows_of([0.6, 0.75, 0.65], level=0.7)
    with pytest.raises(ValueError, match=r"targets differ: \[0, 1\] of .*, \[0, 1, 2\]"):
        study.difference(rows, {"level": 0.0}, {"level": 0.7})


# Classes


def test_per_class_and_agreement_by_hand():
    shape = np.array([0.1, 0.2, 0.4])
    rows = [
        study.tidy_row("confidence_gap", value, target=target, class_=number)
        for target in range(3)
        for number, value in enumerate(shape + target)
    ]
    rows += rows_of([9.0, 9.0, 9.0], "confidence_gap")  # overall
    found = study.values_by_class(rows, 3, metric="confidence_gap")
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


# The strongest attack


def test_the_strongest_attack_has_the_highest_mean_over_targets():
    rows = rows_of([0.9, 0.5], attack="gap", **PRUNED)  # the best on one target
    rows += rows_of([[0.7, 0.9], [0.7, 0.7]], attack="samia", **PRUNED)
    rows += rows_of([0.8, 0.6], attack="nn", **PRUNED)
    rows += rows_of([1.0, 1.0], attack="gap", **ORIGINAL)  # another setting
    rows += rows_of([1.0, 1.0], attack="nn", class_=0, **PRUNED)  # one class
    rows += rows_of([0.6, 0.7], "balanced_accuracy", attack="nn", **PRUNED)
    name, values = study.strongest(rows, **PRUNED)
    assert name == "samia" and values == pytest.approx([0.8, 0.7])
    name, values = study.strongest(rows, "balanced_accuracy", **PRUNED)
    assert name == "nn" and values == pytest.approx([0.6, 0.7])


def test_an_unresolved_attack_is_never_the_strongest():
    rows = rows_of([None, None], "tpr_at_0.01", attack="gap")
    rows += rows_of([0.01, 0.02], "tpr_at_0.01", attack="samia")
    assert study.strongest(rows, "tpr_at_0.01")[0] == "samia"


def test_by_attack_has_the_targets_of_each_attack_of_a_setting():
    rows = rows_of([[0.5, 0.7], 0.8], attack="samia", **PRUNED) + rows_of([0.5, None], attack="gap", **PRUNED)
    rows += rows_of([0.9, 0.9], "test_accuracy", **PRUNED)  # of no attack
    rows += rows_of([0.1, 0.1], attack="nn", **ORIGINAL)
    found = study.by_attack(rows[::-1], **PRUNED)
    assert found.keys() == {"samia", "gap"}
    assert found["samia"] == pytest.approx([0.6, 0.8])
    assert found["gap"] == pytest.approx([0.5, np.nan], nan_ok=True)
    with pytest.raises(ValueError, match="no row of the table has"):
        study.by_attack(rows, "balanced_accuracy", **PRUNED)


def test_of_several_adversaries_the_best_attack_of_any_counts():
    ppb = {"defense": "ppb", "defense_strength": 4.0}
    rows = rows_of([0.7, 0.7], attack="gap", adversary="adaptive", **ppb)
    rows += rows_of([0.6, 0.6], attack="samia", adversary="adaptive", **ppb)
    rows += rows_of([0.6, 0.9], attack="samia", adversary="unaware", **ppb)
    name, values = study.strongest(rows, "auc", study.adversaries(ppb), **ppb)
    assert name == "samia, unaware" and values == pytest.approx([0.6, 0.9])
    name, values = study.strongest(rows, "auc", ["adaptive"], **ppb)
    assert name == "gap, adaptive" and values == pytest.approx([0.7, 0.7])


def test_only_what_is_defended_meets_two_adversaries():
    assert study.adversaries(ORIGINAL) == [None]
    assert study.adversaries({"defense": "ppb"}) == ["adaptive", "unaware"]
