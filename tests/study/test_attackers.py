"""From models to the table: what the attacker observes, and rows in the contract's vocabulary."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from mialib import asking, data, study, training
from mialib.asking import Views
from mialib.attacks import blindmi, likelihood, neural, threshold
from mialib.data import Splits, splits
from mialib.measures import decisions, metrics
from mialib.models.classifiers import small_cnn
from mialib.reporting import tables
from mialib.study import COLUMNS, Measurements, Observation
from mialib.training import Recipe, loop, population

QUICK = Recipe(1, 16)
CNN = partial(small_cnn, in_channels=1, num_classes=10, image_size=8, width=4)
METRICS = ["balanced_accuracy", "auc", "tpr_at_0.01", "tpr_at_0.001"]


def answer(x):
    """A target that is asked with probes: (m, b, d) -> log-posteriors (m, b, 4)."""
    return x[..., :4].double().log_softmax(-1)


def answers(member, seed, leak=1.0, probes=False):
    """Views of models that are more certain of their members; member bool (m, n)."""
    generator = torch.Generator().manual_seed(seed)
    m, n = member.shape
    labels = torch.randint(4, (m, n), generator=generator)
    logits = torch.randn(m, n, 4, generator=generator, dtype=torch.float64)
    logits += nn.functional.one_hot(labels, 4) * (1 + leak * member[..., None])
    sensitivity = torch.rand(m, n, 4, generator=generator, dtype=torch.float64) * (
        2 - member[..., None].double()
    )
    x = torch.randn(m, n, 6, generator=generator) if probes else None
    return Views(logits.log_softmax(-1), labels, sensitivity, x, answer if probes else None)


def observation(leak=1.0, n_targets=2, n=40, seed=0, **columns):
    member = torch.stack(
        [torch.randperm(n, generator=torch.Generator().manual_seed(i)) < n // 2 for i in range(n_targets + 3)]
    )
    targets = [answers(member[i : i + 1], seed + i, leak, probes=True) for i in range(n_targets)]
    shadows = answers(member[n_targets:], seed + 100, leak)
    return Observation(targets, shadows, member[:n_targets], member[n_targets:], columns)


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
        assert tuple(row) == COLUMNS
        assert (row["n_members"], row["n_nonmembers"], row["n_shadows"]) == (20, 20, 3)
        assert row["class"] is None and row["variant"] is None and row["attacker_level"] is None
        assert row["level"] == (None if row["compression"] == "none" else 0.7)
        assert type(row["value"]) is float
        if row["metric"] in METRICS[:2]:
            assert row["low"] <= row["value"] <= row["high"]
        else:
            assert math.isnan(row["value"])  # 20 non-members cannot resolve a false-positive rate of 1 %


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


def test_an_unaware_attacker_keeps_the_targets_and_swaps_the_shadows():
    believed = observation(seed=1, compression="none", defense="none")
    real = observation(seed=2, compression="none", defense="ppb", defense_strength=4.0, adversary="adaptive")
    unaware = real.unaware(believed, adversary="unaware")
    assert unaware.targets is real.targets and unaware.member is real.member
    assert unaware.shadows is believed.shadows and unaware.shadow_member is believed.shadow_member
    assert unaware.columns == real.columns | {"adversary": "unaware"}
    assert real.columns["adversary"] == "adaptive"  # the other one is left as it was


def test_rows_of_views_are_each_models_own():
    member = torch.arange(12).view(2, 6) % 2 == 0
    seen = answers(member, seed=3, probes=True)
    index = torch.tensor([[5, 0], [2, 2]])
    some = seen.rows(index)
    for model, positions in enumerate(index.tolist()):
        for new, old in enumerate(positions):
            for part in ("log_posteriors", "labels", "sensitivity"):
                assert torch.equal(getattr(some, part)[model, new], getattr(seen, part)[model, old])


def test_the_known_half_teaches_and_the_other_half_judges(known):
    models, dataset, split = known
    seen = study.observe(models, dataset, split, n_targets=2, seed=4, defense="none")
    half = study.known_half(seen, split, seed=4)
    assert half.teachers == [[0], [1]]
    assert half.columns["knowledge"] == "known_members" and half.columns["protocol"] == "known_half"
    index, _ = splits.candidates(split[:2], 4)
    given, scored = splits.known_and_scored(split[:2], 4)
    for i, target in enumerate(half.targets):
        n = target.labels.shape[1]
        assert n == int(scored[i].sum()) and half.shadows.labels.shape[1] == int(given[i].sum())
        # what was learned from and what is judged: together all candidates, each once, with its own membership
        both = torch.cat([target.log_posteriors[0], half.shadows.log_posteriors[i]])
        assert len(both) == index.shape[1]
        answers_of = {tuple(row.tolist()) for row in seen.targets[i].log_posteriors[0]}
        assert {tuple(row.tolist()) for row in both} == answers_of
        own = split.member[i][index[i]]
        where = given[i][index[i]]
        assert torch.equal(half.shadow_member[i], own[where]) and torch.equal(half.member[i], own[~where])


def test_the_known_half_of_other_candidates_is_refused(known):
    models, dataset, split = known
    seen = study.observe(models, dataset, split, n_targets=2, seed=4)
    with pytest.raises(ValueError, match="give its own split and seed"):
        study.known_half(seen, split, seed=5)


def test_each_target_has_an_attacker_of_its_own():
    seen = replace(observation(knowledge="known_members"), teachers=[[0], [1]])
    seen = replace(seen, shadows=seen.shadows[:2], shadow_member=seen.shadow_member[:2])
    found = study.attack({"a": seen}, {"confidence": threshold.confidence})
    for i, target in enumerate(seen.targets):
        alone = threshold.confidence(target, seen.shadows[i : i + 1], seen.shadow_member[i : i + 1], 0)
        assert torch.equal(found.margins["a"]["confidence"][i, 0], alone)
    assert {row["n_shadows"] for row in found.rows} == {0}


def test_networks_of_the_known_half_learn_from_their_own_target_only():
    seen = replace(observation(n_targets=2), teachers=[[0], [1]])
    seen = replace(seen, shadows=seen.shadows[:2], shadow_member=seen.shadow_member[:2])
    attack = neural.attacks(QUICK, trainings=1)["nn"]
    found = study.attack({"a": seen}, {"nn": attack}).margins["a"]["nn"]
    for i, target in enumerate(seen.targets):
        fitted = attack.fit(seen.shadows[i : i + 1], seen.shadow_member[i : i + 1])
        assert torch.equal(found[i], attack.judge(fitted, target)[0])


def test_each_target_may_name_several_shadows_to_learn_from():
    seen = replace(observation(n_targets=3), teachers=[[0, 2], [1, 2], [2]])
    attack = neural.attacks(QUICK, trainings=1)["nn"]
    found = study.attack({"a": seen}, {"confidence": threshold.confidence, "nn": attack})
    for i, rows in enumerate(seen.teachers):
        alone = threshold.confidence(seen.targets[i], seen.shadows[rows], seen.shadow_member[rows], 0)
        assert torch.equal(found.margins["a"]["confidence"][i, 0], alone)
        fitted = attack.fit(seen.shadows[rows], seen.shadow_member[rows])
        assert torch.equal(found.margins["a"]["nn"][i], attack.judge(fitted, seen.targets[i])[0])
    n_shadows = {row["target"]: row["n_shadows"] for row in found.rows}
    assert n_shadows == {0: 2, 1: 2, 2: 1}


def test_attackers_who_learn_from_other_rows_of_the_same_shadows_train_networks_of_their_own(monkeypatch):
    calls, real_train = [], loop.train
    monkeypatch.setattr(loop, "train", lambda *a, **o: calls.append(1) or real_train(*a, **o))
    one = replace(observation(), teachers=[[0], [1]])
    seen = {"a": one, "b": replace(one, teachers=[[1], [2]])}
    study.attack(seen, {"nn": neural.attacks(QUICK, trainings=1)["nn"]})
    assert len(calls) == 3  # rows 0, 1 and 2, each once


def test_transfers_are_every_ordered_pair_of_different_settings():
    seen = {
        name: observation(seed=10 * seed, compression=compression, level=level, dataset="digits")
        for seed, (name, compression, level) in enumerate(
            (("a", "l1_unstructured", 0.5), ("b", "l1_unstructured", 0.7), ("c", "l1_filter", 0.5))
        )
    }
    found = study.transfers(seen)
    assert set(found) == {"a <- b", "a <- c", "b <- a", "b <- c", "c <- a", "c <- b"}
    for name, transfer in found.items():
        target, believed = (seen[one] for one in name.split(" <- "))
        assert transfer.targets is target.targets and transfer.member is target.member
        assert transfer.shadows is believed.shadows and transfer.shadow_member is believed.shadow_member
        belief = {f"attacker_{column}": believed.columns[column] for column in ("compression", "level")}
        assert transfer.columns == target.columns | belief


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


def halve(log_p):
    """An output defence: the posteriors' square roots, normalised."""
    return (log_p / 2).log_softmax(-1)


