"""MemGuard: what the search may do, what is served, and a plain loop that does the same."""

import math
from dataclasses import replace

import pytest
import torch

from mialib import training
from mialib.asking import Views
from mialib.defenses import Defender, memguard
from mialib.defenses.memguard import MemGuard
from mialib.training import Recipe, fitting

CLASSES = 5
RECIPE = Recipe(epochs=15, batch_size=32, lr=1e-3, weight_decay=0.0)


def answers(*shape, scale=3.0, seed=0):
    random = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()
    return (scale * random).log_softmax(-1)


def views(log_posteriors):
    return Views(log_posteriors, torch.zeros(log_posteriors.shape[:2], dtype=torch.long))


@pytest.fixture(scope="module")
def defender():
    """Two networks: the first is sure of its members, the second of its reference examples (as no network is)."""
    members = torch.stack(
        [answers(120, CLASSES, scale=6.0, seed=1), answers(120, CLASSES, scale=1.5, seed=2)]
    )
    reference = torch.stack(
        [answers(80, CLASSES, scale=1.5, seed=3), answers(80, CLASSES, scale=6.0, seed=4)]
    )
    return Defender(views(members), views(reference), torch.tensor([11, 12]))


@pytest.fixture(scope="module")
def guard(defender):
    return memguard.fit(defender, budget=0.3, key=5, recipe=RECIPE)


@pytest.fixture(scope="module")
def asked():
    """200 answers of each network: 70 sure ones, 70 torn ones, 40 saturated ones and 20 one-hot ones."""
    parts = [answers(2, 70, CLASSES, scale=6.0, seed=7), answers(2, 70, CLASSES, scale=1.5, seed=8)]
    saturated = answers(2, 40, CLASSES, scale=100.0, seed=9)
    one_hot = torch.full((2, 20, CLASSES), -math.inf).double()
    one_hot[:, torch.arange(20), torch.arange(20) % CLASSES] = 0.0
    return torch.cat([*parts, saturated, one_hot], dim=1)


@pytest.fixture(scope="module")
def noisy(guard, asked):
    return replace(guard, budget=1e9)(asked)  # all the noise there is


@pytest.fixture
def short(monkeypatch):
    """A search that gives up early, for tests that compare it with itself."""
    monkeypatch.setattr(memguard, "STEPS", 40)


def distortion(a, b):
    return (a.exp() - b.exp()).abs().sum(-1)


def judged(guard, answers):
    """Log-odds of a member, (m, n), of each network's answers by its own classifier."""
    return torch.stack([score(own) for score, own in zip(guard.scores(), answers, strict=True)])


def sure(z):
    """A defence classifier for pencil and paper: a member if the largest posterior is above 0.7."""
    return 4 * (z.softmax(-1).amax(-1) - 0.7)


# Phase I


def test_the_search_flips_the_decision_and_keeps_the_label():
    log_p = answers(500, CLASSES)
    before = log_p.clone()
    noisy = memguard.noise_search(sure, log_p)
    moved = distortion(noisy, log_p) > 0
    assert torch.equal(log_p, before)
    assert moved.double().mean() > 0.95
    assert torch.allclose(noisy.exp().sum(-1), torch.ones(500).double())
    assert torch.equal(noisy.argmax(-1), log_p.argmax(-1))
    assert (sure(noisy) * sure(log_p))[moved].max() <= 0
    assert torch.equal(noisy[~moved], log_p[~moved])


def test_the_noise_is_little_more_than_needed():
    """To bring the largest posterior from p to 0.7, the L1 norm must change by 2 |p - 0.7|, and a step goes beyond."""
    log_p = answers(300, CLASSES)
    noisy = memguard.noise_search(sure, log_p)
    needed = 2 * (log_p.exp().amax(-1) - 0.7).abs()
    moved = distortion(noisy, log_p) > 0
    extra = (distortion(noisy, log_p) - needed)[moved]
    assert extra.min() > -1e-9
    assert extra.max() < 0.1


