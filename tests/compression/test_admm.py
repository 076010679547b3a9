"""ADMM and gradual pruning: the penalty and its gradient by hand, the updates, and weights that stay zero."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from mialib import training
from mialib.compression import Stage, cardinality, pruning, stages
from mialib.compression.admm import ADMM
from mialib.compression.cardinality import LargestWeights
from mialib.compression.gradual import Gradual
from mialib.data import splits
from mialib.training import Recipe

HALF = LargestWeights({"w": 0.5})
RECIPE = Recipe(epochs=4, batch_size=8, lr=1e-2)


def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.fixture
def split():
    return splits.target_shadow(120, 1, 2, seed=0, n_train=20)


def test_penalty_and_gradient_by_hand():
    w = torch.tensor([[3.0, -1.0], [1.0, 2.0]], requires_grad=True)  # two models of two weights
    state = ADMM(HALF, every=1, rho=0.5).begin({"w": w})
    state.u = {"w": torch.tensor([[0.5, 0.0], [0.0, -1.0]])}
    penalty = state.penalty({"w": w}, 0)
    # Z keeps 3 and 2; W - Z + U = [0.5, -1] and [1, -1]; rho/2 times the squares
    assert penalty.tolist() == pytest.approx([0.25 * 1.25, 0.25 * 2.0])
    penalty.sum().backward()
    assert w.grad.tolist() == [[0.25, -0.5], [0.5, -0.5]]  # rho (W - Z + U)


def test_an_iteration_by_hand():
    w = torch.tensor([[3.0, -1.0]])
    state = ADMM(HALF, every=2, rho=0.5, growth=4.0).begin({"w": w})
    assert state.z["w"].tolist() == [[3.0, 0.0]]
    moved = {"w": torch.tensor([[1.0, -2.0]])}
    assert state.follow(moved, 0) == {}  # not yet
    assert state.rho == 0.5 and not state.curves["residual"]
    assert state.follow(moved, 1) == {}
    assert state.z["w"].tolist() == [[0.0, -2.0]]  # of W + U with U = 0
    assert state.u["w"].tolist() == [[0.25, 0.0]]  # U + W - Z, over the growth of rho
    assert state.rho == 2.0
    assert float(state.curves["residual"][0]) == pytest.approx(1 / 5**0.5)  # ||(1, 0)|| / ||(1, -2)||
    assert torch.equal(state.curves["residual w"][0], state.curves["residual"][0])


def test_z_is_the_projection_of_w_plus_u_and_not_of_w():
    state = ADMM(HALF, every=1).begin({"w": torch.tensor([[3.0, -1.0]])})
    state.u = {"w": torch.tensor([[0.0, -3.0]])}
    state.follow({"w": torch.tensor([[3.0, -1.0]])}, 0)
    assert state.z["w"].tolist() == [[0.0, -4.0]]


@pytest.mark.parametrize("batched", [False, True])
def test_the_residual_falls_and_the_largest_weights_carry_the_model(toy, split, batched):
    dense = training.fit(mlp, toy, split, replace(RECIPE, epochs=20))
    project = cardinality.everywhere(mlp, 4)
    iterations = replace(RECIPE, epochs=100, milestones=(80,))
    admm = ADMM(project, every=30, rho=1e-2, growth=2.0)
    drawn = training.fit(mlp, toy, split, iterations, start=dense, constraint=admm, batched=batched)
    for record in drawn.records:
        assert len(record["residual"]) == len(record["residual 0.weight"]) == 100 * 3 // 30
        assert record["residual"][-1] < 0.01 < 0.3 < record["residual"][0]
    lost = project(drawn.params)(drawn.params)["0.weight"] - drawn.params["0.weight"]
    assert float(lost.norm() / drawn.params["0.weight"].norm()) < 0.01


def test_models_drawn_together_are_those_drawn_alone(toy, split):
    admm = {"constraint": ADMM(cardinality.everywhere(mlp, 2), every=3, rho=1e-2, growth=2.0)}
    together, alone = (
        training.fit(mlp, toy, split, RECIPE, **admm, batched=batched) for batched in (True, False)
    )
    for name, tensor in together.params.items():
        assert torch.allclose(tensor, alone.params[name], atol=1e-5), name


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_pruned_weights_stay_exactly_zero_in_retraining(toy, split, optimizer):
    recipe = replace(RECIPE, optimizer=optimizer)
    project = cardinality.everywhere(mlp, 4)
    dense, pruned = stages.fit(mlp, toy, split, [Stage(recipe), Stage(recipe, prune=project)], "arm")
    masks = project(dense.params)
    for name, kept in masks.kept.items():
        assert not pruned.params[name][~kept].any()
        assert bool((pruned.params[name][kept] != dense.params[name][kept]).any())  # the others have learned
    achieved = pruning.achieved_sparsity({name: pruned.params[name] for name in masks.kept})
    assert float(1 / (1 - achieved.overall[0])) == pytest.approx(float(cardinality.compression(masks)[0]))


def test_gradual_pruning_follows_the_cubic_ramp(toy, split):
    w = torch.arange(1.0, 101.0)[None]
    state = Gradual(LargestWeights({"w": 0.1}), steps=10, every=5).begin({"w": w})
    kept = []
    for step in range(12):
        w = state.follow({"w": w}, step)["w"] + 0.0
        kept.append(int((w != 0).sum()))
        w = torch.where(w == 0, 0.05, w)  # momentum would move them
    # after 1, 5 and 10 steps the share pruned is 0.9 (1 - 0.9^3), 0.9 (1 - 0.5^3) and 0.9
    assert kept == [76, 76, 76, 76, 21, 21, 21, 21, 21, 10, 10, 10]


def test_gradual_pruning_ends_at_the_projection(toy, split):
    project = cardinality.everywhere(mlp, 4)
    ramp = Gradual(project, steps=9, every=2)
    for batched in (False, True):
        found = training.fit(mlp, toy, split, RECIPE, constraint=ramp, batched=batched)
        zeros = pruning.achieved_sparsity({name: found.params[name] for name in project.densities})
        assert zeros.overall.tolist() == pytest.approx([0.75] * 3)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: ADMM(HALF, every=0), "every is 0; it must be 1 or more"),
        (lambda: ADMM(HALF, every=1, rho=0.0), "rho is 0.0; it must be positive"),
        (lambda: ADMM(HALF, every=1, growth=0.5), "growth is 0.5"),
        (lambda: Gradual(HALF, steps=0, every=1), "steps is 0"),
        (lambda: Gradual(HALF, steps=1, every=0), "every is 0"),
    ],
)
def test_what_is_out_of_range_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_stages_start_where_the_last_ended_and_share_what_they_have_in_common(toy, split, monkeypatch):
    first, more = Stage(RECIPE), Stage(replace(RECIPE, epochs=1))
    one = stages.fit(mlp, toy, split, [first], "one")
    two = stages.fit(mlp, toy, split, [first, more], "two")
    assert one[0].keys == two[0].keys
    by_hand = training.fit(mlp, toy, split, more.recipe, start=one[0])
    assert by_hand.keys == two[1].keys


def test_no_epochs_only_prune(toy, split):
    project = cardinality.everywhere(mlp, 2)
    dense, cut = stages.fit(
        mlp, toy, split, [Stage(RECIPE), Stage(replace(RECIPE, epochs=0), prune=project)], "cut"
    )
    pruned = project(dense.params)(dense.params)
    assert all(torch.equal(cut.params[name], pruned[name]) for name in pruned)


@pytest.mark.parametrize("chain", [[], [Stage(RECIPE, prune=partial(cardinality.everywhere, mlp, 2))]])
def test_a_first_stage_must_train(toy, split, chain):
    with pytest.raises(ValueError, match="arm: the first stage must train"):
        stages.fit(mlp, toy, split, chain, "arm")
