"""What attackers see of targets and shadows: asked, served behind defences, halved, or believed to be otherwise."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from mialib import asking, study
from mialib.asking import Views
from mialib.attacks import likelihood, threshold
from mialib.data import Splits, splits
from mialib.defenses.state import Chain
from mialib.models import classifiers
from mialib.study import Observation, averaged_observation
from mialib.training import Recipe, population

QUICK = Recipe(1, 16)
CNN = partial(classifiers.small_cnn, in_channels=1, num_classes=10, image_size=8, width=4)


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


def every(seen):
    """The views of all targets, then those of the shadows."""
    return [*seen.targets, seen.shadows]


def linear():
    return nn.Linear(3, 3, bias=False)


def eye(value):
    layer = linear()
    layer.weight.data = value * torch.eye(3)
    return layer


def halve(log_p):
    """An output defence: the posteriors' square roots, normalised."""
    return (log_p / 2).log_softmax(-1)


class Shift:
    """Adds its own amount to the first class's log-posterior of each network."""

    def __init__(self, amounts):
        self.amounts = amounts

    def __getitem__(self, models):
        return Shift(self.amounts[models])

    def __call__(self, log_posteriors):
        assert len(log_posteriors) == len(self.amounts)
        moved = log_posteriors.clone()
        moved[..., 0] += self.amounts[:, None]
        return moved.log_softmax(-1)


# Asking


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


def test_observe_leaves_the_sensitivity_out_where_it_is_not_wanted(known):
    models, dataset, split = known
    with_it = study.observe(models, dataset, split, 1)
    without = study.observe(models, dataset, split, 1, sensitive=False)
    assert without.targets[0].sensitivity is None and with_it.targets[0].sensitivity is not None
    assert torch.equal(without.targets[0].log_posteriors, with_it.targets[0].log_posteriors)


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
        assert n == int(scored[i].sum()) and half.shadows.labels.shape[1] == int(given[i].sum()), i
        # what was learned from and what is judged: together all candidates, each once, with its own membership
        both = torch.cat([target.log_posteriors[0], half.shadows.log_posteriors[i]])
        assert len(both) == index.shape[1], i
        answers_of = {tuple(row.tolist()) for row in seen.targets[i].log_posteriors[0]}
        assert {tuple(row.tolist()) for row in both} == answers_of, i
        own = split.member[i][index[i]]
        where = given[i][index[i]]
        assert torch.equal(half.shadow_member[i], own[where]) and torch.equal(half.member[i], own[~where]), i


def test_the_known_half_of_other_candidates_is_refused(known):
    models, dataset, split = known
    seen = study.observe(models, dataset, split, n_targets=2, seed=4)
    with pytest.raises(ValueError, match="give its own split and seed"):
        study.known_half(seen, split, seed=5)


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
        assert transfer.targets is target.targets and transfer.member is target.member, name
        assert transfer.shadows is believed.shadows and transfer.shadow_member is believed.shadow_member, name
        belief = {f"attacker_{column}": believed.columns[column] for column in ("compression", "level")}
        assert transfer.columns == target.columns | belief, name


def test_a_defence_serves_targets_and_shadows_alike():
    seen = observation(compression="none", defense="none")
    served = seen.served(halve, defense="temperature", defense_strength=2.0)
    assert served.columns == {"compression": "none", "defense": "temperature", "defense_strength": 2.0}
    assert seen.columns["defense"] == "none" and seen.targets[0].sensitivity is not None  # left as it was
    for i, (before, after) in enumerate(zip(every(seen), every(served), strict=True)):
        assert torch.equal(after.log_posteriors, halve(before.log_posteriors)), i
        assert after.labels is before.labels and after.sensitivity is None, i
    assert served.member is seen.member and served.shadow_member is seen.shadow_member
    target, x = served.targets[0], served.targets[0].x
    assert torch.equal(target.query(x), halve(seen.targets[0].query(x)))  # probes are answered alike


def test_serving_the_posteriors_as_they_are_changes_no_bit_and_no_attack():
    seen = observation(compression="none")
    served = seen.served(lambda log_p: log_p, defense="identity")
    for i, (before, after) in enumerate(zip(every(seen), every(served), strict=True)):
        assert torch.equal(after.log_posteriors, before.log_posteriors), i
    found = study.attack({"plain": seen, "served": served}, {"confidence": threshold.confidence})
    assert torch.equal(*(found.margins[setting]["confidence"] for setting in ("plain", "served")))


def test_who_does_not_know_the_defence_learns_from_undefended_shadows():
    seen = observation(compression="none")
    unaware = seen.served(halve, defense="temperature").unaware(seen, adversary="unaware")
    assert torch.equal(unaware.targets[1].log_posteriors, halve(seen.targets[1].log_posteriors))
    assert unaware.shadows is seen.shadows
    assert unaware.columns == {"compression": "none", "defense": "temperature", "adversary": "unaware"}


# Behind a defence with one state a model


