"""The one training loop: steps as by hand, hooks that get what is documented, losses that stay finite."""

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import nn

from mialib import streams, training
from mialib.compression import pruning
from mialib.data import splits
from mialib.models import classifiers
from mialib.training import Recipe, loop, population
from mialib.training.descent import Shuffling
from mialib.training.hooks import Hooks
from tests.training.test_checkpoints import RESTLESS
from tests.training.test_population import assert_same, mlp, nn_linear
from tests.training.test_recipe import RECIPE


def test_no_epochs_give_the_initial_models(toy, split):
    fitted = training.fit(mlp, toy, split, replace(RECIPE, epochs=0))
    assert_same(fitted, population.initial(mlp, split.seeds.tolist()))


def test_one_epoch_is_adam_by_hand(toy, split):
    fitted = training.fit(mlp, toy, split[:1], replace(RECIPE, epochs=1))
    seed = int(split.seeds[0])
    module = population.initial(mlp, [seed])[0].train()
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2, weight_decay=5e-4)
    members = split.member[0].nonzero()[:, 0]
    order = members[torch.randperm(20, generator=streams.generator(seed, "batch order"))]
    for index in order.split(8):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(toy.x[index]), toy.y[index]).backward()
        optimiser.step()
    for name, tensor in module.state_dict().items():
        if (
            name != "0.bias"
        ):  # BatchNorm takes it out again: its gradient is rounding noise, which Adam blows up
            assert torch.allclose((fitted.params | fitted.buffers)[name][0], tensor, atol=1e-5), name


def test_milestones_divide_the_learning_rate_by_ten(toy, split):
    recipe = Recipe(epochs=2, batch_size=32, lr=0.1, optimizer="sgd", momentum=0.0, weight_decay=0.0)
    steps = []
    for milestones in ((), (1,)):
        first, second = (
            training.fit(nn_linear, toy, split[:1], replace(recipe, epochs=epochs, milestones=milestones))
            for epochs in (1, 2)
        )
        steps.append(second.params["weight"] - first.params["weight"])
    assert torch.allclose(steps[0], 10 * steps[1], atol=1e-6)
    assert float(steps[0].abs().max()) > 1e-3


@pytest.mark.parametrize("batched", [False, True])
def test_a_loss_that_is_not_finite_names_model_epoch_and_learning_rate(toy, split, batched):
    explosive = Recipe(epochs=5, batch_size=8, lr=1e30, optimizer="sgd", milestones=(1,))
    with pytest.raises(FloatingPointError) as error:
        training.fit(nn_linear, toy, split, explosive, batched=batched)
    assert str(int(split.seeds[0])) in str(error.value)
    assert "epoch 0" in str(error.value) and "1e+30" in str(error.value)


def test_training_leaves_the_callers_random_numbers_alone(toy, split):
    state = torch.get_rng_state()
    training.fit(partial(classifiers.columnfc, in_features=6, num_classes=3), toy, split, RECIPE)
    assert torch.equal(torch.get_rng_state(), state)


def trained(data, split, recipe, **options):
    """What `loop.train` gives for plain networks."""
    hooks = Hooks(training.cross_entropy, Shuffling())
    return loop.train(mlp, data, recipe, split=split, hooks=hooks, **options)


def test_sgd_with_momentum_by_hand(toy, split):
    recipe = Recipe(epochs=1, batch_size=8, lr=0.1, weight_decay=0.01, optimizer="sgd", momentum=0.5)
    fitted = training.fit(nn_linear, toy, split[:1], recipe)
    seed = int(split.seeds[0])
    weight = population.initial(nn_linear, [seed]).params["weight"][0].requires_grad_()
    bias = population.initial(nn_linear, [seed]).params["bias"][0].requires_grad_()
    velocity = [torch.zeros_like(part) for part in (weight, bias)]
    members = split.member[0].nonzero()[:, 0]
    order = members[torch.randperm(20, generator=streams.generator(seed, "batch order"))]
    for index in order.split(8):
        loss = nn.functional.cross_entropy(toy.x[index] @ weight.T + bias, toy.y[index])
        gradients = torch.autograd.grad(loss, (weight, bias))
        with torch.no_grad():
            for part, gradient, v in zip((weight, bias), gradients, velocity, strict=True):
                v.mul_(0.5).add_(gradient + 0.01 * part)
                part -= 0.1 * v
    assert torch.allclose(fitted.params["weight"][0], weight, atol=1e-6)
    assert torch.allclose(fitted.params["bias"][0], bias, atol=1e-6)


