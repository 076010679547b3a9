"""The engine: it agrees with itself wherever it runs, refuses what does not fit, and computes nothing twice."""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
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
from mialib.data import Dataset, splits
from mialib.defenses import losses
from mialib.measures import metrics
from mialib.models import classifiers
from mialib.store import Store
from mialib.training import Recipe, loop, population, workers
from tests.models.test_classifiers import CNN
from tests.training.test_checkpoints import RESTLESS
from tests.training.test_loop import Opponent, ZeroFirstBias, shift
from tests.training.test_population import Double, assert_same, largest_difference, mlp, nn_linear
from tests.training.test_recipe import RECIPE


def fits_without_training(monkeypatch):
    def fail(*args, **options):
        raise AssertionError("a model was trained that the cache holds")

    monkeypatch.setattr(loop, "train", fail)


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


def test_as_many_models_at_once_as_the_memory_holds(toy, monkeypatch):
    split = splits.target_shadow(120, 2, 3, seed=0, n_train=20)
    whole, parts = (Store(f"{os.environ['MIALIB_CACHE']}/{name}") for name in ("whole", "parts"))
    start = population.initial(Double, split.seeds.tolist())
    masks = pruning.mask(start, "l1_unstructured", 0.5)  # each model's own, as its start is
    options = {"compress": masks, "start": start, "batched": True}
    expected = training.fit(Double, toy, split, RECIPE, cache=whole, **options)
    real, asked = loop.train, []

    def tight(*args, split, **rest):
        asked.append(split.seeds.tolist())
        if len(split) > 2:
            raise torch.OutOfMemoryError("three models are too many")
        return real(*args, split=split, **rest)

    monkeypatch.setattr(loop, "train", tight)
    found = training.fit(Double, toy, split, RECIPE, cache=parts, **options)
    a, b, c, d, e = split.seeds.tolist()
    assert asked == [[a, b, c, d, e], [a, b], [c, d, e], [c], [d, e]]
    assert found.keys == expected.keys and largest_difference(found, expected) < 1e-9


def test_a_single_model_that_the_memory_does_not_hold_is_an_error(toy, split, monkeypatch):
    def full(*args, **rest):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(loop, "train", full)
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        training.fit(mlp, toy, split, RECIPE, batched=True)


@pytest.mark.parametrize("batched", [False, True])
def test_a_model_trained_alone_is_the_one_trained_among_others(toy, split, batched):
    together = training.fit(
        Double, toy, split, RECIPE, cache=Store(f"{os.environ['MIALIB_CACHE']}/a"), batched=batched
    )
    alone = training.fit(Double, toy, split[1:2], RECIPE, cache=Store(f"{os.environ['MIALIB_CACHE']}/b"))
    assert largest_difference(together[1:2], alone) < 1e-9
    if not batched:
        assert_same(together[1:2], alone)


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(toy, split):
    make_model = partial(classifiers.columnfc, in_features=6, num_classes=3)
    one = training.fit(make_model, toy, split, RECIPE, cache=Store(f"{os.environ['MIALIB_CACHE']}/one"))
    with joblib.parallel_config(backend="loky", n_jobs=2, inner_max_num_threads=1):
        two = training.fit(make_model, toy, split, RECIPE, cache=Store(f"{os.environ['MIALIB_CACHE']}/two"))
    assert_same(one, two)


@pytest.mark.cuda
@pytest.mark.parametrize("batched", [False, True])
def test_cuda_equals_the_cpu(toy, split, batched, accelerator):
    cpu = training.fit(mlp, toy, split, RECIPE, cache=Store(f"{os.environ['MIALIB_CACHE']}/cpu"))
    moved, cache = toy.to(accelerator), Store(f"{os.environ['MIALIB_CACHE']}/gpu")
    gpu = training.fit(mlp, moved, split, RECIPE, cache=cache, batched=batched)
    assert gpu.device.type == accelerator
    assert largest_difference(cpu, gpu.to("cpu")) < 1e-3


