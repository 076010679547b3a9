"""Rows that need no attacker, by hand, and an attack's rows class by class."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from mialib import measures, study
from mialib.asking import Views
from mialib.attacks import inversion
from mialib.data import Splits, splits
from mialib.study import Observation
from mialib.training import population
from tests.study.test_observations import Shift, observation


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


@pytest.mark.parametrize(
    "record, epochs",
    [
        ({"loss": [0.3, 0.2, 0.1]}, 3),
        ({"loss": [0.3, 0.2, 0.1], "best_epoch": 0, "reserve_accuracy": [0.5, 0.4, 0.4]}, 1),
    ],
    ids=["all of them", "up to the best"],
)
def test_the_epochs_of_utility_are_those_behind_the_weights(known, record, epochs):
    models, dataset, split = known
    rows = study.utility(replace(models, records=[record] * 2), dataset, split, 2)
    assert [row["value"] for row in study.select(rows, metric="epochs")] == [epochs] * 2


def test_accuracy_is_that_of_the_served_answers():
    seen = observation(n_targets=2, compression="none", defense="none")
    rows = study.accuracy(seen)
    for i, (target, member) in enumerate(zip(seen.targets, seen.member, strict=True)):
        right = (target.log_posteriors[0].argmax(1) == target.labels[0]).double()
        test = float(right[~member].mean())
        assert study.by_target(rows, metric="test_accuracy")[i] == pytest.approx(test), i
        gap = float(right[member].mean()) - test
        assert study.by_target(rows, metric="generalization_gap")[i] == pytest.approx(gap), i
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
        assert (row["metric"], row["attack"], row["compression"]) == ("auc", "samia", "none"), row
        assert row["seed"] is None, row  # the trainings' mean is judged
    decisions = study.leak_by_class(seen, margins, "balanced_accuracy", attack="samia")
    assert [row["value"] for row in decisions if not math.isnan(row["value"])] == [0.5, 0.5, 0.0, 0.5]
    assert {row["metric"] for row in decisions} == {"balanced_accuracy"}


def test_rows_on_answers_are_of_each_side(setting):
    _, _, seen = setting
    served = seen.served(Shift(torch.full((4,), 2.0)), defense="shift")
    rows = study.dispersion(served) + study.distortion(served, seen)
    value = {(row["metric"], row["target"]): row["value"] for row in rows}
    member = seen.member[1]
    before, after = (one.targets[1].log_posteriors[0] for one in (seen, served))
    assert value["member_distortion", 1] == float(measures.distortion(before[member], after[member]))
    assert value["test_label_loss", 1] == float(measures.label_loss(before[~member], after[~member]))
    assert value["test_entropy", 1] == float(measures.spread(after[~member]).entropy)
    assert value["member_beyond_the_label", 1] == float(measures.beyond_the_label(after[member]))
    assert {row["defense"] for row in rows} == {"shift"}


def test_rows_on_pictures_are_of_each_side(setting, digits):
    networks, split, seen = setting
    index, _ = splits.candidates(split[:2], 0)
    truth = inversion.pixels(digits, index)
    drawn = truth.clone()
    drawn[~seen.member] = 0.5
    rows = study.rebuilt(seen, drawn, truth, {"attack": "inversion"}, networks[:1], digits)
    value = {(row["metric"], row["target"]): row["value"] for row in rows}
    assert value["member_inversion_error", 0] == 0 and value["member_ssim", 0] == pytest.approx(1)
    expected = float((truth[1][~seen.member[1]] - 0.5).square().mean())
    assert value["test_inversion_error", 1] == pytest.approx(expected, abs=1e-6)
    right = (
        networks[0](digits.inputs(index[0][seen.member[0]])).argmax(1) == digits.y[index[0][seen.member[0]]]
    )
    assert value["member_named", 0] == pytest.approx(float(right.double().mean()))


def test_rows_on_rebuilt_features_know_no_pictures(setting, toy):
    _, _, seen = setting
    drawn = torch.rand(2, seen.member.shape[1], 6)
    networks = population.initial(partial(nn.Linear, 6, 10), [0])
    rows = study.rebuilt(seen, drawn, drawn, {"attack": "inversion"}, networks, replace(toy, num_classes=10))
    assert {row["metric"] for row in rows} == {
        *("member_inversion_error", "test_inversion_error", "member_named", "test_named")
    }
    assert [row["value"] for row in study.select(rows, metric="test_inversion_error")] == [0, 0]
