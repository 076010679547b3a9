"""Reading the results table: which rows count, and every number by hand."""

import math

import numpy as np
import pytest

from mialib import reporting, study
from mialib.measures import Estimate
from mialib.reporting import tables

ORIGINAL = {"compression": "none", "defense": "none"}
PRUNED = {"compression": "l1_unstructured", "level": 0.7, "defense": "none"}


def rows_of(values, metric="auc", **columns):
    """Rows of one setting; `values`: of each target one number, or a list of one for each training."""
    return [
        study.tidy_row(metric, value, **columns, target=target, seed=seed)
        for target, trainings in enumerate(values)
        for seed, value in enumerate(trainings if isinstance(trainings, list) else [trainings])
    ]


def test_select_finds_the_rows_of_the_table():
    rows = [
        study.tidy_row("auc", number / 10, level=level, class_=number % 2)
        for number, level in enumerate((None, 0.5, 0.7, None))
    ]
    for where, found in (
        ({}, [0, 1, 2, 3]),
        ({"level": None}, [0, 3]),
        ({"level": [None, 0.7]}, [0, 2, 3]),
        ({"level": {0.5, 0.7}, "class_": 1}, [1]),
        ({"class": 1}, [1, 3]),
        ({"metric": "epsilon"}, []),
    ):
        assert study.select(rows, **where) == [rows[i] for i in found]
        assert study.table(rows, **where)["value"].tolist() == [rows[i]["value"] for i in found]
    with pytest.raises(ValueError, match="did you mean 'class'"):
        study.select(rows, clas=1)


# One number a target


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


# Differences, and tables of attacks


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


def test_signed_by_hand():
    assert tables.signed(Estimate(0.0124, -0.0031, 0.0279)) == "+0.012 [-0.003, +0.028]"
    assert tables.signed(Estimate(-1.0, -1.25, -0.75)) == "-1.000 [-1.250, -0.750]"


def test_attacks_and_differences_have_a_line_for_every_attack():
    rows = rows_of([0.5, 0.6], attack="samia", **ORIGINAL) + rows_of([0.6, 0.8], attack="samia", **PRUNED)
    rows += rows_of([0.5, 0.5], attack="gap", **ORIGINAL) + rows_of([0.5, 0.5], attack="gap", **PRUNED)
    rows += rows_of([0.1, 0.1], "tpr_at_0.01", attack="lira", **PRUNED)  # not measured by its AUC
    rows += rows_of([0.7, 0.7], "test_accuracy", **PRUNED)
    table = tables.attacks(rows, {"a": ORIGINAL, "b": PRUNED}, "auc")
    assert table.index.tolist() == ["samia", "gap"] and table.columns.tolist() == ["a", "b"]
    assert table.loc["samia"].tolist() == pytest.approx([0.55, 0.7])
    assert table.loc["gap"].tolist() == [0.5, 0.5]
    signed = tables.differences(rows, {"b - a": (ORIGINAL, PRUNED)}, "auc")
    assert signed.index.tolist() == ["samia", "gap"]
    assert signed.loc["samia", "b - a"].startswith("+0.150 [")
    assert signed.loc["gap", "b - a"] == "+0.000 [+0.000, +0.000]"


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


# What a setting is worth


def test_models_has_a_line_for_each_setting_and_variant():
    settings = [ORIGINAL, ORIGINAL | {"variant": "longer"}, PRUNED]
    rows = []
    for number, setting in enumerate(settings):
        rows += rows_of([0.75 + number, 0.25 + number], "test_accuracy", **setting)
        rows += rows_of([10 - number, 20 - number], "nonzero_parameters", **setting)
        rows += rows_of([40, 60], "sparse_bytes", **setting)
        rows += rows_of([0.99, 0.99], attack="samia", **setting)
        rows += rows_of([0.99, 0.99], "reserve_accuracy", **setting)
    table = tables.models(rows)
    assert table.index.tolist() == ["original", "longer", "l1_unstructured 0.7"]
    assert table["test_accuracy"].tolist() == [0.5, 1.5, 2.5]
    assert table["nonzero_parameters"].tolist() == [15, 14, 13]
    assert table["sparse_bytes"].tolist() == [50, 50, 50]
    # what does not apply to any setting, and what is not about the model, has no column
    assert table.columns.tolist() == ["nonzero_parameters", "sparse_bytes", "test_accuracy"]


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


