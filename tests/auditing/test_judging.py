"""The strongest attack, chosen and scored on different examples, and differences between networks."""

import numpy as np
import pytest
import torch

from mialib.attacks import threshold
from mialib.auditing import judging
from mialib.measures import Estimate, metrics
from mialib.study import outside


@pytest.fixture(scope="module")
def study(three):
    answers, labels, member = three
    answers = {name: torch.from_numpy(one).log_softmax(1) for name, one in answers.items()}
    return outside.of_answers(answers, torch.from_numpy(labels), torch.from_numpy(member))


@pytest.fixture(scope="module")
def found(study):
    return judging.judged(study, dict.fromkeys(("original", "pruned"), threshold.ATTACKS))


def test_scored_are_the_examples_that_were_not_given(three, found, study):
    _, labels, member = three
    one = found["pruned"]
    assert len(one.example) == 400 and one.member.sum() == 200
    assert np.array_equal(one.label, labels[one.example]) and np.array_equal(one.member, member[one.example])
    given = study.roles.index[0][study.roles.known[0]]
    assert not set(one.example.tolist()) & set(given.tolist())


def test_margins_are_those_of_the_attack_that_was_chosen(three, found):
    answers, labels, _ = three
    one = found["pruned"]
    assert one.attack in threshold.ATTACKS and one.auc == metrics.auc(one.member, one.margin)
    assert one.auc.low > 0.75 > 0.65 > found["original"].auc.high
    assert np.isnan(one.tpr[0.001].value) and one.tpr[0.01].value > 0.05


def test_the_choice_does_not_see_what_is_scored(three, study):
    """Whatever the scored half says, the same attack is chosen."""
    answers, labels, member = three
    kept = study.roles.known[0]
    changed = torch.from_numpy(answers["pruned"]).log_softmax(1).clone()
    rows = study.roles.index[0][~kept]
    changed[rows] = changed[rows].flip(0)
    other = outside.of_answers({"pruned": changed}, torch.from_numpy(labels), torch.from_numpy(member))
    (there,) = judging.judged(other, {"pruned": threshold.ATTACKS}).values()
    (here,) = judging.judged(study, {"pruned": threshold.ATTACKS}).values()
    assert there.attack == here.attack and not np.array_equal(there.margin, here.margin)


def test_an_attack_that_learns_by_heart_is_not_chosen():
    """Thresholds of many classes with few examples each fit their own half well, and the other not at all."""
    rng = np.random.default_rng(0)
    labels, member = torch.from_numpy(rng.integers(0, 100, 800)), torch.arange(800) < 400
    logits = torch.from_numpy(rng.normal(size=(800, 100))) + 3 * member[:, None] * torch.eye(100)[labels]
    study = outside.of_answers({"a": logits.log_softmax(1)}, labels, member)
    suite = {name: threshold.ATTACKS[name] for name in ("confidence", "confidence_global")}
    assert judging.judged(study, {"a": suite})["a"].attack == "confidence_global"


def test_differences_by_hand(found):
    a, b = found["pruned"], found["original"]
    difference = judging.difference(a, b)
    assert difference.auc.value == pytest.approx(a.auc.value - b.auc.value)
    assert difference.auc == metrics.paired_difference(a.member, a.margin, b.margin, "auc")
    half = difference.auc.high - difference.auc.value
    assert difference.detectable == pytest.approx(half * (1.959964 + 0.841621) / 1.959964, rel=1e-5)
    same = judging.difference(a, a)
    assert same.auc == (0, 0, 0) and same.detectable == 0


def test_the_interval_of_two_rates_by_hand():
    apart = judging._apart(Estimate(0.5, 0.4, 0.7), Estimate(0.2, 0.1, 0.24))
    assert apart == pytest.approx((0.3, 0.3 - np.hypot(0.1, 0.04), 0.3 + np.hypot(0.2, 0.1)))
    assert all(map(np.isnan, judging._apart(Estimate(np.nan), Estimate(0.1, 0.0, 0.2))))
