"""Choices made on reserve data, or by how well the members are fitted: never on test examples or attack results."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from torch import nn

from mialib import asking, training
from mialib.data import Dataset, Splits
from mialib.defenses.purifier import Purifier
from mialib.study.arms import Arm
from mialib.study.study import Study
from mialib.training import Population, Recipe


def best(
    make_model: Callable[[], nn.Module], data: Dataset, split: Splits, recipes: Sequence[Recipe], **options
) -> tuple[Recipe, list[float]]:
    """The recipe whose models, on average, classify most of their own reserve examples correctly.

    Args:
        split: the models to try the recipes on; a few stand for all.
        options: of `training.fit`. Everything that is tried is cached.

    Returns:
        The recipe, and the mean accuracies of all recipes in their order.

    Raises:
        ValueError: no recipe, or a model without reserve examples.
    """
    if not recipes:
        raise ValueError("recipes is empty; at least one is needed to choose from")
    if not bool(split.reserve.any(1).all()):
        raise ValueError("choosing a recipe needs reserve examples, and a model has none")
    accuracies = [
        reserve_accuracy(training.fit(make_model, data, split, recipe, **options), data, split)
        for recipe in recipes
    ]
    return recipes[max(range(len(recipes)), key=accuracies.__getitem__)], accuracies


def reserve_accuracy(population: Population, data: Dataset, split: Splits) -> float:
    """Share of its own reserve examples that a model classifies correctly, 0 to 1, on average over the models.

    Args:
        split: that of the models; it may have more rows than models, of which the first count.
    """
    return float(asking.accuracy(population, data, split.reserve).mean())


def epochs_to_reach(population: Population, accuracy: float, window: int = 1, of: str = "reserve") -> int:
    """The number of epochs after which models trained like these reach an accuracy on their reserve examples.

    That is the first epoch at which their accuracy, averaged over the models, is at least `accuracy`; the best epoch if
    none is. For models that keep their best epoch, the best accuracy so far counts: the kept epoch was chosen for being
    high, and `accuracy` must come from models chosen that way too. One model's curve is too noisy to stop it by: the
    first epoch that reaches a level is a lucky one.

    Args:
        population: trained with `watch=("reserve",)` or for their best epoch; all of them alike.
        window: an epoch stands for the mean of that many around it. With few models and few reserve examples even their
            mean reaches a level early by luck.
        of: "member" for accuracy on the members instead of the reserve; trained with `watch=("member",)`.
    """
    curves = pd.DataFrame([pd.Series(record[f"{of}_accuracy"]) for record in population.records])
    if "best_epoch" in population.records[0]:
        curves = curves.cummax(axis=1).ffill(axis=1)  # a model that has stopped keeps its last value
    mean = curves.mean().rolling(window, center=True, min_periods=1).mean().to_numpy()
    return next((e for e, value in enumerate(mean) if value >= accuracy), int(mean.argmax())) + 1


def epochs_to_match(
    population: Population,
    other: Population,
    data: Dataset,
    split: Splits,
    window: int = 1,
    of: str = "reserve",
) -> int:
    """`epochs_to_reach` the accuracy that other models of the same split have on their reserve examples, or members."""
    accuracy = asking.accuracy(other, data, {"reserve": split.reserve, "member": split.member}[of]).mean()
    return epochs_to_reach(population, float(accuracy), window, of)


def operating_point(study: Study, arms: Sequence[Arm], base: Arm, slack: float) -> Arm:
    """The strongest of a defence's arms that costs at most `slack` of the base's reserve accuracy.

    Arms are ordered by their `defense_strength`. If all cost more, the one that costs least is taken. Members, test
    examples and attacks have no say in it.

    Raises:
        ValueError: the reserve accuracy of an arm was not measured, or cannot be resolved.
    """
    cost = {arm: study.difference(base, arm, "reserve_accuracy", pair="target").value for arm in arms}
    if any(np.isnan(value) for value in cost.values()):
        raise ValueError(
            "an operating point is chosen by reserve accuracy, which was not measured in all settings"
        )
    return _strongest(cost, slack, lambda arm: arm.columns["defense_strength"])


def affordable(
    tried: Mapping[float, Population], base: Population, *, data: Dataset, split: Splits, slack: float
) -> float:
    """`operating_point` before there is a study: the strength at which to train all models, by what it costs a few of them.

    Args:
        tried: strength -> models trained at it; base: the same models without the defence.
        split: that of these models.

    Raises:
        ValueError: nothing was tried, or a model without reserve examples.
    """
    if not tried:
        raise ValueError("tried is empty; at least one strength is needed to choose from")
    if not bool(split.reserve.any(1).all()):
        raise ValueError(
            "an operating point is chosen by reserve accuracy, and a model has no reserve examples"
        )
    accuracy = reserve_accuracy(base, data, split)
    return _strongest(
        {s: accuracy - reserve_accuracy(one, data, split) for s, one in tried.items()}, slack, float
    )


def _strongest(cost: Mapping, slack: float, strength: Callable) -> object:
    """The strongest of those that cost at most `slack`; the one that costs least if none does."""
    fair = [one for one in cost if cost[one] <= slack + 1e-9]  # accuracies are shares, slack a round number
    return max(fair, key=strength) if fair else min(cost, key=cost.get)


@dataclass
class LabelBudget:
    """Chooses purifiers that change few labels, and keeps the table of what was tried.

    Args:
        budget: share of held-out reference labels that a purifier may change.
    """

    budget: float
    tried: list[tuple] = field(default_factory=list)

    def allows(self, one: Purifier) -> bool:
        """Whether it changes at most that share of labels, on average over networks."""
        return _label_loss(one) <= self.budget

    def choose(
        self,
        name: str,
        weight: str,
        candidates: Mapping[float, Purifier],
        prefer: Callable[[Iterable[float]], float],
    ) -> float:
        """The strength that `prefer` (min or max) picks within the budget; if none is, among those with the fewest changes.

        Args:
            name, weight: the names in the table of the purifier and of the weight that was varied.
            candidates: strength -> purifier.

        Raises:
            ValueError: no candidates.
        """
        if not candidates:
            raise ValueError(f"{name}: there is no {weight} to choose from")
        loss = {strength: _label_loss(one) for strength, one in candidates.items()}
        most = max(self.budget, min(loss.values()))
        best = prefer(strength for strength, value in loss.items() if value <= most)
        for strength, one in candidates.items():
            self.note(name, weight, strength, one, "<-" if strength == best else "")
        return best

    def note(self, name: str, weight: str, strength, one: Purifier, chosen: str = "<-") -> None:
        """A row of the table for a purifier that was not chosen among several."""
        self.tried.append((name, weight, strength, _label_loss(one), self.allows(one), chosen))

    @property
    def table(self) -> pd.DataFrame:
        """All that was tried: weight, value, label loss on held-out reference answers, and which were chosen."""
        columns = ["purifier", "weight", "value", "label loss, held out", "within budget", "chosen"]
        return pd.DataFrame(self.tried, columns=columns).set_index("purifier")


def _label_loss(one: Purifier) -> float:
    return float(np.mean(one.label_loss))