PPB = {
    f"ppb {strength:g}": {"defense": "ppb", "defense_strength": strength} for strength in (16.0, 128.0, 2.0)
}


def reserve_rows():
    """The base has 0.8; the settings cost 0.2 (ppb 128), 0.02 (ppb 16) and, though weaker, 0.03 (ppb 2)."""
    rows = rows_of([0.9, 0.7], "reserve_accuracy", defense="none")
    for name, values in (("ppb 128", [0.7, 0.5]), ("ppb 16", [0.9, 0.66]), ("ppb 2", [0.85, 0.69])):
        rows += rows_of(values, "reserve_accuracy", **PPB[name])
    return rows


@pytest.mark.parametrize(
    ("slack", "expected"),
    [
        (0.5, "ppb 128"),  # the strongest, neither the cheapest nor the first or last named
        (0.05, "ppb 16"),
        (0.025, "ppb 16"),
        (0.01, "ppb 16"),  # none is cheap enough: the cheapest, not the weakest
    ],
)
def test_the_operating_point_is_the_strongest_setting_within_the_slack(slack, expected):
    assert study.operating_point(reserve_rows(), PPB, {"defense": "none"}, slack) == expected


def test_an_unresolved_attack_is_never_the_strongest():
    rows = rows_of([None, None], "tpr_at_0.01", attack="gap")
    rows += rows_of([0.01, 0.02], "tpr_at_0.01", attack="samia")
    assert study.strongest(rows, "tpr_at_0.01")[0] == "samia"


def test_a_cost_of_exactly_the_slack_is_fair():
    base = {"defense": "none"}
    weak, strong = ({"defense": "ppb", "defense_strength": s} for s in (1.0, 4.0))
    rows = rows_of([0.90, 0.90], "reserve_accuracy", **base)
    rows += rows_of([0.90, 0.90], "reserve_accuracy", **weak)
    rows += rows_of(
        [0.88, 0.88], "reserve_accuracy", **strong
    )  # 0.9 - 0.88 is a little more than 0.02 in binary
    assert study.operating_point(rows, {"weak": weak, "strong": strong}, base, 0.02) == "strong"
    unknown = rows_of([None, 0.88], "reserve_accuracy", **base) + rows[2:]
    with pytest.raises(ValueError, match="reserve accuracy, which was not measured"):
        study.operating_point(unknown, {"weak": weak}, base, 0.02)


def test_a_gain_is_no_cost():
    rows = reserve_rows() + rows_of([1.0, 1.0], "reserve_accuracy", defense="ppb", defense_strength=1.0)
    settings = PPB | {"ppb 1": {"defense": "ppb", "defense_strength": 1.0}}
    assert study.operating_point(rows, settings, {"defense": "none"}, 0.0) == "ppb 1"


def test_test_examples_and_attacks_have_no_say_in_the_operating_point():
    rows = reserve_rows()
    for setting in ({"defense": "none"}, *PPB.values()):
        # by any of these, ppb 2 costs most and hides least, and ppb 128 costs nothing
        value = 0.0 if setting.get("defense_strength") == 2.0 else 0.9
        rows += rows_of([value, value], "test_accuracy", **setting)
        rows += rows_of([1 - value, 1 - value], "generalization_gap", **setting)
        for adversary in (None, "adaptive", "unaware"):
            rows += rows_of([1 - value, 1 - value], attack="samia", **setting, adversary=adversary)
    only = {name: PPB[name] for name in ("ppb 128", "ppb 2")}
    assert study.operating_point(rows, only, {"defense": "none"}, 0.05) == "ppb 2"


