"""LiRA: is the target's confidence in a candidate that of models which learned it, or of models which did not?

    online   margin = log N(phi; mu_in, var_in) - log N(phi; mu_out, var_out)
    offline  margin = (phi - mu_out) / sigma_out

phi is the log-odds of the true class (`signals.confidence`), mu and var the mean and variance of phi over those
shadow models that have the candidate as a member (in) or have not (out). Source: Carlini et al. 2022,
arXiv:2112.03570; public code tensorflow/privacy `research/mi_lira_2021`. Attacks have the contract's one signature

    attack(target, shadows, shadow_member, seed) -> margins (n,) float64

target: Views of one model on n candidates; shadows: Views of s models on the same n candidates in the same order,
as a `study.Study` of random halves gives them; shadow_member bool (s, n). Nothing here is random, `seed` is part of the
signature only.

The offline score of the paper is Pr[N(mu_out, var_out) <= phi]. The z-value has the same order and does not saturate
(from z = 8.3 that probability is 1 in float64); its unit is a standard deviation. It is one-sided: a
candidate with less confidence than usual is no member. The public code's `-logpdf` is two-sided and takes such
candidates for members.

The zero of the margins is set on the shadows alone: each plays the target against the others, and the threshold that
tells its members from its non-members best, over all of them together, is subtracted. It moves no ranking. Offline
too it needs the answers of shadows on their members, which the score does not.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mialib.asking import Views
from mialib.attacks import signals
from mialib.attacks.threshold import best_threshold

FEW = 64  # shadow models; below, the paper finds one variance for all candidates better than one for each
FLOOR = 1e-6  # smallest variance, squared log-odds: where shadows agree to the last bit, margins stay finite


@dataclass(frozen=True)
class LiRA:
    """The attack; how it is called stands in the module's first lines.

    Args:
        online: compare members with non-members; else ask only how unusual the target is among non-members.
        fixed_variance: one variance for all candidates (one of members, one of non-members), or one for each
            candidate; None: one for all with fewer than 64 shadow models. A candidate that has one shadow model on a
            side gets the variance of all in any case.

    Raises:
        ValueError: target is not one model, the shadows answer on other candidates, shadow_member does not fit,
            there are fewer than 4 shadows, or a candidate lacks shadows that have it as a member (online) or have not.
    """

    online: bool = True
    fixed_variance: bool | None = None
    needs: ClassVar[frozenset[str]] = frozenset({"same candidates"})

    def __call__(self, target: Views, shadows: Views, shadow_member: Tensor, seed: int = 0) -> Tensor:
        _check(target, shadows, shadow_member)
        own = signals.confidence(target.log_posteriors[0], target.labels[0])
        signal = signals.confidence(shadows.log_posteriors, shadows.labels)
        sides = _Side.of(signal, shadow_member), _Side.of(signal, ~shadow_member)
        self._check_sides(*sides)
        rest = sides[0].without(signal, shadow_member), sides[1].without(signal, ~shadow_member)
        # the only shadow on its side of a candidate leaves nothing to compare it with
        answered = rest[1].count > 0
        if self.online:
            answered &= rest[0].count > 0
        played = self._score(signal, *rest)[answered]
        return self._score(own, *sides) - best_threshold(played, shadow_member[answered])

    def _score(self, signal: Tensor, members: "_Side", others: "_Side") -> Tensor:
        """The module's equations, (..., n)."""
        fixed = members.shadows < FEW if self.fixed_variance is None else self.fixed_variance
        # each side's variance from its own models: the public plot.py, where it fixes the variance, takes that of the
        # members for both (`std_out = np.std(dat_in)`), and of all candidates together without their means
        if not self.online:
            return (signal - others.mean) / others.variance(fixed).sqrt()
        return _log_density(signal, members, fixed) - _log_density(signal, others, fixed)

    def _check_sides(self, members: "_Side", others: "_Side") -> None:
        needed = {"members": members, "non-members": others} if self.online else {"non-members": others}
        lacking = torch.stack([side.count == 0 for side in needed.values()]).any(0)
        if lacking.any():
            raise ValueError(
                f"{int(lacking.sum())} of {len(lacking)} candidates are members of "
                f"{'none or of all' if self.online else 'all'} of the {members.shadows} shadows; "
                f"{'online LiRA needs both' if self.online else 'LiRA needs one that has not seen them'}. "
                "Take splits.random_halves"
            )
        for name, side in needed.items():
            if not (side.count > 1).any():
                raise ValueError(f"no candidate has two shadows among whose {name} it is: variance unknown")


class _Side(NamedTuple):
    """Of the signal over the shadows on one side of membership: (n,), or (s, n) where each of them is left out."""

    count: Tensor  # int64
    mean: Tensor  # float64
    squares: Tensor  # float64, sum of the squared distances from the mean
    shadows: int  # on both sides together, nobody left out

    @classmethod
    def of(cls, signal: Tensor, side: Tensor) -> "_Side":
        """signal float64 (s, n), side bool (s, n)."""
        count = side.sum(0)
        mean = (signal * side).sum(0) / count.clamp(min=1)
        return cls(count, mean, ((signal - mean) * side).square().sum(0), len(signal))

    def without(self, signal: Tensor, side: Tensor) -> "_Side":
        """The same without each of the shadows in turn, all at once: signal and side (s, n) as above."""
        away = (signal - self.mean) * side
        count = self.count - side.long()
        rest = count.clamp(min=1)
        squares = self.squares - away.square() * self.count / rest
        return _Side(count, self.mean - away / rest, squares.clamp(min=0), self.shadows)

    def variance(self, fixed: bool) -> Tensor:
        """Of the signal around each candidate's own mean, unbiased: one for all (..., 1), or of each (..., n)."""
        free = (self.count - 1).clamp(min=0)  # degrees of freedom
        of_all = self.squares.sum(-1, keepdim=True) / free.sum(-1, keepdim=True).clamp(min=1)
        if fixed:
            return of_all.clamp(min=FLOOR)
        return torch.where(free > 0, self.squares / free.clamp(min=1), of_all).clamp(min=FLOOR)


def _log_density(signal: Tensor, side: _Side, fixed: bool) -> Tensor:
    """log N(signal; mean, variance), without the constant that both sides share."""
    variance = side.variance(fixed)
    return -((signal - side.mean).square() / variance + variance.log()) / 2


def _check(target: Views, shadows: Views, shadow_member: Tensor) -> None:
    target.check_single()
    if shadows.labels.shape[1] != target.labels.shape[1]:
        raise ValueError(
            f"LiRA compares models on the same candidates: the target has {target.labels.shape[1]}, "
            f"the shadows have {shadows.labels.shape[1]}. Take a study of splits.random_halves"
        )
    if not (shadows.labels == target.labels).all():
        raise ValueError(
            "LiRA compares models on the same candidates in the same order, and the shadows' labels are not the "
            "target's. Take a study of splits.random_halves"
        )
    signals.check_member(shadow_member, shadows.labels, "shadow_member")
    if len(shadows) < 4:
        raise ValueError(
            f"LiRA needs 4 shadows or more, 2 that have a candidate as a member and 2 that have not, "
            f"found {len(shadows)}"
        )


lira_online = LiRA()
lira_offline = LiRA(online=False)
