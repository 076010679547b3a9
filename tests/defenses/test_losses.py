"""Losses that defend, against their equations written out with numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from mialib import training
from mialib.data import splits
from mialib.defenses.losses import (
    PPB,
    LabelSmoothing,
    Mixup,
    RelaxLoss,
    SoftTargets,
    flattening,
    pair_divergence,
)
from mialib.defenses.mmd import MMD
from mialib.training import Batch, Recipe, cross_entropy, pick

LOGITS = [[2.0, 0.0, -1.0], [0.5, 1.5, 0.0], [0.0, 1.0, 4.0], [0.2, 0.1, 0.0]]
LABELS = [0, 1, 2, 1]


def batch(labels):
    y = torch.tensor(labels)
    return Batch(torch.zeros(*y.shape, 1), y, torch.zeros_like(y))


def answer(params, x):
    return params["logits"]


def penalty(logits):
    """2/b * sum over pairs of KL(p_(i + b/2) || p_i) of the posteriors ranked in descending order."""
    ranked = -np.sort(-np.asarray(logits), axis=1)
    p = np.exp(ranked) / np.exp(ranked).sum(1, keepdims=True)
    half = len(p) // 2
    first, second = p[:half], p[half : 2 * half]
    return (second * np.log(second / first)).sum(1).mean()


def cross_entropy_by_hand(logits, labels):
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -np.log(p[np.arange(len(labels)), labels]).mean()


def test_ppb_by_hand():
    params = {"logits": torch.tensor([LOGITS])}
    expected = cross_entropy_by_hand(LOGITS, LABELS) + 4 * penalty(LOGITS)
    assert penalty(LOGITS) > 0.05
    assert PPB(4.0)(answer, params, batch([LABELS]), 0).tolist() == pytest.approx([expected], abs=1e-6)


def test_each_model_is_penalised_for_its_own_answers():
    logits = torch.tensor([LOGITS, LOGITS[::-1]])
    found = pair_divergence(logits)
    assert found.tolist() == pytest.approx([penalty(LOGITS), penalty(LOGITS[::-1])], abs=1e-6)
    assert abs(float(found[0] - found[1])) > 1e-3  # KL has a direction: second half against first


def test_an_odd_last_example_is_left_out_of_the_penalty():
    odd = torch.tensor([[*LOGITS, [9.0, -9.0, 0.0]]])
    assert torch.equal(pair_divergence(odd), pair_divergence(odd[:, :4]))
    loss = PPB(4.0)(answer, {"logits": odd}, batch([[*LABELS, 1]]), 0)
    expected = cross_entropy_by_hand(odd[0].numpy(), [*LABELS, 1]) + 4 * penalty(LOGITS)
    assert loss.tolist() == pytest.approx([expected], abs=1e-5)  # but not of the cross-entropy


def test_the_class_is_forgotten():
    permuted = torch.tensor([[LOGITS[0], LOGITS[1], LOGITS[0][::-1], [1.5, 0.0, 0.5]]])
    assert pair_divergence(permuted).tolist() == pytest.approx([0.0], abs=1e-7)


def test_the_gradient_flows_through_both_sides():
    logits = torch.tensor([LOGITS], requires_grad=True)
    pair_divergence(logits).sum().backward()
    assert bool((logits.grad[0].abs().sum(1) > 1e-3).all())


def test_the_gradient_is_that_of_the_equation():
    logits = torch.tensor([LOGITS], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pair_divergence, logits)


def test_certain_answers_stay_finite():
    logits = torch.tensor([[[200.0, -200.0, 0.0], [0.0, 0.1, 0.2]]], requires_grad=True)
    value = pair_divergence(logits)
    value.sum().backward()
    assert bool(value.isfinite().all()) and bool(logits.grad.isfinite().all())


def soft_cross_entropy_by_hand(logits, targets):
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -(targets * np.log(p)).sum(1)


def flattening_by_hand(logits, labels, upper):
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = np.empty_like(p)
    for i, label in enumerate(labels):
        kept = min(p[i, label], upper)
        targets[i] = (1 - kept) / (p.shape[1] - 1)
        targets[i, label] = kept
    return soft_cross_entropy_by_hand(logits, targets)


def value_and_gradient(objective, logits, labels, step=0):
    logits = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    losses = objective(answer, {"logits": logits}, batch(labels), step)
    losses.sum().backward()
    return losses.detach(), logits.grad


def test_label_smoothing_by_hand():
    models = [LOGITS, LOGITS[::-1]]
    targets = 0.7 * np.eye(3)[LABELS] + 0.3 / 3
    expected = [soft_cross_entropy_by_hand(logits, targets).mean() for logits in models]
    found = LabelSmoothing(0.3)(answer, {"logits": torch.tensor(models)}, batch([LABELS, LABELS]), 0)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert abs(expected[0] - expected[1]) > 0.1


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("images", [True, False])
def test_above_its_strength_relaxloss_descends(images, step):
    loss = cross_entropy_by_hand(LOGITS, LABELS)
    objective = RelaxLoss(loss - 0.1, period=1, images=images)
    value, gradient = value_and_gradient(objective, [LOGITS], [LABELS], step)
    assert value.tolist() == pytest.approx([loss if step else 0.1])
    torch.testing.assert_close(gradient, value_and_gradient(cross_entropy, [LOGITS], [LABELS])[1])


def test_below_its_strength_relaxloss_first_climbs():
    loss = cross_entropy_by_hand(LOGITS, LABELS)
    value, gradient = value_and_gradient(RelaxLoss(loss + 0.1, period=1), [LOGITS], [LABELS])
    assert value.tolist() == pytest.approx([0.1])
    torch.testing.assert_close(gradient, -value_and_gradient(cross_entropy, [LOGITS], [LABELS])[1])


@pytest.mark.parametrize("upper", [1.0, 0.5])  # 0.5: three of the four posteriors p_y are above, one is below
def test_flattening_by_hand(upper):
    found = flattening(torch.tensor([LOGITS, LOGITS[::-1]]), torch.tensor([LABELS, LABELS]), upper)
    expected = [flattening_by_hand(logits, LABELS, upper) for logits in (LOGITS, LOGITS[::-1])]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_relaxloss_flattens_all_records():
    value, _ = value_and_gradient(RelaxLoss(9.0, 1, upper=0.3, images=False), [LOGITS], [LABELS], step=1)
    assert value.tolist() == pytest.approx([flattening_by_hand(LOGITS, LABELS, 0.3).mean()])


def test_relaxloss_flattens_wrong_images_and_climbs_on_all():
    wrong = np.argmax(LOGITS, axis=1) != LABELS
    assert wrong.tolist() == [False, False, False, True]
    value, gradient = value_and_gradient(RelaxLoss(9.0, 1), [LOGITS], [LABELS], step=1)
    flattened = (wrong * flattening_by_hand(LOGITS, LABELS, 1.0)).mean()
    assert value.tolist() == pytest.approx([flattened - cross_entropy_by_hand(LOGITS, LABELS)])
    climb = -value_and_gradient(cross_entropy, [LOGITS], [LABELS])[1]
    torch.testing.assert_close(gradient[:, ~wrong], climb[:, ~wrong])
    assert float((gradient - climb)[:, wrong].abs().max()) > 1e-3


@pytest.mark.parametrize("upper", [1.0, 0.5])
def test_the_gradient_flows_through_soft_targets(upper):
    """Finite differences move the target as well, so that a detached one would not agree with them."""
    logits = torch.tensor([LOGITS], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: flattening(z, torch.tensor([LABELS]), upper), logits)


@pytest.mark.parametrize("upper, sign", [(0.9, -1), (0.8, 1)])
def test_confidence_grows_below_upper_and_falls_above_it(upper, sign):
    logits = torch.tensor([[LOGITS[0]]], requires_grad=True)  # p_y is 0.84
    (gradient,) = torch.autograd.grad(flattening(logits, torch.tensor([[0]]), upper).sum(), logits)
    assert float(gradient[0, 0, 0].sign()) == sign


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("images", [True, False])
def test_each_model_relaxes_by_itself(images, step):
    models = [LOGITS, LOGITS[::-1]]
    low, high = (cross_entropy_by_hand(logits, LABELS) for logits in models)
    objective = RelaxLoss((low + high) / 2, period=1, images=images)
    together = value_and_gradient(objective, models, [LABELS, LABELS], step)
    for i, logits in enumerate(models):
        alone = value_and_gradient(objective, [logits], [LABELS], step)
        for found, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(found[i], expected[0])
    descent = value_and_gradient(cross_entropy, models, [LABELS, LABELS])[1]
    assert torch.allclose(together[1][1], descent[1]) and not torch.allclose(together[1][0], descent[0])


def test_the_phases_alternate_by_period():
    loss = cross_entropy_by_hand(LOGITS, LABELS)
    objective = RelaxLoss(loss + 0.1, period=3, images=False)
    values = [float(value_and_gradient(objective, [LOGITS], [LABELS], step)[0]) for step in range(9)]
    climb, flat = 0.1, flattening_by_hand(LOGITS, LABELS, 1.0).mean()
    assert abs(climb - flat) > 0.1
    assert values == pytest.approx([climb] * 3 + [flat] * 3 + [climb] * 3)


@pytest.mark.parametrize(
    "objective",
    [LabelSmoothing(0.1), RelaxLoss(1e4, 1), RelaxLoss(1e4, 1, images=False), RelaxLoss(1e4, 1, 0.3, False)],
    ids=str,
)
@pytest.mark.parametrize("step", [0, 1])
def test_losses_of_certain_answers_stay_finite(objective, step):
    extreme = [[[400.0, -400.0, 0.0], [-400.0, 400.0, 0.0], [400.0, 400.0, -400.0]]]
    labels = torch.tensor([[0, 0, 2]])  # certain and right, certain and wrong, torn between two wrong classes
    logits = torch.tensor(extreme, requires_grad=True)  # float32, where such posteriors are exactly 0
    losses = objective(answer, {"logits": logits}, batch(labels.tolist()), step)
    losses.sum().backward()
    assert losses.shape == (1,) and bool(losses.isfinite().all()) and bool(logits.grad.isfinite().all())


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("objective", [PPB(0.0), LabelSmoothing(0.0), RelaxLoss(0.0, 1)], ids=str)
def test_strength_zero_is_cross_entropy(objective, step):
    params, one = {"logits": torch.tensor([LOGITS])}, batch([LABELS])
    assert torch.equal(objective(answer, params, one, step), cross_entropy(answer, params, one, step))


@pytest.mark.parametrize(
    "objective",
    [PPB(4.0), LabelSmoothing(0.1), RelaxLoss(0.5, 1), Mixup(1.0), SoftTargets(torch.full((1, 1, 3), 1 / 3))],
    ids=lambda one: type(one).__name__,
)
def test_whole_batch_objectives_are_those_whose_loss_is_no_mean_over_examples(objective):
    one = [
        objective(answer, {"logits": torch.tensor([[z]])}, batch([[y]]), 0)
        for z, y in zip(LOGITS, LABELS, strict=True)
    ]
    together = objective(answer, {"logits": torch.tensor([LOGITS])}, batch([LABELS]), 0)
    is_mean = torch.allclose(together, torch.stack(one).mean(0), atol=1e-6)
    assert getattr(objective, "whole_batch", False) == (not is_mean)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PPB(-1.0), "PPB: strength is -1.0; it must be 0 or more"),
        (lambda: PPB(float("nan")), "PPB: strength is nan; it must be 0 or more"),
        (lambda: LabelSmoothing(-0.1), r"LabelSmoothing: strength is -0.1; it must be in \[0, 1\)"),
        (lambda: LabelSmoothing(1.0), r"LabelSmoothing: strength is 1.0; it must be in \[0, 1\)"),
        (lambda: LabelSmoothing(float("nan")), r"LabelSmoothing: strength is nan; it must be in \[0, 1\)"),
        (lambda: RelaxLoss(-1.0, 1), "RelaxLoss: strength is -1.0; it must be 0 or more"),
        (lambda: RelaxLoss(float("nan"), 1), "RelaxLoss: strength is nan; it must be 0 or more"),
        (lambda: RelaxLoss(1.0, 0), "RelaxLoss: period is 0; it must be an integer, 1 or more"),
        (lambda: RelaxLoss(1.0, 2.5), "RelaxLoss: period is 2.5; it must be an integer, 1 or more"),
        (lambda: RelaxLoss(1.0, 1, upper=0.0), r"RelaxLoss: upper is 0.0; it must be in \(0, 1\]"),
        (lambda: RelaxLoss(1.0, 1, upper=1.5), r"RelaxLoss: upper is 1.5; it must be in \(0, 1\]"),
        (lambda: Mixup(0.0), "Mixup: strength is 0.0; it must be positive and finite"),
        (lambda: Mixup(-1.0), "Mixup: strength is -1.0; it must be positive and finite"),
        (lambda: Mixup(float("inf")), "Mixup: strength is inf; it must be positive and finite"),
        (lambda: Mixup(float("nan")), "Mixup: strength is nan; it must be positive and finite"),
        (lambda: SoftTargets(torch.zeros(4, 3)), r"SoftTargets: targets are torch.float32 \(4, 3\)"),
        (lambda: SoftTargets(torch.zeros(1, 4, 3).long()), "they must be floating point"),
    ],
)
def test_a_setting_out_of_range_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Soft targets


def test_soft_targets_by_hand():
    """Two models, each with targets of its own in another order; of five rows three are looked up, two are nan."""
    targets = np.random.default_rng(0).dirichlet(np.ones(3), (2, 5)).astype(np.float32)
    index = np.array([[0, 3, 2], [4, 1, 2]])
    unused = np.ones((2, 5), bool)
    np.put_along_axis(unused, index, False, axis=1)
    models = np.array([LOGITS[:3], LOGITS[1:]], np.float32)
    expected = [
        soft_cross_entropy_by_hand(logits, own[rows]).mean()
        for logits, own, rows in zip(models, targets, index, strict=True)
    ]
    targets[unused] = np.nan
    objective, y = SoftTargets(torch.from_numpy(targets)), torch.zeros(2, 3).long()
    logits = torch.from_numpy(models).requires_grad_()
    losses = objective(answer, {"logits": logits}, Batch(torch.zeros(2, 3, 1), y, torch.from_numpy(index)), 0)
    assert losses.tolist() == pytest.approx(expected, abs=1e-6)
    losses.sum().backward()
    assert bool(logits.grad.isfinite().all())
    second = Batch(torch.zeros(1, 3, 1), y[1:], torch.from_numpy(index[1:]))
    for models in ([1], slice(1, 2)):
        alone = pick(objective, models)(answer, {"logits": logits[1:]}, second, 0)
        assert torch.equal(alone, losses[1:]), models


def test_certain_soft_targets_are_labels(toy):
    logits, index = (
        torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)),
        torch.arange(8).view(2, 4),
    )
    certain = nn.functional.one_hot(toy.y, 3).float().expand(2, -1, -1)
    one = Batch(toy.x[index], toy.y[index], index)
    found, expected = (
        objective(answer, {"logits": logits}, one, 0) for objective in (SoftTargets(certain), cross_entropy)
    )
    torch.testing.assert_close(found, expected)


def linear():
    return nn.Linear(6, 3)


@pytest.fixture
def split():
    return splits.target_shadow(120, 1, 2, seed=0, n_train=20)


def test_each_model_learns_its_own_soft_targets(toy, split):
    """The models are told that all members are class 0, 1 and 2; the targets of all other examples are nan."""
    targets = torch.eye(3)[:, None].repeat(1, 120, 1)
    targets[~split.member] = torch.nan
    options = dict(objective=SoftTargets(targets))
    recipe = Recipe(epochs=20, batch_size=8, lr=5e-2)
    batched = training.fit(linear, toy, split, recipe, **options, batched=True)
    answers = [module(toy.x[member]).argmax(1) for module, member in zip(batched, split.member, strict=True)]
    assert all((answer == i).all() for i, answer in enumerate(answers))
    alone = training.fit(linear, toy, split[2:], recipe, objective=SoftTargets(targets[2:]), batched=False)
    for name, tensor in alone.params.items():
        torch.testing.assert_close(tensor[0], batched.params[name][2], atol=1e-5, rtol=1e-4)


# Mixup


def mixed_by(objective, step, k=1, b=4):
    """lam, order and what the objective makes of LOGITS, read from what it shows the model: x are unit vectors."""
    shown = []

    def spy(params, x):
        shown.append(x)
        return params["logits"]

    x = torch.eye(b).expand(k, b, b)
    y = torch.tensor(LABELS[:b]).expand(k, b)
    losses = objective(
        spy, {"logits": torch.tensor([LOGITS[:b]] * k)}, Batch(x, y, torch.zeros_like(y)), step
    )
    assert len(shown) == 1 and all(torch.equal(own, shown[0][0]) for own in shown[0])
    mixed = shown[0][0].numpy()
    others = mixed - np.diag(mixed.diagonal())
    order = np.where(others.any(1), others.argmax(1), np.arange(b))
    return 1 - others.max(), order, losses


def test_mixup_by_hand():
    seen = set()
    for step in range(20):
        lam, order, losses = mixed_by(Mixup(1.0), step, k=2)
        if (order == np.arange(4)).all():
            continue  # nothing was mixed
        assert sorted(order) == [0, 1, 2, 3], step  # a permutation
        expected = lam * cross_entropy_by_hand(LOGITS, LABELS) + (1 - lam) * cross_entropy_by_hand(
            LOGITS, np.array(LABELS)[order]
        )
        assert losses.tolist() == pytest.approx([expected] * 2, abs=1e-5), step
        assert mixed_by(Mixup(1.0), step)[0] == lam, step  # the same alone as together
        seen.add((round(float(lam), 6), *order))
    assert len(seen) > 15


@pytest.mark.parametrize("strength", [0.2, 1.0, 5.0])
def test_shares_follow_the_beta_distribution(strength):
    found = np.array([mixed_by(Mixup(strength), step, b=3)[0] for step in range(600)])
    found = found[found < 1]  # without the steps in which the order changes nothing
    assert len(found) > 400
    assert found.mean() == pytest.approx(0.5, abs=0.08)
    assert found.var() == pytest.approx(1 / (4 * (2 * strength + 1)), rel=0.2)


def test_mixing_leaves_the_batch_as_it_is(toy):
    x, y = toy.x[:8].clone()[None], toy.y[:8].clone()[None]
    Mixup(1.0)(lambda params, x: x[..., :3], {}, Batch(x, y, torch.zeros_like(y)), 0)
    assert torch.equal(x[0], toy.x[:8]) and torch.equal(y[0], toy.y[:8])


@pytest.mark.parametrize("opponent", [None, MMD(1.0)], ids=["alone", "with MMD"])
def test_mixup_in_training_batched_equals_one_by_one(toy, split, opponent):
    recipe = Recipe(epochs=3, batch_size=8, lr=1e-2)
    plain = training.fit(linear, toy, split, recipe)
    options = dict(objective=Mixup(1.0), opponent=opponent)
    batched = training.fit(linear, toy, split, recipe, **options, batched=True)
    alone = training.fit(linear, toy, split[2:], recipe, **options, batched=False)
    assert not torch.allclose(batched.params["weight"], plain.params["weight"], atol=1e-3)
    torch.testing.assert_close(alone.params["weight"][0], batched.params["weight"][2], atol=1e-5, rtol=1e-4)


def test_beside_mixup_the_opponent_is_shown_the_batch_as_it_is(toy, split):
    """Of no strength it changes nothing, and it asks about the unmixed members."""
    recipe, shown = Recipe(epochs=2, batch_size=8, lr=1e-2), []

    class Spy(MMD):
        def _penalty(self, forward, params, batch, reference, step):
            shown.append(torch.equal(batch.x, toy.x[batch.index]))
            return super()._penalty(forward, params, batch, reference, step)

    alone = training.fit(linear, toy, split[:1], recipe, objective=Mixup(1.0))
    beside = training.fit(linear, toy, split[:1], recipe, objective=Mixup(1.0), opponent=Spy(0.0))
    assert torch.equal(alone.params["weight"], beside.params["weight"])
    assert len(shown) == 6 and all(shown)