@pytest.mark.parametrize("i", range(3))
def test_a_model_is_its_tensors_on_the_cpu_and_a_record(toy, split, i):
    entries = trained(toy, split, RECIPE, watch=("test",))
    tensors, record = entries[i]
    assert len(entries) == 3 and tensors.keys() == mlp().state_dict().keys()
    assert not any(tensor.requires_grad for tensor in tensors.values())
    assert record.keys() == {"loss", "test_accuracy", "seconds"} and record["seconds"] >= 0
    assert len(record["loss"]) == len(record["test_accuracy"]) == 3
    assert record["loss"][-1] < record["loss"][0]  # it learns


def test_the_loss_of_an_epoch_is_a_mean_over_examples_not_over_batches(toy, split):
    recipe = Recipe(epochs=1, batch_size=8, lr=1e-12, weight_decay=0.0, optimizer="sgd")  # 8 + 8 + 4 members
    fitted = training.fit(nn_linear, toy, split, recipe)
    for i, module in enumerate(population.initial(nn_linear, split.seeds.tolist())):
        members = split.member[i].nonzero()[:, 0]
        whole = nn.functional.cross_entropy(module(toy.x[members]), toy.y[members])
        assert fitted.records[i]["loss"][0] == pytest.approx(whole.item(), abs=1e-6), i


def test_the_reserve_is_asked_once_an_epoch_where_the_best_epoch_is_kept(toy, split, monkeypatch):
    asked, real = [], loop.Shard.accuracy
    monkeypatch.setattr(loop.Shard, "accuracy", lambda shard, rows: asked.append(rows) or real(shard, rows))
    ((_, record),) = trained(toy, split[:1], replace(RESTLESS, epochs=2), watch=("reserve", "test"))
    assert [rows[0].tolist() for rows in asked] == [
        mask[0].nonzero()[:, 0].tolist() for mask in (split.reserve, split.test)
    ] * 2
    assert len(record["reserve_accuracy"]) == len(record["test_accuracy"]) == 2


@pytest.mark.parametrize("patience", [None, 0], ids=["to the end", "stopped early"])
def test_ticks_add_up_to_every_epoch_of_every_model(toy, split, patience):
    ticks = []
    recipe = replace(RESTLESS, epochs=15, patience=patience)
    entries = trained(toy, split, recipe, tick=ticks.append)
    epochs = max(len(record["loss"]) for _, record in entries)
    assert len(ticks) == epochs and (epochs == 15) == (patience is None)
    assert sum(ticks) == 15 * 3 and set(ticks[:-1]) == {3}


def test_bf16_rounds_the_forward_pass_only(toy, split):
    dtypes = set()

    def objective(forward, params, batch, step):
        logits = forward(params, batch.x)
        dtypes.update((logits.dtype, *(p.dtype for p in params.values())))
        return training.mean_cross_entropy(logits, batch.y)

    runs = {
        precision: loop.train(
            mlp,
            toy,
            replace(RECIPE, epochs=1, precision=precision),
            split=split,
            hooks=Hooks(objective, Shuffling()),
        )[0][0]
        for precision in ("float32", "bf16")
    }
    assert dtypes == {torch.float32}
    full, rounded = (runs[precision]["3.weight"] for precision in runs)
    assert rounded.dtype == torch.float32
    assert 0 < float((full - rounded).abs().max()) < 0.1


