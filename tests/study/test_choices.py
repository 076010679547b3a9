"""Choices on reserve data only, of recipes, of epochs and of a defence's strength."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from mialib import asking, study, training
from mialib.data import splits
from mialib.study import choices
from mialib.training import Population, Recipe
from tests.study.test_reading import rows_of

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


# The operating point of a defence


PPB = {
    f"ppb {strength:g}": {"defense": "ppb", "defense_strength": strength} for strength in (16.0, 128.0, 2.0)
}


def reserve_rows():
    """The base has 0.8; the settings cost 0.2 (ppb 128), 0.02 (ppb 16) and, though weaker, 0.03 (ppb 2)."""
    rows = rows_of([0.9, 0.7], "reserve_accuracy", defense="none")
    for name, values in (("ppb 128", [0.7, 0.5]), ("ppb 16", [0.9, 0.66]), ("ppb 2", [0.85, 0.69])):
        rows += rows_of(values, "reserve_accuracy", **PPB[name])
    return rows


@pytest.mark.parametrize(
    ("slack", "expected"),
    [
        (0.5, "ppb 128"),  # the strongest, neither the cheapest nor the first or last named
        (0.05, "ppb 16"),
        (0.025, "ppb 16"),
        (0.01, "ppb 16"),  # none is cheap enough: the cheapest, not the weakest
    ],
)
def test_the_operating_point_is_the_strongest_setting_within_the_slack(slack, expected):
    assert study.operating_point(reserve_rows(), PPB, {"defense": "none"}, slack) == expected


def test_a_cost_of_exactly_the_slack_is_fair():
    base = {"defense": "none"}
    weak, strong = ({"defense": "ppb", "defense_strength": s} for s in (1.0, 4.0))
    rows = rows_of([0.90, 0.90], "reserve_accuracy", **base)
    rows += rows_of([0.90, 0.90], "reserve_accuracy", **weak)
    rows += rows_of(
        [0.88, 0.88], "reserve_accuracy", **strong
    )  # 0.9 - 0.88 is a little more than 0.02 in binary
    assert study.operating_point(rows, {"weak": weak, "strong": strong}, base, 0.02) == "strong"
    unknown = rows_of([None, 0.88], "reserve_accuracy", **base) + rows[2:]
    with pytest.raises(ValueError, match="reserve accuracy, which was not measured"):
        study.operating_point(unknown, {"weak": weak}, base, 0.02)


def test_a_gain_is_no_cost():
    rows = reserve_rows() + rows_of([1.0, 1.0], "reserve_accuracy", defense="ppb", defense_strength=1.0)
    settings = PPB | {"ppb 1": {"defense": "ppb", "defense_strength": 1.0}}
    assert study.operating_point(rows, settings, {"defense": "none"}, 0.0) == "ppb 1"


def test_test_examples_and_attacks_have_no_say_in_the_operating_point():
    rows = reserve_rows()
    for setting in ({"defense": "none"}, *PPB.values()):
        # by any of these, ppb 2 costs most and hides least, and ppb 128 costs nothing
        value = 0.0 if setting.get("defense_strength") == 2.0 else 0.9
        rows += rows_of([value, value], "test_accuracy", **setting)
        rows += rows_of([1 - value, 1 - value], "generalization_gap", **setting)
        for adversary in (None, "adaptive", "unaware"):
            rows += rows_of([1 - value, 1 - value], attack="samia", **setting, adversary=adversary)
    only = {name: PPB[name] for name in ("ppb 128", "ppb 2")}
    assert study.operating_point(rows, only, {"defense": "none"}, 0.05) == "ppb 2"
