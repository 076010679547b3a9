"""A penalty on how differently a model answers members and other examples, by maximum mean discrepancy (MMD).

    MMD^2(P, R) = mean k(p, p') + mean k(r, r') - 2 mean k(p, r),    k(a, b) = mean over s of exp(-|a - b|^2 / 2 s^2)

P are the sorted posteriors of a batch of members, R those of as many reserve examples (sorted, so that classes do not
count). After Li, Li & Ribeiro 2021, arXiv:2002.12062, who compare class by class and add mixup. With a quantised forward
pass it is arm L of our reconstruction of MIA-aware quantisation. The widths s are ours.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mialib.measures.kernels import gaussian
from mialib.training import Batch, Forward, Tensors


@dataclass(frozen=True)
class MMD:
    """An `opponent` of `training.fit` that never learns: strength * MMD^2 between batches of members and of the reserve.

    The gradient flows through both sides; BatchNorm's running statistics see both.

    Args:
        strength: weight of the penalty in the loss, 0 or more.
        widths: of the Gaussian kernels, in posterior units; sorted posteriors are at most sqrt(2) apart.

    Raises:
        ValueError: a negative strength, or a width that is not positive.
    """

    strength: float
    widths: tuple[float, ...] = (0.05, 0.2, 0.8)

    def __post_init__(self):
        if not self.strength >= 0:
            raise ValueError(f"MMD: strength is {self.strength}; it must be 0 or more (0.1 to 2 are usual)")
        if not self.widths or min(self.widths) <= 0:
            raise ValueError(f"MMD: widths are {self.widths}; at least one, all positive")

    def begin(self, seeds: list[int], device: torch.device):
        """play(forward, params, batch, reference, step) -> penalty (k,); nothing is kept between the steps."""
        return self._penalty

    def _penalty(
        self, forward: Forward, params: Tensors, batch: Batch, reference: Batch, step: int
    ) -> Tensor:
        members, others = (
            forward(params, part.x).softmax(-1).sort(-1, descending=True).values
            for part in (batch, reference)
        )
        return self.strength * squared_mmd(members, others, self.widths)


def squared_mmd(a: Tensor, b: Tensor, widths: tuple[float, ...]) -> Tensor:
    """MMD^2 of each of k pairs of samples, a (k, n, d) and b (k, m, d) -> (k,); 0 or more, 0 for equal samples.

    The mean over all pairs, including each example with itself (the V-statistic of Gretton et al. 2012).
    """
    variances = [width**2 for width in widths]
    return sum(
        sign * (gaussian(x, y, variances) / len(widths)).mean((1, 2))
        for sign, x, y in ((1, a, a), (1, b, b), (-2, a, b))
    )
