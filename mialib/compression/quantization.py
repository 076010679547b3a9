"""Simulated quantisation of weights: which few values a weight may take, as pure functions on stacked parameters.

A quantiser maps w (k models, *shape) to values of the same shape on a grid, in float32 (*fake* quantisation: the values
that integers would give, without the speed; `int8` is the real thing). Bit-widths are 1 to 16, 1.58 for three values, and
32 for full precision, which is exactly no quantisation.

    uniform      Q_k(u) = round((2^k - 1) u) / (2^k - 1)                      u in [0, 1]
    DoReFa       w^ = m (2 Q_k(u) - 1),  u = tanh(w) / 2m + 1/2               m = max |tanh(w)| of the layer
    affine       w^ = s (clip(round(w / s) + z, 0, 2^k - 1) - z)
                 s = (max - min) / (2^k - 1),  z = round(-min / s)            of the channel, or of the layer
    binary       w^ = sign(w) mean |w|
    ternary      w^ = sign(w) a where |w| > t, else 0                         t = 0.7 mean |w|, a = mean of those |w|

At many bits affine is w itself. DoReFa is not: its limit is tanh(w), which shrinks large weights and leaves small ones, at 4
bits as at 16. `Squashed` is that limit: a control with DoReFa's transform and no rounding.

The backward pass of all is straight-through: rounding and sign count as the identity, scales and ranges as constants.
Zero is not on DoReFa's grid: where weights are pruned too, the mask comes after the quantiser.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mialib.compression.cardinality import layers
from mialib.training import Tensors

FULL = 32
TERNARY = 1.58  # log2(3)
WHOLE = range(1, 17)
WIDTHS = (*WHOLE, TERNARY)  # all that round; FULL does not
METHODS = ("dorefa", "affine", "affine_tensor")


def straight_through(values: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, to the last bit, with the gradient of `values`."""
    # the bracket is exactly 0; values + (...) would round once more
    return rounded.detach() + (values - values.detach())


def nearest_level(u: Tensor, bits: int) -> Tensor:
    """Q_k of u in [0, 1]: the nearest of 2^bits equally spaced values, 0 and 1 among them."""
    steps = 2**bits - 1
    return straight_through(u, (u * steps).round() / steps)


def dorefa(w: Tensor, bits: int) -> Tensor:
    """DoReFa's weights, one m for each layer of each model; w (k, *shape). The error in u is at most half a step.

    Zhou et al. 2016, arXiv:1606.06160, equation 9, except for the factor m. Without it the largest weight of every layer
    becomes 1, and the effect of that scale on the confidence of a network without BatchNorm would look like an effect of
    quantisation. With it, many bits lead to tanh(w), not to w: weights near 0 stay as they are, a weight of 1.5 becomes
    0.9. That too is no effect of rounding; the control for it is `Squashed`.
    """
    squashed = w.tanh()
    m = _peak(squashed.abs())
    u = squashed / (2 * torch.where(m > 0, m, 1.0)) + 0.5
    return torch.where(m > 0, m * (2 * nearest_level(u, bits) - 1), w)  # an all-zero layer stays as it is


def affine(w: Tensor, bits: int, per_channel: bool = True) -> Tensor:
    """Min-max affine, a scale and zero point for each output channel or each layer. The error is at most half a step.

    w (k, channels, ...). A row whose weights are all equal (a pruned one) has no scale and is returned as it is.
    """
    scale, zero, flat = grid(w, bits, per_channel)
    integers = ((w / scale).round() + zero).clamp(0, 2**bits - 1)
    return torch.where(flat, w, straight_through(w, scale * (integers - zero)))


