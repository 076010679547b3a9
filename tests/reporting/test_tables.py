"""Tables for the eye, every number by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mialib import reporting, study
from mialib.asking import Views
from mialib.attacks import threshold
from mialib.data import Dataset, Splits, splits
from mialib.measures import Estimate
from mialib.reporting import tables
from mialib.study import Study
from tests.study.conftest import Made
from tests.study.test_reading import rows_of

ORIGINAL = {"compression": "none", "level": None, "defense": "none"}
PRUNED = {"compression": "l1_unstructured", "level": 0.7, "defense": "none"}


@pytest.fixture
def made():
    return Made()


# Tables of attacks


def test_signed_by_hand():
    assert tables.signed(Estimate(0.0124, -0.0031, 0.0279)) == "+0.012 [-0.003, +0.028]"
    assert tables.signed(Estimate(-1.0, -1.25, -0.75)) == "-1.000 [-1.250, -0.750]"


def names(*attacks):
    """A suite whose attacks all find nothing, for numbers that are noted by hand."""
    return dict.fromkeys(attacks, threshold.gap)


def test_attacks_have_a_line_each_and_arms_a_column(made):
    original, pruned = made.made("a"), made.made("b", label="70 % pruned")
    made.attack(names("samia", "gap", "lira"), [original], measures={})
    for arm, *values in ((original, [0.5, 0.6], [0.5, 0.5]), (pruned, [0.6, 0.8], [0.4, 0.5])):
        for attack, found in zip(("samia", "gap"), values, strict=True):
            made.note(arm, "auc", found, attack)
    made.note(original, "auc", [0.9, 0.9], "lira")
    table = tables.attacks(made, [original, pruned], "auc", ["samia", "gap"])
    assert table.index.tolist() == ["SAMIA", "gap"] and table.columns.tolist() == ["a", "70 % pruned"]
    assert table.loc["SAMIA"].tolist() == pytest.approx([0.55, 0.7])
    assert table.loc["gap"].tolist() == pytest.approx([0.5, 0.45])
    every = tables.attacks(made, iter([original]), "auc")  # all that were run on the first
    assert every["a"].to_dict() == pytest.approx({"SAMIA": 0.55, "gap": 0.5, "lira": 0.9})


def test_differences_are_the_first_minus_the_second(made):
    original, pruned = made.made("a"), made.made("b", defends=True)
    unaware = made.attacker(pruned, believing=original)
    for who, *values in ((original, [0.5, 0.6]), (pruned, [0.6, 0.8]), (unaware, [0.7, 0.7])):
        made.note(who, "auc", *values, "samia")
    pairs = {"b - a": (pruned, original), "a - b": (original, pruned), "unaware": (unaware, original)}
    table = tables.differences(made, pairs, "auc", ["samia"])
    half = stats.t.ppf(0.975, 1) * 0.05  # differences of 0.1 and 0.2
    assert table.loc["SAMIA", "b - a"] == f"+0.150 [{0.15 - half:+.3f}, {0.15 + half:+.3f}]"
    assert table.loc["SAMIA", "a - b"] == f"-0.150 [{-0.15 - half:+.3f}, {-0.15 + half:+.3f}]"
    assert table.loc["SAMIA", "unaware"].startswith("+0.150 [")
    same = tables.differences(made, {"none": (pruned, pruned)}, "auc", ["samia"])
    assert same.loc["SAMIA", "no defence"] == "+0.000 [+0.000, +0.000]"
    believing = tables.differences(made, {"b": (pruned, pruned)}, "auc", ["samia"], believing=original)
    assert believing.loc["SAMIA", "b"] == "+0.000 [+0.000, +0.000]"


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
    assert table.index.tolist() == ["original", "longer", "magnitude pruning 0.7"]
    assert table["test accuracy"].tolist() == [0.5, 1.5, 2.5]
    assert table["nonzero parameters"].tolist() == [15, 14, 13]
    assert table["sparse bytes"].tolist() == [50, 50, 50]
    # what does not apply to any setting, and what is not about the model, has no column
    assert table.columns.tolist() == ["nonzero parameters", "sparse bytes", "test accuracy"]


def test_protection_shows_both_attackers_of_a_defence(made):
    basic, norm = made.made("basic"), made.made("group norm", variant="group norm")
    dp = made.made("dp", defense="dp_sgd", defense_strength=2.0, variant="whole pipeline")
    found = {
        # attack: without a defence, the same with GroupNorm, adaptive, unaware
        "gap": (0.6, 0.61, 0.55, 0.55),
        "confidence": (0.7, 0.71, 0.56, 0.5),
        "nn": (0.65, 0.81, 0.57, 0.62),  # strongest on "group norm"; on "dp" by who ignores the defence
        "samia": (0.8, 0.72, 0.59, 0.51),
    }
    made.attack(names(*found), measures={})
    made.attack(names(*found), [dp], believing=basic, measures={})
    for number, arm in enumerate((basic, norm, dp)):
        made.note(arm, "test_accuracy", [0.9 - number / 10, 0.7 - number / 10])
        made.note(arm, "generalization_gap", [0.1, 0.2 + number / 10])
    for attack, values in found.items():
        for who, value in zip((basic, norm, dp, made.attacker(dp, basic)), values, strict=True):
            made.note(who, "auc", [value - 0.1, value + 0.1], attack)
    table = tables.protection(made, made.arms.values())
    assert table.columns.tolist() == [
        *("test accuracy", "train - test", "AUC of the strongest attack", "which is"),
        *("AUC of gap", "AUC of confidence", "AUC of SAMIA"),
    ]
    assert table.index.tolist() == ["basic", "group norm", "dp"]
    assert table.loc["basic"].tolist() == [
        *("0.800", "0.150", "0.800", "SAMIA"),
        *("0.600", "0.700", "0.800"),
    ]
    assert table.loc["group norm"].tolist() == [
        *("0.700", "0.200", "0.810", "neural network"),
        *("0.610", "0.710", "0.720"),
    ]
    assert table.loc["dp"].tolist() == [
        *("0.600", "0.250", "0.620", "neural network, unaware"),
        *("0.550 (0.550)", "0.560 (0.500)", "0.590 (0.510)"),
    ]


def test_knowledge_has_targets_as_rows_and_beliefs_as_columns(made):
    ways = (("a", "l1_unstructured", 0.5), ("b", "l1_unstructured", 0.7), ("c", "l1_filter", 0.5))
    arms = [made.made(key, compression=method, level=level) for key, method, level in ways]
    for i, arm in enumerate(arms):
        for j, believed in enumerate(arms):
            value, who = 0.5 + i / 10 + j / 100, made.attacker(arm, believed)
            made.note(who, "auc", [value - 0.1, value + 0.1], "samia")
            made.note(who, "auc", [0.0, 0.0], "nn")
            made.note(who, "balanced_accuracy", [0.0, 0.0], "samia")
    table = tables.knowledge(made, iter(arms), "samia", "auc")
    assert table.index.tolist() == table.columns.tolist() == ["a", "b", "c"]
    assert table.loc["a"].tolist() == pytest.approx([0.5, 0.51, 0.52])
    assert table.loc["b"].tolist() == pytest.approx([0.6, 0.61, 0.62])
    assert table.loc["c"].tolist() == pytest.approx([0.7, 0.71, 0.72])


# The headline


def headline_lines(rows, claims=None):
    """The headline's lines, runs of spaces made one; as in saved results, aggregates come with the rows."""
    text = tables.headline({"rows": rows + study.aggregate(rows), "claims": claims or {}})
    return [" ".join(line.split()) for line in text.splitlines()]


