"""The outline of a data set, known before it is loaded: how many examples it has, of which shape and classes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mialib import streams
from mialib.data import datasets, download, own
from mialib.data.datasets import Dataset
from mialib.data.loaders import LOADERS, Raw, image_folder

# examples, shape and classes of sets that are the same for everybody, as their publishers give them
PUBLISHED = {
    "mnist": (70_000, (1, 28, 28), 10),
    "fashion_mnist": (70_000, (1, 28, 28), 10),
    "svhn": (99_289, (3, 32, 32), 10),
    "cifar10": (60_000, (3, 32, 32), 10),
    "cifar100": (60_000, (3, 32, 32), 100),
    "chmnist": (5_000, (3, 32, 32), 8),
    "location": (5_010, (446,), 30),
    "purchase100": (197_324, (600,), 100),
    "texas100": (67_330, (6_169,), 100),
}


def of(
    name: str,
    root: str | Path | None = None,
    *,
    subset: int | None = None,
    side: int | None = None,
    seed: int = 0,
) -> Dataset | None:
    """What `load` gives for the same arguments, with zeros that take no memory instead of the examples. Labels are true.

    Only the first picture is decoded, and nothing is downloaded: None for a set of `LOADERS` that is not at hand. A
    function of your own is called.

    Raises:
        ValueError: as `load` does.
    """
    if name in LOADERS or name.startswith("folder:"):
        try:
            raw = _raw(name, download.data_root(root), side)
        except FileNotFoundError:
            return None
        y, classes = torch.as_tensor(np.asarray(raw.y)).long(), raw.num_classes
        shape = (raw.x(np.zeros(1, int)) if callable(raw.x) else raw.x[:1]).shape[1:]
        if side is not None:
            shape = datasets.resized(_blank(name, shape, y[:1], classes), side).x.shape[1:]
    else:
        whole = datasets.load(name, root, side=side)
        shape, y, classes = whole.x.shape[1:], whole.y, whole.num_classes
    if subset is not None:
        y = y[datasets.stratified_index(y, classes, subset, seed)]
    return _blank(name, shape, y, classes)


def published(
    name: str, *, subset: int | None = None, side: int | None = None, seed: int = 0
) -> Dataset | None:
    """Noise that stands in for a set of `PUBLISHED` that is not at hand: of the same size, equally many of each class.

    None for other sets. Raises ValueError as `load` does.
    """
    if name not in PUBLISHED:
        return None
    n, shape, classes = PUBLISHED[name]
    y = torch.arange(n) % classes
    if subset is not None:
        y = y[datasets.stratified_index(y, classes, subset, seed)]
    highest = 256 if len(shape) == 3 else 2
    x = torch.randint(highest, (len(y), *shape), dtype=torch.uint8, generator=streams.generator(0, "outline"))
    if len(shape) == 1 and 4 * x.numel() < datasets.FLOAT_FEATURES_LIMIT:
        x = x.float()
    noise = replace(_blank(name, shape, y, classes), x=x)
    return noise if side is None else datasets.resized(noise, side)


def _raw(name: str, root: Path, side: int | None) -> Raw:
    with download.offline():
        if name.startswith("folder:"):
            return image_folder(own.folder(name, root), side or 224)
        return LOADERS[name](root)


def _blank(name: str, shape: tuple[int, ...], y: Tensor, classes: int) -> Dataset:
    x = torch.zeros((), dtype=torch.uint8).expand(len(y), *shape)
    channels = shape[0] if len(shape) == 3 else 1
    return Dataset(name, x, y, classes, torch.zeros(channels), torch.ones(channels))
