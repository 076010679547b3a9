"""What each shadow model of an audit learns: random halves of the examples on which the networks are judged.

A network has learned its members M and not the others N, in any numbers. The attacker's shadow models learn as many
examples as it did, drawn from the same two sets, so that each candidate is a member of exactly half of them:

    candidates   h members and h others, as many as there are of the smaller set
    shadows      come in pairs; the first learns a random half of the candidates, the second the other half
    known        members that are no candidates are learned by all shadows: the attacker is taken to know them

Canaries are others that get a wrong label. They are candidates of no network; each is learned by one shadow of a pair, by
a fair coin. A plan with canaries makes room for them, so that its shadows learn as many examples as the network, on average.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mialib import streams
from mialib.data import canaries

FEWEST = 20  # candidates of each side


class Plan(NamedTuple):
    """candidates: int64 (r,), rows of the user's examples, on which the networks are judged.
    canaries: int64 (c,), further rows, and their wrong classes `wrong` int64 (c,).
    learned: bool (s, n), what each shadow learns, canaries among it.
    """

    candidates: Tensor
    canaries: Tensor
    wrong: Tensor
    learned: Tensor


def planned(member: Tensor, labels: Tensor, classes: int, n: int, planted: int, seed: int) -> Plan:
    """The plan of `n` shadows, an even number, with `planted` canaries.

    Args:
        member, labels: bool (m,) and int64 (m,), of the user's examples.

    Raises:
        ValueError: too few examples of a side.
    """
    sides = [_shuffled(side.nonzero()[:, 0], seed, name) for side, name in ((member, "in"), (~member, "out"))]
    room = planted // 2  # half of the canaries are learned by a shadow
    half = min(len(sides[0]) - room, len(sides[1]) - planted)
    if half < FEWEST:
        raise ValueError(
            f"shadow models need {FEWEST} candidates of each side or more, and {len(sides[0])} members and {len(sides[1])} "
            f"others{f' with {planted} canaries' if planted else ''} leave {max(half, 0)}; give more examples"
        )
    inside, others = sides
    chosen = torch.cat([inside[:half], others[:half]])
    own = others[half : half + planted]
    known = inside[half : len(inside) - room]
    learned = torch.zeros(n, len(member), dtype=torch.bool)
    learned[:, known] = True
    for first in range(0, n, 2):
        for model, part in zip(
            (first, first + 1), _shuffled(chosen, seed, "pair", first).chunk(2), strict=True
        ):
            learned[model, part] = True
    if planted:
        learned[:, own] = canaries.coins(n, planted, seed, in_pairs=True)
    return Plan(chosen, own, canaries.wrong_labels(labels[own], classes, seed), learned)


def _shuffled(index: Tensor, seed: int, *name) -> Tensor:
    return index[torch.randperm(len(index), generator=streams.generator(seed, "shadows of an audit", *name))]
