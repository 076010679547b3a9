"""Canaries: examples with a wrong label, which a network can only learn by heart, so they are its most exposed members.

An average over ordinary examples hides the few that leak most; mislabelled examples stand for these. Source: Aerni, Zhang
& Tramer 2024, arXiv:2404.17399. Here each canary is a member of each model by a fair coin of its own, outside the exact
halves of the others (`splits.random_halves`): one model's guesses can be judged (`measures.epsilon`) only where nobody
can count how many members are left.
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

    data: the examples; the canaries among them have another label.
    split: which examples are members of which model. Test and reserve hold no canary, so that accuracies are those on
        true labels; canaries that are not members of a model are in none of its sets.
    chosen: bool (n,), which examples are canaries.
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
    """Give `count` examples a wrong label, and draw which examples are members of which of `n_models` models.

    The canaries and the wrong class of each depend only on `seed` and `count`. A model's members depend on these and on
    its own number (or its pair's), so that asking for more models changes none of the first. `splits.random_halves`
    splits all other examples and draws its reserve among them. A model has about half of the canaries and exactly half
    of the others, so numbers of members differ, and models are trained one by one.

    Args:
        in_pairs: the second model of a pair has exactly the canaries that the first lacks. Within one model the coins are
            as fair and independent as before, but every canary is a member of exactly half of the models. Otherwise a
            canary may be a member of none or of all of a few shadows, where LiRA cannot be computed.

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
    member[:, own] = coins(n_models, count, seed, in_pairs)
    split = Splits(member, test, reserve, halves.seeds)
    y = data.y.clone()
    y[own.to(y.device)] = wrong_labels(y[own.to(y.device)], data.num_classes, seed)
    return Canaries(replace(data, y=y), split, chosen)


def coins(n_models: int, count: int, seed: int, in_pairs: bool) -> Tensor:
    """Whether each canary is a member of each model, bool (models, count); `in_pairs` as of `mislabelled`."""
    rows = []
    for model in range(n_models):
        first = model - model % 2 if in_pairs else model
        coins = torch.rand(count, generator=streams.generator(seed, "canary coins", first)) < 0.5
        rows.append(~coins if model != first else coins)
    return torch.stack(rows)


def wrong_labels(y: Tensor, num_classes: int, seed: int) -> Tensor:
    """For each true class int64 (count,) another one, all equally likely."""
    steps = torch.randint(1, num_classes, (len(y),), generator=streams.generator(seed, "canary labels"))
    return (y + steps.to(y.device)) % num_classes


def evened(split: Splits, chosen: Tensor) -> Splits:
    """The same split with equally many members of each model, as output defences need them (`defenses.defender`).

    Coins give models different numbers of canaries. A model keeps all its canaries; other members, drawn by its seed, are
    left out until it has as many members as the model with the fewest.

    Args:
        chosen: bool (n,), which examples are canaries.
    """
    member = split.member.clone()
    surplus = member.sum(1) - member.sum(1).min()
    for own, extra, seed in zip(member, surplus.tolist(), split.seeds.tolist(), strict=True):
        others = (own & ~chosen).nonzero()[:, 0]
        order = torch.randperm(len(others), generator=streams.generator(seed, "left out for canaries"))
        own[others[order[:extra]]] = False
    return replace(split, member=member)
