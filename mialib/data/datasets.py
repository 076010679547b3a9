"""Data sets as tensors in memory: images uint8 (n, c, h, w) or features (n, d), and labels int64 (n,).

The official train and test parts are joined into one pool, train first: `splits` decides which examples are members, not
the publisher. All examples, members or not, pass through the same preprocessing, `Dataset.inputs`; there is no other.
`load(name)` reads the sets listed in `loaders.LOADERS`; `load_image_folder` reads any folder of pictures.
"""

import difflib
import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mialib import streams
from mialib.data import own
from mialib.data.download import data_root
from mialib.data.loaders import LOADERS, Raw, image_folder
from mialib.data.tensors import kind_of, must_be_tensor

FLOAT_FEATURES_LIMIT = 512 * 2**20  # bytes; features that are larger as float32 stay uint8


@dataclass(frozen=True)
class Dataset:
    """Examples x with labels y in [0, num_classes).

    x: images uint8 (n, c, h, w), or features uint8 or float32 (n, d). y: int64 (n,).
    mean, std: float32; images (c,), in units of x / 255 (range 0..1); features (1,) or (d,), in units of x.
    groups: int64 (n,), identities where there are any (faces), else None.
    Raises ValueError where shapes, types, devices or values do not fit together.
    """

    name: str
    x: Tensor
    y: Tensor
    num_classes: int
    mean: Tensor
    std: Tensor
    groups: Tensor | None = None

    def __post_init__(self):
        _validate(self)

    @classmethod
    def of_features(cls, name: str, x: Tensor, y: Tensor, num_classes: int) -> "Dataset":
        """Features x (n, d) used as they are, on their own device; for example answers that a network learns from."""
        zero, one = torch.zeros(1, device=x.device), torch.ones(1, device=x.device)
        return cls(name, x, y, num_classes, zero, one)

    def __len__(self) -> int:
        return len(self.y)

    def inputs(self, index: Tensor) -> Tensor:
        """Normalised float32 (*index.shape, *x.shape[1:]) on x's device; index int64 of any shape.

        Images: (x / 255 - mean) / std, features: (x - mean) / std; a fresh tensor every time.
        """
        must_be_tensor("index", index)
        if index.dtype != torch.int64:
            raise ValueError(
                f"index is {index.dtype}, must be torch.int64; for a mask m pass m.nonzero()[:, 0]"
            )
        batch = self.x.index_select(0, index.to(self.x.device).flatten()).float()
        if self.is_image:
            batch.div_(255)
        if not self._is_standard:
            shape = (-1, 1, 1) if self.is_image else (-1,)
            batch.sub_(self.mean.view(shape)).div_(self.std.view(shape))
        return batch.view(*index.shape, *self.x.shape[1:])

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data on `device`."""
        tensors = {"x": self.x, "y": self.y, "mean": self.mean, "std": self.std, "groups": self.groups}
        moved = replace(self, **{k: t if t is None else t.to(device) for k, t in tensors.items()})
        if "fingerprint" in self.__dict__:
            moved.__dict__["fingerprint"] = self.fingerprint  # does not depend on the device
        return moved

    @property
    def is_image(self) -> bool:
        return self.x.ndim == 4

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of name, number of classes, and types, shapes and values of x, y, mean and std."""
        digest = hashlib.sha256(repr((self.name, self.num_classes)).encode())
        for tensor in (self.x, self.y, self.mean, self.std):
            digest.update(repr((str(tensor.dtype), tuple(tensor.shape))).encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).numpy())
        return digest.hexdigest()

    @cached_property
    def _is_standard(self) -> bool:
        return bool((self.mean == 0).all() and (self.std == 1).all())


def load(
    name: str,
    root: str | Path | None = None,
    *,
    subset: int | None = None,
    side: int | None = None,
    seed: int = 0,
) -> Dataset:
    """The data set `name`: one of `loaders.LOADERS`, from files below `root`, or one of your own, by its address.

    name: of your own data "folder:PATH", see `load_image_folder`, or "module:function", a function without arguments that
        gives a `Dataset` or a pair (x, y): features (n, d), used as they are, or pictures uint8 (n, c, h, w), scaled to
        [0, 1]. `own` says where they are looked for.
    root: the argument, else $MIALIB_DATA, else the user's cache folder. It may be read-only where it holds
        the files; missing ones are downloaded into it. Laid out as torchvision does where it knows the set.
    subset: keep that many examples, stratified, see `stratified_index`; `seed` has no other use.
    side: make pictures side x side pixels, with an antialiased bilinear filter; None leaves them as they are (those of
        a folder 224 x 224).
    Raises ValueError for an unknown name, a subset outside 1..n, a side for features or a corrupt file,
        FileNotFoundError for a missing one that cannot be downloaded.
    """
    if name.startswith("folder:"):
        path = own.folder(name, data_root(root))
        return replace(load_image_folder(path, side or 224, subset=subset, seed=seed), name=name)
    if ":" in name:
        loaded = _finish(name, _own(name), subset, seed)
    elif name in LOADERS:
        loaded = _finish(name, LOADERS[name](data_root(root)), subset, seed)
    else:
        near = difflib.get_close_matches(str(name), LOADERS, n=1, cutoff=0.0)
        raise ValueError(
            f"unknown data set {name!r}, the nearest is {near[0]!r}; there are {', '.join(LOADERS)}, "
            "folder:PATH and module:function"
        )
    return loaded if side is None else resized(loaded, side)


