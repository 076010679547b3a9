"""The strongest attack, chosen and scored on different examples, and differences between networks."""

import numpy as np
import pytest
import torch

from mialib.attacks import suites, threshold
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
    return judging.by_half(study, dict.fromkeys(("original", "pruned"), threshold.ATTACKS))


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
    (there,) = judging.by_half(other, {"pruned": threshold.ATTACKS}).values()
    (here,) = judging.by_half(study, {"pruned": threshold.ATTACKS}).values()
    assert there.attack == here.attack and not np.array_equal(there.margin, here.margin)


def test_an_attack_that_learns_by_heart_is_not_chosen():
    """Thresholds of many classes with few examples each fit their own half well, and the other not at all."""
    rng = np.random.default_rng(0)
    labels, member = torch.from_numpy(rng.integers(0, 100, 800)), torch.arange(800) < 400
    logits = torch.from_numpy(rng.normal(size=(800, 100))) + 3 * member[:, None] * torch.eye(100)[labels]
    study = outside.of_answers({"a": logits.log_softmax(1)}, labels, member)
    suite = {name: threshold.ATTACKS[name] for name in ("confidence", "confidence_global")}
    assert judging.by_half(study, {"a": suite})["a"].attack == "confidence_global"


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


# With imitations


def imitated(leak: float, s: int = 8, n: int = 300, seed: int = 0):
    """Log-posteriors (1 + s, n, 4) of a network and its imitations, labels, and who learned what: easy and hard examples."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    member = np.stack([rng.permutation(n) < n // 2 for _ in range(1 + s)])
    member[2::2] = ~member[1::2]
    hardness, noise = rng.normal(0, 3, n), rng.normal(size=(1 + s, n, 4))
    right = np.eye(4)[labels] * (hardness + leak * member)[:, :, None]
    logits = torch.from_numpy(right + 0.3 * noise)
    return logits.log_softmax(2), torch.from_numpy(labels), torch.from_numpy(member)


@pytest.fixture(scope="module")
def both():
    strong, labels, member = imitated(1.0)
    weak, *_ = imitated(0.1)
    study = outside.of_imitated({"weak": weak, "strong": strong}, labels, member, beside="weak")
    return study, judging.by_imitations(study, dict.fromkeys(("weak", "strong"), suites.yardstick(6)))


def test_imitations_find_what_thresholds_cannot(both):
    """Hard examples that were learned look like easy ones that were not."""
    study, found = both
    strong = found["strong"]
    assert strong.auc.value > 0.95 and len(strong.member) == 300
    study.attack(threshold.ATTACKS, study.arms["strong"], knowing="half")
    known = study.attacker(study.arms["strong"], knowing="half")
    assert study.values(known, "auc", "confidence")[0] < 0.8
    assert np.array_equal(np.sort(strong.example), np.arange(300))


def test_the_attack_is_chosen_on_imitations_alone(both):
    study, found = both
    one = found["strong"]
    assert one.anew.shape == (8,) and one.expected == one.anew.mean()
    means = {name: study.values(study.arms["strong"], "auc", name)[1:].mean() for name in suites.yardstick(6)}
    assert max(means.values()) == one.expected == means[one.attack]


def test_a_difference_over_trainings_is_that_of_the_imitations(both):
    _, found = both
    apart = judging.difference(found["strong"], found["weak"])
    assert apart.anew.value == pytest.approx((found["strong"].anew - found["weak"].anew).mean())
    assert apart.anew.low > 0.2
    assert judging.difference(found["weak"], found["weak"]).anew == (0, 0, 0) and apart.each.shape == (8,)


def test_epsilon_is_bounded_where_there_is_a_leak_and_not_where_there_is_none(both):
    _, found = both
    assert found["strong"].epsilon > 1
    rng = np.random.default_rng(0)
    above = [
        judging.Judged(
            "a", rng.normal(size=200), rng.permutation(200) < 100, np.zeros(200), np.arange(200)
        ).epsilon
        > 0
        for _ in range(200)
    ]
    assert np.mean(above) <= 0.05


def test_an_unequal_number_of_members_proves_nothing():
    """Nine in ten are members, so guesses of "member" are right without any network."""
    rng = np.random.default_rng(1)
    bounds = [
        judging.Judged(
            "a", rng.normal(size=500), rng.permutation(500) < 450, np.zeros(500), np.arange(500)
        ).epsilon
        for _ in range(100)
    ]
    assert np.mean(np.array(bounds) > 0) <= 0.05


def test_canaries_are_attacked_in_every_second_imitation():
    answers, labels, member = imitated(3.0, s=8, n=60)
    study = outside.of_canaries({"a": answers[1:]}, labels, member[1:])
    one = judging.Judged("base_online", *[np.zeros(1)] * 4)
    (found,) = judging.on_canaries(study, {"a": one}).values()
    assert (found.canaries, found.targets, found.attack) == (60, 4, "base_online")
    assert found.auc.value > 0.95 and found.auc.high <= 1 and found.ceiling >= found.epsilon > 1
    answers, labels, member = imitated(0.0, s=8, n=60)
    (none,) = judging.on_canaries(
        outside.of_canaries({"a": answers[1:]}, labels, member[1:]), {"a": one}
    ).values()
    assert none.epsilon == 0 and none.auc.low < 0.5 < none.auc.high


def test_who_can_do_several_things_does_what_was_expected_to_find_most(both):
    _, found = both
    assert judging.surest(found.values()) is found["strong"]
