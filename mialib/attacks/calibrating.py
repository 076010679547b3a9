"""Calibrated attacks: does the target answer on a candidate like models that learned it, or like models that did not?

This file holds what they share, whatever their score: the two sides of membership, the games in which shadows play the
target, the zero point and the checks. The scores are in `likelihood` (LiRA), `bayesian` (BaVarIA) and `ratios` (BASE,
RMIA). The attacks have the contract's one signature

    attack(target, shadows, shadow_member, seed) -> margins (n,) float64

target: Views of one model on n candidates; shadows: Views of s models on the same n candidates in the same order, as a
`study.Study` of random halves gives them; shadow_member bool (s, n). Nothing here is random; `seed` is only part of the
signature.

The zero of the margins is set on the shadows alone: each plays the target against the others. The threshold that best
tells members from non-members, over all these games together, is subtracted. It changes no ranking. Even offline it
needs the shadows' answers on their members, which the score does not.

Shadows of random halves come in pairs; the members of one are the non-members of the other. When one of a pair plays the
target, the other is left out too, as a target's own partner is. Otherwise every candidate would have one model fewer on
its player's side than on the other; the other side's mean would be better known, and members would look like
non-members. Without any leak the online scores, played that way with one variance for all, have an AUC of .41 for 2
pairs of shadows, .46 for 3 and .47 for 4; without the partner .50. Partners are found as rows of `shadow_member` that
are complements of each other. A shadow without a partner is left out alone, which is right if memberships are drawn
independently.

A single pair has no other shadow to play against. Then none is left out, and the zero is a rough one.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mialib.asking import Views
from mialib.attacks import signals
from mialib.attacks.threshold import best_threshold

FLOOR = 1e-6  # smallest variance, squared log-odds: where shadows agree to the last bit, margins stay finite


@dataclass(frozen=True)
class Calibrated:
    """What all of them do; each defines its signal (`statistic`, `averaged`) and how it compares (`score`).

    Args:
        online: compare members with non-members; else ask only how unusual the target is among non-members.

    Raises:
        ValueError: target is not one model, the shadows answer on other candidates, shadow_member does not fit, there are
            fewer than `fewest` shadows, or a candidate lacks shadows that have it as a member (online) or that lack it.
    """

    online: bool = True
    needs: ClassVar[frozenset[str]] = frozenset({"same candidates"})
    fewest: ClassVar[int] = 2  # shadows

    def __call__(self, target: Views, shadows: Views, shadow_member: Tensor, seed: int = 0) -> Tensor:
        check(type(self).__name__, self.fewest, target, shadows, shadow_member)
        own, signal = self.statistic(target)[0], self.statistic(shadows)
        sides = self._sides(signal, shadow_member)
        self._check_sides(*sides)
        return self._margins(
            self.score(own, *sides), *self._games(signal, shadow_member, sides), shadow_member
        )

    def statistic(self, views: Views) -> Tensor:
        """The signal of m models: float64 (m, n), finite, larger = more likely a member."""
        return signals.confidence(views.log_posteriors, views.labels)

    def averaged(self, signal: Tensor) -> Tensor:
        """The quantity that is averaged over shadows, a function of the statistic (s, n)."""
        return signal

    def score(self, signal: Tensor, members: "Side", others: "Side") -> Tensor:
        """Scores (..., n) of players whose statistic is `signal` (..., n), beside the shadows of both sides."""
        raise NotImplementedError

    def played(self, signal: Tensor, shadow_member: Tensor) -> tuple[Tensor, Tensor]:
        """Scores float64 (g,), no zero subtracted, of shadows that play the target, each without its partner; and bool (g,),
        which of these scores are about a player's members.

        Args:
            signal: float64 (s, n), the `statistic` of the shadows.
            shadow_member: bool (s, n).
        """
        scores, answered = self._games(signal, shadow_member, self._sides(signal, shadow_member))
        return _spoken(answered, scores, shadow_member)

    def _margins(self, score: Tensor, played: Tensor, answered: Tensor, shadow_member: Tensor) -> Tensor:
        """From the target's scores (n,) and those of the games (s, n), which count where `answered` bool (s, n)."""
        return score - best_threshold(*_spoken(answered, played, shadow_member))

    def _sides(self, signal: Tensor, shadow_member: Tensor) -> tuple["Side", "Side"]:
        """The two sides: members and others."""
        values = self.averaged(signal)
        return Side.of(values, shadow_member), Side.of(values, ~shadow_member)

    def _games(
        self, signal: Tensor, shadow_member: Tensor, sides: tuple["Side", "Side"]
    ) -> tuple[Tensor, Tensor]:
        """Scores (s, n) of each shadow as the target, and bool (s, n), which of them had shadows to compare with."""
        there, partner = partners(shadow_member)
        values, rest = self.averaged(signal), []
        of_partner, paired = values[partner], bool(there.all())
        for side, whole in zip((shadow_member, ~shadow_member), sides, strict=True):
            # exactly one of a pair is on this side of a candidate
            gone = None if paired else side | (side[partner] & there[:, None])
            rest.append(whole.without(torch.where(side, values, of_partner), gone))
        # the only shadow on a side of a candidate leaves nothing to compare with
        answered = self._spoken_of(*rest).expand_as(signal)
        if not answered.any():
            rest, answered = sides, self._spoken_of(*sides).expand_as(signal)
        return self.score(signal, *rest), answered

    def _spoken_of(self, members: "Side", others: "Side") -> Tensor:
        """Which candidates have the shadows that the score needs, bool (..., n)."""
        return (others.count > 0) & (members.count > 0) if self.online else others.count > 0

    def _check_sides(self, members: "Side", others: "Side") -> None:
        name = type(self).__name__
        needs = f"online {name} needs both" if self.online else f"{name} needs one that has not seen them"
        check_sides(self._spoken_of(members, others), members.shadows, needs, both=self.online)


