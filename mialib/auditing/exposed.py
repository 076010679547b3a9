"""The examples that an attack is surest of: which they are, and how they look where inputs are pictures."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mialib import figures
from mialib.auditing.judging import Judged
from mialib.figures import Picture, alt

KEPT = 10  # members, and others, of each network whose pictures are kept
SIDE = 96  # pixels; larger pictures are kept smaller
SMALLEST = 4  # pixels of a picture's side


def surest(judged: Judged, count: int, *, member: bool = True) -> np.ndarray:
    """Which of the scored examples look most like members, the surest first: int64 (at most `count`,), places in `judged`.

    Args:
        member: of the members; False: of the others, which would be accused wrongly.
    """
    order = np.argsort(-judged.margin, kind="stable")
    return order[judged.member[order] == member][:count]


def pictures(networks: Iterable[Judged], x: Tensor) -> dict[int, np.ndarray]:
    """Small pictures of the `KEPT` surest members and others of each network; empty where inputs are no pictures.

    Args:
        x: (n, ...), the inputs as the networks take them. Pictures are (n, 1 or 3, h, w) or (n, h, w, 1 or 3).

    Returns:
        Example -> float32 (1 or 3, h, w) in [0, 1]. What is neither in [0, 1] nor in bytes was normalised: each channel is
        stretched so that its least and largest value in all of `x` are 0 and 1.
    """
    seen = _as_pictures(x)
    if seen is None:
        return {}
    rows = {
        int(one.example[place])
        for one in networks
        for side in (True, False)
        for place in surest(one, KEPT, member=side)
    }
    low, high = _ends(seen)
    chosen = sorted(rows)
    shown = (seen[torch.tensor(chosen)].float() - low) / (high - low).clamp_min(1e-12)
    height, width = shown.shape[2:]
    if (longest := max(height, width)) > SIDE:
        size = [max(1, round(side * SIDE / longest)) for side in (height, width)]
        shown = F.interpolate(shown, size, mode="area")
    return dict(zip(chosen, shown.clamp(0, 1).numpy(), strict=True))


def gallery(name: str, judged: Judged, kept: Mapping[int, np.ndarray], count: int = KEPT) -> Picture:
    """A row of a network's surest members, and one of the others that look most like members, the surest first.

    Args:
        kept: what `pictures` gave.

    Raises:
        ValueError: no pictures, or a `count` that is not 1 to `KEPT`.
    """
    if not kept:
        raise ValueError(
            "there are no pictures to show: the inputs are none (n, 1 or 3, h, w), or only answers were given; `worst` gives a table"
        )
    if not 1 <= count <= KEPT:
        raise ValueError(f"count is {count!r}; it must be a whole number from 1 to {KEPT}, which are kept")
    sides = {
        "members": surest(judged, count),
        "others": surest(judged, count, member=False),
    }
    count = min(map(len, sides.values()))  # both rows are as long
    sides = {
        side: [(judged.example[i], judged.label[i]) for i in places[:count]] for side, places in sides.items()
    }
    drawn = figures.gallery(
        {side: np.stack([kept[int(row)] for row, _ in few]) for side, few in sides.items()},
        {side: [f"{row}\nclass {label}" for row, label in few] for side, few in sides.items()},
    )
    named = {side: alt.listed(f"{row} (class {label})" for row, label in few) for side, few in sides.items()}
    drawn.alt = (
        f"The pictures that the attack on {name} takes for members most surely, the surest first. Members: "
        f"examples {named['members']}. Others, which would be accused wrongly: examples {named['others']}."
    )
    return drawn


def _as_pictures(x: Tensor) -> Tensor | None:
    """(n, 1 or 3, h, w), or None."""
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.permute(0, 3, 1, 2)
    return x if x.ndim == 4 and x.shape[1] in (1, 3) and min(x.shape[2:]) >= SMALLEST else None


def _ends(x: Tensor) -> tuple[Tensor, Tensor]:
    """What is drawn black and white in each channel: (channels, 1, 1) each."""
    zeros = torch.zeros(x.shape[1], 1, 1)
    if x.dtype == torch.uint8:
        return zeros, zeros + 255
    low, high = (end.float()[:, None, None] for end in (x.amin((0, 2, 3)), x.amax((0, 2, 3))))
    return (zeros, zeros + 1) if low.min() >= 0 and high.max() <= 1 else (low, high)
