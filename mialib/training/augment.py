"""Random changes of the training pictures: an `augment` of `fit`, augment(x, generator) -> x.

x is (k models, b, c, h, w), normalised; every picture gets a change of its own.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class FlipAndShift:
    """Mirror each picture with probability one half, and move it by up to `padding` pixels in both directions.

    The usual augmentation of CIFAR (He et al. 2016, arXiv:1512.03385, section 4.2). Pixels that move in are 0: the mean
    colour, since the pictures are normalised already.

    Raises:
        ValueError: negative padding; on features, when it is called.
    """

    padding: int = 4

    def __post_init__(self):
        if self.padding < 0:
            raise ValueError(f"augment: padding is {self.padding}; it must be 0 or more pixels")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        _check_pictures(x, "mirrored and moved")
        pictures = x.flatten(0, 1)
        n, _, height, width = pictures.shape

        def places(size: int) -> Tensor:
            """(n, size): which pixels of the padded side each picture keeps."""
            first = torch.randint(2 * self.padding + 1, (n, 1), generator=generator, device=generator.device)
            return (first + torch.arange(size, device=first.device)).to(x.device)

        rows, columns = places(height), places(width)
        mirrored = torch.rand(n, 1, generator=generator, device=generator.device).to(x.device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
        padded = F.pad(pictures, [self.padding] * 4).permute(0, 2, 3, 1)
        picture = torch.arange(n, device=x.device)[:, None, None]
        return padded[picture, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2).reshape(x.shape)


@dataclass(frozen=True)
class Blurred:
    """Make pictures coarser by one of `factors`, all equally likely: average that many pixels a side, then smooth.

    A classifier that learns from such pictures can name what a decoder draws, which lacks the detail of a photograph.

    Raises:
        ValueError: a factor below 1; on features, when it is called.
    """

    factors: tuple[int, ...] = (1, 2, 4, 8)

    def __post_init__(self):
        if not self.factors or min(self.factors) < 1:
            raise ValueError(f"augment: factors are {self.factors}; at least one, each 1 pixel or more")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        _check_pictures(x, "blurred")
        pictures = x.flatten(0, 1)
        n, device = len(pictures), generator.device
        which = torch.randint(len(self.factors), (n,), generator=generator, device=device).to(x.device)
        blurred = pictures
        # every factor of every picture: to see which picture gets which, the host would wait for the device
        for i, factor in enumerate(self.factors):
            if factor > 1:
                coarse = F.avg_pool2d(pictures, min(factor, *x.shape[-2:]))
                smooth = F.interpolate(coarse, x.shape[-2:], mode="bilinear")
                blurred = torch.where((which == i)[:, None, None, None], smooth, blurred)
        return blurred.view(x.shape)


def _check_pictures(x: Tensor, what: str) -> None:
    if x.ndim != 5:
        raise ValueError(f"augment: found {tuple(x.shape)}; only pictures (k, b, c, h, w) can be {what}")