def plain_search(score, z, step=0.1, steps=299):
    """Phase I of one answer, spelled out."""
    z0 = z.clamp(min=-20).log_softmax(0)
    label, p0, first = int(z.argmax()), z0.softmax(0), float(score(z0[None]))
    best = z
    if abs(first) <= 4e-5:
        return best
    for c3 in (0.1, 1, 10, 100, 1e3, 1e4, 1e5):
        e, success = torch.zeros_like(z), False
        for _ in range(steps):
            e = e.detach().requires_grad_()
            h = score((z0 + e)[None])[0]
            rival = max((z0 + e)[j] for j in range(len(z)) if j != label)
            loss = h.abs() + 10 * torch.relu(rival - (z0 + e)[label])
            loss = loss + c3 * ((z0 + e).softmax(0) - p0).abs().sum()
            (g,) = torch.autograd.grad(loss, e)
            if not g.any():
                break
            e = e.detach() - step * g / g.norm()
            reply = (z0 + e).log_softmax(0)
            if int(reply.argmax()) == label and float(score(reply[None])) * first <= 0:
                success = True
                break
        if not success:
            break
        best = reply
    return best


def test_a_plain_loop_finds_the_same(guard, asked):
    score, _ = guard.scores()
    moved = distortion(memguard.noise_search(score, asked[0]), asked[0]) > 0
    # some that noise is found for, and some that it is not
    rows = asked[0, torch.cat([side.nonzero()[:4, 0] for side in (moved, ~moved)])]
    batched = memguard.noise_search(score, rows)
    for z, found in zip(rows, batched, strict=True):
        torch.testing.assert_close(plain_search(score, z).detach(), found, atol=1e-6, rtol=1e-6)
    moved = distortion(batched, rows) > 0
    assert moved.tolist() == [True] * 4 + [False] * 4


def test_an_answer_about_which_nothing_is_known_is_left_alone():
    log_p = answers(10, CLASSES)
    assert torch.equal(memguard.noise_search(lambda z: z.sum(-1) * 0, log_p), log_p)  # undecided
    assert torch.equal(memguard.noise_search(lambda z: z.sum(-1) * 0 + 1, log_p), log_p)  # no gradient
    far = memguard.noise_search(lambda z: 1e6 + z.sum(-1) * 1e-3, log_p)  # 299 steps do not reach it
    assert torch.equal(far, log_p)
    assert memguard.noise_search(sure, log_p[:0]).shape == (0, CLASSES)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("off, hidden", [(0.9e-5, False), (1.1e-5, True)])
def test_within_a_hundred_thousandth_of_one_half_there_is_nothing_to_hide(side, off, hidden):
    """off: how far the classifier's probability of a member is from one half, whose log-odds are four times that."""
    p = 0.7 + side * off
    z = torch.tensor([[p, 1 - p]], dtype=torch.float64).log()
    assert abs(sure(z).sigmoid().item() - 0.5) == pytest.approx(off, rel=1e-3)
    assert (distortion(memguard.noise_search(sure, z), z) > 0).item() is hidden


@pytest.mark.parametrize("away, reached", [(28.85, True), (28.95, True), (29.85, True), (29.95, False)])
def test_299_steps_of_a_tenth(away, reached):
    """The third log-posterior, small as it is, has to fall by `away`; so steep a score leaves the others alone."""
    z = torch.tensor([[0.6, 0.39, 0.01]]).double().log()
    noisy = memguard.noise_search(lambda at: 1e9 * (at[:, 2] - z[:, 2] + away), z)
    assert (distortion(noisy, z) > 0).item() == reached


def test_a_flip_that_costs_the_label_is_no_flip():
    """Only class 0 above a half would look like a non-member: answers of other classes must not go there."""
    log_p = answers(200, 2, scale=1.0)
    noisy = memguard.noise_search(lambda z: 0.5 - z.softmax(-1)[:, 0], log_p)
    assert torch.equal(noisy, log_p)


