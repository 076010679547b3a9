"""Which examples are members of which model: boolean masks of shape (k models, n examples).

Row i of `member` is model i's training set. Row i of `test` holds the non-members that it is attacked on and that its
accuracy is measured on. Row i of `reserve` holds examples that are never its members and never attacked (model selection,
reference data of defences, calibration). Rows of one model never overlap; rows of different models may.

A row depends only on the split's seed and on its own role and number. So asking for more models extends a split and
leaves the trained models as they were.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mialib import streams
from mialib.data.tensors import must_be_tensor

# the purposes of random streams, each a part of its seed
_TARGET, _SHADOW, _PAIR, _POOL, _KNOWN, _MODEL, _CUT = range(7)


@dataclass(frozen=True)
class Splits:
    """Membership of k models among n examples.

    Args:
        member, test, reserve: bool (k, n), disjoint in every row.
        seeds: int64 (k,), the seed of each model's initial weights and batch order.

    Raises:
        ValueError: shapes differ, sets of one model overlap, or a model has no members.
    """

    member: Tensor
    test: Tensor
    reserve: Tensor
    seeds: Tensor

    def __post_init__(self):
        for name in ("member", "test", "reserve", "seeds"):
            must_be_tensor(name, getattr(self, name), where="splits.")
        for name in ("member", "test", "reserve"):
            mask = getattr(self, name)
            if mask.dtype != torch.bool or mask.ndim != 2 or mask.shape != self.member.shape:
                raise ValueError(
                    f"splits.{name} must be bool of shape {tuple(self.member.shape)} (models, examples), "
                    f"found {mask.dtype} {tuple(mask.shape)}"
                )
        if self.seeds.shape != self.member.shape[:1]:
            raise ValueError(
                f"splits.seeds needs one seed a model ({len(self.member)}), found {tuple(self.seeds.shape)}"
            )
        for a, b in (("member", "test"), ("member", "reserve"), ("test", "reserve")):
            shared = int((getattr(self, a) & getattr(self, b)).sum(1).max()) if len(self.member) else 0
            if shared:
                raise ValueError(f"overlapping sets: {shared} examples of one model are both {a} and {b}")
        if not bool(self.member.any(1).all()):
            raise ValueError("every model needs at least one member; a row of splits.member is empty")

    def __len__(self) -> int:
        return len(self.member)

    def __getitem__(self, models: slice | Tensor | list[int]) -> "Splits":
        """The same split for some of the models only."""
        return Splits(self.member[models], self.test[models], self.reserve[models], self.seeds[models])

    def fingerprints(self) -> list[str]:
        """A short hash of each model's members: by it a model's record says what it was trained on."""
        return [hashlib.sha256(row.numpy().tobytes()).hexdigest()[:16] for row in self.member.cpu()]

    def counts(self) -> list[dict[str, int]]:
        """Number of members, test and reserve examples of each model."""
        return [
            {name: int(getattr(self, name)[i].sum()) for name in ("member", "test", "reserve")}
            for i in range(len(self))
        ]


def indices(mask: Tensor) -> Tensor:
    """The indices that each row of `mask` bool (k, n) selects, int64 (k, m), ascending; equally many in each row.

    Raises:
        ValueError: the rows select different numbers of examples.
    """
    must_be_tensor("mask", mask, torch.bool)
    count = mask.sum(1)
    if len(count) and int(count.min()) != int(count.max()):
        raise ValueError(
            f"models select between {int(count.min())} and {int(count.max())} examples; equal numbers needed"
        )
    return mask.nonzero()[:, 1].reshape(len(mask), -1)


def candidates(split: Splits, seed: int, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The examples that each model is attacked on, shuffled, and which of them are members.

    The order depends only on the set of candidates and the seed, never on membership: exchanging members and
    non-members of a target changes nothing that an attack sees.

    Args:
        among: bool (n,), the examples that may be attacked; default: every member and test example.

    Returns:
        index int64 (k, n) into the data set, member bool (k, n).
    """
    index = indices((split.member | split.test) & (True if among is None else among))
    index = torch.stack([shuffled(own, seed, i) for i, own in enumerate(index)])
    return index, split.member.gather(1, index)


def shuffled(index: Tensor, seed: int, model: int) -> Tensor:
    """The candidates of one model, int64 (n,), in the order in which attackers meet them."""
    return index[torch.randperm(len(index), generator=streams.generator(seed, "candidates", model))]


