"""Which models are attacked, on what, and which ones attackers may learn from: fixed for all arms of a study."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mialib.data import Dataset, Splits, splits


@dataclass(frozen=True)
class Roles:
    """The parts that k models play in attacks.

    Args:
        data, split, seed: the examples, which are members of which model, and the seed of the candidates' order.
        index: int64 (k, n), the candidates of each model, rows of the data set.
        member: bool (k, n), which of them are members. The attacks never get that of a target.
        truth: bool (targets, n), which candidates count as members where a target's attackers are scored: those that are,
            except in a null control.
        targets, shadows: numbers of the models that are attacked, and of those that attackers learn from.
        teachers: for each target, the positions among `shadows` that its own attacker learns from; None: one attacker
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
        """Bool (targets, n): the candidates of a target whose membership is given to an attacker who knows half."""
        of, index = self.split[self.targets], self.index[self.targets]
        asked = torch.zeros_like(of.member).scatter(1, index, True)
        of = Splits(of.member & asked, asked & ~of.member, of.reserve & ~asked, of.seeds)
        return splits.known_and_scored(of, self.seed)[0].gather(1, index)

    def public(self, target: int) -> Tensor:
        """Examples that the attacker of target number `target` knows not to be its members, and is not scored on: (1, r).

        They are all others of the data set: its reserve, under `target_shadow` also the shadows' half, and unused
        examples. A defence that learned from the reserve answers it unlike any other example. With random halves there
        are no others: a canary that is in none of the target's sets is not known to be a non-member.
        """
        model, split = self.targets[target], self.split
        known = ~(split.member[model] | split.test[model]) if self.teachers is None else split.reserve[model]
        return known.nonzero()[:, 0][None]


def made(
    protocol: Callable[..., Roles],
    data: Dataset,
    split: Splits,
    n_targets: int,
    seed: int,
    candidates: Tensor | None = None,
) -> Roles:
    """The roles of one of the functions below.

    Raises:
        ValueError: candidates that are no mask of the examples; candidates that are given although the protocol has its
            own; or none given where it needs them.
    """
    if candidates is None and protocol is not by_coins:
        return protocol(data, split, n_targets, seed)
    if protocol not in (one_of_each_pair, by_coins):
        raise ValueError(
            'candidates are named under the protocols "random_halves" and "canaries" alone; others have their own'
        )
    if candidates is None or candidates.dtype != torch.bool or candidates.shape != (len(data),):
        found = "none" if candidates is None else f"{candidates.dtype} {tuple(candidates.shape)}"
        raise ValueError(
            f"candidates must be a bool mask of the {len(data)} examples, as chosen of canaries.mislabelled, found {found}"
        )
    return protocol(data, split, n_targets, seed, candidates)


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
        ValueError: they share some, for example because `n_targets` is not the split's.
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


