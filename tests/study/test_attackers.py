"""Attackers: what they see and learn from, what their rows say, and what is learned once."""

from functools import partial

import joblib
import pytest
import torch

from mialib import training
from mialib.attacks import likelihood, neural, pairs, quantile, threshold
from mialib.data import splits
from mialib.measures import metrics
from mialib.store import Store
from mialib.study import Attacker, Study, attackers
from mialib.training import Recipe, loop, population
from tests.study.conftest import Made
from tests.study.test_arms import Shift, halve

QUICK = Recipe(1, 16)


@pytest.fixture
def trainings(monkeypatch):
    """One entry for each network that is trained."""
    calls, real_train = [], loop.train
    assert training.fit  # reads the loop's code, before it is another
    monkeypatch.setattr(loop, "train", lambda *a, **o: calls.append(1) or real_train(*a, **o))
    return calls


def test_who_knows_the_arm_learns_from_its_shadows(made):
    arm = made.made("a")
    [lesson] = Attacker(arm, arm).lessons()
    assert lesson.targets is arm.targets() and lesson.shadows is arm.shadows()
    assert torch.equal(lesson.member, made.roles.member[2:])
    assert Attacker(arm, arm).n_shadows(0) == 3


def test_who_believes_in_another_arm_learns_from_that_ones(made):
    plain = made.made("plain")
    served = made.arm("served", plain, behind=halve, defense="temperature")
    [lesson] = Attacker(served, plain).lessons()
    assert lesson.targets is served.targets() and lesson.shadows is plain.shadows()


def test_what_the_rows_of_attackers_say():
    found = Made()
    plain = found.made("plain")
    pruned = found.made("pruned", compression="l1_unstructured", level=0.7)
    other = found.made("other", compression="l1_filter", level=0.5)
    control = found.made("control", compression="l1_unstructured", level=0.0)
    served = found.arm("served", plain, behind=halve, defense="temperature")
    narrow = found.made("narrow", compression="dorefa", level=2, defends=True)
    names = ("adversary", "attacker_compression", "attacker_level")

    def said(arm, believed):
        columns = Attacker(arm, believed).columns
        return tuple(columns.get(name) for name in names)

    assert said(plain, plain) == said(pruned, pruned) == (None, None, None)
    assert said(pruned, other) == (None, "l1_filter", 0.5)
    assert (
        said(pruned, plain) == said(pruned, control) == (None, "none", None)
    )  # nothing is removed in a control
    assert said(served, served) == ("adaptive", None, None) and said(served, plain) == ("unaware", None, None)
    assert said(narrow, narrow) == ("adaptive", None, None) and said(narrow, plain) == (
        "unaware",
        "none",
        None,
    )
    half = Attacker(served, served, "half").columns
    assert (half["protocol"], half["knowledge"], half["adversary"]) == (
        "known_half",
        "known_members",
        "adaptive",
    )


def test_the_known_half_teaches_and_the_other_half_judges(known):
    networks, dataset, split = known
    found = Study(dataset, split, 2, protocol="own", seed=4)
    arm = found.arm("a", networks)
    one = Attacker(arm, arm, "half")
    lessons = one.lessons()
    assert len(lessons) == 2 and one.member.shape == one.labels.shape and one.n_shadows(0) == 0
    for i, lesson in enumerate(lessons):
        # what was learned from and what is judged: together all candidates, each once, with its own membership
        rows = torch.cat([lesson.targets[0].log_posteriors[0], lesson.shadows.log_posteriors[0]])
        everything = arm.targets()[i]
        assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, everything.log_posteriors[0].tolist()))
        member, given = arm.member[i], found.roles.known[i]
        assert torch.equal(lesson.member[0], member[given]) and torch.equal(one.member[i], member[~given])
        assert torch.equal(lesson.targets[0].labels[0], one.labels[i])