def test_each_model_is_served_by_its_own(setting):
    _, _, seen = setting
    shift = Shift(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    served = seen.served(shift, defense="shift")
    for i, (before, after) in enumerate(zip(seen.targets, served.targets, strict=True)):
        assert torch.equal(after.log_posteriors, shift[[i]](before.log_posteriors)), i
        x = before.x[0][None, :3]
        assert torch.equal(after.query(x), shift[[i]](before.query(x))), i  # questions of the attacker's own
    assert torch.equal(served.shadows.log_posteriors, shift[2:](seen.shadows.log_posteriors))
    assert served.columns["defense"] == "shift" and served.shadow_member is seen.shadow_member


def test_the_known_half_of_a_served_target_is_served(setting):
    _, split, seen = setting
    served = seen.served(Shift(torch.arange(4.0)))
    half = study.known_half(served, split)
    answers = {tuple(row) for row in served.targets[1].log_posteriors[0].tolist()}
    for part in (half.targets[1].log_posteriors[0], half.shadows.log_posteriors[1]):
        assert {tuple(row) for row in part.tolist()} <= answers
    with pytest.raises(ValueError, match="serve those, then take the known half"):
        study.known_half(seen, split).served(Shift(torch.arange(4.0)))


def test_remembered_answers_are_those_of_the_model(setting, digits):
    networks, split, seen = setting
    kept = study.observe(networks, digits, split, 2, sensitive=False, remember=True)
    x = seen.shadows.x[0][None, :4].expand(2, -1, -1, -1, -1)
    for time in ("first", "second"):
        assert torch.allclose(kept.shadows.query(x), seen.shadows.query(x)), time


def test_a_chain_of_defences_serves_as_one_after_the_other(setting):
    _, _, seen = setting
    one, two = Shift(torch.arange(4.0)), Shift(torch.tensor([0.5, 0.0, 1.0, 2.0]))
    both = seen.served(Chain((one, two)))
    step = seen.served(one).served(two)
    for i, (a, b) in enumerate(zip(every(both), every(step), strict=True)):
        assert torch.equal(a.log_posteriors, b.log_posteriors), i
    untouched = seen.served(Chain(()))
    assert torch.equal(untouched.shadows.log_posteriors, seen.shadows.log_posteriors)


# Random halves


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
        assert torch.equal(target.log_posteriors[0], seen.shadows.log_posteriors[2 * i]), i
        assert torch.allclose(target.query(target.x[0][None]), target.log_posteriors, atol=1e-6), i
        assert torch.equal(target.labels[0], toy.y[index]), i


def test_a_targets_pair_is_not_among_its_shadows(toy):
    models, split = halves(toy)
    seen = study.observe_halves(models, toy, split, 3)
    assert seen.teachers == [[2, 3, 4, 5], [0, 1, 4, 5], [0, 1, 2, 3]]
    for rows in seen.teachers:  # nor does it show in how often one is a member
        assert bool((seen.shadow_member[rows].sum(0) == 2).all()), rows
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
        assert torch.equal(found[i, 0], alone), i
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


# Averaged answers


@pytest.fixture
def seen(digits):
    split = splits.target_shadow(len(digits), 2, 1, seed=0, n_train=20)
    networks = population.initial(CNN, split.seeds)
    return split, study.observe(networks, digits, split, 2, sensitive=False, defense="none")


def test_an_observation_is_averaged_on_both_sides(seen):
    _, seen = seen
    generator = torch.Generator().manual_seed(0)

    def noisy(log_p):
        noise = torch.randn(log_p.shape, generator=generator, dtype=torch.float64)
        return (log_p + 0.5 * noise).log_softmax(-1)

    served = seen.served(noisy, defense="noise")
    found = averaged_observation(served, 100, 0.0, defense_strength=0.5)
    assert found.columns == {"defense": "noise", "defense_strength": 0.5}
    assert found.member is seen.member and found.shadow_member is seen.shadow_member

    def distance(a, b):
        return float((a.log_posteriors.exp() - b.log_posteriors.exp()).abs().mean())

    for i, (true, once, often) in enumerate(zip(every(seen), every(served), every(found), strict=True)):
        assert distance(true, often) < 0.25 * distance(true, once), i


def test_deterministic_networks_answer_the_same_when_asked_again(seen):
    _, seen = seen
    found = averaged_observation(seen, 2, 0.0)
    for i, (one, again) in enumerate(zip(every(seen), every(found), strict=True)):
        assert torch.allclose(one.log_posteriors, again.log_posteriors, atol=1e-5), i


def test_what_cannot_be_asked_is_refused_before_the_first_question(seen):
    split, seen = seen

    def never(x):
        raise AssertionError("asked")

    half = study.known_half(seen, split)
    half = replace(half, targets=[replace(one, query=never) for one in half.targets])
    with pytest.raises(ValueError, match="shadows.x is needed"):
        averaged_observation(half, 2, 0.0)