def one_of_each_pair(
    data: Dataset, split: Splits, n_targets: int, seed: int, candidates: Tensor | None = None
) -> Roles:
    """Random halves: the first model of each of the first `n_targets` pairs is a target; all have the same candidates.

    A target is attacked with the models of all other pairs. Its own pair's other model is left out. That one's
    membership is the reverse of the target's, so the number of remaining models that have a candidate as a member would
    reveal whether the target has. Without the pair that number is the same for all. This is what LiRA needs.

    Args:
        split: of `splits.random_halves`. The candidates' order depends only on their number and on `seed`.
        candidates: bool (examples,), which are attacked; default: all that are in no reserve. If there are canaries,
            give all others: `canaries.mislabelled` splits the others in halves, not the canaries.

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
    member, test = (one if candidates is None else one & candidates for one in (split.member, split.test))
    covered, paired = member | test, (member[0::2] == test[1::2]) & (test[0::2] == member[1::2])
    if not (covered == covered[0]).all() or not paired.all():
        raise ValueError(
            "in random halves every pair covers the same candidates, the members of one being the test examples of the "
            "other, and these pairs do not: take splits.random_halves, and where canaries are in it, "
            "Study(..., candidates=~canaries.chosen)"
        )
    index = splits.candidates(split[:1], seed, candidates)[0][0]
    teachers = [[j for j in range(k) if j // 2 != pair] for pair in range(n_targets)]
    targets, member = list(range(0, 2 * n_targets, 2)), split.member[:, index]
    index, truth = index.expand(k, -1), member[targets]
    return Roles(data, split, seed, index, member, truth, targets, list(range(k)), teachers)


def by_coins(data: Dataset, split: Splits, n_targets: int, seed: int, candidates: Tensor) -> Roles:
    """Canaries, each a member of each model by a coin: `canaries.mislabelled`; all models have the same candidates.

    The targets are those of `one_of_each_pair`. A target is attacked with all other models, since their coins say
    nothing about the target's. Left out is a model that has exactly the canaries that the target lacks (the pair's
    other, where coins are drawn in pairs), for the reason given there.

    Args:
        candidates: bool (examples,), which are canaries.

    Raises:
        ValueError: fewer than two models, more targets than half of the models, no canary, a canary in a reserve or test
            set, or a target that has all of them or none.
    """
    k = len(split)
    if k < 2 or not 1 <= n_targets <= (k + 1) // 2:
        raise ValueError(
            f"every second model can be a target, so 2 models or more and 1 to {(k + 1) // 2} targets are needed, "
            f"found {k} models and {n_targets} targets"
        )
    index = candidates.nonzero()[:, 0]
    if not len(index) or bool((split.reserve | split.test)[:, index].any()):
        raise ValueError(
            "canaries are needed, and no model has one in its reserve or test set: give the split and "
            "candidates=chosen of canaries.mislabelled"
        )
    index = splits.shuffled(index, seed, 0)
    targets, member = list(range(0, 2 * n_targets, 2)), split.member[:, index]
    truth = member[targets]
    if bool((truth.all(1) | ~truth.any(1)).any()):
        raise ValueError(
            f"a target has all of the {len(index)} canaries or none, so that no error can be counted; plant more of them"
        )
    teachers = [_without_mirror(member, target) for target in targets]
    return Roles(data, split, seed, index.expand(k, -1), member, truth, targets, list(range(k)), teachers)


def own_then_halves(data: Dataset, split: Splits, n_targets: int, seed: int) -> Roles:
    """A network of one's own, the first, and imitations of it, each of which learned a half of the same candidates.

    The first is attacked with all imitations. The next `n_targets` - 1 are targets too, to say what an attack finds in
    networks that are trained anew: each is attacked with the other imitations, without the one that has exactly the
    candidates that it lacks (see `one_of_each_pair`). All examples of the data set are candidates of all models.

    Raises:
        ValueError: fewer than two imitations, more targets than models, or a model that is a member of all or of none.
    """
    k = len(split)
    if k < 3 or not 1 <= n_targets <= k:
        raise ValueError(
            f"a network and 2 imitations or more are needed, and 1 to {k} targets, found {k} models and {n_targets} targets"
        )
    index = splits.shuffled(torch.arange(len(data)), seed, 0)
    member, targets = split.member[:, index], list(range(n_targets))
    if bool((member.all(1) | ~member.any(1)).any()):
        raise ValueError("a model has learned all candidates or none, so that no error can be counted")
    teachers = [list(range(1, k))] + [
        [j for j in _without_mirror(member, target) if j > 0] for target in targets[1:]
    ]
    truth = member[targets]
    return Roles(data, split, seed, index.expand(k, -1), member, truth, targets, list(range(k)), teachers)


def _without_mirror(member: Tensor, target: int) -> list[int]:
    """All models but the target and those that have exactly the candidates that it lacks; member bool (k, n)."""
    return [j for j in range(len(member)) if j != target and not torch.equal(member[j], ~member[target])]


def check_same_targets(a: Roles, b: Roles) -> None:
    """Raises ValueError for roles with different targets: a difference between them would not be one of arms."""
    parts = [
        (one.split.seeds[one.targets], one.index[one.targets], one.member[one.targets], one.truth)
        for one in (a, b)
    ]
    same = a.data.fingerprint == b.data.fingerprint
    if not same or not all(torch.equal(*pair) for pair in zip(*parts, strict=True)):
        raise ValueError(
            "a difference needs the same targets, and these two studies have others: compare within one"
        )