def test_the_known_half_of_a_served_target_is_served(setting):
    _, _, found, plain = setting
    served = found.arm("shifted", plain, behind=Shift(torch.arange(4.0)))
    answers = {tuple(row) for row in served.targets()[1].log_posteriors[0].tolist()}
    lesson = Attacker(served, served, "half").lessons()[1]
    for part in (lesson.targets[0], lesson.shadows):
        assert {tuple(row) for row in part.log_posteriors[0].tolist()} <= answers
    unaware = Attacker(served, plain, "half").lessons()[1]  # thinks that the known answers are undefended
    plain_answers = {tuple(row) for row in plain.targets()[1].log_posteriors[0].tolist()}
    assert {tuple(row) for row in unaware.shadows.log_posteriors[0].tolist()} <= plain_answers


def test_who_sees_labels_only_is_shown_the_arm_whose_labels_are_kept(made):
    plain = made.made("plain")
    kept = made.arm("kept", plain, behind=halve, defense="memguard", keeps_labels=True)
    one = Attacker(kept, kept)
    [scores], [labels] = one.lessons(), one.lessons(frozenset({"labels"}))
    assert scores.targets is kept.targets() and labels.targets is plain.targets()
    assert labels.shadows is plain.shadows() and labels.key != scores.key


def test_under_random_halves_every_target_has_its_own_shadows(toy):
    split = splits.random_halves(len(toy), 6, seed=1)
    found = Study(toy, split, 3, protocol="random_halves")
    make = partial(torch.nn.Linear, 6, 3)
    real = found.arm("real", population.initial(make, range(6)), compression="l1_unstructured", level=0.5)
    believed = found.arm("believed", population.initial(make, split.seeds.tolist()))
    lessons = Attacker(real, believed).lessons()
    for i, (lesson, rows) in enumerate(zip(lessons, found.roles.teachers, strict=True)):
        assert torch.equal(lesson.shadows.log_posteriors, believed.shadows()[rows].log_posteriors), i
        assert torch.equal(lesson.member, found.roles.member[rows]) and len(lesson.targets) == 1, i
    assert len({lesson.key for lesson in lessons}) == 3  # none learns for another
    margins = attackers.margins(Attacker(real, believed), likelihood.lira_online, {})
    for i, lesson in enumerate(lessons):
        alone = likelihood.lira_online(real.targets()[i], lesson.shadows, lesson.member)
        assert torch.equal(margins[i, 0], alone), i
    assert [Attacker(real, real).n_shadows(i) for i in range(3)] == [4, 4, 4]


# What is learned


def test_networks_are_trained_once_for_attackers_who_share_their_shadows(made, trainings):
    plain = made.made("plain", seed=1)
    served = made.arm("served", plain, behind=halve, defense="temperature")
    suite = {"nn": neural.attacks(QUICK, trainings=2)["nn"]}
    met = [Attacker(plain, plain), Attacker(served, plain)]
    attackers.train(met, suite)
    assert len(trainings) == 2
    attackers.train(met, suite)
    assert len(trainings) == 2  # cached


@pytest.mark.parametrize(("processes", "batched", "calls"), [(1, None, 4), (1, True, 1), (2, True, 1)])
def test_the_networks_of_all_arms_learn_in_this_process(made, trainings, processes, batched, calls):
    met = [Attacker(arm, arm) for arm in (made.made("a"), made.made("b", seed=10))]
    suite = {"mine": neural.attacks(QUICK, trainings=2, batched=batched)["samia"], "gap": threshold.gap}
    with joblib.parallel_config(backend="threading", n_jobs=processes):
        learned = attackers.train(met, suite)
    assert len(trainings) == calls  # under vmap all at once
    assert learned["gap"] == {} and [len(networks) for networks in learned["mine"].values()] == [2, 2]
    for one in met:
        [lesson] = one.lessons(frozenset({"sensitivity"}))
        assert learned["mine"][lesson.key].keys == suite["mine"].fit(lesson.shadows, lesson.member).keys
        assert torch.equal(
            attackers.margins(one, suite["mine"], learned["mine"]), attackers.margins(one, suite["mine"], {})
        )
    assert len(trainings) == calls


