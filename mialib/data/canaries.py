"""Canaries: examples with a wrong label, which a network can only learn by heart, and the most vulnerable of its members.

An average over ordinary examples hides the few that leak most; mislabelled ones stand for these. Source: Aerni, Zhang &
Tramer 2024, arXiv:2404.17399. Here each canary is a member of each model by a fair coin of its own, outside the exact
halves of the others (`splits.random_halves`): what one model's guesses are worth (`measures.epsilon`) is known only where
nobody can count who is left.
"""

from dataclasses import replace
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from mialib import streams
from mialib.data import splits
from mialib.data.datasets import Dataset
from mialib.data.splits import Splits


class Canaries(NamedTuple):
    """A data set with canaries in it.

    data: the examples, those that are canaries with another label.
    split: who is a member of which model. Test and reserve hold no canary, so that accuracies are those on true labels;
        canaries that are no members of a model are in none of its sets.
    chosen: bool (n,), who is a canary.
    """

    data: Dataset
    split: Splits
    chosen: Tensor


def mislabelled(
    data: Dataset,
    n_models: int,
    count: int,
    seed: int,
    reserve_fraction: float = 0.1,
    *,
    in_pairs: bool = False,
) -> Canaries:
    """Give `count` examples a wrong label, and draw who is a member of which of `n_models` models.

    The canaries, and the wrong class of each, depend on `seed` and `count` only, and a model's members on these and its
    own number (or its pair's): more models extend the fewer. All others are split by `splits.random_halves`, whose
    reserve is drawn among them. Models have different numbers of members, about half of the canaries and just half of
    the others, and are trained one by one for that.

    Args:
        in_pairs: the second model of a pair has just the canaries that the first has not. Within one model the coins are
            as fair and independent as without it, but every canary is a member of just half of the models, so that none
            is a member of none or of all of a few shadows, where LiRA cannot be computed.

    Raises:
        ValueError: a count outside 1 to n - 2, a single class, or what `splits.random_halves` refuses.
    """
    n = len(data)
    if isinstance(count, bool) or not isinstance(count, Integral) or not 1 <= count <= n - 2:
        raise ValueError(
            f"canaries: count is {count!r}; of {n} examples, 1 to {n - 2} can be canaries, a whole number"
        )
    if data.num_classes < 2:
        raise ValueError(f"canaries: {data.name} has a single class, and there is no wrong label to give")
    order = torch.randperm(n, generator=streams.generator(seed, "canaries"))
    own, others = order[:count].sort().values, order[count:].sort().values
    chosen = torch.zeros(n, dtype=torch.bool).index_fill(0, own, True)
    halves = splits.random_halves(len(others), n_models, seed, reserve_fraction)
    member, test, reserve = (
        torch.zeros(n_models, n, dtype=torch.bool).index_copy(1, others, rows)
        for rows in (halves.member, halves.test, halves.reserve)
    )
    member[:, own] = _coins(n_models, count, seed, in_pairs)
    split = Splits(member, test, reserve, halves.seeds)
    return Canaries(_with_wrong_labels(data, own, seed), split, chosen)


def _coins(n_models: int, count: int, seed: int, in_pairs: bool) -> Tensor:
    """Whether each canary is a member of each model, bool (models, count)."""
    rows = []
    for model in range(n_models):
        first = model - model % 2 if in_pairs else model
        coins = torch.rand(count, generator=streams.generator(seed, "canary coins", first)) < 0.5
        rows.append(~coins if model != first else coins)
    return torch.stack(rows)


def _with_wrong_labels(data: Dataset, own: Tensor, seed: int) -> Dataset:
    """The same examples, those at `own` each with one of the other classes, all equally likely."""
    steps = torch.randint(
        1, data.num_classes, (len(own),), generator=streams.generator(seed, "canary labels")
    )
    y, own = data.y.clone(), own.to(data.y.device)
    y[own] = (y[own] + steps.to(y.device)) % data.num_classes
    return replace(data, y=y)


def evened(split: Splits, chosen: Tensor) -> Splits:
    """The same split, with equally many members of each model: what output defences are built from, `defenses.defender`.

    Coins give models different numbers of canaries. All that a model has stay; of the others as many are left out, drawn by
    the model's seed, as it has more members than the model with the fewest.

    Args:
        chosen: bool (n,), who is a canary.
    """
    member = split.member.clone()
    surplus = member.sum(1) - member.sum(1).min()
    for own, extra, seed in zip(member, surplus.tolist(), split.seeds.tolist(), strict=True):
        others = (own & ~chosen).nonzero()[:, 0]
        order = torch.randperm(len(others), generator=streams.generator(seed, "left out for canaries"))
        own[others[order[:extra]]] = False
    return replace(split, member=member)
