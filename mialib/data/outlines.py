"""The outline of a data set: how many examples of which shape and class there are, before it is loaded and used."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mialib.data import datasets, download, own
from mialib.data.datasets import Dataset
from mialib.data.loaders import LOADERS, Raw, image_folder


def of(
    name: str,
    root: str | Path | None = None,
    *,
    subset: int | None = None,
    side: int | None = None,
    seed: int = 0,
) -> Dataset | None:
    """What `load` gives for the same arguments, but for the examples: zeros that take no memory. Labels are true.

    No picture is decoded but the first, and nothing is downloaded: None for a set of `LOADERS` that is not at hand. A
    function of one's own is called.

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


def _raw(name: str, root: Path, side: int | None) -> Raw:
    with download.offline():
        if name.startswith("folder:"):
            return image_folder(own.folder(name, root), side or 224)
        return LOADERS[name](root)


def _blank(name: str, shape: tuple[int, ...], y: Tensor, classes: int) -> Dataset:
    x = torch.zeros((), dtype=torch.uint8).expand(len(y), *shape)
    channels = shape[0] if len(shape) == 3 else 1
    return Dataset(name, x, y, classes, torch.zeros(channels), torch.ones(channels))