def target_shadow(n: int, n_targets: int, n_shadows: int, seed: int, n_train: int | None = None) -> Splits:
    """Disjoint halves for targets and shadows, each model's half cut 45 / 10 / 45 into members, reserve and test.

    The first `n_targets` rows are the targets, the rest the shadows. Targets redo the cut of the target half, shadows
    that of the shadow half, so the sets of two shadows (and of two targets) overlap. Test counts round up, members
    take the remainder. Yuan & Zhang 2022 with one target; public code mia_prune `pretrain.py`.

    Args:
        n_train: members of each model, with as many test examples. Default: the whole 45 %; of an odd number of examples
            one belongs to no set.

    Raises:
        ValueError: fewer than one model of a kind, or more members asked for than 45 % of a half.
    """
    for name, count in (("n_targets", n_targets), ("n_shadows", n_shadows)):
        if count < 1:
            raise ValueError(f"{name} is {count}; at least 1 is needed")
    pool = _generator(seed, _POOL, 0).permutation(n)
    # the whole of an odd half would give shadows one candidate more than targets; all must have equally many
    end = n if n_train is not None else n // 2 * 2
    halves = {_TARGET: pool[: n // 2], _SHADOW: pool[n // 2 : end]}
    rows, seeds = [], []
    for role, count in ((_TARGET, n_targets), (_SHADOW, n_shadows)):
        for number in range(count):
            rows.append(_cut(halves[role], n, _generator(seed, role, number), n_train))
            seeds.append(_model_seed(seed, role, number))
    member, test, reserve = (torch.stack(masks) for masks in zip(*rows, strict=True))
    return Splits(member, test, reserve, torch.tensor(seeds))


def random_halves(n: int, n_models: int, seed: int, reserve_fraction: float = 0.1) -> Splits:
    """Complementary pairs: outside the common reserve, every example is a member of exactly one model of each pair.

    So every example is a member of exactly half of the models, as LiRA and RMIA need (with independent halves some
    example is a member of none or of all). Any one of the models can be the target of an attack. Its shadows are all
    others except its partner, whose members are exactly the target's non-members.

    Raises:
        ValueError: an odd number of models, or a reserve fraction outside [0, 1).
    """
    if n_models < 2 or n_models % 2:
        raise ValueError(
            f"n_models is {n_models}; random halves come in pairs, so an even number from 2 is needed"
        )
    if not 0 <= reserve_fraction < 1:
        raise ValueError(f"reserve_fraction is {reserve_fraction}; it must lie in [0, 1)")
    n_reserve = math.ceil(n * reserve_fraction)
    n_reserve += (n - n_reserve) % 2  # both halves of a pair get equally many
    pool = _generator(seed, _POOL, 0).permutation(n)
    reserve, rest = _mask(pool[:n_reserve], n), pool[n_reserve:]
    member = []
    for pair in range(n_models // 2):
        order = _generator(seed, _PAIR, pair).permutation(rest)
        member += [_mask(order[: len(order) // 2], n), _mask(order[len(order) // 2 :], n)]
    member = torch.stack(member)
    reserve = reserve.expand_as(member).clone()
    seeds = torch.tensor([_model_seed(seed, _PAIR, number) for number in range(n_models)])
    return Splits(member, ~member & ~reserve, reserve, seeds)


def known_and_scored(splits: Splits, seed: int) -> tuple[Tensor, Tensor]:
    """The half of each model's members and test examples that the attacker is given, and the other half, for scoring.

    The strong attacker of Nasr, Shokri & Houmansadr 2018, who knows members and non-members of the target itself.

    Returns:
        known, scored: bool (k, n) each, disjoint; together the members and test examples of each model.
    """
    known = torch.zeros_like(splits.member)
    for i in range(len(splits)):
        generator = _generator(seed, _KNOWN, int(splits.seeds[i]))
        for mask in (splits.member[i], splits.test[i]):
            index = generator.permutation(mask.nonzero()[:, 0].numpy())
            known[i] |= _mask(index[: len(index) // 2], splits.member.shape[1])
    return known, (splits.member | splits.test) & ~known


def d1_d2_d3(n: int, n_members: int, n_reserve: int, n_test: int, seed: int, n_models: int = 1) -> Splits:
    """Each model cuts the same pool anew into D1 | D2 | D3: members, reserve (a purifier trains on it) and test.

    Yang et al. 2020 cut once, for one model, and give the attacker half of D1 and D3. Here an attacker's shadow models
    draw from the same pool as the target, which favours the attacker. A row depends only on the seed and on its own
    number, so it says nothing about the others.

    Raises:
        ValueError: the three parts need more examples than there are.
    """
    needed = n_members + n_reserve + n_test
    if needed > n:
        raise ValueError(f"D1 + D2 + D3 need {needed} examples, the data set has {n}")
    parts = [
        np.split(_generator(seed, _CUT, i).permutation(n)[:needed], [n_members, n_members + n_reserve])
        for i in range(n_models)
    ]
    roles = zip(*parts, strict=True)
    member, reserve, test = (torch.stack([_mask(part, n) for part in role]) for role in roles)
    seeds = torch.tensor([_model_seed(seed, _MODEL, i) for i in range(n_models)])
    return Splits(member, test, reserve, seeds)


def official(n: int, n_members: int, n_models: int, seed: int) -> Splits:
    """The data set's own cut: the first `n_members` examples (its training part) are members, the rest are test.

    The loaders put the training part first. No reserve; all models share the cut and differ by their seed.

    Raises:
        ValueError: no member or no test example is left, or fewer than one model.
    """
    if not 1 <= n_members < n:
        raise ValueError(f"n_members is {n_members}; of {n} examples, 1 to {n - 1} can be members")
    if n_models < 1:
        raise ValueError(f"n_models is {n_models}; at least 1 is needed")
    member = (torch.arange(n) < n_members).expand(n_models, n).clone()
    seeds = torch.tensor([_model_seed(seed, _TARGET, number) for number in range(n_models)])
    return Splits(member, ~member, torch.zeros_like(member), seeds)


def as_members(split: Splits, learned: Tensor | None = None) -> Splits:
    """The same models with their reserve as the members, to test whether the data that a defence learned from leak.

    Args:
        learned: bool (k, n), the part of each reserve that the defence learned from. The rest stays in the reserve, since
            it leaks nothing and would count as found or missed. If it were a fifth, an AUC of 0.76 would read
            0.8 * 0.76 + 0.2 * 0.5 = 0.71. Default: the whole reserve.

    Raises:
        ValueError: the defence learned from examples that are not in the reserve.
    """
    member = split.reserve if learned is None else learned
    if bool((member & ~split.reserve).any()):
        raise ValueError("a defence learned from examples outside the reserve: these are of another split")
    return Splits(member, split.test, split.member | (split.reserve & ~member), split.seeds)


def everyone(n: int, seeds: list[int]) -> Splits:
    """Every example is a member of every model and nothing is held out: training sets of attack networks."""
    member = torch.ones(len(seeds), n, dtype=torch.bool)
    return Splits(member, ~member, ~member, torch.tensor(seeds))


def blocks(member: Tensor, seeds: Tensor) -> Splits:
    """Each model learns from rows of its own, like a defence that learns from each network's own answers.

    The data set has k * n rows; rows i * n to (i + 1) * n are model i's block. Its members are the rows of the block that
    `member` bool (k, n) marks; the other rows of the block are its reserve.
    """
    k, n = member.shape
    is_own = torch.eye(k, dtype=torch.bool)[:, :, None]
    chosen, block = (is_own & member[None]).flatten(1), is_own.expand(k, k, n).flatten(1)
    return Splits(chosen, torch.zeros_like(chosen), block & ~chosen, seeds)


def _cut(half: np.ndarray, n: int, generator: np.random.Generator, n_train: int | None) -> tuple[Tensor, ...]:
    order = generator.permutation(half)
    n_test = math.ceil(0.45 * len(order))
    # 18.18 % of the remaining 55 %, as mia_prune cuts it
    n_reserve = math.ceil(0.1818 * (len(order) - n_test))
    n_member = len(order) - n_test - n_reserve
    if n_train is not None and not 1 <= n_train <= n_member:
        raise ValueError(
            f"n_train is {n_train}; a half of {len(order)} examples gives each model 1 to {n_member} members "
            "(45 % of the half). Lower n_train or take a larger data set"
        )
    test, reserve, member = np.split(order, [n_test, n_test + n_reserve])
    return _mask(member[:n_train], n), _mask(test[:n_train], n), _mask(reserve, n)


def _mask(index: np.ndarray, n: int) -> Tensor:
    mask = torch.zeros(n, dtype=torch.bool)
    mask[torch.from_numpy(np.ascontiguousarray(index))] = True
    return mask


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(key))


def _model_seed(*key: int) -> int:
    return int(np.random.SeedSequence((*key, _MODEL)).generate_state(1, np.uint32)[0])
