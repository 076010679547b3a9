"""Model stacking: no network has seen more than a third of the members, and none answers alone.

Each network's members are cut into three parts. Two first-level networks learn one part each. A combiner, which sees only
their two posteriors, learns from the third. The answer is the combiner's:

    p = softmax g([softmax f1(x), softmax f2(x)])

Source: Salem et al. 2019, arXiv:1806.01246, who use a neural network and a random forest as the first level and logistic
regression as the combiner (recalled, not checked against the paper). Yang et al. cut their training set D1 into three
equal parts for it (public code zyyrrr/purifier). Here both first-level networks have the defended architecture, and g has
one hidden layer of 64.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from mialib import asking, hashing, streams, training
from mialib.data import Dataset, Splits, splits
from mialib.models.layers import initialise, mlp
from mialib.store import Store
from mialib.training import Population, Recipe, Tensors

# Ours; neither paper's is known to us. With lr 1e-3 it has not converged: 65 % right on digits, not 84 % (100 members).
COMBINER = Recipe(epochs=100, batch_size=32, lr=1e-2, weight_decay=5e-4)


class Stacked(nn.Module):
    """Two classifiers and the combiner of their posteriors: x (b, ...) -> logits (b, c)."""

    def __init__(self, make_model: Callable[[], nn.Module], num_classes: int):
        super().__init__()
        self.first = make_model()
        self.second = make_model()
        self.combiner = combiner(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.combiner(torch.cat([part(x).softmax(-1) for part in (self.first, self.second)], dim=-1))


def combiner(num_classes: int) -> nn.Module:
    """2c -> 64 -> c, ReLU: both posteriors (b, 2c) -> logits (b, c)."""
    return initialise(mlp((2 * num_classes, 64, num_classes), dropouts=()))


def fit(
    make_model: Callable[[], nn.Module],
    data: Dataset,
    split: Splits,
    recipe: Recipe,
    combiner_recipe: Recipe | None = None,
    cache: Store | None = None,
    *,
    what: str = "stacking",
    **options,
) -> Population:
    """Train one `Stacked` for each row of `split`, first level and combiner one after the other.

    A network's record is that of its combiner's training; those of the first level are in it as "first" and "second".

    Args:
        combiner_recipe: default: `COMBINER`. The combiners have no reserve for choosing a best epoch.
        options: of `training.fit`, for the first level (objective, augment, watch and the like).

    Raises:
        ValueError: fewer than three members, different numbers of members, or what `training.fit` refuses.
    """
    first, second, last = thirds(split)
    k, c = len(split), data.num_classes
    level = Splits(
        torch.cat([first, second]), split.test.repeat(2, 1), split.reserve.repeat(2, 1), _seeds(split, (0, 1))
    )
    pair = training.fit(make_model, data, level, recipe, cache=cache, what=f"{what}, first level", **options)
    index = splits.indices(last)
    posteriors = asking.log_posteriors(pair, data, index.repeat(2, 1)).exp().float()
    answers = torch.cat([posteriors[:k], posteriors[k:]], dim=-1)
    rows = Dataset.of_features("stacking", answers.flatten(0, 1), data.y.cpu()[index].flatten(), c)
    combined = training.fit(
        partial(combiner, num_classes=c),
        rows.to(data.x.device),
        splits.blocks(torch.ones_like(index, dtype=torch.bool), _seeds(split, (2,))),
        combiner_recipe or COMBINER,
        cache=cache,
        what=f"{what}, combiner",
    )
    return _together(
        partial(Stacked, make_model, c), {"first": pair[:k], "second": pair[k:], "combiner": combined}
    )


def thirds(split: Splits) -> Tensor:
    """The members of first network, second network and combiner: bool (3, k, n), disjoint, together all members.

    The cut is random and depends only on a network's members and seed. First and second are equally large; the combiner's
    part differs from them by at most one.

    Raises:
        ValueError: fewer than three members, or different numbers of members.
    """
    members = splits.indices(split.member)
    count = members.shape[1]
    if count < 3:
        raise ValueError(f"stacking cuts the members of each network in three parts, and there are {count}")
    size = (count + 1) // 3
    parts = torch.zeros(3, *split.member.shape, dtype=torch.bool)
    for i, seed in enumerate(split.seeds.tolist()):
        order = torch.randperm(count, generator=streams.generator(seed, "thirds"))
        for part, chosen in zip(parts, order.split([size, size, count - 2 * size]), strict=True):
            part[i, members[i, chosen]] = True
    return parts


def _seeds(split: Splits, parts: tuple[int, ...]) -> Tensor:
    """int64 (len(parts) * k,): seeds of initial weights and batch order, one part's after the other's."""
    return torch.tensor(
        [seed for part in parts for seed in streams.seeds(split.seeds.tolist(), "stacking", part)]
    )


def _together(make_stacked: partial, levels: dict[str, Population]) -> Population:
    """The population of the stacked networks; each level gives its tensors, under the level's name."""

    def named(kind: str) -> Tensors:
        return {
            f"{level}.{name}": tensor
            for level, trained in levels.items()
            for name, tensor in getattr(trained, kind).items()
        }

    records = [
        own | {"first": one, "second": two}
        for one, two, own in zip(*(trained.records for trained in levels.values()), strict=True)
    ]
    keys = [
        hashing.key(**dict(zip(levels, own, strict=True)))
        for own in zip(*(trained.keys for trained in levels.values()), strict=True)
    ]
    return Population(make_stacked, named("params"), named("buffers"), records, keys)
