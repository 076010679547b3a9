"""Quantised networks: after training, fine-tuned from full precision, or trained from scratch.

A `Scheme` says how many bits which weights and activations get; all three ways to a network take the same one. The result
is a population of float networks whose weights lie on their grids; `int8_networks` has networks that compute in integers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from torch import Tensor, nn

from mialib import training
from mialib.compression import quantization, quantized_relu, recalibration
from mialib.compression.quantization import FULL, Quantizer
from mialib.compression.rounding import LearnedRounding
from mialib.data import Dataset, Splits, splits
from mialib.training import Population, Recipe
from mialib.training.hooks import Augment

FAMILIES = (
    "after training",
    "fine-tuned",
    "fine-tuned, activations too",
    "from scratch",
    "from scratch, activations too",
)
WITH_ACTIVATIONS = ("fine-tuned, activations too", "from scratch, activations too")


@dataclass(frozen=True)
class Scheme:
    """Bit-widths of a network.

    Args:
        quantizer: of the weights.
        activations: bits of every ReLU, 32 for none.
        last_activation: bits of the last ReLU, which feeds the last layer; None: like the others.
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
    last: float | None = None,
) -> Scheme:
    """The same width everywhere, except for the first and last layer and the activations that go into the last.

    Args:
        bits: of the weights.
        method: one of `quantization.METHODS`.
        activations: bits of the activations.
        edge: least width of the first and the last layer, where damage is worst; None: like all others.
        last: least width of the last layer alone, whose weights make the answers: 32 leaves it as it is, 1 gives it the
            width of all others; None: like the first.
    """
    widths = quantization.widths(make_model, bits, first=edge, last=edge if last is None else last)
    return Scheme(Quantizer(method, widths), activations, edge)


def of_family(
    make_model: Callable[[], nn.Module],
    family: str,
    bits: float,
    edge: float | None = 8,
    last: float | None = None,
) -> Scheme:
    """The scheme of one of `FAMILIES`: affine after training, else DoReFa; activations are quantised if its name says so.

    Args:
        bits: of the weights; rounded up, of the activations.
        edge, last: as in `scheme`.

    Raises:
        ValueError: an unknown family.
    """
    if family not in FAMILIES:
        raise ValueError(
            f"quantisation: unknown family {family!r}; valid are {', '.join(map(repr, FAMILIES))}"
        )
    method = "affine" if family == "after training" else "dorefa"
    activations = math.ceil(bits) if family in WITH_ACTIVATIONS else FULL
    return scheme(make_model, bits, method=method, activations=activations, edge=edge, last=last)


def overview(
    make_model: Callable[[], nn.Module], bits: Sequence[float], edge: float | None = 8
) -> pd.DataFrame:
    """A row for each bit-width: "8 / 2 / 8" for the first, the other and the last layers, and a network's bytes.

    Bytes are those of DoReFa weights at their widths and of the rest in 32 bits (`quantization.stored_bytes`).
    """
    params = {name: tensor[None] for name, tensor in make_model().named_parameters()}
    lines = {}
    for b in bits:
        widths = scheme(make_model, b, edge=edge).quantizer.bits
        lines[b] = {
            "first, others, last layer": " / ".join(f"{list(widths.values())[i]:g}" for i in (0, 1, -1)),
            "bytes": quantization.stored_bytes(params, "dorefa", widths),
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def post_training(
    models: Population,
    data: Dataset,
    index: Tensor,
    scheme: Scheme,
    rounding: LearnedRounding | None = None,
) -> Population:
    """The trained models, quantised without training: weights, BatchNorm, the ReLUs' ranges, then BatchNorm once more.

    Args:
        index: calibration examples, int64 (k, n), each model's own, for example `splits.indices(split.reserve)`.
        rounding: round weights up or down as the calibration examples tell; None: to the nearest.

    Raises:
        ValueError: no calibration examples.
    """
    recalibration.check(models, index)
    if rounding is None:
        params = scheme.quantizer(models.params)
    else:
        params = rounding(models, data, index, scheme.quantizer)
    quantized = replace(models, params=params, keys=[])
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
            its quantised weights. None: train from scratch, with ranges of 1.
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


def in_family(
    make_model: Callable[[], nn.Module],
    data: Dataset,
    split: Splits,
    family: str,
    bits: float,
    *,
    start: Population,
    recipe: Recipe,
    further: Recipe,
    edge: float | None = 8,
    last: float | None = None,
    rounding: LearnedRounding | None = None,
    augment: Augment | None = None,
) -> Population:
    """Networks of one of `FAMILIES`; at 32 bits its control, with the same training and nothing rounded.

    The control of "from scratch, activations too" clips its ReLUs at 1, as DoReFa does, and rounds them to 16 bits, since
    the effect of clipping is not one of quantisation. DoReFa's tanh is no rounding either, but the controls lack it:
    `quantization.Squashed` as a `compress` is the control that has it.

    Args:
        bits, edge, last: as in `of_family`. Calibration examples are each model's reserve.
        start: the networks in full precision, trained by `recipe`, as are those from scratch.
        further: recipe of the fine-tuning.
        rounding: as in `post_training`, of the family "after training".

    Raises:
        ValueError: an unknown family, or a rounding for a family that learns its weights while they are rounded.
    """
    chosen, what = of_family(make_model, family, bits, edge, last), f"{family}, {bits:g} bits"
    if rounding is not None and family != "after training":
        raise ValueError(
            f'quantisation: a rounding is learned for the family "after training" only, found {family!r}'
        )
    index, options = splits.indices(split.reserve), {"augment": augment, "what": what}
    if family == "after training":
        if bits == FULL:
            return recalibration.batchnorm(start, data, index)
        return post_training(start, data, index, chosen, rounding)
    from_scratch = family.startswith("from scratch")
    if bits == FULL and family == "from scratch, activations too":
        chosen = replace(scheme(make_model, FULL), activations=16)
    elif bits == FULL:
        if from_scratch:
            return start
        return training.fit(make_model, data, split, further, start=start, **options)
    if from_scratch:
        return aware(make_model, data, split, recipe, chosen, **options)
    return aware(make_model, data, split, further, chosen, start, **options)