@pytest.fixture
def threads():
    """The number of torch's threads, put back after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_processes_have_one_thread_each(threads):
    torch.set_num_threads(2)
    with joblib.parallel_config(backend="sequential"):  # what is set inside ends with it
        training.use_processes(3)
        assert torch.get_num_threads() == 1 and joblib.effective_n_jobs(None) == 3
    assert joblib.effective_n_jobs(None) == 1


def test_processes_end_with_the_one_that_asked_for_them(threads, monkeypatch):
    asked = {}
    monkeypatch.setattr(joblib, "parallel_config", asked.update)
    training.use_processes(2)
    assert asked["initializer"] is workers.begin and asked["initargs"] == (
        os.getpid(),
        torch.cuda.device_count(),
    )


# Bad input


def test_sizes_that_do_not_fit_are_named_before_any_work(toy, split, monkeypatch):
    fits_without_training(monkeypatch)
    with pytest.raises(ValueError, match="the split is over 90 examples, toy has 120"):
        training.fit(mlp, toy, splits.target_shadow(90, 1, 1, seed=0), RECIPE)
    with pytest.raises(ValueError, match="start has 2 models, the split 3"):
        training.fit(mlp, toy, split, RECIPE, start=population.initial(mlp, [0, 1]))


@pytest.mark.parametrize(
    ("before", "after"), [("norm", "group_norm"), ("group_norm", "norm"), ("plain", "wide")]
)
def test_a_start_of_another_architecture_is_refused_before_any_work(before, after, monkeypatch):
    networks = {
        "plain": partial(nn.Linear, 64, 10),
        "wide": partial(nn.Linear, 64, 12),
        "norm": partial(with_norm, nn.BatchNorm1d),
        "group_norm": partial(
            with_norm, partial(nn.GroupNorm, 1)
        ),  # its parameters have the same names and shapes
    }
    fits_without_training(monkeypatch)
    pool, recipe = Dataset.of_features("toy", torch.randn(8, 64), torch.arange(8) % 2, 2), Recipe(1, 4)
    split = splits.everyone(8, [0])
    start = population.initial(networks[before], [0])
    with pytest.raises(
        ValueError, match="start is of another architecture: [123] tensors differ, the first is"
    ):
        training.fit(networks[after], pool, split, recipe, start=start)


def with_norm(norm):
    return nn.Sequential(nn.Linear(64, 10), norm(10))


@pytest.mark.parametrize(
    "options",
    [{"recipe": RESTLESS}, {"recipe": RECIPE, "opponent": Opponent()}],
    ids=["best epoch", "opponent"],
)
def test_what_needs_reserve_examples_says_so_before_any_work(toy, monkeypatch, options):
    fits_without_training(monkeypatch)
    with pytest.raises(ValueError, match="need reserve examples"):
        training.fit(mlp, toy, splits.everyone(120, [0]), **options)


class Paired:
    """An objective that needs at least two examples, and says so as any other can."""

    whole_batch = True

    def __call__(self, forward, params, batch, step):
        logits = forward(params, batch.x)
        return (logits[:, 0] - logits[:, 1]).square().mean(-1)


def test_an_objective_of_whole_batches_needs_two_members(toy, split, monkeypatch):
    fits_without_training(monkeypatch)
    alone = splits.target_shadow(120, 1, 1, seed=0, n_train=1)
    with pytest.raises(ValueError, match="Paired needs two members or more in a batch, and a model has 1"):
        training.fit(mlp, toy, alone, RECIPE, objective=Paired())


def test_an_objective_of_whole_batches_is_trained_with_augmentation_and_an_opponent(toy, split):
    beside = {"augment": shift, "opponent": Opponent()}
    fitted = training.fit(mlp, toy, split, replace(RECIPE, epochs=1), objective=losses.PPB(1.0), **beside)
    assert len(fitted) == 3


def test_a_constraint_refuses_the_best_epoch(toy, split):
    with pytest.raises(ValueError, match="select_best=False"):
        training.fit(mlp, toy, split, replace(RECIPE, select_best=True), constraint=ZeroFirstBias())


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


def test_the_store_is_told_what_each_model_is(toy, split):
    made = training.fit(partial(partial(mlp)), toy, split, RECIPE, what="original", kind="decoders")
    members, seed = int(split.member[1].sum()), int(split.seeds[1])
    words = f"original: mlp on toy, {members} members, {RECIPE.epochs} epochs, seed {seed}"
    assert Store().made(made.keys[1]) == ("decoders", words)
    assert set(made.keys) <= set(Store().used())


@pytest.mark.parametrize("damage", ["another shape", "missing tensor", "null record"])
def test_an_entry_of_right_checksums_and_wrong_content_is_trained_again(
    toy, split, cache_root, trained_seeds, damage
):
    first, store = training.fit(mlp, toy, split, RECIPE, batched=False), Store()
    key = first.keys[1]
    tensors, record = store.get(key)
    name = next(iter(tensors))
    if damage == "missing tensor":
        del tensors[name]
    elif damage == "another shape":
        tensors[name] = torch.zeros(1)
    store.put(key, tensors, record)
    if damage == "null record":
        path = Path(cache_root) / key[:2] / f"{key}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"record": None}))
    trained_seeds.clear()
    with pytest.warns(UserWarning, match=f"{key}.*corrupt"):
        again = training.fit(mlp, toy, split, RECIPE, batched=False)
    assert trained_seeds == [[int(split.seeds[1])]]
    assert_same(first, again)


def test_what_a_read_only_cache_holds_is_used_and_the_rest_is_trained_and_not_kept(
    toy, split, cache_root, trained_seeds, monkeypatch
):
    first = training.fit(mlp, toy, split, RECIPE, batched=False)
    entry = Path(cache_root) / first.keys[1][:2] / f"{first.keys[1]}.safetensors"
    entry.write_bytes(b"cut")
    trained_seeds.clear()

    def fail(*args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "replace", fail)
    for name in ("mkstemp", "TemporaryFile"):
        monkeypatch.setattr(tempfile, name, fail)
    with pytest.warns(UserWarning) as said:
        again = training.fit(mlp, toy, split, RECIPE, batched=False)
    assert trained_seeds == [[int(split.seeds[1])]]
    assert_same(first, again)
    assert entry.read_bytes() == b"cut"
    assert ["cannot be set aside" in str(said[0].message), "MIALIB_CACHE" in str(said[1].message)] == [
        True
    ] * 2
    assert len(said) == 2  # said once and before work, not again for each model


def test_without_any_cache_nothing_is_trained(toy, split, trained_seeds):
    with pytest.raises(OSError, match="MIALIB_CACHE"):
        training.fit(mlp, toy, split, RECIPE, cache=Store("/proc/mialib"))
    assert not trained_seeds


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
from mialib.data import Dataset, splits
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


# Curves


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
        assert [len(curve) for curve in curves] == [3] * 3, name
        assert [curve[-1] for curve in curves] == pytest.approx(expected, abs=1e-6), name