def test_a_defence_serves_targets_and_shadows_alike():
    seen = observation(compression="none", defense="none")
    served = seen.served(halve, defense="temperature", defense_strength=2.0)
    assert served.columns == {"compression": "none", "defense": "temperature", "defense_strength": 2.0}
    assert seen.columns["defense"] == "none" and seen.targets[0].sensitivity is not None  # left as it was
    for before, after in zip([*seen.targets, seen.shadows], [*served.targets, served.shadows], strict=True):
        assert torch.equal(after.log_posteriors, halve(before.log_posteriors))
        assert after.labels is before.labels and after.sensitivity is None
    assert served.member is seen.member and served.shadow_member is seen.shadow_member
    target, x = served.targets[0], served.targets[0].x
    assert torch.equal(target.query(x), halve(seen.targets[0].query(x)))  # probes are answered alike


def test_serving_the_posteriors_as_they_are_changes_no_bit_and_no_attack():
    seen = observation(compression="none")
    served = seen.served(lambda log_p: log_p, defense="identity")
    for before, after in zip([*seen.targets, seen.shadows], [*served.targets, served.shadows], strict=True):
        assert torch.equal(after.log_posteriors, before.log_posteriors)
    found = study.attack({"plain": seen, "served": served}, {"confidence": threshold.confidence})
    assert torch.equal(*(found.margins[setting]["confidence"] for setting in ("plain", "served")))


