"""ADMM: the penalty and its gradient by hand, the updates, and weights drawn to their projection."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mialib import training
from mialib.compression import admm, cardinality
from mialib.compression.admm import ADMM
from mialib.compression.cardinality import LargestWeights
from mialib.training import Recipe

HALF = LargestWeights({"w": 0.5})
RECIPE = Recipe(epochs=4, batch_size=8, lr=1e-2)


def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


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
    for i, record in enumerate(drawn.records):
        assert len(record["residual"]) == len(record["residual 0.weight"]) == 100 * 3 // 30, i
        assert record["residual"][-1] < 0.01 < 0.3 < record["residual"][0], i
    lost = project(drawn.params)(drawn.params)["0.weight"] - drawn.params["0.weight"]
    assert float(lost.norm() / drawn.params["0.weight"].norm()) < 0.01


def test_residuals_are_the_records_by_layer_and_those_of_all_come_last(toy, split):
    constraint = ADMM(cardinality.everywhere(mlp, 4), every=3)
    drawn = training.fit(mlp, toy, split, RECIPE, constraint=constraint)
    found = admm.residuals(drawn)
    assert list(found) == ["0.weight", "2.weight", "all"]
    for i, record in enumerate(drawn.records):
        assert found["all"][i] == record["residual"] and found["2.weight"][i] == record["residual 2.weight"]
    assert np.shape(found["all"]) == (3, 4 * 3 // 3)  # 20 members in batches of 8: three steps an epoch


def test_models_without_residuals_are_refused(toy, split):
    with pytest.raises(ValueError, match="no residual"):
        admm.residuals(training.fit(mlp, toy, split, RECIPE))


def test_models_drawn_together_are_those_drawn_alone(toy, split):
    admm = {"constraint": ADMM(cardinality.everywhere(mlp, 2), every=3, rho=1e-2, growth=2.0)}
    together, alone = (
        training.fit(mlp, toy, split, RECIPE, **admm, batched=batched) for batched in (True, False)
    )
    for name, tensor in together.params.items():
        assert torch.allclose(tensor, alone.params[name], atol=1e-5), name


@pytest.mark.parametrize(
    "options, words",
    [
        ({"every": 0}, "every is 0; it must be 1 or more"),
        ({"every": 1, "rho": 0.0}, "rho is 0.0; it must be positive"),
        ({"every": 1, "growth": 0.5}, "growth is 0.5"),
    ],
)
def test_what_is_out_of_range_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        ADMM(HALF, **options)
