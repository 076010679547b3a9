"""Examples as people have them, made into two tensors: inputs as a model takes them, and labels."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, WeightedRandomSampler

from mialib import data, progress
from mialib.auditing import weights
from mialib.data import archives, folders, formats, own
from mialib.data.tensors import kind_of

TWICE = 16  # examples that are asked twice: a flip of one in two shows in all but 1 of 65,000 sets
SHARE = 0.8  # of the memory of this machine that examples may take
INPUTS = ("x", "image", "images", "img", "pixel_values", "input", "inputs", "input_ids", "features")
LABELS = ("y", "label", "labels", "target", "targets")
VALID = (
    "a torch Dataset or DataLoader, a pair (x, y) of arrays, tensors or lists, a mialib Dataset, an .npz file with x and "
    "y, a folder with a folder of pictures for each class, or module:function of a function that gives one of these"
)


@dataclass(frozen=True)
class Examples:
    """x: (n, ...), as the model takes them. y: int64 (n,). classes: names of a folder's classes, in order of y."""

    x: Tensor
    y: Tensor
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.y)


def examples_of(given, name: str, *, side: int = 224) -> Examples:
    """Examples in any of their forms, in memory on the CPU.

    Numbers of tensors keep their type; arrays and lists of float64 become float32, which networks take. A mialib Dataset
    and a folder give normalised inputs (a folder with ImageNet's mean and deviation). A DataLoader is iterated once.

    Args:
        given: one of
            - a torch `Dataset` or `DataLoader`, whose examples are (x, y, ...) or dictionaries with keys like `INPUTS` and
              `LABELS`, or a list of such examples;
            - a pair (x, y), or a dictionary: x (n, ...); y (n,) whole numbers, or one-hot (n, classes);
            - a `data.Dataset`;
            - a path of an .npz file with x and y, or of a folder with a folder of pictures for each class;
            - "module:function" of a function without arguments that gives one of these.
        name: what they are, such as "members", for errors and the progress bar.
        side: of a folder's pictures, in pixels.

    Raises:
        ValueError: none of these; no examples; inputs that are not finite, of different shapes, no numbers, more than
            memory holds, or drawn anew whenever they are read (random augmentation); labels of another number, or no
            classes.
    """
    if isinstance(given, Examples):
        return given
    if isinstance(given, str | Path):
        return _by_name(given, name, side)
    if isinstance(given, data.Dataset):
        _check_memory(4 * given.x.numel(), len(given), name)
        return _checked(given.inputs(torch.arange(len(given), device=given.y.device)), given.y, name)
    if isinstance(given, DataLoader):
        return _checked(*_of_loader(given, name), name)
    if (tensors := _tensors(given)) is not None:
        return _checked(*_pair(tensors, name), name)
    if isinstance(given, Mapping) or isinstance(given, tuple | list) and len(given) == 2:
        return _checked(*_pair(given, name), name)
    if isinstance(given, IterableDataset):
        batches = (
            (x[None], _row(y)) for x, y in (_example(each, name, number) for number, each in enumerate(given))
        )
        return _checked(*_joined(batches, name), name)
    if hasattr(given, "__getitem__") and hasattr(given, "__len__") and not _is_array(given):
        return _checked(*_of_dataset(given, name), name)
    raise ValueError(f"{name} is a {kind_of(given)}; examples are {VALID}")


def same_shape(members: Examples, nonmembers: Examples) -> None:
    """Raises ValueError where members and non-members differ in shape, type or names of classes."""
    for what, a, b in (
        ("inputs", _described(members.x[0]), _described(nonmembers.x[0])),
        ("classes", members.classes, nonmembers.classes),
    ):
        if a != b and None not in (a, b):
            raise ValueError(
                f"members have {what} {a}, nonmembers {b}; they must be alike, and come through the same preprocessing, or "
                "they differ in more than membership"
            )


def _by_name(given: str | Path, name: str, side: int) -> Examples:
    """Those of a file, a folder or a function."""
    is_path = isinstance(given, Path) or given.startswith("folder:") or ":" not in given
    if not is_path:
        try:
            own.check(given)
        except ValueError as error:
            raise ValueError(f"{name}: {given}: {error}") from error
        return examples_of(own.function(given)(), name, side=side)
    path = weights.located(str(given).removeprefix("folder:"), name)
    if path.is_dir():
        return _of_folder(path, name, side)
    if path.suffix != ".npz":
        raise ValueError(f"{name}: {path} is neither an .npz file nor a folder; examples are {VALID}")
    try:
        pair = formats.read_npz(path, ("x", "y"), int(SHARE * (_memory() or 2**60)))
    except Exception as error:  # broken zips give errors of many kinds
        raise ValueError(
            f"{name}: {path} cannot be read: {error}; save it by numpy.savez(path, x=x, y=y)"
        ) from error
    return _checked(*_pair(pair, name), name)