def test_who_does_not_know_the_defence_learns_from_undefended_shadows():
    seen = observation(compression="none")
    unaware = seen.served(halve, defense="temperature").unaware(seen, adversary="unaware")
    assert torch.equal(unaware.targets[1].log_posteriors, halve(seen.targets[1].log_posteriors))
    assert unaware.shadows is seen.shadows
    assert unaware.columns == {"compression": "none", "defense": "temperature", "adversary": "unaware"}


def test_the_caller_names_the_measures():
    seen = observation(compression="none")
    half = partial(decisions.precision_at_recall, recall=0.5)
    measures = {"auc": metrics.auc, "precision_at_recall_0.5": half} | decisions.DECISIONS
    found = study.attack({"a": seen}, {"confidence": threshold.confidence}, measures)
    assert [row["metric"] for row in found.rows] == 2 * list(measures)
    for row in found.rows:
        margin = found.margins["a"]["confidence"][row["target"], 0]
        estimate = measures[row["metric"]](seen.member[row["target"]], margin)
        assert (row["value"], row["low"], row["high"]) == estimate


def test_whatever_has_fit_and_judge_learns_from_the_shadows():
    seen = {"a": observation(compression="none"), "b": observation(seed=10, compression="l1_filter")}
    mine = Learner()
    found = study.attack(seen, {"mine": mine})
    assert [call[0] for call in mine.calls[:2]] == ["fit", "fit"]  # all learn before any judges
    learned_from = [call[1:] for call in mine.calls if call[0] == "fit"]
    for setting, one in seen.items():
        assert any(member is one.shadow_member for _, member in learned_from)
        for i, target in enumerate(one.targets):
            labels = target.labels[0].double()  # 3 shadows with 20 members each
            assert torch.equal(found.margins[setting]["mine"][i], torch.stack([labels, labels + 60]))
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
    for target, call in zip(seen.targets, calls, strict=True):
        assert call[0] is target and call[1] is seen.shadows and call[2] is seen.shadow_member
        assert call[3] == 0
    assert found.margins["original"]["mine"].shape == (2, 1, 40)


