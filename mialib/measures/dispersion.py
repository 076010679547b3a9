"""How answers look and what an output defence does to them: dispersion, distortion, label loss.

Answers are log-posteriors (..., n, c) float64, -inf allowed; each figure is one number for the n of them, (...,) float64.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Dispersion(NamedTuple):
    """How far answers spread. The formula of Yang et al. 2020 is unknown; these three are our reconstruction."""

    entropy: Tensor  # mean of the normalised entropy, in [0, 1]
    entropy_sd: Tensor  # its standard deviation
    # trace of the covariance of the posteriors within a predicted class, mean over answers
    class_spread: Tensor
    top_sd: Tensor  # standard deviation of the largest posterior


def spread(log_posteriors: Tensor) -> Dispersion:
    """The three measures (the first with its spread) of answers (..., n, c)."""
    p = log_posteriors.exp()
    entropy = normalised_entropy(log_posteriors)
    within = (p - _class_means(p)).square().sum(-1).mean(-1)
    return Dispersion(entropy.mean(-1), entropy.std(-1), within, p.amax(-1).std(-1))


def normalised_entropy(log_posteriors: Tensor) -> Tensor:
    """Entropy / log c of each answer, (..., n, c) -> (..., n) in [0, 1]."""
    p = log_posteriors.exp()
    return -(p * log_posteriors.masked_fill(p == 0, 0.0)).sum(-1) / math.log(p.shape[-1])


def beyond_the_label(log_posteriors: Tensor) -> Tensor:
    """Mean L1 distance of answers from the mean answer for their predicted class; at most 2.

    It is 0 where an answer depends only on the predicted label, as with one-hot answers or a collapsed reformer.
    """
    p = log_posteriors.exp()
    return (p - _class_means(p)).abs().sum(-1).mean(-1)


def distortion(before: Tensor, after: Tensor) -> Tensor:
    """Mean L1 distance of the posteriors, from 0 to 2."""
    return (after.exp() - before.exp()).abs().sum(-1).mean(-1)


def label_loss(before: Tensor, after: Tensor) -> Tensor:
    """Share of the answers whose predicted class changed."""
    return (after.argmax(-1) != before.argmax(-1)).double().mean(-1)


def _class_means(p: Tensor) -> Tensor:
    """The mean posterior of each answer's predicted class, (..., n, c)."""
    label = torch.zeros_like(p).scatter(-1, p.argmax(-1, keepdim=True), 1.0)
    return label @ (label.mT @ p / label.sum(-2).clamp(min=1)[..., None])
