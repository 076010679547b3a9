"""How models are trained: values out of range are named, and the steps of an epoch are those the loop takes."""

from dataclasses import replace

import pytest
import torch

from mialib import hashing, training
from mialib.data import Splits
from mialib.training import Recipe, loop
from mialib.training.descent import Shuffling
from mialib.training.hooks import Hooks
from tests.training.test_population import nn_linear

RECIPE = Recipe(epochs=3, batch_size=8, lr=1e-2)


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
        ({"precision": "fp16"}, "precision is 'fp16'; it must be 'float32', 'tf32' or 'bf16'"),
    ],
)
def test_a_recipe_names_what_is_wrong(wrong, words):
    with pytest.raises(ValueError, match=words):
        replace(RECIPE, **wrong)


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 0},
        {"batch_size": 2},
        {"weight_decay": 0.0},
        {"optimizer": "sgd", "momentum": 0.0},
        {"select_best": True, "patience": 0},
        {"precision": "bf16"},
        {"precision": "tf32"},
    ],
    ids=str,
)
def test_the_ends_of_every_range_are_allowed_and_tell_recipes_apart(fields):
    recipe = replace(RECIPE, **fields)
    assert {name: getattr(recipe, name) for name in fields} == fields
    assert hashing.key(recipe=recipe) != hashing.key(recipe=RECIPE)


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