def test_targets_together_are_one_after_the_other():
    member = torch.arange(10) < 5
    one, two, three = (answers(member[None], seed, probes=True) for seed in range(3))
    seen = asking.together([two, one, three])
    for i, alone in enumerate((two, one, three)):
        for part in ("log_posteriors", "labels", "sensitivity"):
            assert torch.equal(getattr(seen, part)[i], getattr(alone, part)[0])
    assert len(seen) == 3 and seen.query is None and seen.x is None
    hidden = asking.together([replace(two, sensitivity=None), replace(one, sensitivity=None)])
    assert hidden.sensitivity is None and torch.equal(hidden.log_posteriors, seen.log_posteriors[:2])


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
        )
        member = seen["pruned"].member[row["target"]]
        a, b = (found.margins[s][row["attack"]][row["target"], row["seed"]] for s in ("original", "pruned"))
        assert row["value"] == pytest.approx(metrics.auc(member, b).value - metrics.auc(member, a).value)
        assert row["low"] <= row["value"] <= row["high"]


def test_a_setting_minus_itself_is_exactly_nothing(measured):
    seen, found = measured
    for metric in ("auc", "balanced_accuracy"):
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


def two_targets():
    """Two targets, two trainings: an observation of four classes and the margins of one attack, by hand."""
    labels = torch.tensor([[0, 0, 0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 1, 2, 2, 2]])
    member = torch.tensor([[1, 1, 0, 0, 1, 0, 1, 1], [1, 0, 0, 0, 0, 0, 1, 1]], dtype=torch.bool)
    mean = torch.tensor(
        [[3.0, -2.0, 2.0, -3.0, 1.0, 1.0, 9.0, 9.0], [-1.0, 1.0, 0.0, 0.0, 0.0, 4.0, 4.0, 5.0]]
    )
    apart = torch.tensor([100.0, -100.0])[:, None] * torch.tensor([1.0, -1.0]).repeat(4)
    views = [Views(torch.full((1, 8, 4), -math.log(4.0)).double(), one[None]) for one in labels]
    seen = Observation(views, views[0], member, member, {"compression": "none", "variant": None})
    return seen, mean.double()[:, None] + apart


def test_per_class_is_the_attack_within_the_class():
    seen, margins = two_targets()
    rows = study.leak_by_class(seen, margins, attack="samia")
    # target 0 has only members in class 2, target 1 only non-members in class 1, and nobody is in class 3
    found = {(row["target"], row["class"]): row["value"] for row in rows}
    assert len(found) == 8 and {key: value for key, value in found.items() if not math.isnan(value)} == {
        (0, 0): 0.75,  # 3 > 2, 3 > -3, -2 < 2, -2 > -3
        (0, 1): 0.5,
        (1, 0): 0.0,
        (1, 2): 0.75,  # 4 = 4, 5 > 4
    }
    for row in rows:
        assert (row["metric"], row["attack"], row["compression"]) == ("auc", "samia", "none")
        assert row["seed"] is None  # the trainings' mean is judged
    decisions = study.leak_by_class(seen, margins, "balanced_accuracy", attack="samia")
    assert [row["value"] for row in decisions if not math.isnan(row["value"])] == [0.5, 0.5, 0.0, 0.5]
    assert {row["metric"] for row in decisions} == {"balanced_accuracy"}