def grid(w: Tensor, bits: int, per_channel: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """`affine`'s scale, zero point and mask of rows without a scale (it is 1 there): each (k, channels or 1, 1, ...)."""
    rows = w.detach().flatten(2 if per_channel else 1)
    low, high = (end.view(*end.shape, *[1] * (w.ndim - end.ndim)) for end in (rows.amin(-1), rows.amax(-1)))
    scale = (high - low) / (2**bits - 1)
    flat = scale == 0
    scale = torch.where(flat, 1.0, scale)
    return scale, (-low / scale).round(), flat


def binary(w: Tensor, per_channel: bool = False) -> Tensor:
    """The sign times the mean magnitude, of each layer (DoReFa) or each output channel. The sign of 0 is +."""
    size = w.detach().abs().flatten(2 if per_channel else 1).mean(-1)
    size = size.view(*size.shape, *[1] * (w.ndim - size.ndim))
    return straight_through(w, torch.where(w >= 0, size, -size))


def ternary(w: Tensor) -> Tensor:
    """Three values, of each layer. Li & Liu 2016, arXiv:1605.04711 (ternary weight networks)."""
    magnitude = w.detach().abs().flatten(1)
    kept = magnitude > 0.7 * magnitude.mean(1, keepdim=True)
    size = (magnitude * kept).sum(1) / kept.sum(1)  # nan where all are 0; no such row is used
    size = size.view(-1, *[1] * (w.ndim - 1))
    return straight_through(w, torch.where(kept.view(w.shape), w.sign() * size, 0.0))


def quantize(w: Tensor, method: str, bits: float) -> Tensor:
    """w (k, *shape) on the grid of one of `METHODS`; at 1 bit the sign, at 1.58 the ternary form, at 32 w itself.

    Raises:
        ValueError: an unknown method, or a bit-width that is none.
    """
    check(method, bits)
    if bits == FULL:
        return w
    if bits == TERNARY:
        return ternary(w)
    if bits == 1:  # the two ends of a range are useless as the only values: measured at chance accuracy
        return binary(w, per_channel=method == "affine")
    if method == "dorefa":
        return dorefa(w, int(bits))
    return affine(w, int(bits), per_channel=method == "affine")


def check(method: str, bits: float) -> None:
    """Raises ValueError for an unknown method or bit-width."""
    if method not in METHODS:
        raise ValueError(f"quantisation: unknown method {method!r}; valid are {', '.join(METHODS)}")
    if bits != FULL and bits not in WIDTHS:
        raise ValueError(
            f"quantisation: {bits!r} bits; valid are 1 to 16, {TERNARY} (ternary) and {FULL} (none)"
        )


@dataclass(frozen=True)
class Quantizer:
    """A `compress` of `fit`: puts the named weights on their grids and leaves the rest (biases, BatchNorm) as it is.

    Args:
        method: one of `METHODS`.
        bits: parameter name -> bit-width; `widths` makes the usual ones.

    Raises:
        ValueError: no layer, an unknown method or a bit-width that is none.
    """

    method: str
    bits: Mapping[str, float]

    def __post_init__(self):
        if not self.bits:
            raise ValueError("quantisation: bits is empty; name at least one layer")
        for width in self.bits.values():
            check(self.method, width)

    def __call__(self, params: Tensors) -> Tensors:
        return params | {
            name: quantize(params[name], self.method, width) for name, width in self.bits.items()
        }


@dataclass(frozen=True)
class Squashed:
    """A `compress` of `fit`: the named weights become tanh(w), DoReFa's transform without rounding; the rest stays.

    The limit of `dorefa` at many bits: a control that separates the effect of rounding from that of the transform.

    Args:
        names: of the parameters; `widths` gives those that are quantised.

    Raises:
        ValueError: no layer.
    """

    names: tuple[str, ...]

    def __post_init__(self):
        if not self.names:
            raise ValueError("DoReFa's transform: names is empty; name at least one layer")

    def __call__(self, params: Tensors) -> Tensors:
        return params | {name: params[name].tanh() for name in self.names}


def widths(
    make_model: Callable[[], nn.Module],
    bits: float,
    *,
    first: float | None = None,
    last: float | None = None,
) -> dict[str, float]:
    """Bit-widths of all weights that count (convolutions and Linear layers), in their order: name -> bits.

    Args:
        first, last: of the first and of the last layer; None: like the others. In full precision (`bits` 32) they are not
            quantised either, and they are never narrower than the others.

    Raises:
        ValueError: a model without such layers.
    """
    names = list(layers(make_model))
    if not names:
        raise ValueError("quantisation needs a convolution or Linear layer, the model has none")
    allocation = dict.fromkeys(names, bits)
    for name, width in ((names[0], first), (names[-1], last)):
        if width is not None:
            allocation[name] = max(width, bits)
    return allocation


def values(params: Tensors, method: str, bits: Mapping[str, float]) -> dict[str, int]:
    """How many different values each quantised weight tensor takes, at most: name -> number.

    Counted for each grid (a layer's, or under "affine" an output channel's) of each model. It is at most 2^bits, 3 where
    ternary, if the weights lie on the grid.
    """
    counts = {}
    for name, width in bits.items():
        per_channel = method == "affine" and width != TERNARY
        grids = params[name].flatten(2 if per_channel else 1).flatten(0, -2)
        ordered = grids.sort(-1).values
        counts[name] = int((ordered.diff(dim=-1) != 0).sum(-1).max()) + 1
    return counts


def on_grid(params: Tensors, quantizer: Quantizer) -> bool:
    """Whether every quantised weight lies on its grid: at most 2^bits values (`values`), three where ternary."""
    narrow = {name: width for name, width in quantizer.bits.items() if width != FULL}
    found = values(params, quantizer.method, narrow)
    return all(found[name] <= (3 if width == TERNARY else 2**width) for name, width in narrow.items())


def mean_width(params: Tensors, bits: Mapping[str, float]) -> float:
    """The mean bit-width of the weights that `bits` names, every weight counting alike."""
    numbers = {name: params[name][0].numel() for name in bits}
    return sum(width * numbers[name] for name, width in bits.items()) / sum(numbers.values())


def stored_bytes(params: Tensors, method: str, bits: Mapping[str, float]) -> int:
    """Bytes of one model's parameters: quantised weights at their widths, their scales, the rest in float32.

    A scale is 4 bytes a layer, under "affine" 5 a channel (with its zero point). Ternary counts log2(3) bits a weight.
    """
    total = 0.0
    for name, tensor in params.items():
        width, n = bits.get(name, FULL), tensor[0].numel()
        total += n * width / 8
        if width != FULL:
            total += 5 * tensor.shape[1] if method == "affine" else 4
    return round(total)


def _peak(magnitude: Tensor) -> Tensor:
    """The largest entry of each model's layer, (k, 1, ...), without a gradient."""
    return magnitude.detach().flatten(1).amax(1).view(-1, *[1] * (magnitude.ndim - 1))