def test_protection_shows_both_attackers_of_a_defence():
    dp = {"defense": "dp_sgd", "defense_strength": 2.0}
    settings = {
        "basic": {"defense": "none", "variant": None},
        "group norm": {"defense": "none", "variant": "group norm"},
        "dp": dp | {"variant": "whole pipeline"},
    }
    found = {
        # attack: without a defence, the same with GroupNorm, adaptive, unaware
        "gap": (0.6, 0.61, 0.55, 0.55),
        "confidence": (0.7, 0.71, 0.56, 0.5),
        "nn": (0.65, 0.81, 0.57, 0.62),  # strongest on "group norm"; on "dp" by who ignores the defence
        "samia": (0.8, 0.72, 0.59, 0.51),
    }
    rows = rows_of([1.0, 1.0], "test_accuracy", **dp, variant="fine-tuning only")
    rows += rows_of([1.0, 1.0], attack="nn", **dp, adversary="adaptive", variant="fine-tuning only")
    for number, setting in enumerate(settings.values()):
        rows += rows_of([0.9 - number / 10, 0.7 - number / 10], "test_accuracy", **setting)
        rows += rows_of([0.1, 0.2 + number / 10], "generalization_gap", **setting)
    who = [
        *(settings["basic"], settings["group norm"]),
        *(settings["dp"] | {"adversary": kind} for kind in ("adaptive", "unaware")),
    ]
    for attack, values in found.items():
        for setting, value in zip(who, values, strict=True):
            rows += rows_of([value - 0.1, value + 0.1], attack=attack, **setting)
    table = tables.protection(rows, settings)
    assert table.columns.tolist() == [
        *("test accuracy", "train - test", "strongest attack", "it is", "gap", "confidence", "samia")
    ]
    assert table.index.tolist() == list(settings)
    assert table.loc["basic"].tolist() == [
        *("0.800", "0.150", "0.800", "samia"),
        *("0.600", "0.700", "0.800"),
    ]
    assert table.loc["group norm"].tolist() == [
        *("0.700", "0.200", "0.810", "nn"),
        *("0.610", "0.710", "0.720"),
    ]
    assert table.loc["dp"].tolist() == [
        *("0.600", "0.250", "0.620", "nn, unaware"),
        *("0.550 (0.550)", "0.560 (0.500)", "0.590 (0.510)"),
    ]


def test_knowledge_has_targets_as_rows_and_beliefs_as_columns():
    settings = {
        name: {"compression": compression, "level": level}
        for name, compression, level in (("a", "l1_unstructured", 0.5), ("b", "l1_unstructured", 0.7),
                                         ("c", "l1_filter", 0.5))
    }  # fmt: skip
    rows = []
    for i, (target, columns) in enumerate(settings.items()):
        for j, (believed, other) in enumerate(settings.items()):
            value = 0.5 + i / 10 + j / 100
            belief = {f"attacker_{name}": other[name] for name in other} if believed != target else {}
            rows += rows_of([value - 0.1, value + 0.1], attack="samia", **columns, **belief)
            rows += rows_of([0.0, 0.0], attack="nn", **columns, **belief)
            rows += rows_of([0.0, 0.0], "balanced_accuracy", attack="samia", **columns, **belief)
    table = tables.knowledge(rows, settings, "samia", "auc")
    assert table.index.tolist() == table.columns.tolist() == ["a", "b", "c"]
    assert table.loc["a"].tolist() == pytest.approx([0.5, 0.51, 0.52])
    assert table.loc["b"].tolist() == pytest.approx([0.6, 0.61, 0.62])
    assert table.loc["c"].tolist() == pytest.approx([0.7, 0.71, 0.72])


# The headline