# The models themselves


def linear():
    return nn.Linear(3, 3, bias=False)


def eye(value):
    layer = linear()
    layer.weight.data = value * torch.eye(3)
    return layer


@pytest.fixture
def known(toy):
    """Two models that answer with the largest of three features, and with the smallest; their data."""
    x = torch.eye(3).repeat(4, 1)
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 1, 2, 0])  # the last three are wrong
    dataset = type(toy).of_features("known", x, y, 3)
    member = torch.zeros(2, 12, dtype=torch.bool)
    member[0, :6] = member[1, 6:] = True
    split = Splits(member, ~member, torch.zeros_like(member), torch.tensor([0, 1]))
    return population.stack(linear, [eye(9.0), eye(-9.0)]), dataset, split


def test_utility_by_hand(known):
    models, dataset, split = known
    late = torch.arange(12) % 6 > 3  # two of the six non-members
    split = Splits(split.member, split.test & ~late, split.test & late, split.seeds)
    rows = study.utility(models, dataset, split, 2, compression="none", defense="none")
    value = {(row["metric"], row["target"]): row["value"] for row in rows}
    # target 0 knows 0 to 5, is right on 6, 7 and 8 of the four test examples and wrong on both in reserve
    assert value["test_accuracy", 0] == 0.75 and value["generalization_gap", 0] == 0.25
    assert value["reserve_accuracy", 0] == 0.0
    assert value["test_accuracy", 1] == 0.0
    assert value["sparsity", 0] == pytest.approx(6 / 9) and value["nonzero_parameters", 0] == 3
    assert all(row["attack"] is None and row["compression"] == "none" for row in rows)


def test_observe_asks_each_model_about_its_own_candidates(known):
    models, dataset, split = known
    seen = study.observe(models, dataset, split, 1, seed=3, compression="none")
    assert len(seen.targets) == 1 and len(seen.shadows) == 1 and seen.columns == {"compression": "none"}
    target = seen.targets[0]
    assert target.log_posteriors.shape == (1, 12, 3) and target.sensitivity.shape == (1, 12, 3)
    right = target.log_posteriors[0].argmax(-1) == target.labels[0]
    assert int(right[seen.member[0]].sum()) == 6 and int(right[~seen.member[0]].sum()) == 3
    assert torch.allclose(target.query(target.x[0][None]), target.log_posteriors)
    assert torch.allclose(seen.shadows.query(seen.shadows.x[0][None]), seen.shadows.log_posteriors)
    assert int(seen.shadow_member.sum()) == 6
    assert torch.allclose(
        seen.true_class("confidence")[0][right], torch.tensor(9.0).double().exp() / (2 + math.e**9)
    )
    with pytest.raises(KeyError):
        seen.true_class("entropy")


def halves(toy, n_models=6):
    split = splits.random_halves(len(toy), n_models, seed=1)
    return population.initial(_net_of_six, split.seeds.tolist()), split


def _net_of_six():
    return nn.Linear(6, 3)


def test_random_halves_ask_every_model_about_the_same_candidates(toy):
    models, split = halves(toy)
    seen = study.observe_halves(models, toy, split, 3, seed=2, defense="none", protocol="target_shadow")
    assert seen.columns == {"defense": "none", "protocol": "random_halves"}
    assert len(seen.targets) == 3 and len(seen.shadows) == 6 and seen.shadows.sensitivity is None
    n = int((~split.reserve[0]).sum())
    assert seen.member.shape == (3, n) and seen.shadow_member.shape == (6, n)
    assert torch.equal(seen.shadow_member[::2], seen.member)
    assert bool((seen.shadows.labels == seen.shadows.labels[0]).all())
    [candidates] = {tuple(map(tuple, target.x[0].tolist())) for target in seen.targets}
    outside = toy.x[~split.reserve[0]]
    assert sorted(candidates) == sorted(map(tuple, outside.tolist()))
    assert list(candidates) != list(map(tuple, outside.tolist()))  # shuffled
    where = {tuple(x): i for i, x in enumerate(toy.x.tolist())}
    index = torch.tensor([where[x] for x in candidates])
    assert torch.equal(seen.shadow_member, split.member[:, index])
    for i, target in enumerate(seen.targets):
        assert torch.equal(target.log_posteriors[0], seen.shadows.log_posteriors[2 * i])
        assert torch.allclose(target.query(target.x[0][None]), target.log_posteriors, atol=1e-6)
        assert torch.equal(target.labels[0], toy.y[index])


