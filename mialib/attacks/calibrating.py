"""Calibrated attacks: is the target's answer on a candidate that of models which learned it, or of models which did not?

What they share, whatever score they then compute: the two sides of membership, games in which shadows play the target, the
zero point and the checks. The scores are in `likelihood` (LiRA), `bayesian` (BaVarIA) and `ratios` (BASE, RMIA). Attacks
have the contract's one signature

    attack(target, shadows, shadow_member, seed) -> margins (n,) float64

target: Views of one model on n candidates; shadows: Views of s models on the same n candidates in the same order,
as a `study.Study` of random halves gives them; shadow_member bool (s, n). Nothing here is random, `seed` is part of the
signature only.

The zero of the margins is set on the shadows alone: each plays the target against the others, and the threshold that
tells its members from its non-members best, over all of them together, is subtracted. It moves no ranking. Offline
too it needs the answers of shadows on their members, which the score does not.

Shadows of random halves come in pairs, one's members being the other's non-members. When one of a pair plays the target
the other is left out too, as a target's own partner is: else every candidate would have one model fewer on its player's
side than on the other, whose mean would be the better known one, and members would look like non-members. With no leak
at all the online scores so played, with one variance for all, have an AUC of .41 for 2 pairs of shadows, .46 for 3 and
.47 for 4; without the partner .50. Partners are found as rows of `shadow_member` that are each other's complement. A
shadow that has none is left out alone, which is right where memberships are drawn independently.

A single pair has nobody left to play against. Then nobody is left out, and the zero is a rough one.
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
    """What all of them do; each says what it looks at (`statistic`, `averaged`) and how it compares (`score`).

    Args:
        online: compare members with non-members; else ask only how unusual the target is among non-members.

    Raises:
        ValueError: target is not one model, the shadows answer on other candidates, shadow_member does not fit,
            there are fewer than `fewest` shadows, or a candidate lacks shadows that have it as a member (online) or
            have not.
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
        """What is looked at of m models: float64 (m, n), finite, larger = more likely a member."""
        return signals.confidence(views.log_posteriors, views.labels)

    def averaged(self, signal: Tensor) -> Tensor:
        """What is averaged over shadows, a function of the statistic (s, n)."""
        return signal

    def score(self, signal: Tensor, members: "Side", others: "Side") -> Tensor:
        """Scores (..., n) of players whose statistic is `signal` (..., n), beside the shadows of both sides."""
        raise NotImplementedError

    def played(self, signal: Tensor, shadow_member: Tensor) -> tuple[Tensor, Tensor]:
        """Scores float64 (g,), no zero subtracted, of shadows that play the target, each without its partner; and bool
        (g,), which of these are of a player's members.

        Args:
            signal: float64 (s, n), the `statistic` of the shadows.
            shadow_member: bool (s, n).
        """
        scores, answered = self._games(signal, shadow_member, self._sides(signal, shadow_member))
        return _spoken(answered, scores, shadow_member)

    def _margins(self, score: Tensor, played: Tensor, answered: Tensor, shadow_member: Tensor) -> Tensor:
        """Of the target's scores (n,) and those of the games (s, n), of which `answered` bool (s, n) mean something."""
        return score - best_threshold(*_spoken(answered, played, shadow_member))

    def _sides(self, signal: Tensor, shadow_member: Tensor) -> tuple["Side", "Side"]:
        """Of members and of others."""
        values = self.averaged(signal)
        return Side.of(values, shadow_member), Side.of(values, ~shadow_member)

    def _games(
        self, signal: Tensor, shadow_member: Tensor, sides: tuple["Side", "Side"]
    ) -> tuple[Tensor, Tensor]:
        """Scores (s, n) of each shadow as the target, and bool (s, n), which of these had somebody to compare with."""
        there, partner = partners(shadow_member)
        values, rest = self.averaged(signal), []
        of_partner, paired = values[partner], bool(there.all())
        for side, whole in zip((shadow_member, ~shadow_member), sides, strict=True):
            # of a pair just one is on this side of a candidate
            gone = None if paired else side | (side[partner] & there[:, None])
            rest.append(whole.without(torch.where(side, values, of_partner), gone))
        # the only shadow on its side of a candidate leaves nothing to compare it with
        answered = self._spoken_of(*rest).expand_as(signal)
        if not answered.any():
            rest, answered = sides, self._spoken_of(*sides).expand_as(signal)
        return self.score(signal, *rest), answered

    def _spoken_of(self, members: "Side", others: "Side") -> Tensor:
        """Of which candidates there is what the score needs, bool (..., n)."""
        return (others.count > 0) & (members.count > 0) if self.online else others.count > 0

    def _check_sides(self, members: "Side", others: "Side") -> None:
        name = type(self).__name__
        needs = f"online {name} needs both" if self.online else f"{name} needs one that has not seen them"
        check_sides(self._spoken_of(members, others), members.shadows, needs, both=self.online)


