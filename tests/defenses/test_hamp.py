"""HAMP: its loss against its equation written out with numpy, its answers, and what breaks it."""

import math

import numpy as np
import pytest
import torch

from mialib import asking, training
from mialib.asking import Inputs, Views
from mialib.attacks import label_only, likelihood, signals, threshold
from mialib.data import Dataset, splits
from mialib.defenses import hamp
from mialib.defenses.hamp import HAMP, Reordered, true_share
from mialib.measures import metrics
from mialib.study import Given, Study
from mialib.training import Batch, Recipe, cross_entropy, population

LOGITS = [[2.0, 0.0, -1.0], [0.5, 1.5, 0.0], [0.0, 1.0, 4.0], [0.2, 0.1, 0.0]]
LABELS = [0, 1, 2, 1]


def loss(objective, logits, labels, step=0):
    y = torch.tensor(labels)
    one = Batch(torch.zeros(*y.shape, 1), y, torch.zeros_like(y))
    return objective(lambda params, x: params["logits"], {"logits": torch.as_tensor(logits)}, one, step)


# The loss


def test_the_loss_by_hand():
    share, strength, gamma = true_share(0.9, 3), 0.3, 0.9
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    soft = np.full((4, 3), (1 - share) / 2)
    soft[np.arange(4), LABELS] = share
    divergence = (soft * np.log(soft / p)).sum(1)
    entropy = -(p * np.log(p)).sum(1)
    expected = (divergence - strength * entropy).mean()
    found = loss(HAMP(strength, gamma), [LOGITS], [LABELS])
    assert found.tolist() == pytest.approx([expected], abs=1e-6)
    # as the public code has it, every term divided by the number of classes, with alpha = strength / c
    theirs = (soft * np.log(soft / p)).mean() - strength / 3 * entropy.mean()
    assert found.tolist() == pytest.approx([3 * theirs], abs=1e-6)


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("gamma", [1e-6, 0.1, 0.5, 0.95, 0.999])
def test_soft_labels_have_the_entropy_that_is_asked_for(gamma, classes):
    share = true_share(gamma, classes)
    rest = (1 - share) / (classes - 1)
    entropy = -share * math.log(share) - (classes - 1) * rest * math.log(rest)
    assert entropy == pytest.approx(gamma * math.log(classes), abs=1e-9)
    assert 1 / classes <= share < 1 and share > rest  # the label stays the largest


def test_golden_shares():
    assert true_share(0.0, 10) == 1.0
    # the public code, by steps of 0.01, ends at 0.26: the first whose entropy is 0.95 log 10 or more
    assert true_share(0.95, 10) == pytest.approx(0.269814, abs=1e-6)


def test_hard_labels_without_entropy_are_cross_entropy():
    ours, plain = (loss(one, [LOGITS], [LABELS]) for one in (HAMP(0.0, 0.0), cross_entropy))
    assert torch.allclose(ours, plain, atol=1e-6)


def test_the_loss_is_least_at_the_soft_labels_and_entropy_pulls_beyond():
    share = true_share(0.9, 3)
    soft = torch.tensor([[[share, (1 - share) / 2, (1 - share) / 2]]]).log()
    at = soft.clone().requires_grad_()
    value = loss(HAMP(0.0, 0.9), at, [[0]])
    value.sum().backward()
    assert abs(float(value.detach())) < 1e-6 and float(at.grad.abs().max()) < 1e-6
    at = soft.clone().requires_grad_()
    loss(HAMP(1.0, 0.9), at, [[0]]).sum().backward()
    assert float(at.grad[0, 0, 0]) > 1e-3  # a step down lowers the true class


def test_losses_of_certain_answers_stay_finite():
    extreme = torch.tensor([[[400.0, -400.0, 0.0], [-400.0, 400.0, 0.0], [400.0, 400.0, -400.0]]])
    logits = extreme.requires_grad_()
    found = loss(HAMP(0.5), logits, [[0, 0, 2]])
    found.sum().backward()
    assert bool(found.isfinite().all()) and bool(logits.grad.isfinite().all())


def test_each_model_has_a_loss_of_its_own():
    both = loss(HAMP(0.2), [LOGITS, LOGITS[::-1]], [LABELS, LABELS[::-1]])
    assert torch.allclose(both[0], both[1]) and torch.allclose(both[:1], loss(HAMP(0.2), [LOGITS], [LABELS]))


def test_networks_are_less_confident(toy):
    split = splits.target_shadow(120, 1, 1, seed=0, n_train=20)

    def fitted(objective):
        return training.fit(net, toy, split, Recipe(30, 10, 1e-2), objective=objective)

    plain, defended = (
        signals.top1(asking.log_posteriors(fitted(one), toy, torch.arange(120)), toy.y.expand(2, -1)).mean()
        for one in (cross_entropy, HAMP(0.1))
    )
    assert float(defended) < float(plain) - 1