def test_a_targets_pair_is_not_among_its_shadows(toy):
    models, split = halves(toy)
    seen = study.observe_halves(models, toy, split, 3)
    assert seen.teachers == [[2, 3, 4, 5], [0, 1, 4, 5], [0, 1, 2, 3]]
    for rows in seen.teachers:
        assert bool(
            (seen.shadow_member[rows].sum(0) == 2).all()
        )  # nor does it show in how often one is a member
    rows = study.attack({"a": seen}, {"lira_online": likelihood.lira_online}).rows
    assert {(row["target"], row["n_shadows"]) for row in rows} == {(i, 4) for i in range(3)}


def test_who_is_a_member_of_the_target_reaches_no_attack_under_random_halves(toy):
    models, split = halves(toy)
    other = splits.random_halves(len(toy), 6, seed=7, reserve_fraction=0.0)
    member = split.member.clone()
    rest = ~split.reserve[0]
    member[0, rest] = other.member[0, rest]  # other halves for the first pair, of the very same models
    member[1] = rest & ~member[0]
    changed = Splits(member, rest & ~member, split.reserve, split.seeds)
    seen, after = (study.observe_halves(models, toy, one, 1) for one in (split, changed))
    assert not torch.equal(seen.member, after.member)
    suite = {"online": likelihood.lira_online, "offline": likelihood.lira_offline, "gap": threshold.gap}
    suite["confidence"] = threshold.confidence
    before, now = (study.attack({"a": one}, suite).margins["a"] for one in (seen, after))
    assert all(torch.equal(before[name], now[name]) for name in suite)
    for (_, *one), (_, *two) in zip(seen.attackers(), after.attackers(), strict=True):
        assert torch.equal(one[0].log_posteriors, two[0].log_posteriors) and torch.equal(one[1], two[1])


def test_who_believes_in_another_setting_learns_from_its_models_but_not_from_the_targets_pair(toy):
    models, split = halves(toy)
    believed = study.observe_halves(models, toy, split, 2, compression="none")
    real = study.observe_halves(
        population.initial(_net_of_six, range(6)), toy, split, 2, compression="l1_unstructured", level=0.5
    )
    unaware = real.unaware(believed, adversary="unaware")
    assert unaware.shadows is believed.shadows and unaware.teachers == real.teachers == believed.teachers
    found = study.attack({"a": unaware}, {"lira": likelihood.lira_online}).margins["a"]["lira"]
    for i, rows in enumerate(real.teachers):
        alone = likelihood.lira_online(real.targets[i], believed.shadows[rows], believed.shadow_member[rows])
        assert torch.equal(found[i, 0], alone)
    transfers = study.transfers({"none": believed, "pruned": real})
    assert transfers["pruned <- none"].teachers == believed.teachers


