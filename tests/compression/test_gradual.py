"""Gradual pruning: the ramp by hand, and weights that stay zero."""

import pytest
import torch

from mialib import training
from mialib.compression import cardinality, pruning
from mialib.compression.cardinality import LargestWeights
from mialib.compression.gradual import Gradual
from tests.compression.test_admm import HALF, RECIPE, mlp


def test_gradual_pruning_follows_the_cubic_ramp():
    w = torch.arange(1.0, 101.0)[None]
    state = Gradual(LargestWeights({"w": 0.1}), steps=10, every=5).begin({"w": w})
    kept = []
    for step in range(12):
        w = state.follow({"w": w}, step)["w"] + 0.0
        kept.append(int((w != 0).sum()))
        w = torch.where(w == 0, 0.05, w)  # momentum would move them
    # after 1, 5 and 10 steps the share pruned is 0.9 (1 - 0.9^3), 0.9 (1 - 0.5^3) and 0.9
    assert kept == [76, 76, 76, 76, 21, 21, 21, 21, 21, 10, 10, 10]


def test_what_is_zero_stays_zero_between_two_prunings():
    state = Gradual(LargestWeights({"w": 0.5}), steps=8, every=4).begin({"w": torch.arange(1.0, 9.0)[None]})
    w = state.follow({"w": torch.arange(1.0, 9.0)[None]}, 0)["w"]
    zeroed = w == 0
    assert zeroed.any()
    moved = {"w": torch.where(zeroed, 100.0, w)}  # momentum would move them, and by size they would now stay
    assert torch.equal(state.follow(moved, 1)["w"] == 0, zeroed)
    assert state.penalty(moved, 1) == 0  # a ramp pulls at nothing


@pytest.mark.parametrize("batched", [False, True])
def test_gradual_pruning_ends_at_the_projection(toy, split, batched):
    project = cardinality.everywhere(mlp, 4)
    ramp = Gradual(project, steps=9, every=2)
    found = training.fit(mlp, toy, split, RECIPE, constraint=ramp, batched=batched)
    zeros = pruning.achieved_sparsity({name: found.params[name] for name in project.densities})
    assert zeros.overall.tolist() == pytest.approx([0.75] * 3)


@pytest.mark.parametrize(
    "options, words", [({"steps": 0, "every": 1}, "steps is 0"), ({"steps": 1, "every": 0}, "every is 0")]
)
def test_what_is_out_of_range_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        Gradual(HALF, **options)