def load_image_folder(
    path: str | Path, size: int = 224, *, grey: bool = False, subset: int | None = None, seed: int = 0
) -> Dataset:
    """Pictures in path/<class>/*, or path/{train,val,test}/<class>/* (ImageNet's layout), named after the
    folder; `folders.list_image_folder` says which names parts may have and what is passed over.

    Each is turned upright, scaled so that its short side is `size` and cropped to its centre square. Colour is
    normalised with ImageNet's mean and standard deviation; `grey` gives one channel that stays in [0, 1].
    Raises FileNotFoundError where there is no folder, ValueError for a size that is none, a folder that would be
        misread, and pictures that are broken or too large, all of them at once.
    """
    path = Path(path).expanduser().resolve()
    if not path.is_dir():
        raise FileNotFoundError(f"path: no folder {path}; it must hold one folder of pictures for each class")
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        raise ValueError(f"size is {size!r}, must be an integer of at least 1 pixel")
    return _finish(path.name, image_folder(path, int(size), grey=grey), subset, seed)


def apart(
    data: Dataset,
    classes: int | None = None,
    share: float = 0.2,
    seed: int = 0,
    names: tuple[str, str] = ("private", "auxiliary"),
) -> tuple[Dataset, Dataset]:
    """Two sets that share no class, or no example: one for a classifier, the other for an attacker.

    Args:
        classes: the first set gets the first `classes` classes (people), the second set all others, both numbered from
            0. None where every example stands for itself: the second set gets a random `share` of the examples; examples
            that are equal, byte for byte, go to the same set.
        names: what the two are, added to the name of the data set.

    Raises:
        ValueError: no class or all of them in the first set, or a share outside (0, 1).
    """
    if classes is not None and not 1 <= classes < data.num_classes:
        raise ValueError(
            f"classes is {classes}; {data.name} has {data.num_classes}, of which 1 to {data.num_classes - 1} can be "
            f"{names[0]}"
        )
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; it must be in (0, 1)")
    if classes is None:
        _, alike = np.unique(data.x.cpu().flatten(1).numpy(), axis=0, return_inverse=True)
        order = torch.randperm(
            int(alike.max()) + 1, generator=streams.generator(seed, "private and auxiliary")
        )
        first = (order >= round(share * len(order)))[torch.from_numpy(alike.reshape(-1))]
    else:
        first = data.y.cpu() < classes
    cut = classes or 0
    private = _part(data, names[0], first, 0, classes or data.num_classes)
    return private, _part(data, names[1], ~first, cut, data.num_classes - cut)


def _part(data: Dataset, name: str, mask: Tensor, first_class: int, num_classes: int) -> Dataset:
    index = mask.nonzero()[:, 0].to(data.x.device)
    groups = None if data.groups is None else data.groups[index]
    return replace(
        data,
        name=f"{data.name}, {name}",
        x=data.x[index],
        y=data.y[index] - first_class,
        num_classes=num_classes,
        groups=groups,
    )


def _own(address: str) -> Raw:
    """What a function of the user's own gives."""
    made = own.function(address)()
    if isinstance(made, Dataset):
        arrays = (made.x, made.y, made.mean, made.std, made.groups)
        x, y, mean, std, groups = (None if t is None else t.cpu().numpy() for t in arrays)
        return Raw(x, y, made.num_classes, mean.tolist(), std.tolist(), groups)
    try:
        x, y = (np.asarray(part) for part in made)
    except (TypeError, ValueError):
        raise ValueError(
            f"{address} gives a {type(made).__name__}; it must give a data.Dataset or a pair (x, y) of arrays"
        ) from None
    if y.dtype.kind not in "iu" or y.ndim != 1 or not len(y):
        raise ValueError(
            f"{address}: y is {y.dtype} of shape {y.shape}, must be whole numbers of shape (n,), n from 1"
        )
    if x.dtype.kind not in "buif" or not x.ndim:
        raise ValueError(
            f"{address}: x is {x.dtype} of shape {x.shape}, must be an array of numbers, pictures or features"
        )
    channels = x.shape[1] if x.ndim == 4 else 1
    return Raw(x, y, int(y.max()) + 1, (0.0,) * channels, (1.0,) * channels)


def _finish(name: str, raw: Raw, subset: int | None, seed: int) -> Dataset:
    y = torch.as_tensor(raw.y).long()
    index = torch.arange(len(y)) if subset is None else stratified_index(y, raw.num_classes, subset, seed)
    if callable(raw.x):
        x = torch.from_numpy(raw.x(index.numpy()))  # decode only the examples that are kept
    else:
        x = torch.from_numpy(np.ascontiguousarray(raw.x if subset is None else raw.x[index.numpy()]))
    if x.ndim == 2 and 4 * x.numel() < FLOAT_FEATURES_LIMIT:
        x = x.float()  # so that making a batch of features is only an index selection
    groups = None if raw.groups is None else torch.as_tensor(raw.groups).long()[index]
    mean, std = torch.tensor(raw.mean), torch.tensor(raw.std)
    return Dataset(name, x, y[index], raw.num_classes, mean, std, groups)


