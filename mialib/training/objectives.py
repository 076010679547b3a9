"""The plain training loss; `mialib.defenses.losses` has those that defend."""

import torch.nn.functional as F
from torch import Tensor

from mialib.training.hooks import Batch, Forward
from mialib.training.population import Tensors


def cross_entropy(forward: Forward, params: Tensors, batch: Batch, step: int) -> Tensor:
    """Mean cross-entropy of each model, (k,)."""
    return mean_cross_entropy(forward(params, batch.x), batch.y)


def mean_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """logits (k, b, c), y (k, b) -> (k,)."""
    return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(y.shape).mean(1)