def _spoken(answered: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
    """The entries (g,) of the parts (s, n) where `answered`."""
    if answered.all():
        return tuple(part.flatten() for part in parts)
    return tuple(part[answered] for part in parts)


def check_sides(spoken_of: Tensor, shadows: int, needs: str, both: bool = True) -> None:
    """Raises ValueError unless the shadows speak of every candidate, bool (n,).

    Args:
        shadows: their number.
        needs: what the attack needs, for the message.
        both: whether it needs shadows on both sides of membership; else one that has not seen the candidate.
    """
    if not spoken_of.all():
        raise ValueError(
            f"{int((~spoken_of).sum())} of {len(spoken_of)} candidates are members of {'none or of all' if both else 'all'} "
            f"of the {shadows} shadows; {needs}. Take splits.random_halves"
        )


def check(name: str, fewest: int, target: Views, shadows: Views, shadow_member: Tensor) -> None:
    """Raises ValueError if the attack `name` on the same candidates cannot be called with these, see `Calibrated`."""
    target.check_single()
    if shadows.labels.shape[1] != target.labels.shape[1]:
        raise ValueError(
            f"{name} compares models on the same candidates: the target has {target.labels.shape[1]}, "
            f"the shadows have {shadows.labels.shape[1]}. Take a study of splits.random_halves"
        )
    if not (shadows.labels == target.labels).all():
        raise ValueError(
            f"{name} compares models on the same candidates in the same order, and the shadows' labels are not "
            "the target's. Take a study of splits.random_halves"
        )
    signals.check_member(shadow_member, shadows.labels, "shadow_member")
    if len(shadows) < fewest:
        half = fewest // 2
        raise ValueError(
            f"{name} needs {fewest} shadows or more, {half} that {'have' if half > 1 else 'has'} a candidate "
            f"as a member and {half} that {'have' if half > 1 else 'has'} not, found {len(shadows)}"
        )


def partners(member: Tensor) -> tuple[Tensor, Tensor]:
    """For s models: which have a partner, whose members are their non-members, bool (s,); and its number, int64 (s,).

    The number means nothing if there is no partner. member: bool (s, n).
    """
    inside = member.double()
    alike = inside @ inside.T + (1 - inside) @ (1 - inside).T  # candidates that two have in common; exact
    return (alike == 0).any(1), (alike == 0).int().argmax(1)


class Side(NamedTuple):
    """The signal over the shadows on one side of membership: (n,), or (s, n) if some are left out."""

    count: Tensor  # int64; (n,) also where every game has one fewer
    mean: Tensor  # float64
    squares: Tensor  # float64, sum of the squared distances from the mean
    shadows: int  # on both sides together, none left out
    whole: "Side | None" = None  # the same with none left out, where some are

    @classmethod
    def of(cls, signal: Tensor, side: Tensor) -> "Side":
        """signal float64 (s, n), side bool (s, n)."""
        count = side.sum(0)
        mean = (signal * side).sum(0) / count.clamp(min=1)
        return cls(count, mean, (signal - mean).mul_(side).square_().sum(0), len(signal))

    def without(self, gone: Tensor, some: Tensor | None = None) -> "Side":
        """The same in s games; in each of them a candidate has lost one shadow of this side, or none.

        gone: float64 (s, n), the signal of the lost one; some: bool (s, n), whether there is one; None: always.
        """
        away = gone - self.mean
        count = self.count - (1 if some is None else some.long())
        if some is not None:
            away.mul_(some)
        rest = count.clamp(min=1)
        mean = self.mean - away / rest
        # squares - away^2 * count / rest, in place
        squares = away.square_().mul_(self.count).div_(rest)
        torch.sub(self.squares, squares, out=squares).clamp_(min=0)
        return Side(count, mean, squares, self.shadows, self)

    def variance(self, fixed: bool) -> Tensor:
        """The variance of the signal around each candidate's own mean, unbiased: one for all (..., 1), or each (..., n)."""
        free = (self.count - 1).clamp(min=0)  # degrees of freedom
        if not fixed and (free > 0).all():
            return (self.squares / free).clamp_(min=FLOOR)
        known = free.sum(-1, keepdim=True)
        # with two pairs a game has one shadow a side and no variance: then take that with none left out
        spare = FLOOR if self.whole is None else self.whole.variance(True)
        of_all = torch.where(known > 0, self.squares.sum(-1, keepdim=True) / known, spare)
        if fixed:
            return of_all.clamp(min=FLOOR)
        return torch.where(free > 0, self.squares / free, of_all).clamp(min=FLOOR)