def test_headline_shows_every_attack_in_every_setting_and_the_verdicts():
    ppb = PRUNED | {"defense": "ppb", "defense_strength": 4.0}
    dp = PRUNED | {"defense": "dp_sgd", "defense_strength": 0.5, "variant": "fine-tuning only"}
    stopped = PRUNED | {"defense": "early_stopping"}
    settings = {
        "original": ORIGINAL,
        "control": PRUNED | {"level": 0.0},
        "magnitude pruning 0.7": PRUNED,
        "longer": ORIGINAL | {"variant": "longer"},
        "PPB 4 adaptive": ppb | {"adversary": "adaptive"},
        "PPB 4 unaware": ppb | {"adversary": "unaware"},
        "DP-SGD 0.5 fine-tuning only adaptive": dp | {"adversary": "adaptive"},
        "early stopping unaware": stopped | {"adversary": "unaware"},
    }
    rows = []
    for number, setting in enumerate(settings.values()):
        value = 0.501 + number / 100
        rows += rows_of([value - 0.1, value + 0.1], attack="gap", **setting)
        rows += rows_of([[value, value + 0.2], value + 0.1], attack="samia", **setting)
        rows += rows_of([0.9, 0.9], "balanced_accuracy", attack="samia", **setting)
        rows += rows_of([0.9, 0.9], attack="confidence_global", **setting)
    claim = dict(claim="pruning leaks", source="us", paper="", ours="+0.1", verdict="reproduced")
    lines = headline_lines(rows, {"leak": claim})
    assert lines[2:-3] == [
        "attack gap samia",
        *(f"{name} {0.501 + i / 100:.3f} {0.601 + i / 100:.3f}" for i, name in enumerate(settings)),
    ]
    assert lines[0].startswith("AUC of each attack") and lines[-2:] == [
        "Verdicts",
        "pruning leaks reproduced +0.1",
    ]
    known = headline_lines(rows, {"leak": claim | {"margin": 0.1, "p": 0.01}})
    assert (
        known[:-1] == lines and known[-1].startswith("1 claims are judged") and "1 of 1 decided" in known[-1]
    )