def _of_folder(path: Path, name: str, side: int) -> Examples:
    try:
        files, _, classes = folders.list_image_folder(path)
        _check_memory(4 * 3 * side * side * len(files), len(files), name)
        made = examples_of(data.load_image_folder(path, side), name)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return Examples(made.x, made.y, tuple(classes))


def _of_loader(loader: DataLoader, name: str) -> tuple[Tensor, Tensor]:
    if isinstance(loader.sampler, WeightedRandomSampler) or getattr(loader.sampler, "replacement", False):
        raise ValueError(
            f"{name}: the DataLoader draws examples again and again ({type(loader.sampler).__name__}); pass its dataset"
        )
    if not isinstance(loader.dataset, IterableDataset):
        _check_filled(len(loader.dataset), name)
        _check_steady(lambda i: _alone(loader, i, name), loader.dataset, name)
    batches = progress.follow(loader, f"reading {name}", "batch") if _has_length(loader) else loader
    return _joined((_batch(batch, name) for batch in batches), name)


def _alone(loader: DataLoader, i: int, name: str) -> Tensor:
    """The input of an example in a batch of its own, since the loader may change examples too."""
    is_batched = loader.batch_sampler is not None
    given = loader.dataset[i]
    return _batch(loader.collate_fn([given] if is_batched else given), name)[0]


def _batch(held, name: str) -> tuple[Tensor, Tensor]:
    """x and y of a batch of a loader, or of the single example that it gives without a size of batches."""
    x, y = _pair(held, name)
    return (x, y) if y.ndim else (x[None], y[None])


def _tensors(dataset) -> tuple[Tensor, ...] | None:
    """Of a set that is tensors already, or of a part of one: a hundred times as fast as one example after another."""
    if type(dataset) is TensorDataset:
        return dataset.tensors
    if type(dataset) is Subset and (tensors := _tensors(dataset.dataset)) is not None:
        return tuple(tensor[torch.as_tensor(dataset.indices, dtype=torch.int64)] for tensor in tensors)
    return None


def _of_dataset(dataset, name: str) -> tuple[Tensor, Tensor]:
    """Of examples that are asked one by one, by their number."""
    n = len(dataset)
    _check_filled(n, name)
    first, _ = _example(dataset[0], name, 0)
    _check_memory(n * first.numel() * first.element_size(), n, name)
    _check_steady(lambda i: _example(dataset[i], name, i)[0], dataset, name)
    x, labels = torch.empty((n, *first.shape), dtype=first.dtype), []
    for i in progress.follow(range(n), f"reading {name}", "example"):
        each, label = _example(dataset[i], name, i)
        if each.shape != first.shape or each.dtype != first.dtype:
            raise ValueError(
                f"{name}: example {i} is {_described(each)}, example 0 {_described(first)}; all must be alike, so resize or "
                "crop them"
            )
        x[i] = each
        labels.append(label)
    return x, torch.cat([_row(label) for label in labels])


def _joined(batches: Iterable[tuple[Tensor, Tensor]], name: str) -> tuple[Tensor, Tensor]:
    """All batches in one, however many there are."""
    xs, ys, held, n = [], [], 0, 0
    for x, y in batches:
        xs.append(x)
        ys.append(y)
        held, n = held + x.numel() * x.element_size(), n + len(x)
        _check_memory(2 * held, n, name)  # the parts and the whole
        if x.shape[1:] != xs[0].shape[1:]:
            raise ValueError(
                f"{name}: batch {len(xs)} holds inputs {tuple(x.shape[1:])}, the first {tuple(xs[0].shape[1:])}; all must be "
                "alike, so resize or crop them"
            )
    _check_filled(n, name)
    return torch.cat(xs), torch.cat(ys)


def _pair(batch, name: str) -> tuple[Tensor, Tensor]:
    """x and y of many examples."""
    x, y = _parts(batch, name)
    return _tensor(x, f"{name}: x"), _tensor(y, f"{name}: y")


def _example(one, name: str, number: int) -> tuple[Tensor, Tensor]:
    """x and y of a single example."""
    x, y = _parts(one, f"{name}: example {number}")
    return _tensor(x, f"{name}: x of example {number}"), _tensor(y, f"{name}: y of example {number}")


def _row(y: Tensor) -> Tensor:
    """A label, or its one-hot row, as one of many."""
    return y.reshape(1) if y.numel() == 1 else y[None]


