"""SELENA: a network that learns its members' labels only through networks that were not trained on them.

Each network's members are dealt to K sub-models so that each member is left out of exactly L of them. For a member,
Split-AI answers with the mean posterior of the L sub-models that never saw it, just as models answer a non-member. The
released network learns these answers instead of the labels (self-distillation) and sees no label itself.

Source: Tang et al. 2022, USENIX Security, arXiv:2110.08324; public code inspire-group/MIAdefenseSELENA. There the L
sub-models of each member are drawn independently, so sub-models differ in size, and the released checkpoint of the
distilled network is the best on the test set. Here sizes differ by at most one, and a best epoch is chosen on the reserve
(`Recipe.select_best`) or not at all.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from mialib import asking, streams, training
from mialib.data import Dataset, Splits, splits
from mialib.defenses.losses import SoftTargets
from mialib.store import Store
from mialib.training import Population, Recipe


def fit(
    make_model: Callable[[], nn.Module],
    data: Dataset,
    split: Splits,
    recipe: Recipe,
    *,
    sub_models: int = 25,
    left_out: int = 10,
    cache: Store | None = None,
    what: str = "SELENA",
    **options,
) -> Population:
    """The distilled networks, one for each row of `split`; K sub-models are first trained for each of them.

    Sub-models and distilled networks share architecture and recipe, as in the paper. A sub-model trains on the share
    1 - L / K of the members, so all of them cost about K - L + 1 trainings a network.

    Args:
        sub_models, left_out: K and L; 25 and 10 in the paper.
        options: of `training.fit`, for sub-models and distilled networks alike (augment, watch, batched and the like).

    Raises:
        ValueError: fewer than two sub-models, left_out outside 1..K - 1, an objective among the options, or what
            `training.fit` refuses.
    """
    if "objective" in options:
        raise ValueError(
            f"{what}: objective is {options['objective']!r}; the networks learn soft targets, so leave it out"
        )
    own = sub_splits(split, sub_models, left_out)
    trained = training.fit(make_model, data, own, recipe, cache=cache, what=f"{what}, sub-models", **options)
    members = splits.indices(split.member)
    targets = torch.full((*split.member.shape, data.num_classes), torch.nan)  # nan: never read
    for i, index in enumerate(members):
        block = slice(i * sub_models, (i + 1) * sub_models)
        posteriors = asking.log_posteriors(trained[block], data, index).exp()
        targets[i, index] = split_ai(posteriors, own.member[block, index]).float()
    objective = SoftTargets(targets.to(data.x.device))
    return training.fit(
        make_model,
        data,
        split,
        recipe,
        objective=objective,
        cache=cache,
        what=f"{what}, distillation",
        **options,
    )


def sub_splits(split: Splits, sub_models: int, left_out: int) -> Splits:
    """The training sets of the sub-models: k * K rows, those of network i being i * K to (i + 1) * K.

    Every member of a network is left out of exactly L of its K sub-models, whose sizes differ by at most one (not at all
    if K divides n * L). Test and reserve examples are the network's own. A network's rows depend only on its members and
    seed.

    Raises:
        ValueError: fewer than two sub-models, left_out outside 1..K - 1, or so few members that a sub-model has none.
    """
    if sub_models < 2:
        raise ValueError(f"SELENA: sub_models is {sub_models}; at least 2 are needed (25 in the paper)")
    if not 1 <= left_out < sub_models:
        raise ValueError(
            f"SELENA: left_out is {left_out}; it must be 1 to {sub_models - 1}, below the number of sub-models"
        )
    fewest = int(split.member.sum(1).min())
    if fewest * (sub_models - left_out) < sub_models:
        raise ValueError(
            f"SELENA: {fewest} members, each left out of {left_out} of {sub_models} sub-models, leave some of these "
            "none; lower sub_models or left_out"
        )
    member = split.member.repeat_interleave(sub_models, 0)
    seeds = []
    for i, seed in enumerate(split.seeds.tolist()):
        generator = np.random.default_rng(streams.seed(seed, "sub-models", sub_models, left_out))
        seeds += generator.integers(2**32, size=sub_models).tolist()
        index = split.member[i].nonzero()[:, 0]
        without = torch.from_numpy(_left_out(len(index), sub_models, left_out, generator))
        member[i * sub_models + without, index[:, None]] = False
    test, reserve = (mask.repeat_interleave(sub_models, 0) for mask in (split.test, split.reserve))
    return Splits(member, test, reserve, torch.tensor(seeds))


def split_ai(posteriors: Tensor, saw: Tensor) -> Tensor:
    """Mean posterior of the sub-models that did not train on an example: (K, n, c), saw bool (K, n) -> (n, c).

    Answers of sub-models that did train on it are not read. nan if all of them did.
    """
    blind = ~saw[..., None]
    return posteriors.where(blind, 0).sum(0) / blind.sum(0)


def _left_out(n: int, sub_models: int, left_out: int, generator: np.random.Generator) -> np.ndarray:
    """The sub-models that each of n members is left out of: int64 (n, left_out), no two alike in a row.

    Members stand in random order in groups of K, and each group puts the sub-models in a random circle. In a whole group
    each member takes the same L random places, turned by one from member to member. In the last group, which may be
    smaller, a member takes the L places after those of the member before. So each group takes all sub-models equally
    often, the last one up to one.
    """
    groups = -(-n // sub_models)
    circles, patterns = (
        generator.permuted(np.tile(np.arange(sub_models), (groups, 1)), axis=1) for _ in range(2)
    )
    group, place = np.divmod(generator.permutation(n), sub_models)
    turned = place[:, None] + patterns[group, :left_out]
    in_turn = place[:, None] * left_out + np.arange(left_out)
    seats = np.where((group < n // sub_models)[:, None], turned, in_turn) % sub_models
    return circles[group[:, None], seats]
