"""Training in stages: pretrain, compress, retrain. Each is a call of the one training loop, from where the last ended.

An experiment that compares ways of training is a dictionary, name -> stages. What two of them have in common is trained
once, since models are cached.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from mialib import training
from mialib.compression.pruning import Masks
from mialib.data import Dataset, Splits
from mialib.training import Population, Recipe, Tensors


@dataclass(frozen=True)
class Stage:
    """One training, with a fresh optimiser.

    Args:
        recipe: how long and how fast. With no epochs the weights stay as they are, except those that `prune` zeroes.
        prune: prune(params) -> Masks, made from the weights at the start of the stage; these stay zero throughout.
        options: further arguments of `training.fit`: objective, constraint, opponent, descent, watch ...
    """

    recipe: Recipe
    prune: Callable[[Tensors], Masks] | None = None
    options: Mapping = field(default_factory=dict)


def fit(
    make_model: Callable[[], nn.Module], data: Dataset, split: Splits, stages: Sequence[Stage], what: str
) -> list[Population]:
    """The models at the end of each stage, first to last.

    Raises:
        ValueError: no stage, or a first stage that prunes: there is nothing yet to rank.
    """
    if not stages or stages[0].prune is not None:
        raise ValueError(f"{what}: the first stage must train; it has nothing to prune")
    ends: list[Population] = []
    for number, stage in enumerate(stages, start=1):
        start = ends[-1] if ends else None
        ends.append(
            training.fit(
                make_model,
                data,
                split,
                stage.recipe,
                start=start,
                compress=stage.prune(start.params) if stage.prune is not None else None,
                what=f"{what}, {number} of {len(stages)}",
                **stage.options,
            )
        )
    return ends
