"""BlindMI-Diff: membership by differential comparison with probes that are certainly non-members.

Source: Hui et al. 2021, NDSS, arXiv:2101.01341, variant "Diff-w"; public code hyhmia/BlindMI (BlindMI_Diff_W.py). The
attack needs no shadow models and no threshold. Within the target's own answers it compares each candidate with a small
set of answers to inputs that nobody trained on.

1. Features of an answer: posterior of the true class, largest and second largest posterior.
2. Reference set: the target's answers to `probes` filtered candidates (with the labels of the candidates they
   were made of).
3. The candidates go in random batches of about `batch`; all start as members. In each sweep, every candidate
   still called a member is tentatively moved to the reference set. If that makes the MMD^2 between reference
   set and remaining members grow, it is called a non-member at the end of the sweep. Sweeps go on until one
   changes nothing.

MMD^2 is the biased estimate (means over all pairs, each sample with itself included) under the sum of 19
Gaussian kernels exp(-d^2 / (2 w)), floored at 1e-4, so that differences below it never count as growth.

Points that the paper's code leaves open or handles otherwise, and our reading:
- The reference set itself never grows: a candidate that is called a non-member only leaves its batch, as in the code.
- A single remaining member of a batch stays one: without it there is nothing to compare (in the code, nan).
- Batches differ in size by at most one; the code's last batch takes the remainder and may hold a single
  candidate.
- Probes are made of distinct candidates; the code draws with replacement.
- The Sobel filter acts on images with pixels 0 to 255, the candidates here are normalised. The lowest and the
  highest value of each channel over all candidates stand for 0 and 255, so that the probes are normalised
  like any input. Nothing is rounded to whole pixel values.
- The filter is undefined for features. There a probe takes each feature from a candidate drawn independently for that
  feature: this keeps the marginals but not what makes up a training example. A choice of ours.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mialib import streams
from mialib.asking import Views
from mialib.attacks.averaging import needs_door
from mialib.measures.kernels import gaussian

# Widths w of the kernels, on the scale of squared distances; from the public code.
WIDTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 5, 10, 15, 20, 25, 30, 35, 100, 1e3, 1e4, 1e5, 1e6)
FLOOR = 1e-4  # smallest MMD^2 that counts as different from 0


@dataclass(frozen=True)
class BlindMIDiff:
    """The attack, with its number of probes and its batch size (20 and 20 in the public code).

    Called as every attack, (target, shadows, shadow_member, seed) -> margins (n,) float64, +1 member and -1
    non-member; the shadows are ignored and may be None. `seed` decides the probes and the batches. Raises
    ValueError where the target is not one model, lacks `x` or `query`, is neither images nor features, or has
    fewer candidates than probes.
    """

    probes: int = 20
    batch: int = 20
    needs: ClassVar[frozenset[str]] = frozenset({"queries"})

    def __post_init__(self):
        if self.probes < 1:
            raise ValueError(f"probes must be at least 1, found {self.probes}")
        if self.batch < 2:
            raise ValueError(
                f"batch must be at least 2 candidates, found {self.batch}: one has nothing to compare with"
            )

    @property
    def queries(self) -> int:
        """Queries to the target beyond one for each candidate."""
        return self.probes

    def __call__(
        self, target: Views, shadows: Views | None = None, shadow_member: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        self._check(target)
        x, labels = target.x[0], target.labels[0]
        generator = streams.generator(seed, "BlindMI")  # on the CPU: the same draws on every device
        order = torch.randperm(len(labels), generator=generator).to(x.device)
        chosen = order[: self.probes]
        probes = sobel(x, chosen) if x.ndim == 4 else shuffled_features(x, self.probes, generator)
        reference = features(target.query(probes[None])[0].to(labels.device), labels[chosen])

        order = torch.randperm(len(labels), generator=generator).to(labels.device)
        batches = -(-len(labels) // self.batch)
        size = -(-len(labels) // batches)
        # Row b of `place` holds candidates b, b + batches, ... of the order; -1 fills rows one short.
        place = F.pad(order, (0, size * batches - len(labels)), value=-1).reshape(size, batches).T
        seen = features(target.log_posteriors[0], labels)[place]
        member = differential_comparison(seen, place >= 0, reference)
        margins = seen.new_full((len(labels),), -1.0)
        margins[place[member]] = 1.0
        return margins

    def _check(self, target: Views) -> None:
        target.check_single()
        needs_door(target, "target")
        if target.x.ndim not in (3, 5):
            raise ValueError(
                "target.x must be images (1, n, c, h, w) or features (1, n, d), "
                f"found {tuple(target.x.shape)}"
            )
        if target.labels.shape[1] < self.probes:
            raise ValueError(
                f"probes must be at most the number of candidates, "
                f"{target.labels.shape[1]}, found {self.probes}"
            )


def features(log_posteriors: Tensor, labels: Tensor) -> Tensor:
    """Posterior of the true class, largest and second largest posterior: (n, c), (n,) -> (n, 3) float64."""
    p = log_posteriors.double().exp()
    return torch.cat([p.gather(1, labels[:, None]), p.topk(2, dim=1).values], dim=1)


def sobel(x: Tensor, chosen: Tensor) -> Tensor:
    """Sobel-filtered candidates x[chosen], normalised as x: (n, c, h, w), int64 (k,) -> (k, c, h, w).

    Mean of the absolute horizontal and vertical gradients (3 x 3), each capped at white, borders mirrored.
    Black and white are each channel's lowest and highest value in x.
    """
    black, white = x.amin((0, 2, 3)), x.amax((0, 2, 3))
    cap = (white - black)[:, None, None]
    smooth, differ = x.new_tensor([1.0, 2.0, 1.0]), x.new_tensor([-1.0, 0.0, 1.0])
    kernel = torch.stack([torch.outer(smooth, differ), torch.outer(differ, smooth)])[:, None]  # (2, 1, 3, 3)
    k, c, h, w = x[chosen].shape
    single = F.pad(x[chosen].reshape(k * c, 1, h, w), (1, 1, 1, 1), mode="reflect")
    gradients = F.conv2d(single, kernel).abs().reshape(k, c, 2, h, w)
    return black[:, None, None] + torch.minimum(gradients, cap[:, None]).mean(2)


def shuffled_features(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k rows, each feature drawn from the candidates' on its own: x (n, d) -> (k, d)."""
    rows = torch.randint(len(x), (k, x.shape[1]), generator=generator).to(x.device)
    return x.gather(0, rows)


