"""From models to the table: rows in the contract's vocabulary, and what notebooks read from them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mialib import audit, loop, metrics, population, results, splits, tables, train
from mialib.attacks import blindmi, neural, threshold
from mialib.audit import Observation
from mialib.predict import Views

QUICK = train.Recipe(1, 16)
METRICS = ["balanced_accuracy", "auc", "tpr_at_0.01", "tpr_at_0.001"]


def answer(x):
    """A target that is asked with probes: (b, d) -> log-posteriors (b, 4)."""
    return x[:, :4].double().log_softmax(-1)


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
    return Views(
        logits.log_softmax(-1), labels, sensitivity, torch.randn(m, n, 6, generator=generator) if probes else None,
        answer if probes else None,
    )  # fmt: skip


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
    return seen, audit.attack(seen, suite)


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
        assert tuple(row) == results.COLUMNS
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


def test_networks_are_trained_once_for_attackers_who_share_their_shadows(monkeypatch):
    calls, real_train = [], loop.train
    monkeypatch.setattr(loop, "train", lambda *a, **o: calls.append(1) or real_train(*a, **o))
    believed = observation(seed=1, defense="none")
    suite = {"nn": neural.attacks(QUICK, trainings=2)["nn"]}
    seen = {
        "none": believed,
        "unaware": observation(seed=2, defense="ppb").unaware(believed, adversary="unaware"),
    }
    audit.attack(seen, suite)
    assert len(calls) == 2
    audit.attack(seen, suite)
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
    dataset = type(toy)("known", x, y, 3, torch.zeros(1), torch.ones(1))
    member = torch.zeros(2, 12, dtype=torch.bool)
    member[0, :6] = member[1, 6:] = True
    split = splits.Splits(member, ~member, torch.zeros_like(member), torch.tensor([0, 1]))
    return population.stack(linear, [eye(9.0), eye(-9.0)]), dataset, split


def test_utility_by_hand(known):
    rows = audit.utility(*known, 2, compression="none", defense="none")
    value = {(row["metric"], row["target"]): row["value"] for row in rows}
    assert value["test_accuracy", 0] == 0.5 and value["generalization_gap", 0] == 0.5
    assert value["test_accuracy", 1] == 0.0
    assert value["sparsity", 0] == pytest.approx(6 / 9) and value["nonzero_parameters", 0] == 3
    assert all(row["attack"] is None and row["compression"] == "none" for row in rows)


def test_observe_asks_each_model_about_its_own_candidates(known):
    models, dataset, split = known
    seen = audit.observe(models, dataset, split, 1, seed=3, compression="none")
    assert len(seen.targets) == 1 and len(seen.shadows) == 1 and seen.columns == {"compression": "none"}
    target = seen.targets[0]
    assert target.log_posteriors.shape == (1, 12, 3) and target.sensitivity.shape == (1, 12, 3)
    right = target.log_posteriors[0].argmax(-1) == target.labels[0]
    assert int(right[seen.member[0]].sum()) == 6 and int(right[~seen.member[0]].sum()) == 3
    assert torch.allclose(target.query(target.x[0]), target.log_posteriors[0])
    assert seen.shadows.query is None and int(seen.shadow_member.sum()) == 6
    assert torch.allclose(
        seen.true_class("confidence")[0][right], torch.tensor(9.0).double().exp() / (2 + math.e**9)
    )
    with pytest.raises(KeyError):
        seen.true_class("entropy")


def test_divergence_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.5, 0.5]]).double()
    s = torch.tensor([[0.1, 0.0], [0.5, 0.0], [0.0, 0.2], [0.0, 0.4]]).double()
    labels, member = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[True, False, True, False]])
    target = Views(p.log()[None], labels, s[None])
    rows = audit.divergence(Observation([target], target, member, member, {"compression": "none"}))
    value = {(row["metric"], row["class"]): row["value"] for row in rows}
    expected = {
        ("confidence_gap", None): 0.25, ("confidence_gap", 0): 0.3, ("confidence_gap", 1): 0.2,
        ("sensitivity_gap", None): 0.3, ("sensitivity_gap", 0): 0.4, ("sensitivity_gap", 1): 0.2,
    }  # fmt: skip
    assert value == pytest.approx(expected)


# Reading the table


def rows_of(metric="auc", **by_level):
    """Rows of attack "samia": level -> value of each (target, training)."""
    return [
        results.row(metric, value, compression="l1_unstructured", level=float(level[1:]) / 10, defense="none",
                    attack="samia", target=target, seed=seed)
        for level, targets in by_level.items()
        for target, trainings in enumerate(targets)
        for seed, value in enumerate(trainings)
    ]  # fmt: skip


def test_by_target_averages_the_trainings_first():
    rows = rows_of(l0=[[0.5, 0.7], [0.8, 0.9]])
    assert tables.by_target(rows, level=0.0) == pytest.approx([0.6, 0.85])
    with pytest.raises(ValueError, match="no row of the table has {'level': 0.3}"):
        tables.by_target(rows, level=0.3)


def test_by_target_keeps_what_is_unresolved():
    assert np.isnan(tables.by_target(rows_of(l0=[[None], [0.6]]), level=0.0)).tolist() == [True, False]


def test_difference_is_b_minus_a_with_an_interval_over_the_targets():
    rows = rows_of(l0=[[0.5], [0.6], [0.55]], l7=[[0.6], [0.75], [0.65]])
    found = tables.difference(rows, {"level": 0.0}, {"level": 0.7}, metric="auc")
    values = np.array([0.1, 0.15, 0.1])
    half = 4.302653 * values.std(ddof=1) / math.sqrt(3)  # Student's t with two degrees of freedom
    assert found == pytest.approx((values.mean(), values.mean() - half, values.mean() + half), abs=1e-6)
    assert math.isnan(tables.difference(rows_of(l0=[[0.5]], l7=[[0.6]]), {"level": 0.0}, {"level": 0.7}).low)


def test_attacks_and_differences_have_a_line_for_every_attack():
    rows = rows_of(l0=[[0.5], [0.6]], l7=[[0.6], [0.8]])
    rows += [row | {"attack": "gap", "value": 0.5} for row in rows]
    table = tables.attacks(rows, {"a": {"level": 0.0}, "b": {"level": 0.7}}, "auc")
    assert table.loc["samia"].tolist() == pytest.approx([0.55, 0.7]) and table.loc["gap"].tolist() == [
        0.5,
        0.5,
    ]
    signed = tables.differences(rows, {"b - a": ({"level": 0.0}, {"level": 0.7})}, "auc")
    assert signed.loc["samia", "b - a"].startswith("+0.150 [")
    assert signed.loc["gap", "b - a"] == "+0.000 [+0.000, +0.000]"


def test_per_class_and_agreement_by_hand():
    shape = np.array([0.1, 0.2, 0.4])
    rows = [
        results.row("confidence_gap", value, target=target, class_=number)
        for target in range(3)
        for number, value in enumerate(shape + target)
    ]
    found = tables.per_class(rows, 3, metric="confidence_gap")
    assert found == pytest.approx(shape + np.arange(3)[:, None])
    assert tables.agreement(found).value == pytest.approx(1.0)  # alike but for a constant
    unmeasured = np.column_stack([found, [np.nan, 1.0, 2.0]])
    assert tables.agreement(unmeasured).value == pytest.approx(1.0)  # that class is left out


def test_models_has_a_line_for_each_setting(known):
    rows = audit.utility(*known, 2, compression="none", defense="none")
    rows += audit.utility(*known, 2, compression="l1_unstructured", level=0.7, defense="none")
    table = tables.models(rows)
    assert table["compression"].tolist() == ["none", "l1_unstructured"]
    assert table["test_accuracy"].tolist() == [0.25, 0.25] and table["nonzero_parameters"].tolist() == [3, 3]


def test_headline_shows_every_attack_in_every_setting_and_the_verdicts(tmp_path, measured):
    seen, found = measured
    shielded = observation(1.0, compression="l1_unstructured", level=0.7, defense="ppb", defense_strength=4.0,
                           adversary="adaptive")  # fmt: skip
    control = observation(1.0, compression="l1_unstructured", level=0.0, defense="none")
    more = {"c": control, "p": shielded, "u": shielded.unaware(seen["pruned"], adversary="unaware")}
    rows = found.rows + audit.attack(more, {"gap": threshold.gap, "confidence": threshold.confidence}).rows
    claim = dict(claim="pruning leaks", source="us", paper="", ours="+0.1", verdict="reproduced")
    path = results.save(
        tmp_path / "metrics.json", notebook="n", run="r", parameters={}, provenance={},
        rows=rows + results.aggregate(rows), claims=[claim],
    )  # fmt: skip
    text = tables.headline(results.load(path))
    for word in ("gap", "confidence", "blindmi", "nn", "samia", "original", "control", "l1_unstructured 0.7",
                 "ppb 4 adaptive", "ppb 4 unaware", "pruning leaks", "reproduced"):  # fmt: skip
        assert word in text, word
    value = tables.by_target(rows, attack="confidence", metric="auc", level=0.7, defense="none").mean()
    assert f"{value:.2f}" in text


def test_the_whole_way_on_real_models(digits, suite):
    split = splits.target_shadow(len(digits), 1, 2, seed=0, n_train=20)
    models = train.fit(_net, digits, split, train.Recipe(1, 8))
    seen = {
        "original": audit.observe(
            models, digits, split, 1, dataset="digits", compression="none", defense="none"
        )
    }
    rows = audit.attack(seen, suite).rows
    assert {row["attack"] for row in rows} == set(suite)
    assert {row["dataset"] for row in rows} == {"digits"} and {row["n_shadows"] for row in rows} == {2}


def _net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