def test_what_was_not_run_is_blank_in_the_headline_and_a_line_below_says_so():
    rows = rows_of([0.5, 0.6], attack="gap", **ORIGINAL) + rows_of([0.7, 0.8], attack="samia", **PRUNED)
    lines = headline_lines(rows)
    assert lines[3:6] == ["original 0.55", "magnitude pruning 0.7 0.75", "(blank: not run, or not resolved)"]
    whole = headline_lines(
        rows + rows_of([0.5, 0.6], attack="samia", **ORIGINAL) + rows_of([0.5], attack="gap", **PRUNED)
    )
    assert not any("blank" in line for line in whole)


def test_headline_leaves_out_classes_and_wrong_beliefs():
    rows = rows_of([0.5, 0.6], attack="samia", **PRUNED)
    before = headline_lines(rows)
    rows += rows_of([0.9, 0.9], attack="samia", class_=0, **PRUNED)
    rows += rows_of(
        [0.9, 0.9], attack="samia", attacker_compression="l1_filter", attacker_level=0.7, **PRUNED
    )
    assert headline_lines(rows) == before and "magnitude pruning 0.7 0.55" in before


def test_headline_keeps_the_two_kinds_of_attacker_apart():
    rows = rows_of([0.6, 0.7], attack="gap", **PRUNED | {"knowledge": "shadow"})
    rows += rows_of([0.8, 0.9], attack="gap", **PRUNED | {"knowledge": "known_members"})
    lines = headline_lines(rows)
    assert "magnitude pruning 0.7 0.65" in lines and "magnitude pruning 0.7, known members 0.85" in lines


def test_headline_of_a_run_without_attacks_shows_its_models():
    rows = rows_of([0.9, 0.8], "test_accuracy", **ORIGINAL) + rows_of([0.7, 0.6], "test_accuracy", **PRUNED)
    lines = headline_lines(rows)
    assert lines[0] == "Models, mean over them" and lines[-1] == "Verdicts"
    assert "original 0.85" in lines and "magnitude pruning 0.7 0.65" in lines


def test_headline_of_a_saved_run_is_that_of_its_rows(tmp_path):
    rows = rows_of([0.5, math.nan], attack="gap", **ORIGINAL) + rows_of([0.7, 0.8], attack="nn", **ORIGINAL)
    path = reporting.save(
        tmp_path, notebook="n", run="r", parameters={}, provenance={}, rows=rows, claims=None
    )
    assert tables.headline(reporting.load(path)) == tables.headline({"rows": rows, "claims": {}})


# Tables of defences


def defended():
    """A study with a plain arm, one behind a defence and one trained otherwise, two targets each; nothing is asked."""
    x, member = torch.zeros(4, 1), torch.tensor([[True, True, False, False]] * 2)
    data = Dataset.of_features("four", x, torch.zeros(4).long(), 2)
    found = Study(data, Splits(member, ~member, torch.zeros_like(member), torch.arange(2)), 2)
    views = Views(torch.zeros(1, 4, 2).double().log_softmax(-1), torch.zeros(1, 4).long())
    answers = study.Given([views, views], views)
    plain = found.arm("plain", answers)
    return (
        found,
        plain,
        found.arm("served", plain, defense="served"),
        found.arm("rival", answers, defense="rival"),
    )


def test_averages_are_means_over_targets():
    _, plain, served, _ = defended()
    table = tables.averages(
        {"a": {plain: np.array([0.1, 0.3]), served: np.array([1.0, 2.0])}, "b": {served: np.ones(2)}}
    )
    assert table["a"].to_dict() == pytest.approx({"plain": 0.2, "served": 1.5})
    assert math.isnan(table.loc["plain", "b"]) and table.loc["served", "b"] == 1