def differential_comparison(seen: Tensor, valid: Tensor, reference: Tensor) -> Tensor:
    """Which candidates are members, (b, s) bool: seen (b batches, s, f) features, valid (b, s) bool, reference (r, f).

    A batch's MMD^2 is made of three sums of kernel values (within the reference set, within the members,
    between). The kernel matrices are computed once; moving a sample then changes each sum by a row sum of
    them, so that a sweep is one product.
    """
    r, own = len(reference), float(len(WIDTHS))  # kernel of a sample with itself: 1 for each width
    within_reference = gaussian(reference, reference, WIDTHS).sum()
    to_reference = gaussian(seen, reference, WIDTHS).sum(-1)  # (b, s)
    kernel = gaussian(seen, seen, WIDTHS)  # (b, s, s)
    member = valid
    while True:
        count = member.sum(-1, keepdim=True)  # (b, 1)
        to_members = torch.einsum("bst,bt->bs", kernel, member.double())
        within = (to_members * member).sum(-1, keepdim=True)
        between = (to_reference * member).sum(-1, keepdim=True)
        now = _mmd2(within_reference, r, within, count, between)
        moved = _mmd2(
            within_reference + 2 * to_reference + own,
            r + 1,
            within - 2 * to_members + own,
            count - 1,
            between - to_reference + to_members - own,
        )
        grows = member & (count > 1) & (moved > now)
        if not grows.any():
            return member
        member = member & ~grows


def _mmd2(within_a: Tensor, a: int, within_b: Tensor, b: Tensor, between: Tensor) -> Tensor:
    """MMD^2 from sums of kernel values and set sizes, floored."""
    b = b.clamp(min=1)  # an empty set is never compared; this only keeps nan out
    return (within_a / a**2 + within_b / b**2 - 2 * between / (a * b)).clamp(min=FLOOR)
