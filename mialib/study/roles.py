"""Who is attacked on what, and which models attackers may learn from: fixed for all arms of a study."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mialib.data import Dataset, Splits, splits


@dataclass(frozen=True)
class Roles:
    """The parts that k models play.

    Args:
        data, split, seed: the examples, who is a member of which model, and what the candidates' order derives from.
        index: int64 (k, n), the candidates of each model, rows of the data set.
        member: bool (k, n), which of them are members. The attacks never get that of a target.
        truth: bool (targets, n), who counts as a member where a target's attackers are scored: who is one, but in a null
            control.
        targets, shadows: numbers of the models that are attacked, and of those that attackers learn from.
        teachers: of each target the positions among `shadows` that its own attacker learns from; None: one attacker
            learns from all of them, for all targets.
    """

    data: Dataset
    split: Splits
    seed: int
    index: Tensor
    member: Tensor
    truth: Tensor
    targets: list[int]
    shadows: list[int]
    teachers: list[list[int]] | None = None

    @property
    def same_candidates(self) -> bool:
        """Whether all models are asked about the same examples in the same order."""
        return bool((self.index == self.index[0]).all())

    @cached_property
    def known(self) -> Tensor:
        """Bool (targets, n): those of a target's candidates whose membership an attacker of `known_half` is given."""
        known, _ = splits.known_and_scored(self.split[self.targets], self.seed)
        return known.gather(1, self.index[self.targets])

    def public(self, target: int) -> Tensor:
        """Examples that the attacker of target number `target` knows not to be its members, and is not scored on: (1, r).

        All others of the data set: its reserve, under `target_shadow` also the shadows' half, and what nobody uses. What a
        defence learned from the reserve, it answers as it answers nobody else; of random halves there is no other.
        """
        model = self.targets[target]
        return (~(self.split.member[model] | self.split.test[model])).nonzero()[:, 0][None]


def targets_first(data: Dataset, split: Splits, n_targets: int, seed: int) -> Roles:
    """The first `n_targets` models are targets, all others shadows; each model has its own candidates.

    Raises:
        ValueError: fewer models than targets, or no target.
    """
    if not 1 <= n_targets <= len(split):
        raise ValueError(f"n_targets is {n_targets}; the split has {len(split)} models, so 1 to {len(split)}")
    index, member = splits.candidates(split, seed)
    targets, shadows = list(range(n_targets)), list(range(n_targets, len(split)))
    return Roles(data, split, seed, index, member, member[:n_targets], targets, shadows)


def apart(data: Dataset, split: Splits, n_targets: int, seed: int) -> Roles:
    """`targets_first`, where targets and shadows share no example, as in `splits.target_shadow`.

    Raises:
        ValueError: they share some, as where `n_targets` is not the split's.
    """
    made = targets_first(data, split, n_targets, seed)
    candidates = split.member | split.test
    shared = candidates[made.targets].any(0) & candidates[made.shadows].any(0)
    if bool(shared.any()):
        raise ValueError(
            f"with n_targets = {n_targets} targets and shadows share {int(shared.sum())} candidates, and under "
            'protocol="target_shadow" they share none: give the n_targets that the split was made with, or name the '
            'protocol, protocol="own" for members of your own choice'
        )
    return made


def one_of_each_pair(data: Dataset, split: Splits, n_targets: int, seed: int) -> Roles:
    """Random halves: the first model of each of the first `n_targets` pairs is a target, all have the same candidates.

    A target is attacked with the models of all other pairs. The other model of its own pair is left out: its membership
    is the target's, turned round, and so the number of the remaining models that have a candidate as a member would say
    whether the target has. Without the pair that number is the same for all. This is what LiRA needs.

    Args:
        split: of `splits.random_halves`. The candidates' order depends on their number and on `seed` only.

    Raises:
        ValueError: fewer than two pairs, more targets than pairs, models whose reserves differ, or pairs that do
            not halve the same candidates.
    """
    k = len(split)
    if k < 4 or k % 2 or not 1 <= n_targets <= k // 2:
        raise ValueError(
            f"random halves need two pairs of models or more and 1 to {k // 2} targets, one of a pair, found {k} models "
            f"and {n_targets} targets"
        )
    if not (split.reserve == split.reserve[0]).all():
        raise ValueError("random halves share one reserve, and these models' reserves differ")
    covered = split.member | split.test
    paired = split.member[0::2] == split.test[1::2]
    if not (covered == covered[0]).all() or not (paired & (split.test[0::2] == split.member[1::2])).all():
        raise ValueError(
            "every pair of random halves covers the same candidates, each one's members being the other's test "
            "examples, and these models' do not: take splits.random_halves"
        )
    index = splits.candidates(split[:1], seed)[0][0]
    teachers = [[j for j in range(k) if j // 2 != pair] for pair in range(n_targets)]
    targets, member = list(range(0, 2 * n_targets, 2)), split.member[:, index]
    index, truth = index.expand(k, -1), member[targets]
    return Roles(data, split, seed, index, member, truth, targets, list(range(k)), teachers)


def check_same_targets(a: Roles, b: Roles) -> None:
    """Raises ValueError for roles of different targets: a difference between them would not be one of arms."""
    parts = [
        (one.split.seeds[one.targets], one.index[one.targets], one.member[one.targets], one.truth)
        for one in (a, b)
    ]
    same = a.data.fingerprint == b.data.fingerprint
    if not same or not all(torch.equal(*pair) for pair in zip(*parts, strict=True)):
        raise ValueError(
            "a difference needs the same targets, and these two studies have others: compare within one"
        )
