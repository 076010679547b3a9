"""Choose a recipe on reserve data: never on members, on test examples, or on anything that an attack says."""

from collections.abc import Callable, Sequence

from torch import nn

from mialib import predict, train
from mialib.data import Dataset
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