def test_dispersion_has_a_pair_of_columns_for_each_measure():
    found, plain, *_ = defended()
    for key in tables.SPREADS:
        found.note(plain, f"member_{key}", [0.1, 0.2])
        found.note(plain, f"test_{key}", [0.3, 0.5])
    table = tables.dispersion(found, [plain], "D1", "D3")
    assert list(table)[:2] == [("entropy", "D1"), ("entropy", "D3")] and table.shape == (1, 10)
    assert table.loc["plain"].tolist() == pytest.approx([0.15, 0.4] * 5)


def test_costs_are_those_of_strangers_and_only_a_served_answer_is_distorted():
    found, *arms = defended()
    for arm in arms:
        found.note(arm, "test_accuracy", [0.5, 0.7])
        found.note(arm, "generalization_gap", [0.2, 0.2])
        found.note(arm, "rest_accuracy", [0.4, 0.8])
    found.note(arms[1], "rest_label_loss", [0.0, 0.1])
    found.note(arms[1], "rest_distortion", [0.2, 0.4])
    table = tables.costs(found, arms)
    assert table["accuracy on members"].tolist() == pytest.approx([0.8] * 3)
    assert table["test accuracy"].tolist() == pytest.approx([0.6] * 3)
    assert table.loc["served", ["label loss", "distortion L1", "L1 / 2"]].tolist() == pytest.approx(
        [0.05, 0.3, 0.15]
    )
    assert table.loc[["plain", "rival"], "label loss"].isna().all()


def test_redrawn_shows_the_factor_and_leaves_blank_who_was_not_attacked():
    found, plain, served, rival = defended()
    found.note(plain, "member_named", [0.1, 0.2], attack="inversion")
    found.note(served, "member_named", [0.2, 0.2], attack="inversion")
    found.note(found.attacker(served, plain), "member_named", [0.4, 0.4], attack="inversion")
    attackers = {"fixed": {plain: plain, served: plain}, "retrained": {served: served}}
    table = tables.redrawn(found, [plain, served, rival], "member_named", attackers, base=plain)
    assert table["fixed"].tolist() == ["0.150 (1.00x)", "0.400 (3.00x)", ""]
    assert table["retrained"].tolist() == ["", "0.200 (1.50x)", ""]
    bare = tables.redrawn(found, [plain], "member_named", attackers)
    assert bare["fixed"].tolist() == ["0.150"]


# Lines of arms and attackers


def test_means_are_empty_where_there_is_no_number():
    study, (a, b) = _noted()
    table = tables.means(
        study, {"first": a, "second": b}, {"acc": "test_accuracy", "found": ("auc", "gap")}, 2
    )
    assert table.to_dict("index") == {
        "first": {"acc": "0.60", "found": "0.50"},
        "second": {"acc": "", "found": ""},  # of one target not resolved; the attack was not run
    }


def test_changes_are_in_points_and_leave_the_base_out():
    study, (a, b) = _noted()
    study.note(b, "auc", [0.65, 0.85], attack="gap")
    table = tables.changes(study, {"a": a, "b": b}, a, {"AUC": "auc"}, "gap")
    assert table.to_dict() == {"AUC": {"b": "+25.0 [+25.0, +25.0]"}}


def test_a_ladder_says_whether_every_step_is_at_least_as_high():
    study, (a, b) = _noted()
    study.note(a, "reserve_accuracy", [0.5, 0.5])
    study.note(b, "reserve_accuracy", [0.74, 0.76])
    ladders = {"up": {"1 bit": a, "2 bits": b}, "down": {"1 bit": b, "2 bits": a}}
    table = tables.ladder(study, ladders, "reserve_accuracy")
    assert table.loc["up"].tolist() == ["0.500", "0.750", True]
    assert table.loc["down"].tolist() == ["0.750", "0.500", False]


def _noted():
    """A study of two arms on two targets, some of whose numbers are known."""
    study = Made()
    a, b = study.made("a"), study.made("b")
    study.attack({"gap": threshold.ATTACKS["gap"]}, [a], measures={})
    study.note(a, "auc", [0.4, 0.6], attack="gap")
    study.note(a, "test_accuracy", [0.5, 0.7])
    study.note(b, "test_accuracy", [0.5, math.nan])
    return study, (a, b)


def test_sizes_of_a_split_by_hand():
    split = splits.target_shadow(100, 1, 2, seed=0, n_train=20)
    table = tables.sizes(split, ["target", "shadow"])
    assert table.to_dict("index") == {
        name: {"members": 20, "test examples": 20, "reserve": count["reserve"]}
        for name, count in zip(("target", "shadow"), split.counts(), strict=False)
    }