def _spoken(answered: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
    """The entries of the parts (s, n) where `answered`, each (g,)."""
    if answered.all():
        return tuple(part.flatten() for part in parts)
    return tuple(part[answered] for part in parts)


def check_sides(spoken_of: Tensor, shadows: int, needs: str, both: bool = True) -> None:
    """Raises ValueError where the shadows do not speak of every candidate, bool (n,).

    Args:
        shadows: how many there are.
        needs: what the attack needs, for the message.
        both: whether that is shadows on both sides of membership, else one that has not seen the candidate.
    """
    if not spoken_of.all():
        raise ValueError(
            f"{int((~spoken_of).sum())} of {len(spoken_of)} candidates are members of {'none or of all' if both else 'all'} "
            f"of the {shadows} shadows; {needs}. Take splits.random_halves"
        )


def check(name: str, fewest: int, target: Views, shadows: Views, shadow_member: Tensor) -> None:
    """Raises ValueError for what an attack `name` on the same candidates cannot be called with, see `Calibrated`."""
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
    """Which of s models has a partner, whose members are its non-members, bool (s,); and its number, int64 (s,).

    The number means nothing where there is none. member: bool (s, n).
    """
    inside = member.double()
    alike = inside @ inside.T + (1 - inside) @ (1 - inside).T  # candidates that two have in common; exact
    return (alike == 0).any(1), (alike == 0).int().argmax(1)


class Side(NamedTuple):
    """Of the signal over the shadows on one side of membership: (n,), or (s, n) where some are left out."""

    count: Tensor  # int64; (n,) too where every game has one fewer
    mean: Tensor  # float64
    squares: Tensor  # float64, sum of the squared distances from the mean
    shadows: int  # on both sides together, nobody left out
    whole: "Side | None" = None  # the same with nobody left out, where some are

    @classmethod
    def of(cls, signal: Tensor, side: Tensor) -> "Side":
        """signal float64 (s, n), side bool (s, n)."""
        count = side.sum(0)
        mean = (signal * side).sum(0) / count.clamp(min=1)
        return cls(count, mean, (signal - mean).mul_(side).square_().sum(0), len(signal))

    def without(self, gone: Tensor, some: Tensor | None = None) -> "Side":
        """The same in s games, in each of which a candidate has lost one shadow of this side or none.

        gone: float64 (s, n), what the lost one said; some: bool (s, n), whether there is one; None: always.
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
        """Of the signal around each candidate's own mean, unbiased: one for all (..., 1), or of each (..., n)."""
        free = (self.count - 1).clamp(min=0)  # degrees of freedom
        if not fixed and (free > 0).all():
            return (self.squares / free).clamp_(min=FLOOR)
        known = free.sum(-1, keepdim=True)
        # two pairs leave one shadow a side in a game, and no variance: then that of nobody left out
        spare = FLOOR if self.whole is None else self.whole.variance(True)
        of_all = torch.where(known > 0, self.squares.sum(-1, keepdim=True) / known, spare)
        if fixed:
            return of_all.clamp(min=FLOOR)
        return torch.where(free > 0, self.squares / free, of_all).clamp(min=FLOOR)