def net():
    return torch.nn.Sequential(torch.nn.Linear(6, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))


# The answers


def answers(*shape):
    random = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    return (3 * random).log_softmax(-1)


@pytest.fixture
def guard(toy):
    return hamp.fit(population.initial(net, [0, 1]), toy, torch.tensor([0, 1]), count=200)


def test_the_order_stays_and_the_scores_are_those_of_random_inputs(guard):
    log_p = answers(2, 50, 3)
    before, served = log_p.clone(), guard(log_p)
    assert torch.equal(log_p, before) and served.dtype == torch.float64
    assert torch.equal(served.argsort(-1, descending=True), log_p.argsort(-1, descending=True))
    ranked = served.sort(-1, descending=True).values
    for i in range(2):
        known = {tuple(row) for row in guard.scores[i].tolist()}
        assert {tuple(row) for row in ranked[i].tolist()} <= known


def test_the_same_question_gets_the_same_reply_whatever_stands_beside_it(guard):
    log_p = answers(2, 50, 3)
    served = guard(log_p)
    assert torch.equal(guard(log_p[:, 7:9]), served[:, 7:9]) and torch.equal(
        guard[[1]](log_p[[1]])[0], served[1]
    )
    other = hamp.Reordered(guard.scores, (7, 8))(log_p)
    assert not torch.equal(other, served)


def test_labels_stay_where_scores_are_equal_or_nothing():
    keys, scores = (0,), answers(1, 20, 4).sort(-1, descending=True).values
    log_p = torch.tensor(
        [[[0.25, 0.25, 0.25, 0.25], [0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0], [0.1, 0.2, 0.3, 0.4]]]
    )
    served = Reordered(scores, keys)(log_p.double().log())
    assert served.argmax(-1).tolist() == [[0, 1, 2, 3]]
    assert torch.allclose(served.exp().sum(-1), torch.ones(1, 4).double())


def test_two_answers_of_one_order_differ_by_the_draw_alone():
    """Nothing of the scores gets through: sure and unsure answers are served the same on average."""
    scores = answers(1, 400, 3).sort(-1, descending=True).values
    noise = torch.rand(1, 4000, 1, generator=torch.Generator().manual_seed(1)).double()
    sure, unsure = (
        Reordered(scores, (3,))(
            torch.cat([torch.full_like(noise, top) + noise, 0 * noise, -1 - 0 * noise], -1).log_softmax(-1)
        ).exp()[..., 0]
        for top in (0.5, 9.0)
    )
    assert abs(float(sure.mean() - unsure.mean())) < 0.03
    assert float(sure.std()) > 0.1  # many different draws


@pytest.mark.parametrize("kind", ["pictures", "flags", "numbers"])
def test_random_inputs_are_of_the_kind_of_the_data(kind, digits, toy):
    flags = Dataset.of_features("flags", (toy.x > 0).float(), toy.y, 3)
    data = {"pictures": digits, "flags": flags, "numbers": toy}[kind]
    found = hamp.random_inputs(data, 500, seed=0)
    assert found.x.shape == (500, *data.x.shape[1:]) and found.x.dtype == data.x.dtype
    if kind == "pictures":
        assert 0 <= int(found.x.min()) < 3 and 252 < int(found.x.max()) <= 255
    else:
        assert bool((found.x >= data.x.amin(0)).all()) and bool((found.x <= data.x.amax(0)).all())
        assert (set(found.x.unique().tolist()) == {0.0, 1.0}) == (kind == "flags")
    assert torch.equal(found.x, hamp.random_inputs(data, 500, seed=0).x)
    assert not torch.equal(found.x, hamp.random_inputs(data, 500, seed=1).x)


# The break


class Leaking(torch.nn.Module):
    """Sure of the examples that it has learned by heart, within a distance: of features +-1, so that flips matter."""

    def __init__(self, own, labels):
        super().__init__()
        self.own, self.labels = own, labels

    def __call__(self, x):
        """x (m, b, d) -> log-posteriors (m, b, c)."""
        logits = []
        for inputs, own, labels in zip(x, self.own, self.labels, strict=True):
            near = torch.exp(-(torch.cdist(inputs.double(), own.double()) ** 2) / 8)
            logits.append(8 * near @ torch.nn.functional.one_hot(labels, 3).double() + inputs[:, :3] / 2)
        return torch.stack(logits).log_softmax(-1)

    def __getitem__(self, which):
        own, labels = self.own[which], self.labels[which]
        return Leaking(own, labels)


