"""A control of quantisation: the same amount of damage to the weights, but at random."""

from collections.abc import Iterable
from dataclasses import replace

import torch

from mialib.training import Population, Tensors


def like_error(models: Population, compressed: Tensors, names: Iterable[str], seed: int = 0) -> Population:
    """The models with Gaussian noise on the named weights, as much of it as the compression moves them.

    Args:
        compressed: the models' parameters (k, *shape) after the compression. The noise of a weight tensor has the mean
            square of compressed - original, layer by layer and model by model.
        seed: model number i draws from seed + i, whatever the others are.
    """
    noisy = {}
    for place, name in enumerate(names):
        w = models.params[name]
        size = (compressed[name] - w).flatten(1).square().mean(1).sqrt()
        draws = [
            torch.randn(w.shape[1:], generator=torch.Generator().manual_seed(1000 * (seed + i) + place))
            for i in range(len(models))
        ]
        noisy[name] = w + size.view(-1, *[1] * (w.ndim - 1)) * torch.stack(draws).to(w)
    return replace(models, params=models.params | noisy, keys=[])
