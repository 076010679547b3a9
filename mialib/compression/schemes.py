"""Quantised networks: after training, fine-tuned from full precision, or trained from scratch.

A `Scheme` says which weights and activations get how many bits; the three ways to a network take the same one. The
result is a population of float networks whose weights lie on their grids; `int8_networks` has networks that compute
in integers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from mialib import training
from mialib.compression import quantization, quantized_relu, recalibration
from mialib.compression.quantization import FULL, Quantizer
from mialib.data import Dataset, Splits, splits
from mialib.training import Population, Recipe

FAMILIES = (
    "after training",
    "fine-tuned",
    "fine-tuned, activations too",
    "from scratch",
    "from scratch, activations too",
)


@dataclass(frozen=True)
class Scheme:
    """Bit-widths of a network.

    Args:
        quantizer: of the weights.
        activations: bits of every ReLU, 32 for none.
        last_activation: bits of the last ReLU, which feeds the last layer; None: as the others.
    """

    quantizer: Quantizer
    activations: float = FULL
    last_activation: float | None = None


def scheme(
    make_model: Callable[[], nn.Module],
    bits: float,
    *,
    method: str = "dorefa",
    activations: float = FULL,
    edge: float | None = 8,
) -> Scheme:
    """The same width everywhere, but for the first and last layer and the activations that go into the last.

    Args:
        bits: of the weights.
        method: one of `quantization.METHODS`.
        activations: bits of the activations.
        edge: least width of the first and the last layer, whose damage is worst; None: as all others.
    """
    widths = quantization.widths(make_model, bits, first=edge, last=edge)
    return Scheme(Quantizer(method, widths), activations, edge)


def post_training(models: Population, data: Dataset, index: Tensor, scheme: Scheme) -> Population:
    """The trained models, quantised without training: weights, BatchNorm, the ReLUs' ranges, and BatchNorm once more.

    Args:
        index: calibration examples, int64 (k, n), each model's own; `splits.indices(split.reserve)` for one.

    Raises:
        ValueError: no calibration examples.
    """
    quantized = replace(models, params=scheme.quantizer(models.params), keys=[])
    quantized = recalibration.batchnorm(quantized, data, index)
    if scheme.activations == FULL:
        return quantized
    quantized = recalibration.clips(quantized, data, index, scheme.activations, scheme.last_activation)
    return recalibration.batchnorm(quantized, data, index)


def aware(
    make_model: Callable[[], nn.Module],
    data: Dataset,
    split: Splits,
    recipe: Recipe,
    scheme: Scheme,
    start: Population | None = None,
    **options,
) -> Population:
    """Models trained with quantised weights and activations in every forward pass (quantisation-aware training).

    Args:
        start: full-precision models to fine-tune; the ReLUs' ranges are then measured on each model's reserve, behind
            its quantised weights. None: from scratch, and the ranges are 1.
        options: further arguments of `training.fit`.
    """
    network = make_model
    if scheme.activations != FULL:
        bits = (scheme.activations, scheme.last_activation)
        network = quantized_relu.quantized(make_model, *bits)
        if start is not None:
            weights = replace(start, params=scheme.quantizer(start.params))
            ranges = recalibration.clips(weights, data, splits.indices(split.reserve), *bits)
            start = replace(ranges, params=start.params)
    return training.fit(network, data, split, recipe, start=start, compress=scheme.quantizer, **options)
