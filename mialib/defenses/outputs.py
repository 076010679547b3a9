"""Defences of the answer alone: log-posteriors (..., c) float64 in, log-posteriors out. The model stays as it is.

Each answer is treated on its own, the input is not changed, and -inf may come and go.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mialib.defenses import keyed


@dataclass(frozen=True)
class Rounding:
    """Posteriors rounded to `bits` bits each, round((2^bits - 1) p) / (2^bits - 1), and scaled to sum to one again.

    If all of them round to zero (many classes, few bits), the answer is uniform and says nothing. Classes that round to
    zero have log-posterior -inf.

    Raises:
        ValueError: bits that are no whole number from 1 to 32.
    """

    bits: int

    def __post_init__(self):
        if self.bits not in range(1, 33):
            raise ValueError(f"rounding: {self.bits!r} bits; it must be a whole number from 1 to 32")

    def __call__(self, log_posteriors: Tensor) -> Tensor:
        steps = 2 ** int(self.bits) - 1
        return _scaled((log_posteriors.exp() * steps).round())


@dataclass(frozen=True)
class OneHot:
    """The predicted class and nothing else: log-posterior 0 for it (the first of equals), -inf for all others."""

    def __call__(self, log_posteriors: Tensor) -> Tensor:
        predicted = log_posteriors.argmax(-1, keepdim=True)
        return torch.full_like(log_posteriors, -torch.inf).scatter(-1, predicted, 0.0)


@dataclass(frozen=True)
class Temperature:
    """softmax(log p / strength): flatter answers above 1, sharper ones below; the order of the classes stays.

    An attacker who knows the strength can undo it, up to rounding.

    Raises:
        ValueError: a strength that is not positive and finite.
    """

    strength: float

    def __post_init__(self):
        if not 0 < self.strength < math.inf:
            raise ValueError(f"temperature: strength is {self.strength}; it must be positive and finite")

    def __call__(self, log_posteriors: Tensor) -> Tensor:
        below = log_posteriors - log_posteriors.amax(-1, keepdim=True)  # the largest stays 0 at any strength
        return (below / self.strength).log_softmax(-1)


@dataclass(frozen=True)
class TopK:
    """The k largest posteriors, scaled to sum to one; the other classes get 0. Of equals, the first are kept.

    Raises:
        ValueError: k that is no whole number from 1 on; when called, more than there are classes.
    """

    k: int

    def __post_init__(self):
        if not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"top k: k is {self.k!r}; it must be a whole number from 1 on")

    def __call__(self, log_posteriors: Tensor) -> Tensor:
        classes = log_posteriors.shape[-1]
        if self.k > classes:
            raise ValueError(f"top k: k is {self.k}; it must be at most the number of classes, {classes}")
        # a stable sort, since torch.topk leaves open which of equals it takes
        order = log_posteriors.sort(dim=-1, descending=True, stable=True).indices
        return log_posteriors.scatter(-1, order[..., self.k :], -torch.inf).log_softmax(-1)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise on the posteriors, clipped at 0 and scaled to sum to one again; labels may change.

    The noise is a function of the answer and the key (`keyed`): the same query gets the same reply. If every posterior is
    clipped, the answer is uniform. Yang et al. compare with random noise whose distribution we do not know; this one is
    ours.

    Args:
        strength: standard deviation of the noise, in units of the posteriors, 0 or more.
        key: the defender's secret, from 0 to 2^63 - 1.

    Raises:
        ValueError: a strength or a key out of range.
    """

    strength: float
    key: int = 0

    def __post_init__(self):
        if not 0 <= self.strength < math.inf:
            raise ValueError(f"noise: strength is {self.strength}; it must be 0 or more, and finite")
        keyed.check(self.key)

    def __call__(self, log_posteriors: Tensor) -> Tensor:
        noise = keyed.normal(log_posteriors, self.key, log_posteriors.shape[-1])
        return _scaled((log_posteriors.exp() + self.strength * noise).clamp(min=0))


def _scaled(weights: Tensor) -> Tensor:
    """log(weights / their sum), weights (..., c) >= 0; uniform where all are 0."""
    total = weights.sum(-1, keepdim=True)
    return weights.where(total > 0, 1.0).log() - total.where(total > 0, float(weights.shape[-1])).log()
