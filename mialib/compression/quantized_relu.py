"""Quantised activations: every ReLU of a network answers with one of 2^bits values.

    a^ = c Q_k(clip(a / c, 0, 1)),    Q_k(u) = round((2^k - 1) u) / (2^k - 1)

The gradient passes straight through the rounding, and is zero where the clip is active. c is a buffer of each ReLU. It
is 1 in a network trained from scratch, as in DoReFa (Zhou et al. 2016, arXiv:1606.06160), and measured by
`recalibration.clips` in one that was trained without quantisation. A ReLU module that a network uses twice has one
range for both. Weights keep their names, so that a full-precision network can be taken over.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from mialib.compression import quantization
from mialib.training.population import skeleton


def clipped(x: Tensor, clip: Tensor, bits: int) -> Tensor:
    """The module's equation: the nearest of 2^bits equally spaced values from 0 to `clip`."""
    return clip * quantization.nearest_level((x / clip).clamp(0, 1), bits)


class QuantizedReLU(nn.Module):
    """clip (): the largest activation; larger ones are cut to it."""

    def __init__(self, bits: int):
        super().__init__()
        self.bits = bits
        self.register_buffer("clip", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return clipped(x, self.clip, self.bits)


def quantized(
    make_model: Callable[[], nn.Module], bits: float, last: float | None = None
) -> Callable[[], nn.Module]:
    """The same architecture with a `QuantizedReLU` instead of every ReLU; `make_model` itself at 32 bits.

    Args:
        bits: 1 to 16, or 32.
        last: of the last ReLU, which feeds the last layer; None: like the others. Never narrower than the others.

    Raises:
        ValueError: bits out of range, or a model without ReLU.
    """
    if bits == quantization.FULL:
        return make_model
    for width in (bits, bits if last is None else last):
        if width not in quantization.WHOLE:
            raise ValueError(f"activations: {width!r} bits; valid are 1 to 16, and 32 for none")
    if not _relus(skeleton(make_model)):
        raise ValueError("activations: the model has no ReLU to quantise; leave its activations at 32 bits")
    return partial(_quantized, make_model, int(bits), int(max(bits, last or bits)))


def _quantized(make_model: Callable[[], nn.Module], bits: int, last: int) -> nn.Module:
    model = make_model()
    names = _relus(model)
    for name in names:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, QuantizedReLU(last if name == names[-1] else bits))
    return model


def _relus(module: nn.Module) -> list[str]:
    return [name for name, layer in module.named_modules() if isinstance(layer, nn.ReLU | nn.ReLU6)]
