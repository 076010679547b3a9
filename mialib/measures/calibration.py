"""How far a model's posteriors can be believed. This judges a model, not an attack."""

import numpy as np
import torch
from torch import Tensor

from mialib.asking.posteriors import checked


def calibration_error(log_posteriors: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error, 0..1: how far the largest posteriors are from the share of right answers.

    |accuracy - mean confidence| of each of `bins` equal-width bins of the largest posterior, weighted by the bin's share
    of the examples; a bin includes its upper end. Guo et al. 2017, arXiv:1706.04599, section 2.

    A mean of absolute values is above 0 by chance alone, and more so with fewer examples: read it beside
    `calibration_error_by_chance`.

    Args:
        log_posteriors: (n, c), -inf allowed; labels: int64 (n,).
    """
    _check(log_posteriors, bins)
    log_p = checked(log_posteriors, labels)
    right, confidence = (log_p.argmax(-1) == labels).double(), log_p.amax(-1).exp()
    # a bin's share times its |accuracy - confidence| is |sum of right - confidence| / n
    gaps = confidence.new_zeros(bins).index_add(0, _bin(confidence, bins), right - confidence)
    return float(gaps.abs().sum() / len(labels))


def calibration_error_by_chance(log_posteriors: Tensor, bins: int = 15) -> float:
    """The average `calibration_error` if the posteriors are true, that is, if labels are drawn from them. 0..1.

    The number of right answers in a bin is then a sum of independent draws, each right with its confidence. The mean of
    |number - sum of confidences| is computed from the whole distribution of that sum: it is exact, nothing is drawn. It
    takes 50 ms for 10,000 examples and uses no labels. On 10 classes, with log-posteriors log_softmax(2 N(0, 1)), it is
    0.17 at n = 50, 0.12 at 100 and 0.04 at 1,000.

    Args:
        log_posteriors: (n, c), -inf allowed.
    """
    _check(log_posteriors, bins)
    first = log_posteriors.new_zeros(len(log_posteriors), dtype=torch.int64)
    confidence = checked(log_posteriors, first).amax(-1).exp().clamp(max=1).cpu()
    which, total = _bin(confidence, bins), 0.0
    for each in which.unique():
        own = confidence[which == each].numpy()
        total += np.abs(np.arange(len(own) + 1) - own.sum()) @ _number_right(own)
    return float(total / len(confidence))


def _number_right(chances: np.ndarray) -> np.ndarray:
    """Distribution (n + 1,) of the number of successes in independent draws with these chances (n,), n > 0."""
    if len(chances) == 1:
        return np.array([1 - chances[0], chances[0]])
    half = len(chances) // 2
    return np.convolve(_number_right(chances[:half]), _number_right(chances[half:]))


def _bin(confidence: Tensor, bins: int) -> Tensor:
    """The bin of each largest posterior (n,), from 0; a bin includes its upper end."""
    inner = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype, device=confidence.device)[1:-1]
    return torch.bucketize(confidence, inner)


def _check(log_posteriors: Tensor, bins: int) -> None:
    if log_posteriors.ndim != 2 or len(log_posteriors) == 0 or bins < 1:
        raise ValueError(
            f"log_posteriors have shape {tuple(log_posteriors.shape)} and bins is {bins};"
            " it takes (n, classes) of one model with n > 0, and at least one bin"
        )