# Hooks


@pytest.mark.parametrize("batched", [False, True])
def test_masked_weights_stay_zero_and_the_mask_is_baked_in(toy, split, batched):
    dense = training.fit(mlp, toy, split, RECIPE)
    masks = pruning.mask(dense, "l1_unstructured", 0.5)
    tuned = training.fit(mlp, toy, split, RECIPE, start=dense, compress=masks, batched=batched)
    for name, kept in masks.kept.items():
        assert bool((tuned.params[name][~kept] == 0).all()), name
        assert bool((tuned.params[name][kept] != dense.params[name][kept]).any()), name
    for i, module in enumerate(tuned):  # a plain module, nothing to undo
        assert torch.equal(module.state_dict()["0.weight"] == 0, ~masks.kept["0.weight"][i]), i


def test_fine_tuning_starts_from_the_given_weights_and_leaves_them(toy, split):
    dense = training.fit(mlp, toy, split, RECIPE)
    before = {name: tensor.clone() for name, tensor in dense.params.items()}
    assert_same(training.fit(mlp, toy, split, replace(RECIPE, epochs=0), start=dense), dense)
    training.fit(mlp, toy, split, replace(RECIPE, epochs=2), start=dense)
    assert all(torch.equal(dense.params[name], tensor) for name, tensor in before.items())


SEEN = []


@pytest.fixture
def seen():
    SEEN.clear()
    return SEEN


def recording(forward, params, batch, step):
    logits = forward(params, batch.x)
    SEEN.append(("objective", batch, step, tuple(logits.shape), {n: p.shape for n, p in params.items()}))
    return training.cross_entropy(forward, params, batch, step)


@dataclass(frozen=True)
class ZeroFirstBias:
    """A penalty of 5 that does not depend on anything, and a bias that is zeroed again after every step."""

    def begin(self, params):
        return Bound(params)


class Bound:
    def __init__(self, params):
        self.curves = {"largest": [params["0.bias"].detach().abs().amax(1)]}

    def penalty(self, params, step):
        SEEN.append(("penalty", step, len(params["0.bias"])))
        return 5 + 0 * params["0.bias"].sum(1)

    def follow(self, params, step):
        SEEN.append(("follow", step, torch.is_grad_enabled()))
        return {"0.bias": torch.zeros_like(params["0.bias"])}


def shift(x, generator):
    SEEN.append(("augment", tuple(x.shape), isinstance(generator, torch.Generator)))
    return x + 100


@dataclass(frozen=True)
class Opponent:
    """A penalty of 7 that does not depend on anything."""

    def begin(self, seeds, device):
        SEEN.append(("begin", list(seeds), torch.device(device).type))

        def play(forward, params, batch, reference, step):
            SEEN.append(("play", batch, reference, step))
            return 7 + 0 * forward(params, reference.x).sum((1, 2))

        return play


