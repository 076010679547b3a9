"""How far a model's posteriors can be believed: it judges a model, not an attack."""

import torch
from torch import Tensor

from mialib.asking.posteriors import checked


def calibration_error(log_posteriors: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error, 0..1: how far the largest posteriors are from the share of right answers.

    |accuracy - mean confidence| of each of `bins` equal-width bins of the largest posterior, weighted with
    the bin's share of the examples; a bin holds its upper end. Guo et al. 2017, arXiv:1706.04599, section 2.

    Args:
        log_posteriors: (n, c), -inf allowed; labels: int64 (n,).
    """
    if log_posteriors.ndim != 2 or len(log_posteriors) == 0 or bins < 1:
        raise ValueError(
            f"log_posteriors have shape {tuple(log_posteriors.shape)} and bins is {bins};"
            " it takes (n, classes) of one model with n > 0, and at least one bin"
        )
    log_p = checked(log_posteriors, labels)
    right, confidence = (log_p.argmax(-1) == labels).double(), log_p.amax(-1).exp()
    inner = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype, device=confidence.device)[1:-1]
    # a bin's share times its |accuracy - confidence| is |sum of right - confidence| / n
    gaps = confidence.new_zeros(bins).index_add(0, torch.bucketize(confidence, inner), right - confidence)
    return float(gaps.abs().sum() / len(labels))
