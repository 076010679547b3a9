"""Captured steps are the steps that are captured: on a CPU bit for bit, by a tape; on CUDA to rounding, by a graph."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from mialib import models, training
from mialib.compression import Masks
from mialib.data import splits
from mialib.store import Store
from mialib.training import cross_entropy, graphs, loop
from mialib.training.descent import Shuffling
from mialib.training.hooks import Hooks
from tests.replay import on_tape
from tests.training import test_hooks
from tests.training.cases import CASES, FEATURES, RECIPE, SPLIT, Case, mlp
from tests.training.test_population import largest_difference

EAGER = {"RelaxLoss", "Mixup", "OneUpdate", "DPSGD"}


class Taped(graphs.Graphs):
    """Records on a tape and counts how often."""

    def __init__(self):
        self.times = 0

        def record(*position):
            self.times += 1
            return on_tape(*position)

        super().__init__(record)


def copied(entries):
    """On a CPU a result may lie where the next models will be."""
    return [
        ({n: t.clone() for n, t in tensors.items()}, dict(record, seconds=0)) for tensors, record in entries
    ]


def assert_equal(found, expected):
    for i, ((tensors, record), (other, noted)) in enumerate(
        zip(copied(found), copied(expected), strict=True)
    ):
        assert record == noted, i
        assert all(torch.equal(tensors[name], tensor) for name, tensor in other.items()), i


def test_every_hook_of_a_training_is_among_the_cases():
    roles = {
        test_hooks.hooks.Objective,
        test_hooks.hooks.Compress,
        test_hooks.hooks.Constraint,
        test_hooks.hooks.Opponent,
        test_hooks.hooks.Descent,
        test_hooks.hooks.Augment,
    }
    used = [hook for case in CASES.values() for hook in case.hooks.values()] + [cross_entropy, Shuffling()]
    used += [part for hook in used for part in getattr(hook, "opponents", ())]
    used = {test_hooks.named(hook) for hook in used}
    assert {test_hooks.named(hook) for role, hook in test_hooks.SHIPPED if role in roles} <= used


@pytest.mark.parametrize("split", [SPLIT[:1], SPLIT], ids=["alone", "together"])
@pytest.mark.parametrize("name", CASES)
def test_a_captured_step_is_the_step_bit_for_bit(name, split):
    taped = Taped()
    found, expected = (CASES[name].train(split, graphs=one) for one in (taped, None))
    assert_equal(found, expected)
    assert taped.times == (0 if name in EAGER else graphs.SHAPES)  # the batch, and the last one of an epoch


# the noise of DPSGD has a stream that a graph does not know: on a tape nothing is amiss
@pytest.mark.parametrize("name", sorted(EAGER - {"DPSGD"}))
def test_what_says_that_it_cannot_be_captured_cannot(name, monkeypatch):
    for hook in CASES[name].hooks.values():
        if not getattr(hook, "captured", True):
            monkeypatch.setattr(type(hook), "captured", True)
            break
    else:
        pytest.fail("none says so")
    try:
        found = CASES[name].train(graphs=Taped(), epochs=8)
    except (RuntimeError, IndexError):
        return
    with pytest.raises(AssertionError):
        assert_equal(found, CASES[name].train(epochs=8))


def test_the_best_epoch_of_captured_steps_is_kept():
    case = replace(CASES["cross_entropy"], recipe=replace(RECIPE, lr=2**-4, select_best=True, patience=3))
    assert_equal(*(case.train(graphs=one, epochs=12) for one in (Taped(), None)))


@pytest.mark.parametrize("name", ["cross_entropy", "SGD", "dropout", "Masks", "SoftTargets", "FlipAndShift"])
def test_the_next_models_are_copied_into_what_was_recorded(name):
    taped, case = Taped(), CASES[name]
    for i in range(2):
        hooks = Hooks(**{"objective": cross_entropy, "descent": Shuffling()} | case.hooks)[[i]]
        run = partial(
            loop.train,
            case.make_model,
            case.data,
            case.recipe,
            split=SPLIT[[i]],
            hooks=hooks,
            watch=("test",),
        )
        assert_equal(run(graphs=taped), run())
    assert taped.times == graphs.SHAPES


@pytest.mark.parametrize("name", ["AdversarialRegularization", "ADMM"])
def test_what_has_a_state_of_its_own_is_recorded_anew(name):
    taped = Taped()
    for i in range(2):
        assert_equal(*(CASES[name].train(SPLIT[[i]], graphs=one) for one in (taped, None)))
    assert taped.times == 2 * graphs.SHAPES


def test_other_sizes_are_not_copied():
    taped = Taped()
    for split in (SPLIT, SPLIT[:1]):
        assert_equal(*(CASES["cross_entropy"].train(split, graphs=one) for one in (taped, None)))
    assert taped.times == 2 * graphs.SHAPES


def test_batches_of_rare_shapes_run_as_they_are_written():
    class Growing(Shuffling):
        def begin(self, members, batch_size, seeds):
            _, backward = super().begin(members, batch_size, seeds)
            return lambda: iter([members[:, :n] for n in (8, 4, 6, 7)]), backward

    taped, case = Taped(), Case(hooks={"descent": Growing()})
    assert_equal(*(case.train(graphs=one) for one in (taped, None)))
    assert taped.times == graphs.SHAPES


def test_tensors_that_lie_elsewhere_are_not_captured(monkeypatch):
    taped = Taped()
    monkeypatch.setattr(graphs, "tensors", lambda thing: iter([torch.empty(1, device="meta")]))
    assert_equal(*(CASES["Masks"].train(graphs=one) for one in (taped, None)))
    assert taped.times == 0


def test_the_tensors_of_hooks_are_found_where_they_lie():
    a, b, c = (torch.full((1,), float(i)) for i in range(3))
    nested = partial(mlp, Masks({"w": a}), [1, (b,)], c=c, d="text")
    assert [t.item() for t in graphs.tensors([nested, None, cross_entropy])] == [0, 1, 2]


def test_graphs_on_a_cpu_are_refused_before_any_work():
    with pytest.raises(ValueError, match="graphs is True, and the data lie on cpu"):
        training.fit(mlp, FEATURES, SPLIT, RECIPE, graphs=True)


# On CUDA


def on_cuda(case, tmp_path, name, **options):
    hooks = {role: hook.to("cuda") if isinstance(hook, Masks) else hook for role, hook in case.hooks.items()}
    return training.fit(
        case.make_model,
        case.data.to("cuda"),
        SPLIT,
        replace(case.recipe, epochs=4),
        cache=Store(tmp_path / name),
        **hooks,
        **options,
    ).to("cpu")


# SoftTargets and SquaredError hold tensors that a caller moves; DPSGD draws its noise on the device
AS_THEY_ARE = [name for name in CASES if name not in ("dropout", "DPSGD", "SoftTargets", "inversion")]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device; no stand-in can do this")
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("name", AS_THEY_ARE)
def test_graphs_on_cuda_equal_steps_as_they_are_written(name, batched, tmp_path):
    written, played = (
        on_cuda(CASES[name], tmp_path, str(graphs), graphs=graphs, batched=batched)
        for graphs in (False, True)
    )
    assert largest_difference(written, played) < 1e-5


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device; no stand-in can do this")
@pytest.mark.parametrize("name", ["cross_entropy", "SGD", "Masks", "ADMM", "Gradual", "MMD"])
def test_graphs_on_cuda_equal_the_cpu(name, tmp_path):
    case = CASES[name]
    here = training.fit(
        case.make_model,
        case.data,
        SPLIT,
        replace(case.recipe, epochs=4),
        cache=Store(tmp_path / "cpu"),
        **case.hooks,
    )
    # a bias before BatchNorm has a gradient of rounding noise, which Adam makes a step of
    there = on_cuda(case, tmp_path, "cuda", graphs=True)
    names = [name for name in here.params if name != "0.bias"]
    assert max(float((here.params[n] - there.params[n]).abs().max()) for n in names) < 1e-3


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device; no stand-in can do this")
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize("batched", [False, True])
def test_graphs_learn_in_every_precision(precision, batched, tmp_path, digits):
    make_model, split = models.make("small_cnn", digits), splits.target_shadow(len(digits), 1, 1, 0, 200)
    recipe = replace(RECIPE, epochs=15, batch_size=32, precision=precision)
    found = training.fit(
        make_model, digits.to("cuda"), split, recipe, graphs=True, batched=batched, cache=Store(tmp_path)
    )
    assert all(record["loss"][-1] < 0.2 * record["loss"][0] for record in found.records)