@pytest.fixture(scope="module")
def leaking():
    """A study of 8 such models with random halves of 160 examples, and of the same ones behind HAMP's answers."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(160, 12, generator=generator) < 0.5).float() * 2 - 1
    y = torch.randint(3, (160,), generator=generator)
    data = Dataset.of_features("leaking", x, y, 3)
    split = splits.random_halves(160, 8, seed=0, reserve_fraction=0.0)
    study = Study(data, split, 4, protocol="random_halves")
    members = splits.indices(split.member)
    door, index = Leaking(x[members], y[members]), study.roles.index
    seen = Views(door(x[index]), y[index], None, Inputs(data, index), door)
    plain = study.arm("plain", Given([seen[[i]] for i in study.roles.targets], seen[study.roles.shadows]))
    noise = hamp.random_inputs(data, 300, seed=0).x
    scores = door(noise.expand(8, -1, -1)).sort(-1, descending=True).values
    guard = Reordered(scores, tuple(range(8)))
    served = study.arm("served", plain, behind=guard, defense="hamp", keeps_labels=True)
    study.attack(
        {
            "confidence": threshold.ATTACKS["confidence"],
            "lira_online": likelihood.lira_online,
            "label_only": label_only.NoiseRobustness((0.1, 0.2), 10),
        }
    )
    return study, plain, served


def test_an_attack_by_labels_sees_through_it_and_attacks_by_scores_lose(leaking):
    study, plain, served = leaking
    same = study.margins(plain, "label_only"), study.margins(served, "label_only")
    assert torch.equal(*same)
    assert study.values(plain, "auc", "label_only").mean() > 0.65
    for name in ("confidence", "lira_online"):
        lost = study.values(plain, "auc", name) - study.values(served, "auc", name)
        assert lost.mean() > 0.05, name


def test_behind_the_door_too_labels_are_those_of_the_network(leaking):
    """Not only because the arm says so: asked through the served door the labels, and so the margins, are the same."""
    study, plain, served = leaking
    attack = label_only.NoiseRobustness((0.1, 0.2), 10)
    member = study.roles.member[study.roles.teachers[0]]
    found = [
        attack(arm.targets()[0], arm.shadows()[study.roles.teachers[0]], member) for arm in (plain, served)
    ]
    assert torch.equal(*found)
    assert metrics.auc(study.member[0], found[1]).value > 0.65


def test_an_attacker_who_knows_it_finds_what_the_order_says(leaking):
    """LiRA with shadows served alike: right and wrong labels still show, so more than by chance."""
    study, _, served = leaking
    assert (study.values(served, "auc", "lira_online") > 0.55).all()
    rows = study.select(served, attack="lira_online", metric="auc")
    assert {(row["defense"], row["adversary"]) for row in rows} == {("hamp", "adaptive")}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HAMP(-1.0), "HAMP: strength is -1.0; it must be 0 or more"),
        (lambda: HAMP(math.nan), "HAMP: strength is nan"),
        (lambda: HAMP(math.inf), "HAMP: strength is inf"),
        (lambda: HAMP(0.1, 1.0), r"HAMP: threshold is 1.0; it must be in \[0, 1\)"),
        (lambda: HAMP(0.1, -0.1), "HAMP: threshold is -0.1"),
        (lambda: HAMP(0.1, math.nan), "HAMP: threshold is nan"),
        (lambda: true_share(0.5, 1), "two classes or more, found 1"),
        (lambda: Reordered(answers(1, 5, 3), (0,)), "each answer falling from a single largest score"),
        (lambda: Reordered(torch.zeros(1, 5, 3).double(), (0,)), "a single largest score"),
        (
            lambda: Reordered(answers(2, 1, 2).sort(-1, descending=True).values, (0,)),
            "1 keys for the scores of 2",
        ),
        (lambda: Reordered(answers(1, 1, 2).sort(-1, descending=True).values, (-1,)), "key is -1"),
        (
            lambda: Reordered(answers(1, 1, 3).sort(-1, descending=True).values, (0,))(answers(2, 4, 3)),
            "guards 1 networks of 3 classes and was given answers of 2 of 3",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_networks_that_cannot_serve_are_refused(toy):
    networks = population.initial(net, [0, 1])
    with pytest.raises(ValueError, match="1 seeds for 2 networks"):
        hamp.fit(networks, toy, torch.tensor([0]))
    with pytest.raises(ValueError, match="count is 0; at least one random input"):
        hamp.fit(networks, toy, torch.tensor([0, 1]), count=0)
    dead = population.stack(net, [net(), net()])
    dead.params["2.weight"].zero_()
    dead.params["2.bias"].zero_()
    with pytest.raises(ValueError, match="two largest scores are equal for all of 5 random inputs"):
        hamp.fit(dead, toy, torch.tensor([0, 1]), count=5)
