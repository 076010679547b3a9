"""A control for quantisation: the same amount of damage to the weights, but at random."""

from collections.abc import Iterable
from dataclasses import replace

import torch

from mialib import streams
from mialib.training import Population, Tensors


def like_error(models: Population, compressed: Tensors, names: Iterable[str], seed: int = 0) -> Population:
    """The models with Gaussian noise on the named weights, as large as the change that the compression makes.

    Args:
        compressed: the models' parameters (k, *shape) after the compression. The noise of a weight tensor has the mean
            square of compressed - original, layer by layer and model by model.
        seed: each model's draws derive from it and the model's number, whatever other models there are.
    """
    noisy = {}
    for name in names:
        w = models.params[name]
        size = (compressed[name] - w).flatten(1).square().mean(1).sqrt()
        draws = [
            torch.randn(w.shape[1:], generator=streams.generator(seed, "weight noise", i, name))
            for i in range(len(models))
        ]
        noisy[name] = w + size.view(-1, *[1] * (w.ndim - 1)) * torch.stack(draws).to(w)
    return replace(models, params=models.params | noisy, keys=[])
