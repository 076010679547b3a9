"""The study: arms and attackers to rows, values and differences; what is refused before any work."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from mialib import data, study, training
from mialib.attacks import blindmi, likelihood, neural, suites, threshold
from mialib.data import canaries, splits
from mialib.measures import decisions, metrics
from mialib.models.classifiers import small_cnn
from mialib.reporting import tables
from mialib.reporting.vocabulary import in_words
from mialib.study import COLUMNS, Study
from mialib.training import Recipe, population
from tests.study.conftest import Made
from tests.study.test_arms import halve

QUICK = Recipe(1, 16)
METRICS = ["balanced_accuracy", "auc", "tpr_at_0.01", "tpr_at_0.001"]
CONFIDENCE = {"confidence": threshold.confidence}


@pytest.fixture
def suite():
    return {"gap": threshold.gap, "confidence": threshold.confidence, "blindmi": blindmi.BlindMIDiff()} | {
        name: attack for name, attack in neural.attacks(QUICK, trainings=2).items() if name in ("nn", "samia")
    }


@pytest.fixture
def attacked(made, suite):
    """A study of an original and a pruned arm, attacked by everything."""
    made.made("original", 0, 0.5)
    made.made("pruned", 0, 2.0, compression="l1_unstructured", level=0.7)
    made.attack({name: one for name, one in suite.items() if name != "blindmi"})
    return made


# Arms


def test_an_arms_columns_are_those_of_the_study_and_its_own():
    found = Made(model="mlp", protocol="d1_d2_d3")
    arm = found.made("a", compression="dorefa", level=4)
    common = {
        "dataset": "made",
        "model": "mlp",
        "protocol": "d1_d2_d3",
        "knowledge": "shadow",
        "defense": "none",
    }
    assert arm.columns == common | {"compression": "dorefa", "level": 4}
    served = found.arm("b", arm, "In words", behind=halve, defense="temperature")
    assert served.columns == arm.columns | {"defense": "temperature"} and served.label == "In words"
    assert (arm.adversary, served.adversary) == (None, "adaptive") and arm.label == "a"
    assert found.arm("c", arm, defends=True).adversary == "adaptive"
    assert list(found.arms) == ["a", "b", "c"] and len(found) == 2


def test_what_cannot_be_an_arm_is_named(made):
    arm = made.made("a")
    with pytest.raises(ValueError, match="an arm 'a' is there already"):
        made.arm("a", arm)
    with pytest.raises(ValueError, match="did you mean 'compression'"):
        made.arm("b", arm, compresion="none")
    with pytest.raises(ValueError, match="the split is over 40 examples, toy has 120"):
        Study(
            data.Dataset.of_features("toy", torch.zeros(120, 2), torch.zeros(120).long(), 2),
            made.roles.split,
            2,
        )


def test_an_arm_of_another_study_is_refused(made):
    other = Made()
    mine, theirs = made.made("a"), other.made("b")
    with pytest.raises(ValueError, match="arm 'b' is of another study; this one has a"):
        made.attack(CONFIDENCE, [theirs])
    with pytest.raises(ValueError, match="arm 'b' is of another study"):
        made.attack(CONFIDENCE, [mine], believing=theirs)
    with pytest.raises(ValueError, match="knowing is 'all'; attackers know one of shadows, half"):
        made.attack(CONFIDENCE, knowing="all")


# Attacks


def test_one_row_for_each_arm_attack_target_training_and_metric(attacked, suite):
    count = {"gap": 1, "confidence": 1, "nn": 2, "samia": 2}
    assert len(attacked.rows) == 2 * 2 * sum(count.values()) * len(METRICS)
    found = {(r["compression"], r["attack"], r["target"], r["seed"], r["metric"]) for r in attacked.rows}
    assert found == {
        (compression, name, target, seed, metric)
        for compression in ("none", "l1_unstructured")
        for name in count
        for target in range(2)
        for seed in range(count[name])
        for metric in METRICS
    }


def test_rows_hold_the_contracts_columns(attacked):
    for row in attacked.rows:
        assert tuple(row) == COLUMNS, row
        assert (row["n_members"], row["n_nonmembers"], row["n_shadows"]) == (20, 20, 3), row
        assert row["class"] is None and row["variant"] is None and row["attacker_level"] is None, row
        assert row["level"] == (None if row["compression"] == "none" else 0.7), row
        if row["metric"] in METRICS[:2]:
            assert row["low"] <= row["value"] <= row["high"], row
        else:
            assert math.isnan(row["value"]), row  # 20 non-members cannot resolve a false-positive rate of 1 %


def test_margins_are_those_of_the_attack_and_rows_those_of_the_margins(attacked, suite):
    pruned = attacked.arms["pruned"]
    margins = attacked.margins(pruned, "samia")
    alone = suite["samia"](
        pruned.targets(True)[1], pruned.shadows(True), attacked.roles.member[attacked.roles.shadows], 1
    )
    assert margins.shape == (2, 2, 40) and torch.equal(margins[1, 1], alone)
    [row] = attacked.select([pruned], attack="samia", target=1, seed=1, metric="auc")
    assert row["value"] == metrics.auc(attacked.member[1], alone).value
    assert attacked.attacks(pruned) == ["gap", "confidence", "nn", "samia"]
    with pytest.raises(
        ValueError, match="attack 'top1' was not run on arm 'pruned'.*found gap, confidence, nn, samia"
    ):
        attacked.margins(pruned, "top1")


def test_the_targets_membership_reaches_no_attack(suite):
    """With another membership of the targets every margin is the same to the last bit."""
    one, other = Made(), Made()
    other.roles.member[:2] = ~other.roles.member[:2]
    other.roles.truth[:] = other.roles.member[:2]
    for found in (one, other):
        answers = Made().made("a").answers
        found.arm("a", answers)
        found.attack(suite)
    for name in suite:
        assert torch.equal(one.margins(one.arms["a"], name), other.margins(other.arms["a"], name)), name
    first, second = (found.values(found.arms["a"], "auc", "confidence") for found in (one, other))
    assert first == pytest.approx(1 - second)


def test_who_counts_as_a_member_can_be_redrawn(made):
    """A null control: the same margins, judged by a membership that means nothing."""
    real = made.made("a", leak=4.0)
    generator = torch.Generator().manual_seed(1)
    redrawn = torch.stack([row[torch.randperm(40, generator=generator)] for row in made.member])
    control = Study(made.roles.data, made.roles.split, 2, member=redrawn, protocol="own")
    null = control.arm("a", real.answers)
    for found in (made, control):
        found.attack(CONFIDENCE)
    assert torch.equal(made.margins(real, "confidence"), control.margins(null, "confidence"))
    assert made.values(real, "auc", "confidence").min() > 0.8
    assert abs(control.values(null, "auc", "confidence") - 0.5).max() < 0.3


def test_what_was_attacked_and_measured_is_not_attacked_and_measured_again(made):
    calls = []

    def attack(target, shadows, shadow_member, seed=0):
        calls.append(1)
        return target.log_posteriors[0, :, 0]

    made.made("a")
    made.attack({"mine": attack}, measures={"auc": metrics.auc})
    made.attack({"mine": attack})
    assert len(calls) == 2 and [row["metric"] for row in made.rows] == ["auc"] * 2 + 2 * [
        "balanced_accuracy", "tpr_at_0.01", "tpr_at_0.001"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="another attack 'mine' was run on arm 'a'"):
        made.attack({"mine": threshold.confidence})


def test_who_believes_in_an_arm_does_not_meet_it_as_one_who_was_not_told(made):
    plain = made.made("plain")
    served = made.arm("served", plain, behind=halve, defense="temperature")
    made.attack(CONFIDENCE, believing=plain)
    assert {row["adversary"] for row in made.rows} == {"unaware"} and made.attacks(plain) == []
    made.attack(CONFIDENCE)
    first, second = made.attackers(served)
    assert (first.believed, second.believed) == (served, plain)
    assert len(made.attackers(plain)) == 1


def test_each_arm_may_have_a_belief_of_its_own(made):
    a, b, c = (made.made(key, seed) for seed, key in enumerate("abc"))
    made.attack(CONFIDENCE, [a, b], believing={a: c, b: a})
    found = {(one.arm.key, one.believed.key) for arm in (a, b) for one in made.attackers(arm)}
    assert found == {("a", "c"), ("b", "a")}
    expected = threshold.confidence(a.targets()[0], c.shadows(), made.roles.member[2:])
    assert torch.equal(made.margins(a, "confidence", believing=c)[0, 0], expected)


def test_the_caller_names_the_measures(made):
    arm = made.made("a")
    half = partial(decisions.precision_at_recall, recall=0.5)
    measures = {"auc": metrics.auc, "precision_at_recall_0.5": half} | decisions.DECISIONS
    made.attack(CONFIDENCE, measures=measures)
    assert [row["metric"] for row in made.rows] == 2 * list(measures)
    for row in made.rows:
        margin = made.margins(arm, "confidence")[row["target"], 0]
        estimate = measures[row["metric"]](made.member[row["target"]], margin)
        assert (row["value"], row["low"], row["high"]) == estimate, row


def test_rows_of_an_attack_say_what_the_caller_adds(made):
    plain = made.made("plain")
    made.attack(CONFIDENCE, [made.made("b")], believing=plain, attacker_compression="none", variant="mine")
    assert {(row["attacker_compression"], row["variant"]) for row in made.rows} == {("none", "mine")}
    with pytest.raises(ValueError, match="did you mean 'variant'"):
        made.attack(CONFIDENCE, variants="mine")


def test_per_class_is_the_attack_within_the_class(attacked, suite):
    pruned = attacked.arms["pruned"]
    auc = {"auc": metrics.auc}
    before = len(attacked.rows)
    attacked.attack({"samia": suite["samia"]}, [pruned], measures=auc, by_class=True)
    assert len(attacked.rows) == before + 2 * 4  # the overall AUC is there already
    values = attacked.values(pruned, "auc", "samia", by_class=True)
    assert values.shape == (2, 4)
    margins = attacked.margins(pruned, "samia").mean(1)  # the trainings' mean is judged
    for target in range(2):
        for number in range(4):
            own = pruned.targets()[target].labels[0] == number
            expected = metrics.auc(attacked.member[target][own], margins[target][own]).value
            assert values[target, number] == expected, (target, number)
    assert attacked.values(pruned, "auc", "samia").shape == (2,)  # and does not mix with the classes


def test_lira_finds_members_of_overfit_models():
    digits = data.load("digits", subset=240)
    split = splits.random_halves(len(digits), 8, seed=0)
    cnn = partial(small_cnn, in_channels=1, num_classes=10, image_size=8, width=4)
    halves = Study(digits, split, 4, protocol="random_halves")
    arm = halves.arm("a", training.fit(cnn, digits, split, Recipe(20, 16, lr=0.05)))
    halves.attack({"online": likelihood.lira_online, "offline": likelihood.lira_offline})
    for name in ("online", "offline"):
        aucs = halves.values(arm, "auc", name)
        assert len(aucs) == 4 and aucs.mean() > 0.6, name
    assert {(row["protocol"], row["n_shadows"]) for row in halves.rows} == {("random_halves", 6)}


def test_the_same_networks_are_attacked_on_their_canaries_and_on_the_others():
    digits = data.load("digits", subset=240)
    pool, split, chosen = canaries.mislabelled(digits, 8, 40, seed=0, in_pairs=True)
    cnn = partial(small_cnn, in_channels=1, num_classes=10, image_size=8, width=4)
    networks = training.fit(cnn, pool, split, Recipe(25, 16, lr=0.05))
    found = {}
    for protocol, mask in (("random_halves", ~chosen), ("canaries", chosen)):
        one = Study(
            pool, split, 4, candidates=mask, protocol=protocol
        )  # both know whom the networks learned from
        arm = one.arm("a", networks)
        one.attack({"lira": likelihood.lira_online})
        found[protocol] = one.values(arm, "auc", "lira")
        assert {row["n_shadows"] for row in one.rows} == {6}
        fresh = one.arm(
            "untrained", population.initial(cnn, range(8)), other_members=True, variant="untrained"
        )
        one.attack({"lira": likelihood.lira_online}, fresh)
        assert abs(one.values(fresh, "auc", "lira").mean() - 0.5) < 0.15
    assert found["canaries"].mean() > found["random_halves"].mean() + 0.1
    with pytest.raises(ValueError, match="trained on other members"):
        other = canaries.mislabelled(digits, 8, 40, seed=1, in_pairs=True)
        Study(pool, other.split, 4, candidates=other.chosen, protocol="canaries").arm("a", networks)


def test_an_attack_that_asks_runs_through_the_door(setting):
    _, _, found, plain = setting
    arm = found.arm("behind", plain, behind=halve)
    found.attack({"blindmi": blindmi.BlindMIDiff(probes=5)}, [arm])
    assert set(found.margins(arm, "blindmi").unique().tolist()) <= {-1.0, 1.0}


# Values


def test_values_average_the_trainings_and_know_attackers_apart(attacked):
    original = attacked.arms["original"]
    rows = attacked.select([original], attack="samia", metric="auc")
    expected = [np.mean([row["value"] for row in rows if row["target"] == i]) for i in range(2)]
    assert attacked.values(original, "auc", "samia").tolist() == expected
    with pytest.raises(
        ValueError, match="arm 'original'.*knowing half has no 'auc': 'samia' was not run; run were: none"
    ):
        attacked.values(original, "auc", "samia", knowing="half")
    with pytest.raises(
        ValueError, match="has no 'accuracy': measured by 'samia': auc, balanced_accuracy, tpr"
    ):
        attacked.values(original, "accuracy", "samia")
    with pytest.raises(ValueError, match="arm 'original' has no 'auc': measured: nothing; name an attack"):
        attacked.values(original, "auc")  # rows of which attack?


def test_what_would_fit_twice_raises(made):
    arm = made.made("a")
    for _ in range(2):
        made.note(arm, "epsilon", [1.0, 2.0])
    with pytest.raises(ValueError, match="two rows measure epsilon of target 0"):
        made.values(arm, "epsilon")


def test_noted_numbers_are_rows_of_the_arm_or_of_its_attacker(made):
    plain = made.made("plain")
    served = made.arm("served", plain, behind=halve, defense="temperature")
    made.note(served, "epsilon", [1.0, 2.0])
    made.note(made.attacker(served, plain), "auc", [0.6, 0.7], attack="elsewhere")
    assert made.values(served, "epsilon").tolist() == [1.0, 2.0]
    assert made.values(served, "auc", "elsewhere", believing=plain).tolist() == [0.6, 0.7]
    assert [row["adversary"] for row in made.rows] == [None, None, "unaware", "unaware"]


def test_measured_rows_of_an_attacker_say_who_it_is(made):
    plain = made.made("plain")
    served = made.arm("served", plain, behind=halve, defense="temperature")
    for believing in (None, plain):
        made.measure(study.accuracy, [served], attack="inversion", believing=believing)
    assert {(row["attack"], row["adversary"]) for row in made.rows} == {
        ("inversion", "adaptive"), ("inversion", "unaware")
    }  # fmt: skip
    assert made.values(served, "test_accuracy", "inversion", believing=plain).shape == (2,)


def test_select_finds_the_rows_of_arms(attacked):
    original, pruned = attacked.arms.values()
    assert len(attacked.select([pruned], metric="auc", attack=["gap", "samia"])) == 2 + 4
    assert len(attacked.select()) == len(attacked.rows) and attacked.select([]) == []


# Differences


def test_a_difference_is_a_minus_b_over_the_targets(attacked):
    original, pruned = attacked.arms.values()
    found = attacked.difference(pruned, original, "auc", "samia")
    values = attacked.values(pruned, "auc", "samia") - attacked.values(original, "auc", "samia")
    assert values.mean() > 0 and found == metrics.over_targets(values) and found.paired == "target"
    turned = attacked.difference(original, pruned, "auc", "samia")
    assert turned.value == -found.value and (turned.low, turned.high) == pytest.approx(
        (-found.high, -found.low)
    )


def test_a_setting_and_itself_are_no_comparison(attacked):
    original, pruned = attacked.arms.values()
    for metric, attack in (("auc", "samia"), ("test_accuracy", None)):
        if attack is None:
            attacked.note(original, metric, [0.5] * len(attacked))
        found = attacked.difference(original, original, metric, attack)
        assert found.paired == "itself" and found == (0.0, 0.0, 0.0)
    assert attacked.difference(attacked.attacker(pruned), pruned, "auc", "samia").paired == "itself"
    with pytest.raises(ValueError, match="has no 'tpr'"):
        attacked.difference(pruned, pruned, "tpr", "samia")  # and what was not measured is not 0


def test_a_difference_may_be_of_two_attackers(made):
    plain = made.made("plain")
    served = made.arm("served", plain, behind=lambda log_p: log_p.roll(1, -1), defense="rolled")
    for believing in (None, plain):
        made.attack(CONFIDENCE, [served], believing=believing)
    aware, unaware = made.attacker(served), made.attacker(served, plain)
    expected = made.values(served, "auc", "confidence") - made.values(
        served, "auc", "confidence", believing=plain
    )
    assert made.difference(aware, unaware, "auc", "confidence").value == pytest.approx(expected.mean())


def test_one_target_is_paired_by_its_examples(suite):
    found = Made(n_targets=1)
    a, b = found.made("a", leak=2.0), found.made("b", leak=0.5)
    found.attack({name: suite[name] for name in ("confidence", "nn")})
    for attack in ("confidence", "nn"):
        difference = found.difference(a, b, "auc", attack)
        assert difference.paired == "example" and difference.low < difference.value < difference.high
        expected = found.values(a, "auc", attack)[0] - found.values(b, "auc", attack)[0]
        assert difference.value == pytest.approx(expected)
    found.measure(study.accuracy)
    assert found.difference(a, b, "test_accuracy").paired == "target"  # no margins to pair
    alone = found.difference(a, b, "auc", "confidence", pair="target")
    assert alone.paired == "target" and math.isnan(alone.low)


@pytest.mark.parametrize("pair", ["example", "seed"])
def test_a_pairing_that_cannot_be_had_is_named(attacked, pair):
    with pytest.raises(ValueError, match=f"pair is '{pair}'; it must be 'target', or 'example' for"):
        attacked.difference(*attacked.arms.values(), "auc", "samia", pair=pair)


def test_studies_are_compared_only_on_the_same_targets(made):
    other, stranger = Made(), Made(n_targets=3, n_shadows=2)
    arms = [one.made("a", seed) for seed, one in enumerate((made, other, stranger))]
    for one in (made, other, stranger):
        one.attack(CONFIDENCE)
    found = made.difference(arms[0], arms[1], "auc", "confidence", of=other)
    expected = made.values(arms[0], "auc", "confidence") - other.values(arms[1], "auc", "confidence")
    assert found.value == pytest.approx(expected.mean())
    with pytest.raises(ValueError, match="a difference needs the same targets"):
        made.difference(arms[0], arms[2], "auc", "confidence", of=stranger)
    with pytest.raises(ValueError, match="arm 'a' is of another study"):
        made.difference(arms[0], arms[1], "auc", "confidence")


def test_paired_rows_are_a_minus_b_on_the_same_examples(attacked):
    original, pruned = attacked.arms.values()
    before = len(attacked.rows)
    attacked.paired(pruned, original)
    rows = attacked.rows[before:]
    assert len(rows) == 2 * (2 + 2 * 2)
    for row in rows:
        assert (row["metric"], row["variant"], row["level"]) == ("auc_difference", "minus original", 0.7), row
        a, b = (
            attacked.margins(arm, row["attack"])[row["target"], row["seed"]] for arm in (pruned, original)
        )
        member = attacked.member[row["target"]]
        assert row["value"] == pytest.approx(metrics.auc(member, a).value - metrics.auc(member, b).value), row
        assert row["low"] <= row["value"] <= row["high"], row


@pytest.mark.parametrize("metric", ["auc", "balanced_accuracy"])
def test_an_arm_minus_itself_is_exactly_nothing(attacked, metric):
    pruned = attacked.arms["pruned"]
    attacked.paired(pruned, pruned, metric)
    rows = attacked.select(metric=f"{metric}_difference")
    assert {(r["value"], r["low"], r["high"]) for r in rows} == {(0.0, 0.0, 0.0)}


def test_paired_rows_keep_the_variant_and_say_what_was_subtracted(made):
    plain = made.made("plain")
    defended = made.made("private", 1, defense="dp_sgd", variant="whole pipeline")
    made.attack(CONFIDENCE)
    made.paired(defended, plain)
    [row, _] = made.select(metric="auc_difference")
    assert (row["variant"], row["adversary"]) == ("whole pipeline, minus plain", "adaptive")
    assert defended.columns["variant"] == "whole pipeline"  # left as it was


# The strongest attack


def test_the_strongest_attack_is_chosen_by_its_mean(made):
    arm = made.made("a")
    for name, values in (("gap", [0.9, 0.5]), ("samia", [0.8, 0.7]), ("nn", [0.8, 0.6])):
        made.attack({name: lambda target, *_: target.log_posteriors[0, :, 0]}, measures={})
        made.note(arm, "auc", values, attack=name)
    found = made.strongest(arm)
    assert (found.name, found.attack, found.values.tolist()) == ("samia", "samia", [0.8, 0.7])
    assert made.strongest(arm, attacks=["gap", "nn"]).attack in ("gap", "nn")


def test_all_that_was_tried_is_there_to_be_compared(made):
    arm = made.made("a")
    for name, values in (("gap", [0.9, 0.5]), ("samia", [0.8, None]), ("nn", [0.8, 0.6])):
        made.attack({name: lambda target, *_: target.log_posteriors[0, :, 0]}, measures={})
        made.note(arm, "auc", values, attack=name)
    assert [values.tolist() for values in made.tried(arm)] == [
        [0.9, 0.5],
        [0.8, 0.6],
    ]  # samia is not resolved
    assert [values.tolist() for values in made.tried(arm, attacks=["nn"])] == [[0.8, 0.6]]


def test_the_unaware_attackers_count_if_asked(made):
    plain = made.made("plain")
    served = made.arm("served", plain, behind=halve, defense="temperature")
    for believing, values in ((None, [0.6, 0.6]), (plain, [0.7, 0.7])):
        made.attack(CONFIDENCE, [served], believing=believing, measures={})
        made.note(made.attacker(served, believing), "auc", values, attack="confidence")
    assert made.strongest(served).name == "confidence, adaptive"
    assert made.strongest(served, unaware=True).name == "confidence, unaware"


def test_the_whole_way_on_real_models(digits, suite):
    split = splits.target_shadow(len(digits), 1, 2, seed=0, n_train=20)
    found = Study(digits, split, 1, model="linear")
    arm = found.arm("original", training.fit(_net, digits, split, Recipe(1, 8)))
    for rows_of in (study.utility, study.divergence):
        found.measure(rows_of)
    found.attack(suite)
    found.attack({"nn": suite["nn"]}, measures={"auc": metrics.auc}, by_class=True)
    assert {row["attack"] for row in found.rows} == {*suite, None}
    assert {row["dataset"] for row in found.rows} == {"digits"}
    assert tables.models(found.rows)["test accuracy"].tolist() == pytest.approx(
        found.values(arm, "test_accuracy")
    )
    assert tables.attacks(found, [arm], "auc").index.tolist() == [in_words(name) for name in suite]
    headline = tables.headline({"rows": found.rows, "claims": {}})
    assert all(name in headline for name in ("original", *suite))


def _net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_suites_run_on_every_arm_that_gives_what_they_need(made):
    plain = made.made("plain")
    schedule = neural.schedule(1, 1e-3, "adam")
    made.attack(suites.yuan2022(schedule, schedule, trainings=1) | {"blindmi": blindmi.BlindMIDiff(probes=5)})
    assert len(made.attacks(plain)) == 13
    served = made.arm("served", plain, behind=halve, defense="temperature")
    everything = suites.yuan2022(schedule, schedule, trainings=1)
    with pytest.raises(ValueError, match="leave this attack out"):
        made.attack(everything, [served])
    assert made.attacks(served) == [] and replace(everything["samia"]) == everything["samia"]


# What a slip of the hand must not get past


def test_networks_of_another_split_are_refused(digits):
    one, other = (splits.target_shadow(len(digits), 1, 1, seed=seed, n_train=20) for seed in (0, 1))
    networks = training.fit(_net, digits, one, Recipe(0, 8))
    assert Study(digits, one, 1).arm("a", networks[:1]).networks is not None
    for part in (networks, networks[:1]):
        with pytest.raises(ValueError, match="these networks were trained on other members"):
            Study(digits, other, 1).arm("a", part)
    Study(digits, other, 1).arm("a", networks, other_members=True)  # who says so


def test_a_target_among_the_shadows_is_refused(digits):
    split = splits.target_shadow(len(digits), 2, 2, seed=0, n_train=200)
    with pytest.raises(ValueError, match="with n_targets = 1 targets and shadows share .* candidates"):
        Study(digits, split, 1)
    with pytest.raises(
        ValueError, match="protocol is 'shokri'; it must be one of target_shadow, random_halves"
    ):
        Study(digits, split, 2, protocol="shokri")


def test_arms_that_no_column_tells_apart_have_their_key_as_variant(made):
    a, b, c = made.made("a"), made.made("b"), made.made("c", compression="dorefa", level=2)
    assert [arm.columns.get("variant") for arm in (a, b, c)] == [None, "b", None]
    for column, value in (("level", "high"), ("defense", 3)):
        with pytest.raises(ValueError, match=f"column '{column}' holds {value!r}; it must be"):
            made.made("d", **{column: value})


def test_what_is_no_arm_and_no_population_is_named(made):
    arm = made.made("a")
    made.attack(CONFIDENCE, arm)  # one arm will do
    with pytest.raises(ValueError, match="found 'a' .str.; an arm is needed, as study.arms.key."):
        made.values("a", "auc", "confidence")
    with pytest.raises(ValueError, match="found a Linear; networks come as a population: .*stack"):
        made.arm("b", nn.Linear(6, 4))


def test_half_of_one_member_is_refused(digits):
    split = splits.target_shadow(len(digits), 1, 1, seed=0, n_train=1)
    found = Study(digits, split, 1)
    found.arm("a", training.fit(_net, digits, split, Recipe(0, 8)))
    with pytest.raises(ValueError, match='knowing="half": half of 1 members and 1 others leaves one side'):
        found.attack(CONFIDENCE, knowing="half")