# What is served


def test_every_label_is_kept_and_every_reply_is_a_distribution(noisy, asked):
    assert torch.equal(noisy.argmax(-1), asked.argmax(-1))
    assert torch.allclose(noisy.exp().sum(-1), torch.ones(2, 200).double())
    assert not noisy.isnan().any()
    # one-hot answers are not out of the search's reach
    assert (distortion(noisy, asked)[:, 180:] > 0).all()


@pytest.mark.parametrize("budget", [0.05, 0.3, 1.0])
def test_the_mean_distortion_is_within_the_budget(guard, asked, noisy, budget, monkeypatch):
    """Each answer comes with all of its noise, of distortion d, or with none, and over keys with min(budget, d)."""
    monkeypatch.setattr(memguard, "noise_search", lambda score, answers: noisy[0])
    whole = distortion(noisy, asked)[0]
    served = torch.stack(
        [
            distortion(MemGuard(guard.classifiers[:1], budget, (key,))(asked[:1]), asked[:1])[0]
            for key in range(300)
        ]
    )
    assert ((served == 0) | (served == whole)).all()
    expected = whole.clamp(max=budget)
    deviation = (expected * (whole - expected) / len(served)).sqrt()  # of a mean of all or nothing
    assert ((served.mean(0) - expected).abs() <= 5 * deviation + 1e-9).all()
    assert float(served.mean()) <= budget


def test_budget_zero_returns_the_answers(guard, asked):
    assert torch.equal(replace(guard, budget=0.0)(asked), asked)


def test_what_the_defence_classifier_believes_goes_to_one_half(guard, defender):
    """Its probability of the truth, members and reference examples alike."""
    known = torch.cat([part.log_posteriors[:, :40] for part in (defender.members, defender.reference)], dim=1)
    sign = torch.cat([torch.ones(40), -torch.ones(40)])
    believed = []
    for budget in (0.0, 0.2, 2.0):
        served = replace(guard, budget=budget)(known)
        believed.append((sign * judged(guard, served)).sigmoid())
    means = [float(belief.mean()) for belief in believed]
    assert means[0] > 0.7
    assert means[0] - 0.02 > means[1] > means[2] + 0.02
    moved = distortion(served, known) > 0
    assert float((believed[2] - 0.5).abs()[moved].mean()) < 0.05


def test_noise_that_does_not_bring_the_classifier_nearer_to_one_half_is_not_served(monkeypatch, guard, asked):
    """Whatever the search comes up with: here, another answer."""
    other = asked[:1].roll(1, dims=1)
    monkeypatch.setattr(memguard, "noise_search", lambda score, answers: other[0])
    first = replace(guard[[0]], budget=1e9)
    nearer = judged(first, other).abs() < judged(first, asked[:1]).abs()
    assert 0.1 < nearer.double().mean() < 0.9
    assert torch.equal(first(asked[:1]), torch.where(nearer[..., None], other, asked[:1]))


def test_the_same_answer_gets_the_same_reply(guard, asked, short):
    some = asked[:, 50:90]
    whole = guard(some)
    assert torch.equal(guard(some), whole)
    torch.testing.assert_close(guard(some[:, 10:15]), whole[:, 10:15], atol=1e-9, rtol=1e-9)


def test_another_key_serves_other_answers(guard, asked, short):
    some = asked[:, 70:110]
    moved = [distortion(replace(guard, keys=keys)(some), some) > 0 for keys in (guard.keys, (1, 2))]
    assert (moved[0] != moved[1]).any()
    assert len(set(guard.keys)) == 2  # each network has its own


def test_many_answers_are_served_in_parts(monkeypatch, guard, asked, short):
    some = asked[:, 65:80]
    whole = guard(some)
    monkeypatch.setattr(memguard, "ROWS", 6)
    torch.testing.assert_close(guard(some), whole, atol=1e-9, rtol=1e-9)


# One classifier a network


