"""Tidy rows: every column of the contract, which rows are found, and means over seeds and targets by hand."""

import functools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from mialib import study
from mialib.measures import Estimate, metrics
from mialib.study import rows
from tests.measures.test_metrics import sample

CONTRACT = (
    "dataset model protocol knowledge compression level defense defense_strength adversary "
    "attacker_compression attacker_level variant attack class target seed metric value low "
    "high low_seeds high_seeds n_members n_nonmembers n_shadows"
)


def test_a_row_has_every_column_of_the_contract_in_order():
    row = study.tidy_row(
        "auc", Estimate(0.6, 0.5, 0.7), level=np.float64(0.7), class_=np.int64(3), target=torch.tensor(1)
    )
    assert list(row) == CONTRACT.split()
    assert (row["value"], row["low"], row["high"], row["level"], row["class"], row["target"]) == (
        *(0.6, 0.5, 0.7),
        *(0.7, 3, 1),
    )
    assert type(row["class"]) is int and row["dataset"] is None


def test_unknown_columns_get_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'compression'"):
        study.tidy_row("auc", 0.5, compresion="none")
    with pytest.raises(ValueError, match="column 'level' holds a list"):
        study.tidy_row("auc", 0.5, level=[0.5, 0.7])


def test_attack_rows_hold_the_four_metrics_and_the_counts():
    member, margin = sample(n=500)
    rows = study.attack_rows(member, margin, attack="samia", target=0, seed=0)
    assert [row["metric"] for row in rows] == ["balanced_accuracy", "auc", "tpr_at_0.01", "tpr_at_0.001"]
    assert {(row["n_members"], row["n_nonmembers"]) for row in rows} == {(member.sum(), (~member).sum())}
    assert rows[1]["value"] == metrics.auc(member, margin).value
    assert math.isnan(rows[3]["value"])  # about 300 non-members cannot show 0.1%


def test_attack_rows_hold_the_measures_the_caller_names():
    member, margin = sample(n=500)
    measures = {"auc": metrics.auc, "tpr_at_0.05": functools.partial(metrics.tpr_at_fpr, max_fpr=0.05)}
    rows = study.attack_rows(member, margin, measures, attack="samia")
    assert [row["metric"] for row in rows] == ["auc", "tpr_at_0.05"]
    expected = metrics.tpr_at_fpr(member, margin, 0.05)
    assert (rows[1]["value"], rows[1]["low"], rows[1]["high"]) == expected
    assert {(row["attack"], row["n_members"]) for row in rows} == {("samia", member.sum())}


@pytest.mark.parametrize(
    "level, control",
    [(None, False), (math.nan, False), (0, True), (0.5, False), (1, False), (8, False), (32.0, True)],
)
def test_nothing_is_compressed_at_sparsity_0_and_32_bits(level, control):
    assert rows.is_control(level) is control


def test_class_rows_compare_the_members_of_a_class_with_its_others():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    member = np.array([1, 1, 0, 0, 1, 0, 1, 1], dtype=bool)
    margin = np.array([3.0, -2.0, 2.0, -3.0, 1.0, 1.0, 9.0, 9.0])
    measured = {"auc": metrics.auc, "balanced_accuracy": metrics.balanced_accuracy}
    found = rows.class_rows(member, margin, labels, 4, measured, attack="samia", target=0)
    value = {(row["metric"], row["class"]): row["value"] for row in found}
    # class 2 has only members, and nobody is in class 3
    assert {key: v for key, v in value.items() if not math.isnan(v)} == {
        ("auc", 0): 0.75, ("auc", 1): 0.5, ("balanced_accuracy", 0): 0.5, ("balanced_accuracy", 1): 0.5
    }  # fmt: skip
    assert len(found) == 8 and {row["seed"] for row in found} == {None}


def test_aggregate_by_hand():
    def auc(value, target, seed, n_members=10, **columns):
        return study.tidy_row(
            "auc", value, target=target, seed=seed, n_members=n_members, n_nonmembers=9, **columns
        )

    rows = [
        auc(Estimate(0.6, 0.5, 0.7), 0, 0, attack="nn"),
        auc(0.8, 0, 1, attack="nn"),
        auc(0.9, 0, 0, attack="samia"),
        auc(0.5, 1, 0, attack="nn", n_members=11),
    ]
    nn, samia = study.aggregate(rows)
    # target 0: (0.6 + 0.8) / 2 = 0.7; target 1: 0.5; mean 0.6, sd 0.1 * sqrt(2)
    half = stats.t.ppf(0.975, 1) * 0.1
    assert nn["attack"] == "nn" and samia["attack"] == "samia"
    assert nn["value"] == pytest.approx(0.6)
    assert (nn["low_seeds"], nn["high_seeds"]) == pytest.approx((0.6 - half, 0.6 + half))
    for column in ("target", "seed", "low", "high", "n_members"):
        assert nn[column] is None, column
    assert nn["n_nonmembers"] == 9 and samia["n_members"] == 10
    assert samia["value"] == 0.9 and samia["low_seeds"] is None
    assert list(nn) == CONTRACT.split()


def test_aggregate_keeps_unresolved_and_refuses_doubles():
    rows = [
        study.tidy_row("tpr_at_0.01", value, target=target) for target, value in enumerate((0.2, math.nan))
    ]
    assert study.aggregate(rows)[0]["value"] is None
    with pytest.raises(ValueError, match="two rows measure tpr_at_0.01"):
        study.aggregate(rows + rows)


def test_table_filters():
    rows = [
        study.tidy_row("auc", level, level=level, attack=attack)
        for level in (0.0, 0.5)
        for attack in ("nn", "gap")
    ]
    assert len(study.table(rows)) == 4
    assert study.table(rows, attack="nn")["value"].tolist() == [0.0, 0.5]
    assert len(study.table(rows, attack=["nn", "gap"], level=0.5)) == 2
    with pytest.raises(ValueError, match="did you mean 'attack'"):
        study.table(rows, atack="nn")


@pytest.mark.parametrize(
    "where, found",
    [
        ({}, [0, 1, 2, 3]),
        ({"level": None}, [0, 3]),
        ({"level": [None, 0.7]}, [0, 2, 3]),
        ({"level": {0.5, 0.7}, "class_": 1}, [1]),
        ({"class": 1}, [1, 3]),
        ({"metric": "epsilon"}, []),
    ],
    ids=str,
)
def test_select_finds_the_rows_of_the_table(where, found):
    rows = [
        study.tidy_row("auc", number / 10, level=level, class_=number % 2)
        for number, level in enumerate((None, 0.5, 0.7, None))
    ]
    assert study.select(rows, **where) == [rows[i] for i in found]
    assert study.table(rows, **where)["value"].tolist() == [rows[i]["value"] for i in found]


def test_select_names_the_nearest_column():
    with pytest.raises(ValueError, match="did you mean 'class'"):
        study.select([study.tidy_row("auc", 0.5)], clas=1)
