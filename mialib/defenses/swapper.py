"""The label swapper: some members get another class's answer, so that members are right no more often than others.

    offline:  r = (acc(D1) - acc(D2)) / acc(D1);  S = r * |D1| members, drawn at random;  keys = F's answers on D1
    online:   if the nearest key is closer than `distance` and its member is in S: exchange the top score with another's

Source: Yang et al. 2023, arXiv:2212.00612, as described in a public note, and their public code. There S is the first
rows of D1, the other class is read at the example's place in its batch, and r from the test set; here S is drawn, the
matched member's own class is taken, and r comes from the reference set. Queries that hit a member's answer by chance are
swapped too, and a member whose answer moves in the last bits is missed: `error_rates` measures both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from mialib import streams
from mialib.defenses.state import Defender

FLOOR = -100.0  # log-posteriors below it are alike as keys
BLOCK = 2**25  # entries of the largest temporary (queries x members): 256 MiB
SPACES = ("log", "probability")


@dataclass(frozen=True)
class Swapper:
    """The output defence (m, n, c) -> (m, n, c); in bounded memory for any number of answers.

    Args:
        keys: (k, n1, c) float64, the members' answers in `space`.
        flagged: bool (k, n1), S.
        other: int64 (k, n1), how many places below the top class the one stands that takes its score: 1 is the second.
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
        """Which of the answers (m, n, c) are swapped, bool (m, n), and the member nearest to each, int64 (m, n)."""
        nearest = [self._nearest(i, own) for i, own in enumerate(log_posteriors)]
        near, index = (torch.stack(part) for part in zip(*nearest, strict=True))
        return (near < self.distance) & self.flagged.gather(1, index), index

    def _nearest(self, i: int, log_posteriors: Tensor) -> tuple[Tensor, Tensor]:
        """Distance to the nearest key of network i, and its index; the exact differences, no matrix product."""
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
) -> Swapper:
    """Draw S for each of the defender's networks.

    Args:
        distance, space: see `Swapper`. float32 networks give the same log-posterior within some 1e-5 whatever batch an
            example comes in; the public code's 1e-5 is in probability.
        other: the class that takes the top score: the second largest, or one drawn for each member.
    """
    accuracy = [
        (views.log_posteriors.argmax(-1) == views.labels).double().mean(1)
        for views in (known.members, known.reference)
    ]
    rate = ((accuracy[0] - accuracy[1]) / accuracy[0]).clamp(min=0).nan_to_num(0)
    k, n, c = known.members.log_posteriors.shape
    flagged, places = torch.zeros(k, n, dtype=torch.bool), torch.ones(k, n, dtype=torch.long)
    for i, own in enumerate(known.seeds.tolist()):
        generator = streams.generator(seed, "swapped members", own)
        flagged[i, torch.randperm(n, generator=generator)[: round(float(rate[i]) * n)]] = True
        if other == "random":
            places[i] = torch.randint(1, c, (n,), generator=generator)
    return Swapper(_key(known.members.log_posteriors, space), flagged, places, distance, space)


def error_rates(swapper: Swapper, members: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Share of flagged members that are missed, and of all others that are swapped; (m,) float64 each.

    Args:
        members: (m, n1, c), fresh answers to the members in the order of the keys.
        others: (m, n, c), answers to examples that are no members.
    """
    swapped, _ = swapper.swaps(members)
    missed = (swapper.flagged & ~swapped).sum(1) / swapper.flagged.sum(1)
    wrongly = torch.cat([swapped & ~swapper.flagged, swapper.swaps(others)[0]], dim=1)
    free = (~swapper.flagged).sum(1) + others.shape[1]
    return missed.double(), wrongly.sum(1) / free.double()


def error_table(
    known: Defender, seed: int, members: Tensor, others: Tensor, distances: Sequence[float]
) -> pd.DataFrame:
    """`error_rates` of swappers at several distances in both spaces: means over the first m networks, a line each.

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