def test_each_network_uses_its_own_classifier(guard, defender):
    """The two networks' members look opposite, so the classifier of one is wrong about the other."""
    own = judged(guard, defender.members.log_posteriors) > 0
    others = judged(guard, defender.members.log_posteriors.flip(0)) > 0
    assert (own.double().mean(1) > 0.75).all()
    assert (others.double().mean(1) < 0.5).all()


@pytest.mark.parametrize("models", [[1], [1, 0], slice(1, 2), slice(None)], ids=str)
def test_indexed_by_network(guard, asked, short, models):
    some = asked[:, 65:75]
    part = training.pick(guard, models)
    assert isinstance(part, MemGuard)
    torch.testing.assert_close(part(some[models]), guard(some)[models], atol=0, rtol=0)


def test_answers_of_as_many_networks_as_are_guarded(guard, asked):
    some = asked[:, 65:75]
    with pytest.raises(ValueError, match="guards 1 networks and was given answers of 2"):
        guard[[0]](some)


def test_a_classifier_learns_from_the_answers_of_its_own_network_alone(defender):
    """The second network's classifier is the same whether there is a first network or not, and found in the cache."""
    both = memguard.fit(defender, 0.3, recipe=replace(RECIPE, epochs=2))
    alone = Defender(defender.members[[1]], defender.reference[[1]], defender.seeds[[1]])
    one = memguard.fit(alone, 0.3, recipe=replace(RECIPE, epochs=2))
    assert both.keys[1:] == one.keys
    for name, tensor in one.classifiers.params.items():
        torch.testing.assert_close(tensor[0], both.classifiers.params[name][1], atol=1e-6, rtol=1e-5)


def test_the_budget_costs_no_training(defender, monkeypatch):
    memguard.fit(defender, 0.3, recipe=replace(RECIPE, epochs=1))
    monkeypatch.setattr(fitting.loop, "train", None)  # whoever trains now fails
    memguard.fit(defender, 0.7, key=3, recipe=replace(RECIPE, epochs=1))


def test_few_reference_examples_weigh_as_much_as_many_members():
    """Answers that say nothing, 90 of members and 10 of others: the classifier must not lean to the members."""
    nothing = torch.zeros(1, 100, 3).double().log_softmax(-1)
    defender = Defender(views(nothing[:, :90]), views(nothing[:, 90:]), torch.tensor([0]))
    guard = memguard.fit(defender, 0.3, recipe=Recipe(epochs=60, batch_size=100, lr=1e-3, weight_decay=0.0))
    assert abs(float(judged(guard, nothing)[0, 0])) < 0.2  # log 9 = 2.2 without the weights


# Bad input


@pytest.mark.parametrize(
    "options, words",
    [
        ({"budget": -0.1}, "budget is -0.1; the mean L1 distortion must be 0 or more"),
        ({"budget": math.nan}, "budget is nan"),
        ({"keys": (1,)}, "1 keys for 2 networks"),
        ({"keys": (1, -1)}, "key is -1"),
    ],
)
def test_values_out_of_range_are_refused(guard, options, words):
    with pytest.raises(ValueError, match=words):
        replace(guard, **options)


def test_fit_refuses_before_it_trains(defender, monkeypatch):
    monkeypatch.setattr(fitting.loop, "train", None)
    with pytest.raises(ValueError, match="budget is -1"):
        memguard.fit(defender, -1)
    with pytest.raises(ValueError, match="key is -1"):
        memguard.fit(defender, 1, key=-1)


@pytest.mark.cuda
def test_cuda_serves_as_the_cpu_does(guard, asked, short, accelerator):
    there = replace(guard, classifiers=guard.classifiers.to(accelerator))(asked)
    assert there.device == asked.device
    same = (there - guard(asked)).abs().nan_to_num().amax(-1) < 1e-6  # -inf minus -inf is nan
    assert float(same.double().mean()) > 0.98  # a draw may fall on the other side of a step