def resized(data: Dataset, side: int) -> Dataset:
    """The pictures made side x side pixels, see `load`; raises ValueError for features."""
    if not data.is_image:
        raise ValueError(f"side is {side}, but {data.name} holds features, not pictures; leave it None")
    parts = [
        F.interpolate(part.float(), (side, side), mode="bilinear", antialias=True).round().to(torch.uint8)
        for part in data.x.split(1024)
    ]
    return replace(data, x=torch.cat(parts))


def stratified_index(y: Tensor, num_classes: int, size: int, seed: int) -> Tensor:
    """Positions of `size` examples drawn without replacement in the classes' proportions: int64 (size,),
    ascending.

    A class of n_c of the n examples gets floor(size * n_c / n) of them. The examples still to be given go to the largest
    remainders, ties to the lower class. The same seed gives the same positions on every machine and device.
    """
    must_be_tensor("y", y, torch.int64)
    n = len(y)
    if isinstance(size, bool) or not isinstance(size, Integral) or not 1 <= size <= n:
        raise ValueError(
            f"subset is {size!r}, must be an integer in 1..{n}, the number of examples there are"
        )
    size, labels = int(size), y.cpu()
    counts = labels.bincount(minlength=num_classes)
    quota = counts * size // n
    by_remainder = (counts * size % n).argsort(descending=True, stable=True)
    quota[by_remainder[: size - int(quota.sum())]] += 1
    shuffled = torch.randperm(n, generator=streams.generator(seed, "subset"))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]  # class after class, random order within each
    rank = torch.arange(n) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    kept = by_class[rank < quota.repeat_interleave(counts)]
    return kept.sort().values.to(y.device)


def _validate(data: Dataset) -> None:
    where = f"data set {data.name!r}: "

    def check(ok, problem: str):
        if not ok:
            raise ValueError(where + problem)

    # one of numpy's integers would give another fingerprint
    kind = kind_of(data.num_classes)
    check(kind == "int", f"num_classes is a {kind}, must be an int; pass int(num_classes)")
    must_be_tensor("x", data.x, where=where)
    for field in ("y", "groups"):
        if getattr(data, field) is not None:
            must_be_tensor(field, getattr(data, field), torch.int64, where)
    for field in ("mean", "std"):
        must_be_tensor(field, getattr(data, field), torch.float32, where)
    x, y, n = data.x, data.y, len(data.y)
    check(x.ndim in (2, 4), f"x has shape {tuple(x.shape)}, must be images (n, c, h, w) or features (n, d)")
    allowed = (torch.uint8,) if x.ndim == 4 else (torch.uint8, torch.float32)
    turn = "(x * 255).round().to(torch.uint8) of pixels in [0, 1]" if x.ndim == 4 else "x.float()"
    check(
        x.dtype in allowed,
        f"x is {x.dtype}, must be one of {allowed} for x of {x.ndim} dimensions; pass {turn}",
    )
    check(n > 0, "there are no examples")
    for field in ("y", "groups"):
        tensor = getattr(data, field)
        if tensor is not None:
            check(
                tensor.shape == x.shape[:1],
                f"{field} has shape {tuple(tensor.shape)}, x has {len(x)} examples",
            )
            check(tensor.device == x.device, f"{field} is on {tensor.device}, x on {x.device}")
    low, high = int(y.min()), int(y.max())
    check(0 <= low and high < data.num_classes, f"labels {low}..{high}, must be in 0..{data.num_classes - 1}")
    sizes = (x.shape[1],) if x.ndim == 4 else (1, x.shape[1])
    for field in ("mean", "std"):
        tensor = getattr(data, field)
        check(
            tensor.ndim == 1 and len(tensor) in sizes, f"{field} has shape {tuple(tensor.shape)}, not {sizes}"
        )
        check(tensor.device == x.device, f"{field} is on {tensor.device}, x on {x.device}")
        check(tensor.isfinite().all(), f"{field} is not finite")
    check((data.std > 0).all(), "std must be greater than 0")
    if x.is_floating_point():
        check(x.sum(dtype=torch.float64).isfinite(), "x holds values that are not finite")


def one_of_each(labels: Tensor, count: int) -> Tensor:
    """Positions of the first example of each class in turn, `count` of them; if there are too few classes, further ones.

    Args:
        labels: int64 (n,).

    Returns:
        int64 (count,), or (n,) where there are fewer examples.
    """
    first: dict[int, int] = {}
    for position, label in enumerate(labels.tolist()):
        first.setdefault(label, position)
    chosen = set(first.values())
    others = [position for position in range(len(labels)) if position not in chosen]
    return torch.tensor(([*first.values(), *others])[:count], dtype=torch.int64)