def test_over_several_processes_each_network_is_a_task(made, trainings, monkeypatch):
    met = [Attacker(arm, arm) for arm in (made.made("a"), made.made("b", seed=10))]
    suite = {name: one for name, one in neural.attacks(QUICK, trainings=2).items() if name in ("nn", "samia")}
    fits, fit = [], neural.NeuralAttack.fit

    def spy(attack, shadows, member, seeds=None):
        fits.append((attack.name, seeds))
        return fit(attack, shadows, member, seeds)

    monkeypatch.setattr(neural.NeuralAttack, "fit", spy)
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert attackers.train(met, suite) == {"nn": {}, "samia": {}}  # others learned: it is in the store
    assert sorted(fits) == [(name, [seed]) for name in ("nn", "samia") for seed in (0, 0, 1, 1)]
    assert len(trainings) == 8
    for name, attack in suite.items():
        assert attackers.margins(met[0], attack, {}).shape == (2, 2, 40), name
    assert len(trainings) == 8


def test_what_was_learned_is_not_asked_of_the_store_again(made, trainings, monkeypatch):
    monkeypatch.setattr(Store, "put", lambda *_, **__: None)  # a store that keeps nothing
    made.made("a")
    suite = {"nn": neural.attacks(QUICK, trainings=2)["nn"]}
    made.attack(suite)
    assert len(trainings) == 2
    made.attack(suite, measures={"median": lambda member, margin: metrics.Estimate(0.0)})
    assert len(trainings) == 2 and len(made.values(made.arms["a"], "median", "nn")) == 2
    made.made("b", seed=10)
    made.attack(suite)  # a is known
    assert len(trainings) == 4


def test_under_the_known_half_every_target_has_networks_of_its_own(made, trainings):
    arm, attack = made.made("a"), neural.attacks(QUICK, trainings=1)["nn"]
    one = Attacker(arm, arm, "half")
    attackers.train([one], {"nn": attack})
    assert len(trainings) == 2
    margins = attackers.margins(one, attack, {})
    for i, lesson in enumerate(one.lessons()):
        fitted = attack.fit(lesson.shadows, lesson.member)
        assert torch.equal(margins[i], attack.judge(fitted, lesson.targets[0])[0]), i
    assert len(trainings) == 2


class Learner:
    """No NeuralAttack. It learns how many members there are; margins of training t are labels + t * that."""

    name, trainings = "learner", 2

    def __init__(self):
        self.calls = []

    def fit(self, shadows, shadow_member, seeds=None):
        self.calls.append("fit")
        return int(shadow_member.sum())

    def judge(self, learned, targets):
        self.calls.append(len(targets))
        return targets.labels[:, None].double() + learned * torch.arange(2.0)[:, None]


def test_whatever_has_fit_and_judge_learns_from_the_shadows(made):
    mine = Learner()
    met = [Attacker(arm, arm) for arm in (made.made("a"), made.made("b", seed=10))]
    attackers.train(met, {"mine": mine})
    assert mine.calls == ["fit", "fit"]  # all learn before any judges
    for one in met:
        margins = attackers.margins(one, mine, {})
        members = int(one.arm.roles.member[2:].sum())
        for i, target in enumerate(one.arm.targets()):
            labels = target.labels[0].double()
            assert torch.equal(margins[i], torch.stack([labels, labels + members])), i
    assert mine.calls[2:] == ["fit", 2, "fit", 2]  # both targets at once


