"""Are the imitations like the networks? An attacker who imitates badly finds less than there is."""

import math

import torch
from torch import Tensor

from mialib.auditing.findings import WARNING, Finding

SIZES_APART = 0.1  # share by which an imitation's members may be more or fewer than the network's
ACCURACY_APART = 0.05  # and by how much its accuracy may differ, beyond what differs between imitations
SPREADS = 3.0


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
    found = []
    for side, own, theirs in (
        ("what it has learned", member, imitated_member),
        ("other examples", ~member, ~imitated_member),
    ):
        if not bool(own.any()) or not bool(theirs.any(1).all()):
            continue
        value = float(right[own].double().mean())
        rates = torch.stack([one[of].double().mean() for one, of in zip(imitated_right, theirs, strict=True)])
        spread = float(rates.std()) * math.sqrt(1 + 1 / len(rates))
        if abs(value - float(rates.mean())) > max(ACCURACY_APART, SPREADS * spread):
            text = (
                f"{name} is right for {value:.1%} of {side}, its imitations for {float(rates.min()):.1%} to "
                f"{float(rates.max()):.1%}. So they are no good imitations, and the attacks find less than there is: "
                "give the recipe that the network was really trained by."
            )
            found.append(Finding(WARNING, "shadows", text, name))
    return found
