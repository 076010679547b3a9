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

Shadows of random halves come in pairs, one's members being the other's non-members. When one of a pair plays the target
the other is left out too, as a target's own partner is: else every candidate would have one model fewer on its player's
side than on the other, whose mean would be the better known one, and members would look like non-members. With no leak
at all the online scores so played, with one variance for all, have an AUC of .41 for 2 pairs of shadows, .46 for 3 and
.47 for 4; without the partner .50. Partners are found as rows of `shadow_member` that are each other's complement. A
shadow that has none is left out alone, which is right where memberships are drawn independently.
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
        return self._score(own, *sides) - best_threshold(*self.played(signal, shadow_member))

    def played(self, signal: Tensor, shadow_member: Tensor) -> tuple[Tensor, Tensor]:
        """Scores float64 (g,), no zero subtracted, of shadows that play the target, each without its partner; and bool
        (g,), which of these are of a player's members.

        Args:
            signal: float64 (s, n), log-odds of the true class.
            shadow_member: bool (s, n).
        """
        there, partner = partners(shadow_member)
        rest = []
        for side in (shadow_member, ~shadow_member):
            # of a pair just one is on this side of a candidate
            gone = side | (side[partner] & there[:, None])
            values = torch.where(side, signal, signal[partner])
            rest.append(_Side.of(signal, side).without(values, gone))
        # the only shadow on its side of a candidate leaves nothing to compare it with
        answered = rest[1].count > 0
        if self.online:
            answered &= rest[0].count > 0
        return self._score(signal, *rest)[answered], shadow_member[answered]

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


def partners(member: Tensor) -> tuple[Tensor, Tensor]:
    """Which of s models has a partner, whose members are its non-members, bool (s,); and its number, int64 (s,).

    The number means nothing where there is none. member: bool (s, n).
    """
    inside = member.double()
    alike = inside @ inside.T + (1 - inside) @ (1 - inside).T  # candidates that two have in common; exact
    return (alike == 0).any(1), (alike == 0).int().argmax(1)


class _Side(NamedTuple):
    """Of the signal over the shadows on one side of membership: (n,), or (s, n) where some are left out."""

    count: Tensor  # int64
    mean: Tensor  # float64
    squares: Tensor  # float64, sum of the squared distances from the mean
    shadows: int  # on both sides together, nobody left out
    spare: Tensor | float = FLOOR  # variance where no candidate has two shadows on this side

    @classmethod
    def of(cls, signal: Tensor, side: Tensor) -> "_Side":
        """signal float64 (s, n), side bool (s, n)."""
        count = side.sum(0)
        mean = (signal * side).sum(0) / count.clamp(min=1)
        return cls(count, mean, ((signal - mean) * side).square().sum(0), len(signal))

    def without(self, gone: Tensor, some: Tensor) -> "_Side":
        """The same in s games, in each of which a candidate has lost one shadow of this side or none.

        gone: float64 (s, n), what the lost one said; some: bool (s, n), whether there is one.
        """
        away = (gone - self.mean) * some
        count = self.count - some.long()
        rest = count.clamp(min=1)
        squares = self.squares - away.square() * self.count / rest
        # two pairs leave one shadow a side in a game, and no variance: then that of nobody left out
        return _Side(count, self.mean - away / rest, squares.clamp(min=0), self.shadows, self.variance(True))

    def variance(self, fixed: bool) -> Tensor:
        """Of the signal around each candidate's own mean, unbiased: one for all (..., 1), or of each (..., n)."""
        free = (self.count - 1).clamp(min=0)  # degrees of freedom
        known = free.sum(-1, keepdim=True)
        of_all = torch.where(known > 0, self.squares.sum(-1, keepdim=True) / known, self.spare)
        if fixed:
            return of_all.clamp(min=FLOOR)
        return torch.where(free > 0, self.squares / free, of_all).clamp(min=FLOOR)


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
