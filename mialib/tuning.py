"""Choices made on reserve data: never on members, on test examples, or on anything that an attack says."""

from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from mialib import predict, train
from mialib.data import Dataset
from mialib.population import Population
from mialib.splits import Splits
from mialib.train import Recipe


def best(
    make_model: Callable[[], nn.Module], data: Dataset, split: Splits, recipes: Sequence[Recipe], **options
) -> tuple[Recipe, list[float]]:
    """The recipe whose models, on average, classify most of their own reserve examples correctly.

    Args:
        split: the models to try the recipes on; a few stand for all.
        options: of `train.fit`. Everything that is tried is cached.

    Returns:
        The recipe, and the mean accuracy of each in their order.

    Raises:
        ValueError: no recipe, or a model without reserve examples.
    """
    if not recipes:
        raise ValueError("recipes is empty; at least one is needed to choose from")
    if not bool(split.reserve.any(1).all()):
        raise ValueError("choosing a recipe needs reserve examples, and a model has none")
    accuracies = [
        float(
            predict.accuracy(
                train.fit(make_model, data, split, recipe, **options), data, split.reserve
            ).mean()
        )
        for recipe in recipes
    ]
    return recipes[max(range(len(recipes)), key=accuracies.__getitem__)], accuracies


def epochs_to_reach(population: Population, accuracy: float) -> int:
    """The number of epochs after which models like these have so much accuracy on their reserve examples.

    The first epoch whose accuracy, averaged over the models that are still training, is at least `accuracy`; the best
    epoch if none is. A single model's curve is too noisy to stop it at: the first epoch that reaches a level is a
    lucky one. The models must have been trained with `watch=("reserve",)` or for their best epoch.
    """
    curves = [record["reserve_accuracy"] for record in population.records]
    mean = [np.mean([c[e] for c in curves if len(c) > e]) for e in range(max(map(len, curves)))]
    return next((e for e, value in enumerate(mean) if value >= accuracy), int(np.argmax(mean))) + 1
