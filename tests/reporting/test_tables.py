"""Tables for the eye, every number by hand."""

import math

import pytest

from mialib import reporting, study
from mialib.measures import Estimate
from mialib.reporting import tables
from tests.study.test_reading import ORIGINAL, PRUNED, rows_of

# Tables of attacks


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
