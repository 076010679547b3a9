"""Rows that need no margins, by hand."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from mialib import measures, study
from mialib.asking import Views
from mialib.attacks import inversion, threshold
from mialib.data import Dataset, Splits, canaries, splits
from mialib.measures import epsilon, vulnerability
from mialib.study import Study
from mialib.training import population
from tests.study.test_arms import Shift


def given(log_posteriors, labels, member, sensitivity=None, **columns):
    """An arm of targets that answered log_posteriors (targets, n, c), on all examples of a data set of n."""
    n = labels.shape[1]
    data = Dataset.of_features("given", torch.zeros(n, 1), torch.zeros(n).long(), log_posteriors.shape[-1])
    split = Splits(member, ~member, torch.zeros_like(member), torch.arange(len(member)))
    found = Study(data, split, len(member))
    found.roles.truth[:] = member  # in the order of the answers
    parts = [log_posteriors, labels, sensitivity]
    views = [Views(*(part if part is None else part[[i]] for part in parts)) for i in range(len(labels))]
    return found.arm("given", study.Given(views, views[0]), **columns)


def test_utility_by_hand(known):
    models, dataset, split = known
    late = torch.arange(12) % 6 > 3  # two of the six non-members
    split = Splits(split.member, split.test & ~late, split.test & late, split.seeds)
    rows = study.utility(Study(dataset, split, 2, protocol="own").arm("a", models))
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
    rows = study.utility(
        Study(dataset, split, 2, protocol="own").arm("a", replace(models, records=[record] * 2))
    )
    assert [row["value"] for row in study.select(rows, metric="epochs")] == [epochs] * 2


def test_accuracy_is_that_of_the_served_answers(made):
    plain = made.made("plain")
    blind = made.arm(
        "blind", plain, behind=lambda log_p: torch.full_like(log_p, -math.log(4)), defense="silence"
    )
    made.measure(study.accuracy)
    for i, (target, member) in enumerate(zip(plain.targets(), plain.member, strict=True)):
        right = (target.log_posteriors[0].argmax(1) == target.labels[0]).double()
        test = float(right[~member].mean())
        assert made.values(plain, "test_accuracy")[i] == pytest.approx(test), i
        gap = float(right[member].mean()) - test
        assert made.values(plain, "generalization_gap")[i] == pytest.approx(gap), i
        first = float((target.labels[0][~member] == 0).double().mean())  # of equal posteriors the first class
        assert made.values(blind, "test_accuracy")[i] == pytest.approx(first), i


def test_divergence_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.5, 0.5]]).double()
    s = torch.tensor([[0.1, 0.0], [0.5, 0.0], [0.0, 0.2], [0.0, 0.4]]).double()
    labels, member = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[True, False, True, False]])
    rows = study.divergence(given(p.log()[None], labels, member, s[None]))
    value = {(row["metric"], row["class"]): row["value"] for row in rows}
    expected = {
        ("confidence_gap", None): 0.25, ("confidence_gap", 0): 0.3, ("confidence_gap", 1): 0.2,
        ("sensitivity_gap", None): 0.3, ("sensitivity_gap", 0): 0.4, ("sensitivity_gap", 1): 0.2,
    }  # fmt: skip
    assert value == pytest.approx(expected)


def test_calibration_by_hand():
    p = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.5, 0.5], [0.0, 1.0]]).double()
    labels, member = torch.tensor([[0, 0, 1, 0]]), torch.tensor([[True, False, True, False]])
    twice = p.log().repeat(2, 1, 1), labels.repeat(2, 1), member.repeat(2, 1)
    rows = study.calibration(given(*twice, level=0.7))
    assert [row["target"] for row in rows] == [0] * 4 + [1] * 4
    assert {(row["level"], row["attack"]) for row in rows} == {(0.7, None)}
    value = {row["metric"]: row["value"] for row in rows}
    expected = {
        "calibration_error": (0.4 + 1.0) / 2,  # right at 0.6, wrong at 1
        "calibration_error_by_chance": (0.6 * 0.4 + 0.4 * 0.6) / 2,  # at 0.6 off by 0.4 or by 0.6, at 1 never
        "member_loss": -(math.log(0.8) + math.log(0.5)) / 2,
        "test_loss": (-math.log(0.6) + 1000) / 2,  # not infinite, although the true class has posterior 0
    }
    assert value == pytest.approx(expected)


def test_rows_on_answers_are_of_each_side(setting):
    _, _, found, plain = setting
    served = found.arm("shifted", plain, behind=Shift(torch.full((4,), 2.0)), defense="shift")
    rows = study.dispersion(served) + study.distortion(served)
    value = {(row["metric"], row["target"]): row["value"] for row in rows}
    member = plain.member[1]
    before, after = (one.log_posteriors[1] for one in (plain, served))
    assert value["member_distortion", 1] == float(measures.distortion(before[member], after[member]))
    assert value["test_label_loss", 1] == float(measures.label_loss(before[~member], after[~member]))
    assert value["test_entropy", 1] == float(measures.spread(after[~member]).entropy)
    assert value["member_beyond_the_label", 1] == float(measures.beyond_the_label(after[member]))
    assert {row["defense"] for row in rows} == {"shift"}
    with pytest.raises(ValueError, match="arm 'none' serves its own answers"):
        study.distortion(plain)


def test_rows_on_pictures_are_of_each_side(setting, digits):
    networks, split, _, plain = setting
    index, _ = splits.candidates(split[:2], 0)
    truth = inversion.pixels(digits, index)
    drawn = truth.clone()
    drawn[~plain.member] = 0.5
    rows = study.rebuilt(plain, drawn, truth, networks[:1])
    value = {(row["metric"], row["target"]): row["value"] for row in rows}
    assert value["member_inversion_error", 0] == 0 and value["member_ssim", 0] == pytest.approx(1)
    expected = float((truth[1][~plain.member[1]] - 0.5).square().mean())
    assert value["test_inversion_error", 1] == pytest.approx(expected, abs=1e-6)
    own = index[0][plain.member[0]]
    right = networks[0](digits.inputs(own)).argmax(1) == digits.y[own]
    assert value["member_named", 0] == pytest.approx(float(right.double().mean()))


def test_rows_on_rebuilt_features_know_no_pictures(made):
    plain = made.made("plain")
    drawn = torch.rand(2, 40, 6)
    rows = study.rebuilt(plain, drawn, drawn, population.initial(partial(nn.Linear, 6, 4), [0]))
    assert {row["metric"] for row in rows} == {
        *("member_inversion_error", "test_inversion_error", "member_named", "test_named")
    }
    assert [row["value"] for row in study.select(rows, metric="test_inversion_error")] == [0, 0]


def test_the_cost_is_measured_on_strangers(known):
    models, dataset, _ = known
    member, reserve = torch.zeros(2, 2, 12, dtype=torch.bool)
    member[:, :4], reserve[:, 4:6] = True, True
    test = torch.zeros_like(member)
    test[:, 6:8] = True  # and the last four nobody took
    found = Study(dataset, Splits(member, test, reserve, torch.tensor([0, 1])), 2)
    plain = found.arm("plain", models)
    rows = study.cost(plain)
    assert [(row["metric"], row["target"], row["value"]) for row in rows] == [
        ("rest_accuracy", 0, 0.5),  # 6, 7 and 8 of 6 to 11
        ("rest_accuracy", 1, 2 / 6),  # 9 and 11, the first of equal posteriors
    ]
    served = found.arm("turned", plain, behind=lambda log_p: log_p.flip(-1), defense="turned")
    value = {(row["metric"], row["target"]): row["value"] for row in study.cost(served)}
    # the middle class stays, the other two change places
    assert value["rest_label_loss", 0] == pytest.approx(2 / 3)
    assert value["rest_distortion", 0] == pytest.approx(4 / 3, abs=0.01)
    assert {row["defense"] for row in study.cost(served)} == {"turned"}


# Of canaries


@pytest.fixture(scope="module")
def planted():
    """Two studies of the same 16 models that answer as they are told: sure of the canaries that are their members."""
    n = 300
    x, y = torch.randn(n, 3, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 3
    made = canaries.mislabelled(Dataset.of_features("planted", x, y, 3), 16, 100, seed=0)
    data, split, chosen = made
    studies = {}
    for protocol, mask in (("random_halves", ~chosen), ("canaries", chosen)):
        found = Study(data, split, 2, candidates=mask, protocol=protocol)
        index, member = found.roles.index, found.roles.member
        noise = (
            torch.randn(16, n, 3, generator=torch.Generator().manual_seed(1))
            .double()
            .gather(1, index[..., None].expand(-1, -1, 3))
        )
        labels = data.y[index]
        lift = (4.0 if protocol == "canaries" else 0.5) * member.double()
        logits = noise + nn.functional.one_hot(labels, 3) * lift[..., None]
        seen = Views(logits.log_softmax(-1), labels)
        given = study.Given([seen[[i]] for i in found.roles.targets], seen[found.roles.shadows])
        studies[protocol] = found, found.arm("original", given)
    return studies


def test_canaries_are_rows_of_their_own_protocol_and_leak_more(planted):
    aucs = {}
    for protocol, (found, arm) in planted.items():
        found.attack({"confidence": threshold.ATTACKS["confidence"]})
        assert {row["protocol"] for row in found.rows} == {protocol}
        aucs[protocol] = found.values(arm, "auc", "confidence")
    assert (aucs["canaries"] > aucs["random_halves"] + 0.2).all()
    # and are told apart where all rows are put together
    rows = [row for found, _ in planted.values() for row in found.rows]
    means = study.aggregate(study.select(rows, metric="auc"))
    assert [row["protocol"] for row in means] == ["random_halves", "canaries"]
    with pytest.raises(ValueError, match="these two studies have others"):
        (one, a), (other, b) = planted.values()
        one.difference(a, b, "auc", "confidence", of=other)


def test_audited_epsilons_stand_beside_the_accounted(planted):
    found, arm = planted["canaries"]
    found.attack({"confidence": threshold.ATTACKS["confidence"]})
    margins = found.margins(arm, "confidence")
    found.note(arm, "epsilon", [9.0, 9.0])
    found.measure(partial(study.epsilon_lower, margins=margins), arm, attack="confidence")
    found.measure(study.epsilon_lower_of_many, arm)
    by_hand = [epsilon.of_one_run(m, margin) for m, margin in zip(arm.member, margins.mean(1), strict=True)]
    assert found.values(arm, "epsilon_lower", "confidence").tolist() == by_hand and min(by_hand) > 1
    assert found.values(arm, "epsilon").tolist() == [9.0, 9.0]
    signal, member = study.population_signal(arm)
    assert signal.shape == member.shape == (16, 100)
    expected = epsilon.of_many_models(signal, member).bound
    assert found.values(arm, "epsilon_lower_of_many").tolist() == [expected] * 2
    assert expected < min(by_hand)  # of 16 models little can be said
    less = study.epsilon_lower(arm, margins, delta=1e-3)
    assert [row["value"] for row in less] < by_hand


def test_an_audit_needs_canaries(planted):
    found, arm = planted["random_halves"]
    with pytest.raises(ValueError, match="the protocol of arm 'original' is 'random_halves'.*canaries"):
        study.epsilon_lower(arm, torch.zeros(2, 1, 180))
    with pytest.raises(ValueError, match="an audit counts guesses about canaries"):
        study.epsilon_lower_of_many(arm)


def test_the_leak_of_the_worst_is_that_of_the_population(planted):
    found, arm = planted["random_halves"]
    rows = study.vulnerable(arm, share=0.05)
    assert {row["metric"] for row in rows} == {"leak_of_worst_0.05"} and [r["target"] for r in rows] == [0, 1]
    expected = vulnerability.worst_share(*study.population_signal(arm), share=0.05)
    assert [row["value"] for row in rows] == [expected] * 2


def test_models_that_were_asked_about_candidates_of_their_own_have_no_common_signal(made):
    with pytest.raises(ValueError, match="candidates of their own; take a study of splits.random_halves"):
        study.population_signal(made.made("a"))