@pytest.mark.parametrize("batched", [False, True])
def test_objectives_get_the_batches_of_each_model(toy, split, seen, batched):
    training.fit(mlp, toy, split, replace(RECIPE, epochs=1), objective=recording, batched=batched)
    k = 3 if batched else 1
    assert [step for _, _, step, _, _ in seen] == [0, 1, 2] * (3 // k)
    assert [shape for *_, shape, _ in seen][:3] == [(k, 8, 3), (k, 8, 3), (k, 4, 3)]
    for _, batch, step, *_ in seen:
        assert batch.y.dtype == batch.index.dtype == torch.int64, step
        assert batch.y.shape == batch.index.shape == batch.x.shape[:2], step
        assert torch.equal(batch.x, toy.x[batch.index]) and torch.equal(batch.y, toy.y[batch.index]), step
    assert seen[0][-1]["0.weight"] == (k, 16, 6)
    batches = [batch.index for _, batch, *_ in seen]
    epochs = (
        torch.cat(batches, 1) if batched else torch.cat([torch.cat(batches[i : i + 3], 1) for i in (0, 3, 6)])
    )
    assert torch.equal(epochs.sort(1).values, splits.indices(split.member))  # each member once an epoch


@pytest.mark.parametrize("batched", [False, True])
def test_a_constraint_follows_every_step_and_has_the_last_word(toy, split, seen, batched):
    fitted = training.fit(mlp, toy, split, RECIPE, constraint=ZeroFirstBias(), batched=batched)
    k, rounds = (3, 1) if batched else (1, 3)
    steps = [note for step in range(9) for note in (("penalty", step, k), ("follow", step, False))]
    assert seen == steps * rounds
    assert not fitted.params["0.bias"].any() and bool(fitted.params["3.bias"].any())


def test_a_constraints_penalty_counts_and_its_curves_are_noted(toy, split):
    free, bound = (
        training.fit(mlp, toy, split, replace(RECIPE, epochs=1, lr=1e-9), constraint=constraint)
        for constraint in (None, ZeroFirstBias())
    )
    for i, (before, after) in enumerate(zip(free.records, bound.records, strict=True)):
        assert after["loss"][0] == pytest.approx(before["loss"][0] + 5, abs=1e-3), i
        assert "largest" not in before and len(after["largest"]) == 1, i


def test_augmentation_changes_what_the_model_sees_only_in_training(toy, split, seen):
    recipe = replace(RECIPE, epochs=1)
    plain = training.fit(mlp, toy, split, recipe, batched=True)
    augmented = training.fit(mlp, toy, split, recipe, augment=shift, batched=True)
    assert seen == [("augment", (3, 8, 6), True)] * 2 + [("augment", (3, 4, 6), True)]
    assert not torch.equal(plain.params["0.weight"], augmented.params["0.weight"])


def test_opponents_play_with_reserve_examples_and_their_penalty_counts(toy, split, seen):
    recipe = replace(RECIPE, epochs=1)
    plain = training.fit(mlp, toy, split, recipe, batched=True)
    played = training.fit(mlp, toy, split, recipe, opponent=Opponent(), batched=True)
    assert seen[0] == ("begin", streams.seeds(split.seeds.tolist(), "opponent"), "cpu")
    assert [step for *_, step in seen[1:]] == [0, 1, 2]
    for _, batch, reference, step in seen[1:]:
        assert reference.x.shape == batch.x.shape, step
        assert torch.equal(reference.x, toy.x[reference.index]), step
        assert bool(split.reserve.gather(1, reference.index).all()), step
        assert bool(split.member.gather(1, batch.index).all()), step
    for i, (without, penalised) in enumerate(zip(plain.records, played.records, strict=True)):
        assert penalised["loss"][0] == pytest.approx(without["loss"][0] + 7, abs=0.2), i


@dataclass(frozen=True)
class Asks:
    """An opponent that asks again for the answers that the objective had."""

    def begin(self, seeds, device):
        def play(forward, params, batch, reference, step):
            return 0.0 * forward(params, batch.x).sum((1, 2)) + 0.0 * forward(params, reference.x).sum((1, 2))

        return play


def test_objective_and_opponent_share_a_forward_pass(toy, split, monkeypatch):
    asked, real = [], population.forward

    def spy(module, params, buffers, x):
        asked.append(x.shape[1])
        return real(module, params, buffers, x)

    monkeypatch.setattr(population, "forward", spy)
    recipe = replace(RECIPE, epochs=1)
    training.fit(mlp, toy, split[:1], recipe, opponent=Asks())
    assert asked == [8, 8, 8, 8, 4, 4]  # of each batch: the members once, the reference once


def test_a_freed_batch_is_not_taken_for_the_next():
    answer = loop._remembered(lambda params, x: x + params)
    for value in range(50):  # each tensor is freed before the next is made, often in the same place
        assert float(answer(0, torch.full((1,), float(value)))) == value
