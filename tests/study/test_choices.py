"""Choices on reserve data only, of recipes, of epochs and of a defence's strength."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from mialib import asking, study, training
from mialib.data import splits
from mialib.study import choices
from mialib.training import Population, Recipe

RECIPES = [Recipe(epochs, 8, lr=1e-2) for epochs in (0, 20, 1)]


def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.fixture
def split():
    return splits.d1_d2_d3(120, 20, 60, 20, seed=0, n_models=3)


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


def test_reserve_accuracy_is_the_mean_over_the_models_that_are_given(toy, split):
    networks = training.fit(mlp, toy, split, RECIPES[0])
    each = asking.accuracy(networks, toy, split.reserve)
    assert choices.reserve_accuracy(networks, toy, split) == pytest.approx(float(each.mean()))
    assert choices.reserve_accuracy(networks[:1], toy, split) == float(each[0])
    swapped = replace(split, member=split.test, test=split.member)  # neither members nor test examples count
    assert choices.reserve_accuracy(networks[:1], toy, swapped) == float(each[0])


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


@pytest.fixture
def defended(made):
    """A study, its base and three arms by strength; `reserve`: what each one's targets reach on reserve data."""
    base = made.made("base")
    # the base has 0.8; the arms cost 0.2 (128), 0.02 (16) and, though weaker, 0.03 (2)
    reserve = {16.0: [0.9, 0.66], 128.0: [0.7, 0.5], 2.0: [0.85, 0.69]}
    arms = {s: made.arm(f"ppb {s:g}", base, defense="ppb", defense_strength=s) for s in reserve}
    made.note(base, "reserve_accuracy", [0.9, 0.7])
    for strength, values in reserve.items():
        made.note(arms[strength], "reserve_accuracy", values)
    return made, base, arms


@pytest.mark.parametrize(
    ("slack", "expected"),
    [
        (0.5, 128),  # the strongest, neither the cheapest nor the first or last named
        (0.05, 16),
        (0.025, 16),
        (0.01, 16),  # none is cheap enough: the cheapest, not the weakest
    ],
)
def test_the_operating_point_is_the_strongest_arm_within_the_slack(defended, slack, expected):
    found, base, arms = defended
    assert study.operating_point(found, list(arms.values()), base, slack) is arms[expected]


def test_a_cost_of_exactly_the_slack_is_fair(made):
    base = made.made("base")
    arms = [made.arm(f"{s}", base, defense="ppb", defense_strength=s) for s in (1.0, 4.0)]
    made.note(base, "reserve_accuracy", [0.90, 0.90])
    made.note(arms[0], "reserve_accuracy", [0.90, 0.90])
    made.note(arms[1], "reserve_accuracy", [0.88, 0.88])  # 0.9 - 0.88 is a little more than 0.02 in binary
    assert study.operating_point(made, arms, base, 0.02) is arms[1]
    unknown = made.arm("unknown", base, defense="ppb", defense_strength=2.0)
    with pytest.raises(ValueError, match="arm 'unknown' has no 'reserve_accuracy'"):
        study.operating_point(made, [unknown], base, 0.02)
    made.note(unknown, "reserve_accuracy", [math.nan, 0.9])
    with pytest.raises(ValueError, match="reserve accuracy, which was not measured"):
        study.operating_point(made, [unknown], base, 0.02)


def test_a_gain_is_no_cost(defended):
    found, base, arms = defended
    better = found.arm("better", base, defense="ppb", defense_strength=1.0)
    found.note(better, "reserve_accuracy", [1.0, 1.0])
    assert study.operating_point(found, [*arms.values(), better], base, 0.0) is better


def test_test_examples_and_attacks_have_no_say_in_the_operating_point(defended):
    found, base, arms = defended
    for arm in (base, *arms.values()):
        # by any of these, strength 2 costs most and hides least, and strength 128 costs nothing
        value = 0.0 if arm is arms[2.0] else 0.9
        found.note(arm, "test_accuracy", [value, value])
        found.note(arm, "generalization_gap", [1 - value, 1 - value])
        found.note(arm, "auc", [1 - value, 1 - value], attack="samia")
    assert study.operating_point(found, [arms[128.0], arms[2.0]], base, 0.05) is arms[2.0]


@pytest.mark.parametrize(("slack", "expected"), [(0.5, 128), (0.05, 16), (0.01, 16)])
def test_an_affordable_strength_is_chosen_by_what_a_few_models_lose_on_their_reserve(
    toy, split, monkeypatch, slack, expected
):
    accuracies = {"base": 0.8, 16.0: 0.78, 128.0: 0.6, 2.0: 0.77}
    monkeypatch.setattr(choices, "reserve_accuracy", lambda population, data, split: accuracies[population])
    tried = {s: s for s in accuracies if s != "base"}
    assert choices.affordable(tried, "base", data=toy, split=split, slack=slack) == expected


def test_an_affordable_strength_needs_one_that_was_tried_and_a_reserve(toy, split):
    with pytest.raises(ValueError, match="tried is empty; at least one strength"):
        choices.affordable({}, None, data=toy, split=split, slack=0.02)
    bare = splits.everyone(120, [0])
    with pytest.raises(ValueError, match="chosen by reserve accuracy, and a model has no reserve"):
        choices.affordable({1.0: None}, None, data=toy, split=bare, slack=0.02)


class Losing:
    """Stands for a purifier by the labels that it changes, a share for each network."""

    def __init__(self, *label_loss):
        self.label_loss = label_loss


def test_a_label_budget_takes_the_preferred_strength_within_it_and_keeps_a_table():
    budget = choices.LabelBudget(0.01)
    candidates = {0.2: Losing(0.02, 0.0), 1.0: Losing(0.0, 0.0), 5.0: Losing(0.1, 0.1)}
    assert budget.choose("G", "lambda", candidates, min) == 0.2
    assert budget.choose("G", "lambda", candidates, max) == 1.0
    assert budget.allows(candidates[0.2]) and not budget.allows(candidates[5.0])
    budget.note("both", "gamma, eta", "1, 2", Losing(0.5), chosen="served")
    table = budget.table
    assert table.index.tolist() == ["G"] * 6 + ["both"]
    assert table["chosen"].tolist() == ["<-", "", "", "", "<-", "", "served"]
    assert table["within budget"].tolist() == [True, True, False] * 2 + [False]
    assert table["label loss, held out"].tolist() == pytest.approx([0.01, 0.0, 0.1] * 2 + [0.5])


def test_beyond_the_label_budget_the_fewest_changed_labels_win():
    budget = choices.LabelBudget(0.001)
    candidates = {1.0: Losing(0.3), 2.0: Losing(0.2), 3.0: Losing(0.2)}
    assert budget.choose("G", "gamma", candidates, max) == 3.0
    with pytest.raises(ValueError, match="G: there is no gamma"):
        budget.choose("G", "gamma", {}, max)


def test_a_population_is_matched_on_members_or_on_the_reserve(toy, split):
    recipe = Recipe(6, 8, lr=1e-2)
    long = training.fit(mlp, toy, split, recipe, watch=("member", "reserve"))
    short = training.fit(mlp, toy, split, replace(recipe, epochs=2))
    for of, mask in (("member", split.member), ("reserve", split.reserve)):
        reached = float(asking.accuracy(short, toy, mask).mean())
        assert choices.epochs_to_match(long, short, toy, split, of=of) == choices.epochs_to_reach(
            long, reached, of=of
        )