def test_what_learns_from_shadows_learns_once_for_all_targets_and_beliefs(made):
    asked = []

    class Threshold:
        def learn(self, shadows, shadow_member, seed):
            asked.append(shadows)
            return lambda target: target.labels[0].double() + len(asked)

    a, b = made.made("a"), made.made("b", seed=10)
    mine, learned = Threshold(), {}
    found = [
        attackers.margins(one, mine, learned) for one in (Attacker(a, a), Attacker(b, b), Attacker(b, a))
    ]
    assert [one is arm.shadows() for one, arm in zip(asked, (a, b), strict=True)] == [True, True]
    expected = torch.stack([target.labels.double() for target in b.targets()])
    assert torch.equal(found[1], expected + 2) and found[2].shape == (2, 1, 40)


def test_whatever_has_no_fit_is_called_with_each_target_and_the_shadows(made):
    arm, calls = made.made("a"), []

    def attack(*arguments):
        calls.append(arguments)
        return arguments[0].labels[0].double()

    assert attackers.margins(Attacker(arm, arm), attack, {}).shape == (2, 1, 40)
    for target, call in zip(arm.targets(), calls, strict=True):
        assert call[0] is target and call[1] is arm.shadows() and call[3] == 0
        assert torch.equal(call[2], made.roles.member[2:])


# What cannot be had


def test_what_an_arm_cannot_give_is_named_before_any_question(made):
    plain = made.made("plain")
    served = made.arm("served", plain, behind=halve, defense="temperature")
    samia = {"samia": neural.attacks(QUICK)["samia"]}
    attackers.check([Attacker(plain, plain)], samia)
    with pytest.raises(
        ValueError, match="attack 'samia' needs the sensitivity, and arm 'served' does not give it"
    ):
        attackers.check([Attacker(served, plain)], samia)
    with pytest.raises(
        ValueError, match="attack 'lira' compares models on the same candidates.*random_halves"
    ):
        attackers.check([Attacker(plain, plain)], {"lira": likelihood.lira_online})
    assert served.answers._kept is None


def test_attacks_declare_what_they_need():
    needs = {name: attackers.needs(one) for name, one in (threshold.ATTACKS | neural.attacks(QUICK)).items()}
    assert needs.pop("gap") == {"labels"} and needs.pop("samia") == {"sensitivity"}
    assert set(map(frozenset, needs.values())) == {frozenset()}
    assert attackers.needs(likelihood.lira_online) == {"same candidates"}
    assert attackers.needs(lambda *_: None) == frozenset()


def test_who_learns_from_public_examples_is_told_where_there_are_none(made):
    arm = made.made("plain")
    with pytest.raises(ValueError, match="target 0 has none: every example is one of its candidates"):
        made.attack({"quantile_regression": quantile.QuantileRegression()}, arm)


def test_an_attack_on_several_versions_is_refused_where_there_is_one(made):
    plain, other = made.made("plain"), made.made("other", 1)
    pair, more = made.arm("pair", plain, beside=[other]), made.arm("more", plain, beside=[other, other])
    suite = {"pair": pairs.pair_of_all}
    attackers.check([Attacker(pair, pair), Attacker(pair, pair, "half")], suite)
    for one, words in (
        (Attacker(plain, plain), "found arm 'plain' 0. Make an arm"),
        (Attacker(pair, plain), "found arm 'pair' 1 and arm 'plain' 0"),
        (Attacker(pair, more), "found arm 'pair' 1 and arm 'more' 2"),
    ):
        with pytest.raises(
            ValueError, match=f"attack 'pair' needs other versions beside each model.*{words}"
        ):
            attackers.check([one], suite)


@pytest.mark.parametrize("knowing", ["shadows", "half"])
def test_attackers_see_all_versions(made, knowing):
    plain = made.made("plain", leak=0.0)
    pair = made.arm("pair", plain, beside=[made.made("other", 1, leak=9.0)])
    made.attack({"pair": pairs.pair_of_all}, [pair], knowing=knowing)
    made.attack({"confidence": threshold.confidence_global}, knowing=knowing)
    assert made.values(pair, "auc", "pair", knowing=knowing).min() > 0.8
    first, alone = (made.margins(arm, "confidence", knowing=knowing) for arm in (pair, plain))
    assert torch.equal(first, alone)
