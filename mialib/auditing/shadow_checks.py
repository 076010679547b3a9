"""Are the imitations like the networks? An attacker who imitates badly finds less than there is."""

import math

import torch
from torch import Tensor

from mialib.auditing.findings import REFUSED, WARNING, Finding

SIZES_APART = 0.1  # share by which an imitation's members may be more or fewer than the network's
FAR = 0.15  # accuracies, or their differences between what was learned and what was not, that no good imitation has
ACCURACY_APART = 0.05  # and by how much its accuracy may differ, beyond what differs between imitations
SPREADS = 3.0
SIDES = ("what it has learned", "other examples")


def of_sizes(sizes: Tensor, members: int) -> list[Finding]:
    """Imitations that have learned more or fewer examples than the networks; sizes int64 (s,)."""
    if bool(((sizes - members).abs() <= SIZES_APART * members).all()):
        return []
    found = (
        f"{int(sizes.min()):,}"
        if sizes.min() == sizes.max()
        else f"{int(sizes.min()):,} to {int(sizes.max()):,}"
    )
    text = (
        f"The imitations have learned {found} examples, the networks {members:,}. Networks that learn fewer examples know each of "
        "them better, so the attacker takes the networks for others than they are. Train imitations on as many."
    )
    return [Finding(WARNING, "shadows", text)]


def of_accuracies(
    name: str,
    right: Tensor,
    member: Tensor,
    imitated_right: Tensor,
    imitated_member: Tensor,
) -> list[Finding]:
    """A network whose accuracy on what it has learned, or on what it has not, is not that of its imitations.

    Args:
        name: of the network.
        right, member: bool (n,), which candidates it classifies correctly, and which it has learned.
        imitated_right, imitated_member: bool (s, n), the same of each of its imitations.
    """
    if not bool(member.any() and (~member).any()):
        return []
    own = torch.stack([right[side].double().mean() for side in (member, ~member)])
    rates = torch.stack([_rates(*one) for one in zip(imitated_right, imitated_member, strict=True)])
    spread = SPREADS * math.sqrt(1 + 1 / len(rates)) * rates.std(0)
    far = (own - rates.mean(0)).abs()
    memory = float(
        (own[0] - own[1] - (rates[:, 0] - rates[:, 1]).mean()).abs()
    )  # what learning an example changes
    apart = far > spread.clamp(min=ACCURACY_APART)
    if not bool(apart.any()) and memory <= FAR:
        return []
    said = "; ".join(
        f"for {value:.1%} of {side} ({low:.1%} to {high:.1%})"
        for side, value, low, high in zip(
            SIDES, own.tolist(), rates.amin(0).tolist(), rates.amax(0).tolist(), strict=True
        )
    )
    refused = bool((far > FAR).any()) or memory > FAR
    text = (
        f"{name} is right {said}; in brackets: its imitations. So they are no good imitations, and "
        f"{'nothing can be learned from them' if refused else 'the attacks find less than there is'}: give the recipe that the "
        "network was really trained by, on the data that it is given."
    )
    return [Finding(REFUSED if refused else WARNING, "shadows", text, name)]


def _rates(right: Tensor, member: Tensor) -> Tensor:
    """The accuracy on what an imitation has learned, and on what it has not: (2,)."""
    return torch.stack([right[side].double().mean() for side in (member, ~member)])
