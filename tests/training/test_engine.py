"""Populations and the one training loop: engines agree, hooks get what is documented, nothing is computed twice."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import joblib
import pytest
import torch
from torch import nn

from mialib import asking, progress, training
from mialib.compression import pruning
from mialib.data import Splits, splits
from mialib.measures import metrics
from mialib.models import classifiers
from mialib.store import Store
from mialib.training import Recipe, loop, pick, population
from mialib.training.descent import Shuffling
from mialib.training.hooks import Hooks

RECIPE = Recipe(epochs=3, batch_size=8, lr=1e-2)
CNN = partial(classifiers.small_cnn, in_channels=1, num_classes=10, image_size=8, width=4)


def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


class Double(nn.Module):
    """`mlp` in float64; `fit` hands it float32 inputs."""

    def __init__(self):
        super().__init__()
        self.net = mlp().double()

    def forward(self, x):
        return self.net(x.double())


@pytest.fixture
def split():
    return splits.target_shadow(120, 1, 2, seed=0, n_train=20)


def largest_difference(a, b):
    assert a.params.keys() == b.params.keys() and a.buffers.keys() == b.buffers.keys()
    pairs = [(getattr(a, kind)[n], t) for kind in ("params", "buffers") for n, t in getattr(b, kind).items()]
    return max(float((x.double() - y.double()).abs().max()) for x, y in pairs)


def assert_same(a, b):
    """Bit for bit."""
    for kind in ("params", "buffers"):
        for name, tensor in getattr(a, kind).items():
            assert torch.equal(tensor, getattr(b, kind)[name]), name


def fits_without_training(monkeypatch):
    def fail(*args, **options):
        raise AssertionError("a model was trained that the cache holds")

    monkeypatch.setattr(loop, "train", fail)


@pytest.fixture
def trained_seeds(monkeypatch):
    """The seeds of the models that the loop was asked to train, call by call."""
    real, calls = loop.train, []

    def spy(*args, split, **options):
        calls.append(split.seeds.tolist())
        return real(*args, split=split, **options)

    monkeypatch.setattr(loop, "train", spy)
    return calls


# Populations


def test_population_rows_are_plain_modules_with_the_same_logits(digits):
    pop = population.initial(CNN, [3, 4])
    x = digits.inputs(torch.arange(10).view(2, 5))
    together = population.forward(population.skeleton(CNN).eval(), pop.params, pop.buffers, x)
    for i, module in enumerate(pop):
        assert type(module) is nn.Sequential and not module.training
        assert torch.allclose(module(x[i]), together[i], atol=1e-6)


def test_a_row_is_a_copy():
    pop = population.initial(mlp, [0])
    before = pop.params["0.weight"].clone()
    pop[0][0].weight.data.zero_()
    assert torch.equal(pop.params["0.weight"], before)


def test_initial_weights_depend_on_the_own_seed_only():
    state = torch.get_rng_state()
    pop = population.initial(mlp, [5, 6, 7])
    assert torch.equal(
        torch.get_rng_state(), state
    )  # the caller's random numbers go on as if nothing had happened
    assert_same(pop[1:2], population.initial(mlp, [6]))
    assert not torch.equal(pop.params["0.weight"][0], pop.params["0.weight"][1])


def test_slices_and_lists_keep_the_model_axis_and_the_records():
    pop = replace(
        population.initial(mlp, [0, 1, 2]), records=[{"i": i} for i in range(3)], keys=["a", "b", "c"]
    )
    assert len(pop[1:]) == 2 and pop[1:].keys == ["b", "c"]
    assert pop[[2, 0]].records == [{"i": 2}, {"i": 0}]
    assert torch.equal(pop[[2, 0]].params["3.bias"], pop.params["3.bias"][[2, 0]])


def test_stack_is_the_inverse_of_indexing():
    pop = population.initial(mlp, [0, 1])
    assert_same(pop, population.stack(mlp, list(pop)))
    with pytest.raises(ValueError, match="model 1 has another architecture"):
        population.stack(mlp, [mlp(), nn.Linear(6, 3)])


def test_pick_indexes_what_is_per_model_and_nothing_else():
    assert pick({"w": torch.arange(3)}, [2])["w"].tolist() == [2]
    assert pick(None, [0]) is None and pick(training.cross_entropy, [0]) is training.cross_entropy


# Engines agree


def test_batched_equals_one_by_one_in_float64(toy, split):
    runs = [
        training.fit(Double, toy, split, RECIPE, cache=Store(f"{os.environ['MIALIB_CACHE']}/{b}"), batched=b)
        for b in (0, 1)
    ]
    assert runs[0].params["net.0.weight"].dtype == torch.float64
    assert largest_difference(*runs) < 1e-9
    assert (
        largest_difference(runs[0], population.initial(Double, split.seeds.tolist())) > 1e-2
    )  # it did train


def test_batched_equals_one_by_one_in_float32(digits):
    split = splits.target_shadow(len(digits), 1, 2, seed=0, n_train=48)
    recipe = Recipe(epochs=5, batch_size=16)
    runs = [
        training.fit(CNN, digits, split, recipe, cache=Store(f"{os.environ['MIALIB_CACHE']}/{b}"), batched=b)
        for b in (0, 1)
    ]
    index, _ = splits.candidates(split, 0)
    a, b = (asking.log_posteriors(run, digits, index).exp() for run in runs)
    assert float((a - b).abs().max()) < 1e-5


def test_batched_equals_one_by_one_on_average_with_dropout(toy):
    make_model, recipe = (
        partial(classifiers.columnfc, in_features=6, num_classes=3),
        Recipe(epochs=8, batch_size=10),
    )
    split = splits.target_shadow(120, 8, 8, seed=0, n_train=20)
    index, member = splits.candidates(split, 0)
    found = []
    for batched in (False, True):
        store = Store(f"{os.environ['MIALIB_CACHE']}/{batched}")
        pop = training.fit(make_model, toy, split, recipe, cache=store, batched=batched)
        confidence = asking.log_posteriors(pop, toy, index).gather(2, toy.y[index][..., None])[..., 0]
        auc = torch.tensor([metrics.auc(m, c).value for m, c in zip(member, confidence, strict=True)])
        found.append(torch.stack([asking.accuracy(pop, toy, split.test), auc]))
    one_by_one, together = found
    assert not torch.equal(one_by_one, together)  # other dropout masks
    error = (together - one_by_one).std(1) / 4  # standard error of the mean over 16 models
    assert bool(
        ((together - one_by_one).mean(1).abs() < 4 * error).all()
    )  # four: chance fails it once in 400 engines
    assert bool((error < 0.01).all())  # and tight enough to see an engine that differs


@pytest.mark.parametrize("batched", [False, True])
def test_a_model_trained_alone_is_the_one_trained_among_others(toy, split, batched):
    together = training.fit(
        Double, toy, split, RECIPE, cache=Store(f"{os.environ['MIALIB_CACHE']}/a"), batched=batched
    )
    alone = training.fit(Double, toy, split[1:2], RECIPE, cache=Store(f"{os.environ['MIALIB_CACHE']}/b"))
    assert largest_difference(together[1:2], alone) < 1e-9
    if not batched:
        assert_same(together[1:2], alone)


def test_training_leaves_the_callers_random_numbers_alone(toy, split):
    state = torch.get_rng_state()
    training.fit(partial(classifiers.columnfc, in_features=6, num_classes=3), toy, split, RECIPE)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(toy, split):
    make_model = partial(classifiers.columnfc, in_features=6, num_classes=3)
    one = training.fit(make_model, toy, split, RECIPE, cache=Store(f"{os.environ['MIALIB_CACHE']}/one"))
    with joblib.parallel_config(backend="loky", n_jobs=2, inner_max_num_threads=1):
        two = training.fit(make_model, toy, split, RECIPE, cache=Store(f"{os.environ['MIALIB_CACHE']}/two"))
    assert_same(one, two)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_the_cpu(toy, split):
    cpu = training.fit(mlp, toy, split, RECIPE, cache=Store(f"{os.environ['MIALIB_CACHE']}/cpu"))
    for batched in (False, True):
        store = Store(f"{os.environ['MIALIB_CACHE']}/{batched}")
        gpu = training.fit(mlp, toy.to("cuda"), split, RECIPE, cache=store, batched=batched)
        assert gpu.device.type == "cuda"
        assert largest_difference(cpu, gpu.to("cpu")) < 1e-3


# Recipe


def test_no_epochs_give_the_initial_models(toy, split):
    fitted = training.fit(mlp, toy, split, replace(RECIPE, epochs=0))
    assert_same(fitted, population.initial(mlp, split.seeds.tolist()))


def test_one_epoch_is_adam_by_hand(toy, split):
    fitted = training.fit(mlp, toy, split[:1], replace(RECIPE, epochs=1))
    seed = int(split.seeds[0])
    module = population.initial(mlp, [seed])[0].train()
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2, weight_decay=5e-4)
    members = split.member[0].nonzero()[:, 0]
    order = members[torch.randperm(20, generator=torch.Generator().manual_seed(seed))]
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


def nn_linear():
    return nn.Linear(6, 3)


def test_a_last_batch_of_one_example_is_left_out(toy):
    split = splits.target_shadow(120, 1, 1, seed=0, n_train=17)  # 8 + 8 + 1, and BatchNorm needs two
    fitted = training.fit(mlp, toy, split, replace(RECIPE, epochs=1))
    assert fitted.buffers["1.num_batches_tracked"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"epochs": -1}, "epochs is -1; it must be 0 or more"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"lr": 0.0}, "lr is 0.0; it must be positive"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"optimizer": "adamw"}, "optimizer is 'adamw'; it must be 'adam' or 'sgd'"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"patience": 5}, "patience is 5; it must be None unless select_best"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
    ],
)
def test_a_recipe_names_what_is_wrong(wrong, words):
    with pytest.raises(ValueError, match=words):
        replace(RECIPE, **wrong)


@pytest.mark.parametrize("n, steps", [(16, 2), (17, 2), (18, 3), (7, 1), (1, 1)])
def test_steps_an_epoch_are_those_that_the_loop_takes(toy, n, steps):
    member = torch.zeros(1, 120, dtype=torch.bool)
    member[0, :n] = True
    split = Splits(member, ~member, torch.zeros_like(member), torch.tensor([3]))
    taken = []

    def count(forward, params, batch, step):
        taken.append(step)
        return training.cross_entropy(forward, params, batch, step)

    loop.train(nn_linear, toy, replace(RECIPE, epochs=1), split=split, hooks=Hooks(count, Shuffling()))
    assert taken == list(range(steps)) and RECIPE.steps_per_epoch(n) == steps


# Best checkpoint and patience

RESTLESS = Recipe(epochs=12, batch_size=8, lr=0.05, select_best=True)


@pytest.mark.parametrize("batched", [False, True])
def test_the_best_epoch_is_kept(toy, split, batched):
    best = training.fit(Double, toy, split, RESTLESS, batched=batched)
    reserve = asking.accuracy(best, toy, split.reserve)
    curves = [record["reserve_accuracy"] for record in best.records]
    assert any(
        curve[-1] < max(curve) for curve in curves
    )  # the last epoch is not the best: there is a choice
    for i, (record, curve) in enumerate(zip(best.records, curves, strict=True)):
        assert len(curve) == 12
        assert record["best_epoch"] == curve.index(max(curve))  # the first of equals
        assert float(reserve[i]) == pytest.approx(max(curve), abs=1e-6)
        plain = Recipe(epochs=record["best_epoch"] + 1, batch_size=8, lr=0.05)
        stopped = training.fit(Double, toy, split[[i]], plain)
        assert largest_difference(best[[i]], stopped) < 1e-9


@pytest.mark.parametrize("patience", [0, 2, 5])
def test_patience_stops_after_more_than_so_many_epochs_without_a_better_one(toy, split, patience):
    recipe = replace(RESTLESS, epochs=40)
    full = training.fit(mlp, toy, split, recipe, batched=False)
    patient = training.fit(mlp, toy, split, replace(recipe, patience=patience), batched=False)
    for free, stopped in zip(full.records, patient.records, strict=True):
        expected, best, waited = [], -1.0, 0
        for accuracy in free["reserve_accuracy"]:  # epoch by epoch, as the paper's code counts
            expected.append(accuracy)
            best, waited = (accuracy, 0) if accuracy > best else (best, waited + 1)
            if waited > patience:
                break
        assert stopped["reserve_accuracy"] == expected
        assert len(expected) < 40 and len(stopped["loss"]) == len(expected)


def test_patience_stops_each_model_for_itself_when_trained_together(toy, split):
    recipe = replace(RESTLESS, epochs=40, patience=1)
    alone = training.fit(
        Double, toy, split, recipe, batched=False, cache=Store(f"{os.environ['MIALIB_CACHE']}/a")
    )
    together = training.fit(
        Double, toy, split, recipe, batched=True, cache=Store(f"{os.environ['MIALIB_CACHE']}/b")
    )
    assert (
        len({len(record["reserve_accuracy"]) for record in alone.records}) > 1
    )  # they stop at different epochs
    for a, b in zip(alone.records, together.records, strict=True):
        assert a["best_epoch"] == b["best_epoch"]
        # together, the record goes on until the last model stops
        assert b["reserve_accuracy"][: len(a["reserve_accuracy"])] == a["reserve_accuracy"]
    assert largest_difference(alone, together) < 1e-9


# Hooks


@pytest.mark.parametrize("batched", [False, True])
def test_masked_weights_stay_zero_and_the_mask_is_baked_in(toy, split, batched):
    dense = training.fit(mlp, toy, split, RECIPE)
    masks = pruning.mask(dense, "l1_unstructured", 0.5)
    tuned = training.fit(mlp, toy, split, RECIPE, start=dense, compress=masks, batched=batched)
    for name, kept in masks.kept.items():
        assert bool((tuned.params[name][~kept] == 0).all())
        assert bool((tuned.params[name][kept] != dense.params[name][kept]).any())
    for i, module in enumerate(tuned):  # a plain module, nothing to undo
        assert torch.equal(module.state_dict()["0.weight"] == 0, ~masks.kept["0.weight"][i])


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
    for _, batch, *_ in seen:
        assert (
            batch.y.dtype == batch.index.dtype == torch.int64
            and batch.y.shape == batch.index.shape == batch.x.shape[:2]
        )
        assert torch.equal(batch.x, toy.x[batch.index]) and torch.equal(batch.y, toy.y[batch.index])
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
    for before, after in zip(free.records, bound.records, strict=True):
        assert after["loss"][0] == pytest.approx(before["loss"][0] + 5, abs=1e-3)
        assert "largest" not in before and len(after["largest"]) == 1


def test_a_constraint_refuses_the_best_epoch(toy, split):
    with pytest.raises(ValueError, match="select_best=False"):
        training.fit(mlp, toy, split, replace(RECIPE, select_best=True), constraint=ZeroFirstBias())


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
    assert seen[0] == ("begin", split.seeds.tolist(), "cpu")
    assert [step for *_, step in seen[1:]] == [0, 1, 2]
    for _, batch, reference, _ in seen[1:]:
        assert reference.x.shape == batch.x.shape and torch.equal(reference.x, toy.x[reference.index])
        assert bool(split.reserve.gather(1, reference.index).all())
        assert bool(split.member.gather(1, batch.index).all())
    for without, penalised in zip(plain.records, played.records, strict=True):
        assert penalised["loss"][0] == pytest.approx(without["loss"][0] + 7, abs=0.2)


# Bad input


def test_sizes_that_do_not_fit_are_named_before_any_work(toy, split, monkeypatch):
    fits_without_training(monkeypatch)
    with pytest.raises(ValueError, match="the split is over 90 examples, toy has 120"):
        training.fit(mlp, toy, splits.target_shadow(90, 1, 1, seed=0), RECIPE)
    with pytest.raises(ValueError, match="start has 2 models, the split 3"):
        training.fit(mlp, toy, split, RECIPE, start=population.initial(mlp, [0, 1]))
    everyone = splits.everyone(120, [0])
    for options in ({"recipe": RESTLESS}, {"recipe": RECIPE, "opponent": Opponent()}):
        with pytest.raises(ValueError, match="need reserve examples"):
            training.fit(mlp, toy, everyone, **options)


@pytest.mark.parametrize("batched", [False, True])
def test_a_loss_that_is_not_finite_names_model_epoch_and_learning_rate(toy, split, batched):
    explosive = Recipe(epochs=5, batch_size=8, lr=1e30, optimizer="sgd", milestones=(1,))
    with pytest.raises(FloatingPointError) as error:
        training.fit(nn_linear, toy, split, explosive, batched=batched)
    assert str(int(split.seeds[0])) in str(error.value)
    assert "epoch 0" in str(error.value) and "1e+30" in str(error.value)


def test_a_model_that_diverged_is_not_cached(toy, split, cache_root):
    with pytest.raises(FloatingPointError):
        training.fit(nn_linear, toy, split, Recipe(epochs=5, batch_size=8, lr=1e30, optimizer="sgd"))
    assert not list(Path(cache_root).rglob("*.json"))


# The cache


def test_a_second_call_trains_nothing_and_gives_the_same_bits(toy, split, monkeypatch):
    first = training.fit(mlp, toy, split, RESTLESS)
    fits_without_training(monkeypatch)
    second = training.fit(mlp, toy, split, RESTLESS)
    assert_same(first, second)
    assert second.records == first.records and second.keys == first.keys


def test_more_models_train_only_the_new_ones(toy, trained_seeds):
    few, more = (splits.target_shadow(120, 1, shadows, seed=0, n_train=20) for shadows in (1, 3))
    training.fit(mlp, toy, few, RECIPE)
    trained_seeds.clear()
    training.fit(mlp, toy, more, RECIPE)
    assert trained_seeds == [[seed] for seed in more.seeds[2:].tolist()]


@dataclass(frozen=True)
class Weighted:
    strength: float

    def __call__(self, forward, params, batch, step):
        return self.strength * training.cross_entropy(forward, params, batch, step)


def test_whatever_makes_a_model_is_in_its_key(toy, split):
    one = split[:1]
    dense = training.fit(mlp, toy, one, RECIPE)
    masks = {level: pruning.mask(dense, "l1_unstructured", level) for level in (0.5, 0.7)}
    other_member = splits.target_shadow(120, 1, 1, seed=1, n_train=20)[:1]
    variants = [
        dict(),
        dict(recipe=replace(RECIPE, lr=1e-3)),
        dict(recipe=replace(RECIPE, precision="bf16")),
        dict(split=replace(one, seeds=one.seeds + 1)),
        dict(split=replace(other_member, seeds=one.seeds)),
        dict(data=replace(toy, x=toy.x + 1)),
        dict(make_model=nn_linear),
        dict(objective=Weighted(1.0)),
        dict(objective=Weighted(2.0)),
        dict(augment=shift),
        dict(constraint=ZeroFirstBias()),
        dict(opponent=Opponent()),
        dict(start=dense),
        dict(start=dense, compress=masks[0.5]),
        dict(start=dense, compress=masks[0.7]),
    ]
    common = dict(make_model=mlp, data=toy, split=one, recipe=RECIPE)
    keys = [training.fit(**common | variant).keys[0] for variant in variants]
    keys += [training.fit(**common | dict(start=replace(dense, keys=[]))).keys[0]]  # weights made by hand
    assert len(set(keys)) == len(keys)


def test_the_reserve_set_is_in_the_key_only_where_it_matters(toy, split):
    smaller = replace(split, reserve=split.reserve & (torch.arange(120) % 2 == 0))
    assert training.fit(mlp, toy, split, RECIPE).keys == training.fit(mlp, toy, smaller, RECIPE).keys
    assert training.fit(mlp, toy, split, RESTLESS).keys != training.fit(mlp, toy, smaller, RESTLESS).keys


def test_a_lambda_cannot_be_cached_and_says_so(toy, split):
    with pytest.raises(TypeError, match="module-level function"):
        training.fit(lambda: nn.Linear(6, 3), toy, split, RECIPE)


@pytest.mark.parametrize("damage", ["altered", "cut", "json"])
def test_a_corrupt_entry_is_named_set_aside_and_trained_again(toy, split, cache_root, trained_seeds, damage):
    first = training.fit(mlp, toy, split, RECIPE, batched=False)
    entry = (
        Path(cache_root)
        / first.keys[1][:2]
        / f"{first.keys[1]}.{'json' if damage == 'json' else 'safetensors'}"
    )
    content = entry.read_bytes()
    entry.write_bytes(
        content[:-1] + bytes([content[-1] ^ 1]) if damage == "altered" else content[: len(content) // 2]
    )
    trained_seeds.clear()
    with pytest.warns(UserWarning, match=f"{first.keys[1]}.*corrupt"):
        again = training.fit(mlp, toy, split, RECIPE, batched=False)
    assert trained_seeds == [[int(split.seeds[1])]]
    assert_same(first, again)
    assert entry.with_name(entry.name + ".corrupt").exists()
    training.fit(mlp, toy, split, RECIPE)  # mended: no warning, which would be an error here
    assert len(trained_seeds) == 1


class Interrupting:
    """A progress bar at which the user presses Ctrl-C after so many epochs."""

    def __init__(self, epochs):
        self.left = epochs

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    def update(self, epochs):
        self.left -= epochs
        if self.left < 0:
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_with_the_first_missing_model(toy, split, monkeypatch, trained_seeds):
    whole = training.fit(
        mlp, toy, split, RECIPE, cache=Store(f"{os.environ['MIALIB_CACHE']}/whole"), batched=False
    )
    with monkeypatch.context() as patch:
        patch.setattr(progress, "bar", lambda *args: Interrupting(4))  # in the second model's second epoch
        with pytest.raises(KeyboardInterrupt):
            training.fit(mlp, toy, split, RECIPE, batched=False)
    trained_seeds.clear()
    resumed = training.fit(mlp, toy, split, RECIPE, batched=False)
    assert trained_seeds == [[seed] for seed in split.seeds[1:].tolist()]
    assert_same(whole, resumed)


KILLED = """
from functools import partial
import torch
from mialib import data, training
from mialib.data import splits
from mialib.models import classifiers
torch.set_num_threads(1)
digits = data.load("digits")
split = splits.target_shadow(len(digits), 6, 6, seed=0, n_train=32)
make_model = partial(classifiers.small_cnn, in_channels=1, num_classes=10, image_size=8, width=4)
training.fit(make_model, digits, split, training.Recipe(epochs=15, batch_size=8), batched=False)
"""


def test_a_killed_run_leaves_nothing_half_written(digits, cache_root, trained_seeds):
    process = subprocess.Popen([sys.executable, "-c", KILLED], stderr=subprocess.DEVNULL)
    try:
        patience = time.monotonic() + 60
        while not (finished := list(Path(cache_root).rglob("*.json"))) and time.monotonic() < patience:
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(list(Path(cache_root).rglob("*.json")))
    assert finished and done < 12
    split, recipe = (
        splits.target_shadow(len(digits), 6, 6, seed=0, n_train=32),
        Recipe(epochs=15, batch_size=8),
    )
    resumed = training.fit(CNN, digits, split, recipe, batched=False)
    assert trained_seeds == [[seed] for seed in split.seeds[done:].tolist()]
    around = slice(done - 1, done + 1)  # the last model before the end and the first one after
    assert_same(
        resumed[around], training.fit(CNN, digits, split[around], recipe, cache=Store(f"{cache_root}/fresh"))
    )


# Curves, one forward pass for objective and opponent


def test_watching_notes_accuracies_and_changes_no_weight(toy, split, trained_seeds):
    sets = ("member", "test", "reserve")
    plain = training.fit(mlp, toy, split, RECIPE)
    watched = training.fit(mlp, toy, split, RECIPE, watch=sets)
    assert len(trained_seeds) == 6  # the cached models had no curves
    training.fit(mlp, toy, split, RECIPE, watch=sets[1:])
    training.fit(mlp, toy, split, RECIPE)
    assert len(trained_seeds) == 6
    assert_same(plain, watched)
    for name in sets:
        expected = asking.accuracy(watched, toy, getattr(split, name)).tolist()
        curves = [record[f"{name}_accuracy"] for record in watched.records]
        assert [len(curve) for curve in curves] == [3] * 3
        assert [curve[-1] for curve in curves] == pytest.approx(expected, abs=1e-6)


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
