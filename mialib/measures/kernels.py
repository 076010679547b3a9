"""Gaussian kernels between samples, the building block of maximum mean discrepancies (MMD)."""

from collections.abc import Iterable

from torch import Tensor


def gaussian(a: Tensor, b: Tensor, variances: Iterable[float]) -> Tensor:
    """Sum over the variances v of exp(-|a - b|^2 / 2 v): (..., s, d), (..., t, d) -> (..., s, t)."""
    # not cdist: its square root has no gradient at 0
    squared = (a[..., :, None, :] - b[..., None, :, :]).square().sum(-1)
    return sum((squared / (-2 * v)).exp() for v in variances)
