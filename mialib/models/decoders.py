"""Decoders: networks that draw a picture from a classifier's answer, for model inversion (`attacks.inversion`).

Features of an answer float32 (b, c) -> logits of the pixels (b, *shape); their sigmoid, in [0, 1], is the picture.
They start from `layers.initialise` and run alone and under `torch.func.functional_call` + `vmap` as the classifiers
of `models` do.
"""

from functools import partial

import torch
from torch import Tensor, nn

from mialib.models.layers import initialise, mlp

# Transposed convolutions, by the picture's pixels a side. All have 4x4 kernels; (filters, stride, padding) of every layer
# but the last, which has one filter a channel and stride 2. The first makes 4x4 pixels of one.
_LAYERS = {
    8: ((512, 1, 0),),
    28: ((512, 1, 0), (256, 1, 0), (128, 2, 1)),
    32: ((512, 1, 0), (256, 2, 1), (128, 2, 1)),
    64: ((1024, 1, 0), (512, 2, 1), (256, 2, 1), (128, 2, 1)),
}
_HIDDEN = (512, 1024)
FLOOR = -50.0  # lower log-posteriors count as this value, as in the released code, which adds 50 to them


def make(shape: tuple[int, ...], num_classes: int, width: float = 1.0) -> partial:
    """A constructor without arguments of the decoder: from answers over `num_classes` classes to inputs of `shape`.

    The result is a partial with keyword arguments only, as from `models.make`.

    Args:
        shape: (channels, side, side) of pictures with 1 or 3 channels and 8, 28, 32 or 64 pixels a side, or (d,) of
            features.
        width: factor on the number of filters or hidden units.

    Raises:
        ValueError: another shape, a width that is not positive, or fewer than one class.
    """
    shape = tuple(shape)
    picture = len(shape) == 3 and shape[0] in (1, 3) and shape[1] == shape[2] and shape[1] in _LAYERS
    if not picture and (len(shape) != 1 or shape[0] < 1):
        sides = ", ".join(map(str, _LAYERS))
        raise ValueError(
            f"shape is {shape}; it must be (1 or 3, side, side) with a side of {sides} pixels, or (features,); "
            "data.load(..., side=32) resizes pictures"
        )
    if not width > 0:
        raise ValueError(f"width is {width}; it must be positive")
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}; it must be 1 or more")
    if picture:
        return partial(convolutional, channels=shape[0], side=shape[1], num_classes=num_classes, width=width)
    return partial(connected, features=shape[0], num_classes=num_classes, width=width)


def features(log_posteriors: Tensor, keep: int | None = None) -> Tensor:
    """What a decoder reads: log-posteriors (..., c), -inf allowed, from -50 to 0 mapped to 0 to 1; float32 (..., c).

    keep: how many of the largest are kept; the others become 0. None keeps all. Ties go either way.
    Raises ValueError for `keep` outside 1..c.

    The released code cuts at -1000 and adds 50, which feeds inputs of size 1000 to the decoder where posteriors
    underflow, and its range is 0 to 50.
    """
    c = log_posteriors.shape[-1]
    if keep is not None and not 1 <= keep <= c:
        raise ValueError(f"keep is {keep}; it must be 1 to {c}, the number of classes, or None for all")
    mapped = 1 - log_posteriors.clamp(min=FLOOR) / FLOOR
    if keep is not None and keep < c:
        kept = mapped.topk(keep, dim=-1).indices
        mapped = torch.zeros_like(mapped).scatter(-1, kept, mapped.gather(-1, kept))
    return mapped.float()


def pixels(x: Tensor, index: Tensor) -> Tensor:
    """Rows of a data set's inputs as decoders draw them, float32: pictures uint8 (n, c, h, w) scaled to [0, 1], features
    (n, d) as they are."""
    chosen = x[index].float()
    return chosen / 255 if x.ndim == 4 else chosen


def squared_error(drawn: Tensor, truth: Tensor) -> Tensor:
    """Mean over the pixels of (drawn - truth)^2 of each example: (m, n, ...) twice -> (m, n), in [0, 1]."""
    return (drawn - truth).square().flatten(2).mean(2)


def convolutional(channels: int, side: int, num_classes: int, width: float = 1.0) -> nn.Module:
    """Transposed convolutions 512-256-128-channels, 1024 before them at 64x64, and 512-channels alone at 8x8.

    4x4 kernels, BatchNorm and tanh after every layer but the last. Each layer doubles the side; only at 28x28 the second
    turns 4 into 7. Source: Yang et al. 2019, arXiv:1902.08552, and its released code (64x64); released code of Yang et
    al. 2023 (32x32). At 28x28 and 8x8 it is ours.
    """
    layers: list[nn.Module] = [nn.Unflatten(1, (num_classes, 1, 1))]
    before = num_classes
    for filters, stride, padding in _LAYERS[side]:
        after = _scaled(filters, width)
        layers += [
            nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False),
            nn.BatchNorm2d(after),
            nn.Tanh(),
        ]
        before = after
    return initialise(nn.Sequential(*layers, nn.ConvTranspose2d(before, channels, 4, 2, 1)))


def connected(features: int, num_classes: int, width: float = 1.0) -> nn.Module:
    """classes -> 512 -> 1024 -> features with ReLU between.

    Source: released code of Yang et al. 2023, arXiv:2212.00612, for Purchase-100.
    """
    hidden = (_scaled(units, width) for units in _HIDDEN)
    return initialise(mlp((num_classes, *hidden, features), dropouts=()))


def _scaled(size: int, width: float) -> int:
    return max(1, round(size * width))