def test_models_that_are_no_random_halves_are_named(toy):
    models, split = halves(toy)

    def changed(**parts):
        fields = {name: getattr(split, name).clone() for name in ("member", "test", "reserve")}
        return Splits(**fields | parts, seeds=split.seeds)

    with pytest.raises(ValueError, match="two pairs of models or more.*found 2 models"):
        study.observe_halves(models[:2], toy, split[:2], 1)
    with pytest.raises(ValueError, match="1 to 3 targets.*found 6 models and 4 targets"):
        study.observe_halves(models, toy, split, 4)
    reserve, test = split.reserve.clone(), split.test.clone()
    test[5, test[5].nonzero()[0]] = False
    with pytest.raises(ValueError, match="covers the same candidates"):
        study.observe_halves(models, toy, changed(test=test), 1)
    reserve[5] |= split.test[5] & ~test[5]
    with pytest.raises(ValueError, match="reserves differ"):
        study.observe_halves(models, toy, changed(test=test, reserve=reserve), 1)
    order = [0, 2, 1, 3, 4, 5]
    with pytest.raises(ValueError, match="covers the same candidates"):
        study.observe_halves(models, toy, split[order], 1)


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


def test_observe_leaves_the_sensitivity_out_where_it_is_not_wanted(known):
    models, dataset, split = known
    with_it = study.observe(models, dataset, split, 1)
    without = study.observe(models, dataset, split, 1, sensitive=False)
    assert without.targets[0].sensitivity is None and with_it.targets[0].sensitivity is not None
    assert torch.equal(without.targets[0].log_posteriors, with_it.targets[0].log_posteriors)


def test_accuracy_is_that_of_the_served_answers():
    seen = observation(n_targets=2, compression="none", defense="none")
    rows = study.accuracy(seen)
    for i, (target, member) in enumerate(zip(seen.targets, seen.member, strict=True)):
        right = (target.log_posteriors[0].argmax(1) == target.labels[0]).double()
        test = float(right[~member].mean())
        assert study.by_target(rows, metric="test_accuracy")[i] == pytest.approx(test)
        gap = float(right[member].mean()) - test
        assert study.by_target(rows, metric="generalization_gap")[i] == pytest.approx(gap)
    blind = seen.served(lambda log_p: torch.full_like(log_p, -math.log(4)), defense="silence")
    firsts = [
        float((t.labels[0][~m] == 0).double().mean()) for t, m in zip(seen.targets, seen.member, strict=True)
    ]
    assert study.by_target(study.accuracy(blind), metric="test_accuracy").tolist() == pytest.approx(firsts)


def test_divergence_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.5, 0.5]]).double()
    s = torch.tensor([[0.1, 0.0], [0.5, 0.0], [0.0, 0.2], [0.0, 0.4]]).double()
    labels, member = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[True, False, True, False]])
    target = Views(p.log()[None], labels, s[None])
    rows = study.divergence(Observation([target], target, member, member, {"compression": "none"}))
    value = {(row["metric"], row["class"]): row["value"] for row in rows}
    expected = {
        ("confidence_gap", None): 0.25, ("confidence_gap", 0): 0.3, ("confidence_gap", 1): 0.2,
        ("sensitivity_gap", None): 0.3, ("sensitivity_gap", 0): 0.4, ("sensitivity_gap", 1): 0.2,
    }  # fmt: skip
    assert value == pytest.approx(expected)


def test_calibration_by_hand():
    p = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.5, 0.5], [0.0, 1.0]]).double()
    labels, member = torch.tensor([[0, 0, 1, 0]]), torch.tensor([[True, False, True, False]])
    target = Views(p.log()[None], labels)
    seen = Observation([target, target], target, member.repeat(2, 1), member, {"level": 0.7})
    rows = study.calibration(seen)
    assert [row["target"] for row in rows] == [0, 0, 0, 1, 1, 1]
    assert {(row["level"], row["attack"]) for row in rows} == {(0.7, None)}
    value = {row["metric"]: row["value"] for row in rows}
    expected = {
        "calibration_error": (0.4 + 1.0) / 2,  # right at 0.6, wrong at 1
        "member_loss": -(math.log(0.8) + math.log(0.5)) / 2,
        "test_loss": (-math.log(0.6) + 1000) / 2,  # not infinite, although the true class has posterior 0
    }
    assert value == pytest.approx(expected)


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
