"""The label swapper: some members get another class's answer, so that members are right about as often as others.

    offline:  r = (acc(D1) - acc(D2)) / acc(D1);  S = r * |D1| members, drawn at random;  keys = F's answers on D1
    online:   if the nearest key is closer than `distance` and its member is in S: exchange the top score with another's

That r is too small. It assumes that every flagged member was right and becomes wrong. But S also holds wrong members, and
these become right if the class that takes the top score is the label, as the second class often is. With s the share of
members for which that holds, accuracy on D1 falls by r (acc(D1) - s) on average over S, so that

    acc(D1) - r (acc(D1) - s) = acc(D2)   where   r = (acc(D1) - acc(D2)) / (acc(D1) - s)

With the published r members stay right more often than D2, by r s: 0.547 instead of 0.512 where acc(D1) is 0.906 and s
0.08. The owner knows D1's labels and so s. With `rate` "corrected", `fit` uses that r; the default is the published one.

Source: Yang et al. 2023, arXiv:2212.00612, as described in a public note, and their public code. There S is the first
rows of D1, the other class is read at the example's place in its batch, and r comes from the test set. Here S is drawn,
the matched member's own class is used, and r comes from the reference set. Queries that hit a member's answer by chance
are swapped too, and a member whose answer moves in the last bits is missed; `error_rates` measures both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from mialib import streams
from mialib.defenses.state import Defender

FLOOR = -100.0  # log-posteriors below it count as equal in keys
BLOCK = 2**25  # entries of the largest temporary (queries x members): 256 MiB
SPACES = ("log", "probability")
RATES = ("published", "corrected")


@dataclass(frozen=True)
class Swapper:
    """The output defence (m, n, c) -> (m, n, c); in bounded memory for any number of answers.

    Args:
        keys: (k, n1, c) float64, the members' answers in `space`.
        flagged: bool (k, n1), S.
        other: int64 (k, n1), how far below the top class the class that takes its score stands: 1 is the second.
        distance: largest L2 distance at which an answer is a member's, in units of `space`.
        space: "log" compares log-posteriors, "probability" posteriors, in which saturated answers are all alike.
    """

    keys: Tensor
    flagged: Tensor
    other: Tensor
    distance: float
    space: Literal["log", "probability"] = "log"

    def __post_init__(self):
        if not self.distance > 0:
            raise ValueError(f"swapper: distance is {self.distance}; it must be positive")
        if self.space not in SPACES:
            raise ValueError(f"swapper: space is {self.space!r}; it must be one of {SPACES}")

    def __getitem__(self, models: slice | list[int]) -> "Swapper":
        return replace(self, keys=self.keys[models], flagged=self.flagged[models], other=self.other[models])

    def __call__(self, log_posteriors: Tensor) -> Tensor:
        swap, index = self.swaps(log_posteriors)
        ranking = log_posteriors.argsort(dim=-1, descending=True, stable=True)
        place = self.other.gather(1, index)[..., None]
        pair = torch.cat([ranking[..., :1], ranking.gather(-1, place)], dim=-1)
        swapped = log_posteriors.scatter(-1, pair, log_posteriors.gather(-1, pair.flip(-1)))
        return torch.where(swap[..., None], swapped, log_posteriors)

    def swaps(self, log_posteriors: Tensor) -> tuple[Tensor, Tensor]:
        """Which answers (m, n, c) are swapped, bool (m, n), and the member nearest to each, int64 (m, n)."""
        nearest = [self._nearest(i, own) for i, own in enumerate(log_posteriors)]
        near, index = (torch.stack(part) for part in zip(*nearest, strict=True))
        return (near < self.distance) & self.flagged.gather(1, index), index

    def _nearest(self, i: int, log_posteriors: Tensor) -> tuple[Tensor, Tensor]:
        """Distance to the nearest key of network i, and its index; from exact differences, not a matrix product."""
        nearest = [
            torch.cdist(part, self.keys[i], compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)
            for part in _key(log_posteriors, self.space).split(max(1, BLOCK // len(self.keys[i])))
        ]
        return torch.cat([one.values for one in nearest]), torch.cat([one.indices for one in nearest])


def fit(
    known: Defender,
    seed: int,
    *,
    distance: float = 1e-3,
    space: Literal["log", "probability"] = "log",
    other: Literal["second", "random"] = "second",
    rate: Literal["published", "corrected"] = "published",
) -> Swapper:
    """Draw S for each of the defender's networks.

    Args:
        distance, space: see `Swapper`. float32 networks give the same log-posterior within some 1e-5 in whatever batch an
            example is asked; the public code's 1e-5 is in probability.
        other: the class that takes the top score: the second largest, or one drawn for each member.
        rate: the share of the members in S, from 0 to 1. "published": the paper's, with which members stay right more
            often than D2 if a swap makes some of them right. "corrected": members are right as often as D2, on average
            over S (with a standard deviation of up to 0.5 / sqrt(|D1|)). If even swapping all of them is not enough,
            all are swapped; if D1 is right no more often than D2, none is.

    Raises:
        ValueError: an unknown rate, and what `Swapper` refuses.
    """
    if rate not in RATES:
        raise ValueError(f"swapper: rate is {rate!r}; it must be one of {RATES}")
    k, n, c = known.members.log_posteriors.shape
    orders, places = [], torch.ones(k, n, dtype=torch.long)
    for i, own in enumerate(known.seeds.tolist()):
        generator = streams.generator(seed, "swapped members", own)
        orders.append(torch.randperm(n, generator=generator))
        if other == "random":
            places[i] = torch.randint(1, c, (n,), generator=generator)
    shares = flip_rate(known, places if rate == "corrected" else None).tolist()
    flagged = torch.zeros(k, n, dtype=torch.bool)
    for own, order, share in zip(flagged, orders, shares, strict=True):
        own[order[: round(share * n)]] = True
    return Swapper(_key(known.members.log_posteriors, space), flagged, places, distance, space)


def flip_rate(known: Defender, other: Tensor | None = None) -> Tensor:
    """r, the share of each network's members to swap, (k,) float64 from 0 to 1.

    Args:
        other: int64 (k, n1), as in `Swapper`: gives the corrected r. None: the published one, as if no swap made a
            member right.
    """
    members = known.members
    right, reference = (
        (views.log_posteriors.argmax(-1) == views.labels).double().mean(1)
        for views in (members, known.reference)
    )
    gained = torch.zeros_like(right)
    if other is not None:
        ranking = members.log_posteriors.argsort(dim=-1, descending=True, stable=True)
        taking = ranking.gather(-1, other[..., None])[..., 0]
        gained = (taking == members.labels).double().mean(1)
    needed, each = right - reference, right - gained
    # where a swap gains as often as it loses, no number of swaps is enough
    return torch.where(needed > 0, torch.where(each > 0, needed / each, 1.0), 0.0).clamp(max=1)


def error_rates(swapper: Swapper, members: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Share of flagged members that are missed, and of all others that are swapped; (m,) float64 each.

    Args:
        members: (m, n1, c), fresh answers to the members in the order of the keys.
        others: (m, n, c), answers to non-members.
    """
    swapped, _ = swapper.swaps(members)
    missed = (swapper.flagged & ~swapped).sum(1) / swapper.flagged.sum(1)
    wrongly = torch.cat([swapped & ~swapper.flagged, swapper.swaps(others)[0]], dim=1)
    free = (~swapper.flagged).sum(1) + others.shape[1]
    return missed.double(), wrongly.sum(1) / free.double()


def error_table(
    known: Defender, seed: int, members: Tensor, others: Tensor, distances: Sequence[float]
) -> pd.DataFrame:
    """`error_rates` of swappers at several distances in both spaces: means over the first m networks, a row each.

    Args:
        known, seed: as in `fit`.
        members, others: of m of the networks, the first.
    """
    rates = {}
    for space in SPACES:
        for distance in distances:
            one = fit(known, seed, distance=distance, space=space)[: len(members)]
            missed, wrongly = error_rates(one, members, others)
            rates[space, f"{distance:g}"] = missed.nanmean().item(), wrongly.mean().item()
    return pd.DataFrame(rates, index=["flagged members missed", "others swapped"]).T


def _key(log_posteriors: Tensor, space: str) -> Tensor:
    return log_posteriors.exp() if space == "probability" else log_posteriors.clamp(min=FLOOR)
