"""Every attack on every target: who learns from whom, what is trained once, and the rows that come of it."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from mialib import data, study, training
from mialib.attacks import blindmi, likelihood, neural, threshold
from mialib.data import splits
from mialib.measures import decisions, metrics
from mialib.models.classifiers import small_cnn
from mialib.reporting import tables
from mialib.study import COLUMNS, Measurements
from mialib.training import Recipe, loop
from tests.study.test_observations import QUICK, observation

CNN = partial(small_cnn, in_channels=1, num_classes=10, image_size=8, width=4)
METRICS = ["balanced_accuracy", "auc", "tpr_at_0.01", "tpr_at_0.001"]


@pytest.fixture
def suite():
    return {"gap": threshold.gap, "confidence": threshold.confidence, "blindmi": blindmi.BlindMIDiff()} | {
        name: attack for name, attack in neural.attacks(QUICK, trainings=2).items() if name in ("nn", "samia")
    }


@pytest.fixture
def measured(suite):
    seen = {
        "original": observation(0.5, compression="none", defense="none"),
        "pruned": observation(2.0, compression="l1_unstructured", level=0.7, defense="none"),
    }
    return seen, study.attack(seen, suite)


# Attacks


def test_one_row_for_each_setting_attack_target_training_and_metric(measured, suite):
    seen, found = measured
    trainings = {"gap": 1, "confidence": 1, "blindmi": 1, "nn": 2, "samia": 2}
    assert len(found.rows) == len(seen) * 2 * sum(trainings.values()) * len(METRICS)
    expected = {
        (setting.columns["compression"], name, target, seed, metric)
        for setting in seen.values()
        for name in suite
        for target in range(2)
        for seed in range(trainings[name])
        for metric in METRICS
    }
    assert {
        (r["compression"], r["attack"], r["target"], r["seed"], r["metric"]) for r in found.rows
    } == expected


def test_rows_hold_the_contracts_columns(measured):
    _, found = measured
    for row in found.rows:
        assert tuple(row) == COLUMNS, row
        assert (row["n_members"], row["n_nonmembers"], row["n_shadows"]) == (20, 20, 3), row
        assert row["class"] is None and row["variant"] is None and row["attacker_level"] is None, row
        assert row["level"] == (None if row["compression"] == "none" else 0.7), row
        assert type(row["value"]) is float, row
        if row["metric"] in METRICS[:2]:
            assert row["low"] <= row["value"] <= row["high"], row
        else:
            assert math.isnan(row["value"]), row  # 20 non-members cannot resolve a false-positive rate of 1 %


def test_margins_are_those_of_the_attack_and_rows_those_of_the_margins(measured, suite):
    seen, found = measured
    target = seen["pruned"].targets[1]
    alone = suite["samia"](target, seen["pruned"].shadows, seen["pruned"].shadow_member, 1)
    assert found.margins["pruned"]["samia"].shape == (2, 2, 40)
    assert torch.equal(found.margins["pruned"]["samia"][1, 1], alone)
    [row] = [
        r
        for r in found.rows
        if (r["compression"], r["attack"], r["target"], r["seed"], r["metric"])
        == ("l1_unstructured", "samia", 1, 1, "auc")
    ]
    assert row["value"] == metrics.auc(seen["pruned"].member[1], alone).value


def test_each_target_has_an_attacker_of_its_own():
    seen = replace(observation(knowledge="known_members"), teachers=[[0], [1]])
    seen = replace(seen, shadows=seen.shadows[:2], shadow_member=seen.shadow_member[:2])
    found = study.attack({"a": seen}, {"confidence": threshold.confidence})
    for i, target in enumerate(seen.targets):
        alone = threshold.confidence(target, seen.shadows[i : i + 1], seen.shadow_member[i : i + 1], 0)
        assert torch.equal(found.margins["a"]["confidence"][i, 0], alone), i
    assert {row["n_shadows"] for row in found.rows} == {0}


def test_networks_of_the_known_half_learn_from_their_own_target_only():
    seen = replace(observation(n_targets=2), teachers=[[0], [1]])
    seen = replace(seen, shadows=seen.shadows[:2], shadow_member=seen.shadow_member[:2])
    attack = neural.attacks(QUICK, trainings=1)["nn"]
    found = study.attack({"a": seen}, {"nn": attack}).margins["a"]["nn"]
    for i, target in enumerate(seen.targets):
        fitted = attack.fit(seen.shadows[i : i + 1], seen.shadow_member[i : i + 1])
        assert torch.equal(found[i], attack.judge(fitted, target)[0]), i


def test_each_target_may_name_several_shadows_to_learn_from():
    seen = replace(observation(n_targets=3), teachers=[[0, 2], [1, 2], [2]])
    attack = neural.attacks(QUICK, trainings=1)["nn"]
    found = study.attack({"a": seen}, {"confidence": threshold.confidence, "nn": attack})
    for i, rows in enumerate(seen.teachers):
        alone = threshold.confidence(seen.targets[i], seen.shadows[rows], seen.shadow_member[rows], 0)
        assert torch.equal(found.margins["a"]["confidence"][i, 0], alone), i
        fitted = attack.fit(seen.shadows[rows], seen.shadow_member[rows])
        assert torch.equal(found.margins["a"]["nn"][i], attack.judge(fitted, seen.targets[i])[0]), i
    n_shadows = {row["target"]: row["n_shadows"] for row in found.rows}
    assert n_shadows == {0: 2, 1: 2, 2: 1}


def test_attackers_who_learn_from_other_rows_of_the_same_shadows_train_networks_of_their_own(monkeypatch):
    calls, real_train = [], loop.train
    monkeypatch.setattr(loop, "train", lambda *a, **o: calls.append(1) or real_train(*a, **o))
    one = replace(observation(), teachers=[[0], [1]])
    seen = {"a": one, "b": replace(one, teachers=[[1], [2]])}
    study.attack(seen, {"nn": neural.attacks(QUICK, trainings=1)["nn"]})
    assert len(calls) == 3  # rows 0, 1 and 2, each once


class Learner:
    """No NeuralAttack. It learns how many members there are; margins of training t are labels + t * that."""

    name, trainings = "learner", 2

    def __init__(self):
        self.calls = []

    def fit(self, shadows, shadow_member, seeds=None):
        self.calls.append(("fit", shadows, shadow_member))
        return int(shadow_member.sum())

    def judge(self, learned, targets):
        self.calls.append(("judge", len(targets)))
        return targets.labels[:, None].double() + learned * torch.arange(2.0)[:, None]


def test_the_caller_names_the_measures():
    seen = observation(compression="none")
    half = partial(decisions.precision_at_recall, recall=0.5)
    measures = {"auc": metrics.auc, "precision_at_recall_0.5": half} | decisions.DECISIONS
    found = study.attack({"a": seen}, {"confidence": threshold.confidence}, measures)
    assert [row["metric"] for row in found.rows] == 2 * list(measures)
    for row in found.rows:
        margin = found.margins["a"]["confidence"][row["target"], 0]
        estimate = measures[row["metric"]](seen.member[row["target"]], margin)
        assert (row["value"], row["low"], row["high"]) == estimate, row


def test_whatever_has_fit_and_judge_learns_from_the_shadows():
    seen = {"a": observation(compression="none"), "b": observation(seed=10, compression="l1_filter")}
    mine = Learner()
    found = study.attack(seen, {"mine": mine})
    assert [call[0] for call in mine.calls[:2]] == ["fit", "fit"]  # all learn before any judges
    learned_from = [call[1:] for call in mine.calls if call[0] == "fit"]
    for setting, one in seen.items():
        assert any(member is one.shadow_member for _, member in learned_from), setting
        for i, target in enumerate(one.targets):
            labels = target.labels[0].double()  # 3 shadows with 20 members each
            assert torch.equal(found.margins[setting]["mine"][i], torch.stack([labels, labels + 60])), (
                f"{setting}, {i}"
            )
    learned = {id(views.log_posteriors) for views, _ in learned_from}
    assert learned == {id(one.shadows.log_posteriors) for one in seen.values()}
    assert [call[1] for call in mine.calls if call[0] == "judge"] == [2, 2]  # both targets at once
    rows = study.select(found.rows, metric="auc", compression="none")
    assert [(row["target"], row["seed"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_whatever_has_no_fit_is_called_with_each_target_and_the_shadows():
    seen, calls = observation(compression="none"), []

    def attack(*arguments):
        calls.append(arguments)
        return arguments[0].labels[0].double()

    found = study.attack({"original": seen}, {"mine": attack})
    for i, (target, call) in enumerate(zip(seen.targets, calls, strict=True)):
        assert call[0] is target and call[1] is seen.shadows and call[2] is seen.shadow_member, i
        assert call[3] == 0, i
    assert found.margins["original"]["mine"].shape == (2, 1, 40)


def test_networks_are_trained_once_for_attackers_who_share_their_shadows(monkeypatch):
    calls, real_train = [], loop.train
    monkeypatch.setattr(loop, "train", lambda *a, **o: calls.append(1) or real_train(*a, **o))
    believed = observation(seed=1, defense="none")
    suite = {"nn": neural.attacks(QUICK, trainings=2)["nn"]}
    seen = {
        "none": believed,
        "unaware": observation(seed=2, defense="ppb").unaware(believed, adversary="unaware"),
    }
    study.attack(seen, suite)
    assert len(calls) == 2
    study.attack(seen, suite)
    assert len(calls) == 2  # cached


def test_paired_rows_are_b_minus_a_on_the_same_examples(measured):
    seen, found = measured
    rows = found.paired("original", "pruned", seen["pruned"].columns)
    assert len(rows) == 2 * (3 + 2 * 2)
    for row in rows:
        assert (
            row["metric"] == "auc_difference" and row["variant"] == "minus original" and row["level"] == 0.7
        ), row
        member = seen["pruned"].member[row["target"]]
        a, b = (found.margins[s][row["attack"]][row["target"], row["seed"]] for s in ("original", "pruned"))
        assert row["value"] == pytest.approx(metrics.auc(member, b).value - metrics.auc(member, a).value), row
        assert row["low"] <= row["value"] <= row["high"], row


@pytest.mark.parametrize("metric", ["auc", "balanced_accuracy"])
def test_a_setting_minus_itself_is_exactly_nothing(measured, metric):
    seen, found = measured
    rows = found.paired("pruned", "pruned", seen["pruned"].columns, metric)
    assert {(r["value"], r["low"], r["high"]) for r in rows} == {(0.0, 0.0, 0.0)}


def test_paired_rows_keep_the_variant_and_say_what_was_subtracted():
    margins = {
        "plain": {"gap": torch.tensor([[[1.0, 0.0, 1.0, 0.0]]])},  # AUC 0.5
        "defended": {"gap": torch.tensor([[[1.0, 1.0, 1.0, 0.0]]])},  # AUC 0.75
    }
    member = torch.tensor([[True, True, False, False]])
    found = Measurements([], margins, {"plain": member, "defended": member})
    columns = {"defense": "dp_sgd", "variant": "whole pipeline", "adversary": "adaptive"}
    [row] = found.paired("plain", "defended", columns)
    assert row["variant"] == "whole pipeline, minus plain" and row["value"] == 0.25
    assert (row["defense"], row["adversary"]) == ("dp_sgd", "adaptive")
    assert columns["variant"] == "whole pipeline"  # left as it was
    [row] = found.paired("defended", "plain", {"defense": "none", "variant": None})
    assert row["variant"] == "minus defended" and row["value"] == -0.25


def test_lira_finds_members_of_overfit_models():
    digits = data.load("digits", subset=240)
    split = splits.random_halves(len(digits), 8, seed=0)
    models = training.fit(CNN, digits, split, Recipe(20, 16, lr=0.05))
    seen = study.observe_halves(models, digits, split, 4, dataset="digits")
    suite = {"online": likelihood.lira_online, "offline": likelihood.lira_offline}
    rows = study.attack({"a": seen}, suite).rows
    for name in suite:
        aucs = study.by_target(study.select(rows, attack=name), metric="auc")
        assert len(aucs) == 4 and aucs.mean() > 0.6, name


def test_the_whole_way_on_real_models(digits, suite):
    split = splits.target_shadow(len(digits), 1, 2, seed=0, n_train=20)
    models = training.fit(_net, digits, split, Recipe(1, 8))
    seen = {
        "original": study.observe(
            models, digits, split, 1, dataset="digits", compression="none", defense="none"
        )
    }
    attacked = study.attack(seen, suite)
    rows = attacked.rows
    assert {row["attack"] for row in rows} == set(suite)
    assert {row["dataset"] for row in rows} == {"digits"} and {row["n_shadows"] for row in rows} == {2}
    columns = seen["original"].columns
    utility = study.utility(models, digits, split, 1, **columns)
    by_class = study.leak_by_class(seen["original"], attacked.margins["original"]["nn"], attack="nn")
    everything = rows + utility + study.divergence(seen["original"]) + by_class
    assert tables.models(everything)["test_accuracy"].tolist() == pytest.approx(
        study.by_target(utility, metric="test_accuracy")
    )
    assert tables.attacks(everything, {"original": columns}, "auc").index.tolist() == list(suite)
    headline = tables.headline({"rows": everything, "claims": []})
    assert all(name in headline for name in ("original", *suite))


def _net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_what_learns_from_shadows_learns_once_for_all_targets_and_beliefs():
    asked = []

    class Threshold:
        def learn(self, shadows, shadow_member, seed):
            asked.append(shadows)
            return lambda target: target.labels[0].double() + len(asked)

    seen, other = observation(compression="none"), observation(seed=10, compression="l1_filter")
    settings = {"a": seen, "b": other, "b <- a": other.unaware(seen, attacker_compression="none")}
    found = study.attack(settings, {"mine": Threshold()})
    assert [id(one) for one in asked] == [id(seen.shadows), id(other.shadows)]
    assert found.margins["b <- a"]["mine"].shape == (2, 1, 40)
    expected = torch.stack([target.labels.double() + 2 for target in other.targets])
    assert torch.equal(found.margins["b"]["mine"], expected)