def _parts(held, name: str) -> tuple[object, object]:
    if isinstance(held, Mapping):
        found = [[key for key in keys if key in held] for keys in (INPUTS, LABELS)]
        if not all(found):
            raise ValueError(f"{name} has keys {list(held)}; wanted are one of {INPUTS} and one of {LABELS}")
        return held[found[0][0]], held[found[1][0]]
    if not isinstance(held, Sequence) or isinstance(held, str) or len(held) < 2:
        raise ValueError(f"{name} is a {kind_of(held)}, must be inputs with labels (x, y)")
    return held[0], held[1]


def _tensor(value, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Sequence) and len(value) and isinstance(value[0], Tensor):
        value = [each.detach().cpu().numpy() for each in value]
    try:
        array = np.asarray(value) if not _is_picture(value) else np.empty(0, object)
    except ValueError as error:  # rows of different lengths
        raise ValueError(
            f"{name} is a {kind_of(value)} of parts that differ in shape; all must be alike"
        ) from error
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} is a {kind_of(value)}{'' if array.dtype == object else f' of {array.dtype}'}, must be numbers: pictures "
            "by the transform that the network was tested with (ToTensor and Normalize), classes counted from 0"
        )
    array = array.astype(np.float32) if array.dtype in (np.float64, np.longdouble) else array
    # fresh memory, of native byte order, since torch takes no other
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))


def _checked(x: Tensor, y: Tensor, name: str) -> Examples:
    x = x.cpu()
    if not x.ndim or not y.ndim:
        raise ValueError(
            f"{name}: x is {_described(x)} and y is {_described(y)}; they must be (n, ...) and (n,)"
        )
    _check_filled(len(x), name)
    if len(x) != len(y):
        raise ValueError(f"{name}: x holds {len(x)} examples, y {len(y)} labels; they must be as many")
    if x.is_floating_point():
        broken = ~x.reshape(len(x), -1).isfinite().all(1)
        if broken.any():
            raise ValueError(
                f"{name}: {int(broken.sum())} of {len(x)} inputs hold nan or infinity, the first that of example "
                f"{int(broken.nonzero()[0])}; mend them or leave them out"
            )
    return Examples(x, _labels(y.cpu(), name))


def _labels(y: Tensor, name: str) -> Tensor:
    """int64 (n,), from whole numbers of any type or one-hot rows."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all()):
        y = y.int().argmax(1)
    if y.ndim != 1:
        raise ValueError(
            f"{name}: y is {_described(y)}, must be one class for each example (n,), or one-hot (n, classes)"
        )
    if not torch.equal(y.double(), whole := y.double().floor()) or bool((whole < 0).any()):
        odd = y[(y.double() != whole) | (y < 0)][0].item()
        raise ValueError(f"{name}: y holds {odd:g}, must hold classes, counted from 0")
    return y.long()


def _check_steady(ask: Callable[[int], Tensor], dataset, name: str) -> None:
    """Refuse examples that are drawn anew when they are asked for: a network has seen none of those.

    ask: the number of an example -> its input.
    """
    n = len(dataset)
    for i in sorted({step * (n - 1) // (TWICE - 1) for step in range(TWICE)}):
        first, second = ask(i), ask(i)
        if first.shape != second.shape or not torch.equal(torch.nan_to_num(first), torch.nan_to_num(second)):
            raise ValueError(
                f"{name}: example {i} is another one when it is read again, by a random augmentation"
                f"{_transform(dataset)}; pass the data with the transform that the network is tested with"
            )


def _transform(dataset) -> str:
    """What the set does to its examples, where it says so."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    made = getattr(dataset, "transform", None)
    return "" if made is None else f" ({' '.join(repr(made).split())})"


def _check_filled(n: int, name: str) -> None:
    if not n:
        raise ValueError(f"{name} is empty; an audit needs hundreds of examples")


def _check_memory(size: int, n: int, name: str) -> None:
    memory = _memory()
    if memory and size > SHARE * memory:
        raise ValueError(
            f"{name}: {n:,} examples take {archives.size_of(size)} in memory, this machine has "
            f"{archives.size_of(memory)}; pass some of them, such as torch.utils.data.Subset(data, range(10_000))"
        )


def _memory() -> int | None:
    """Bytes of this machine; None where it cannot be asked (Windows)."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None


def _has_length(loader: DataLoader) -> bool:
    try:
        return len(loader) > 0
    except TypeError:  # an iterable set that does not say
        return False


def _is_array(value) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _is_picture(value) -> bool:
    """Whether it is one of Pillow's, which turn into arrays of bytes that no network was trained on."""
    return type(value).__module__.partition(".")[0] == "PIL"


def _described(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
