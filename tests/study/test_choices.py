"""Choices on reserve data only."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from mialib import asking, training
from mialib.data import splits
from mialib.study import choices
from mialib.training import Population, Recipe

RECIPES = [Recipe(epochs, 8, lr=1e-2) for epochs in (0, 20, 1)]


def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.fixture
def split():
    return splits.target_shadow(120, 2, 1, seed=0, n_train=20)


def test_the_recipe_with_the_best_reserve_accuracy_wins(toy, split):
    chosen, accuracies = choices.best(mlp, toy, split, RECIPES)
    expected = [
        float(asking.accuracy(training.fit(mlp, toy, split, recipe), toy, split.reserve).mean())
        for recipe in RECIPES
    ]
    assert accuracies == pytest.approx(expected)
    assert chosen == RECIPES[1] and accuracies[1] > accuracies[0]


def test_test_examples_have_no_say(toy, split):
    """With the labels of all test examples changed, the choice and its numbers are the same."""
    relabelled = replace(
        toy, y=torch.where(split.test.any(0) & ~split.reserve.any(0), (toy.y + 1) % 3, toy.y)
    )
    outside = replace(split, member=split.member & ~split.test.any(0))  # nor may it train on them
    least = int(outside.member.sum(1).min())
    trimmed = torch.stack([row & (row.cumsum(0) <= least) for row in outside.member])
    outside = replace(outside, member=trimmed)
    assert choices.best(mlp, toy, outside, RECIPES) == choices.best(mlp, relabelled, outside, RECIPES)


def test_options_reach_the_training(toy, split):
    with pytest.raises(ValueError, match="start has 1 models, the split 3"):
        choices.best(mlp, toy, split, RECIPES, start=training.fit(mlp, toy, split[:1], RECIPES[0]))


def test_nothing_to_choose_from_is_named(toy, split):
    with pytest.raises(ValueError, match="recipes is empty"):
        choices.best(mlp, toy, split, [])
    with pytest.raises(ValueError, match="reserve"):
        choices.best(mlp, toy, splits.everyone(120, [0]), RECIPES)


@pytest.mark.parametrize(
    "accuracy, epochs",
    [(0.4, 1), (0.55, 2), (0.6, 3), (0.75, 4), (0.95, 4)],
)
def test_epochs_to_reach_an_accuracy_go_by_the_mean_curve(accuracy, epochs):
    # means 0.4, 0.55, 0.7 and, of the one that is still training, 0.8; then it falls
    curves = [[0.5, 0.5, 0.6], [0.3, 0.6, 0.8, 0.8, 0.7]]
    one = {"w": torch.zeros(2, 1)}
    models = Population(partial(nn.Linear, 1, 1), one, {}, [{"reserve_accuracy": c} for c in curves])
    assert choices.epochs_to_reach(models, accuracy) == epochs


def test_a_window_is_not_taken_in_by_one_lucky_epoch():
    curve = [0.4, 0.7, 0.4, 0.5, 0.6, 0.7, 0.8]
    models = Population(partial(nn.Linear, 1, 1), {"w": torch.zeros(1, 1)}, {}, [{"reserve_accuracy": curve}])
    assert choices.epochs_to_reach(models, 0.6) == 2
    assert choices.epochs_to_reach(models, 0.6, window=3) == 5  # 0.5, 0.6 and 0.7


@pytest.mark.parametrize("accuracy, epochs", [(0.4, 1), (0.5, 2), (0.6, 3), (0.61, 4), (0.9, 4)])
def test_of_models_that_keep_their_best_epoch_the_best_so_far_counts(accuracy, epochs):
    # so far at best 0.5 0.5 0.6 (stopped) and 0.3 0.6 0.6 0.8 0.8: means 0.4, 0.55, 0.6, 0.7, 0.7
    curves = [[0.5, 0.5, 0.6], [0.3, 0.6, 0.4, 0.8, 0.7]]
    records = [{"reserve_accuracy": curve, "best_epoch": 2} for curve in curves]
    models = Population(partial(nn.Linear, 1, 1), {"w": torch.zeros(2, 1)}, {}, records)
    assert choices.epochs_to_reach(models, accuracy) == epochs


def test_the_members_curve_can_be_asked_for():
    records = [{"reserve_accuracy": [0.9, 0.9], "member_accuracy": [0.2, 0.8]}]
    models = Population(partial(nn.Linear, 1, 1), {"w": torch.zeros(1, 1)}, {}, records)
    assert choices.epochs_to_reach(models, 0.7) == 1
    assert choices.epochs_to_reach(models, 0.7, of="member") == 2