def headline_lines(rows, claims=()):
    """The headline's lines, runs of spaces made one; as in a notebook, aggregates come with the rows."""
    text = tables.headline({"rows": rows + study.aggregate(rows), "claims": list(claims)})
    return [" ".join(line.split()) for line in text.splitlines()]


def test_headline_shows_every_attack_in_every_setting_and_the_verdicts():
    ppb = PRUNED | {"defense": "ppb", "defense_strength": 4.0}
    dp = PRUNED | {"defense": "dp_sgd", "defense_strength": 0.5, "variant": "fine-tuning only"}
    stopped = PRUNED | {"defense": "early_stopping"}
    settings = {
        "original": ORIGINAL,
        "control": PRUNED | {"level": 0.0},
        "l1_unstructured 0.7": PRUNED,
        "longer": ORIGINAL | {"variant": "longer"},
        "ppb 4 adaptive": ppb | {"adversary": "adaptive"},
        "ppb 4 unaware": ppb | {"adversary": "unaware"},
        "dp_sgd 0.5 fine-tuning only adaptive": dp | {"adversary": "adaptive"},
        "early_stopping unaware": stopped | {"adversary": "unaware"},
    }
    rows = []
    for number, setting in enumerate(settings.values()):
        value = 0.501 + number / 100
        rows += rows_of([value - 0.1, value + 0.1], attack="gap", **setting)
        rows += rows_of([[value, value + 0.2], value + 0.1], attack="samia", **setting)
        rows += rows_of([0.9, 0.9], "balanced_accuracy", attack="samia", **setting)
        rows += rows_of([0.9, 0.9], attack="confidence_global", **setting)
    claim = dict(claim="pruning leaks", source="us", paper="", ours="+0.1", verdict="reproduced")
    lines = headline_lines(rows, [claim])
    assert lines[2:-3] == [
        "attack gap samia",
        *(f"{name} {0.501 + i / 100:.3f} {0.601 + i / 100:.3f}" for i, name in enumerate(settings)),
    ]
    assert lines[0].startswith("AUC of each attack") and lines[-2:] == [
        "Verdicts",
        "pruning leaks reproduced +0.1",
    ]


def test_headline_leaves_out_classes_and_wrong_beliefs():
    rows = rows_of([0.5, 0.6], attack="samia", **PRUNED)
    before = headline_lines(rows)
    rows += rows_of([0.9, 0.9], attack="samia", class_=0, **PRUNED)
    rows += rows_of(
        [0.9, 0.9], attack="samia", attacker_compression="l1_filter", attacker_level=0.7, **PRUNED
    )
    assert headline_lines(rows) == before and "l1_unstructured 0.7 0.55" in before


def test_headline_keeps_the_two_kinds_of_attacker_apart():
    rows = rows_of([0.6, 0.7], attack="gap", **PRUNED | {"knowledge": "shadow"})
    rows += rows_of([0.8, 0.9], attack="gap", **PRUNED | {"knowledge": "known_members"})
    lines = headline_lines(rows)
    assert "l1_unstructured 0.7 0.65" in lines and "l1_unstructured 0.7, known members 0.85" in lines


def test_headline_of_a_run_without_attacks_shows_its_models():
    rows = rows_of([0.9, 0.8], "test_accuracy", **ORIGINAL) + rows_of([0.7, 0.6], "test_accuracy", **PRUNED)
    lines = headline_lines(rows)
    assert lines[0] == "Models, mean over them" and lines[-1] == "Verdicts"
    assert "original 0.85" in lines and "l1_unstructured 0.7 0.65" in lines


def test_headline_of_a_saved_run_is_that_of_its_rows(tmp_path):
    rows = rows_of([0.5, math.nan], attack="gap", **ORIGINAL) + rows_of([0.7, 0.8], attack="nn", **ORIGINAL)
    path = reporting.save(
        tmp_path / "metrics.json", notebook="n", run="r", parameters={}, provenance={}, rows=rows, claims=[]
    )
    assert tables.headline(reporting.load(path)) == tables.headline({"rows": rows, "claims": []})
