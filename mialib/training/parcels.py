"""Calls as bytes, for workers that share no memory with this process; the large arrays that calls have in common go apart.

A parcel holds the names of its large arrays only. They are named by their content, so that whoever carries parcels brings
each array to a worker, or to a disk, once. A data set is packed as such arrays (`data.sending`).
"""

import hashlib
import importlib
import io
import os
import pickle
import sys
import sysconfig
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mialib import places
from mialib.data import own
from mialib.training.tasks import Call

LARGE = 100_000  # bytes of an array that goes apart
_HANDED_ON = ("MIALIB_DATA", own.BESIDE)
_names: dict[int, tuple[weakref.ref, str]] = {}  # of arrays that were sent, by their id


class Parcel(NamedTuple):
    """A call, packed. `parts`: its large arrays by name, which it does not hold."""

    content: bytes
    parts: dict[str, np.ndarray]


class InUse(Counter[str]):
    """How many calls under way need each large array, by its name."""

    def give_back(self, names: Sequence[str]) -> list[str]:
        """A call is over: those of its arrays that no other needs."""
        self.subtract(names)
        free = [name for name in names if not self[name]]
        for name in free:
            del self[name]
        return free


def packed(call: Call) -> Parcel:
    """A call as a parcel, with what a worker must know beside it: where data, store and modules lie."""
    packer = _packer()(buffer := io.BytesIO())
    packer.parts = {}
    packer.dump((call.function, call.args, call.kwargs, call.keep))
    surroundings = {name: os.environ[name] for name in _HANDED_ON if os.environ.get(name)}
    surroundings["MIALIB_CACHE"] = str(places.cache_root().absolute())
    surroundings["MIALIB_PROGRESS"] = os.devnull  # how far the calls are is shown here
    modules = [surroundings.get(own.BESIDE), *_own_paths()]
    content = pickle.dumps((surroundings, [one for one in modules if one], buffer.getvalue()))
    return Parcel(content, packer.parts)


def made(content: bytes, part: Callable[[str], np.ndarray], keeps: bool = False) -> Any:
    """Make the call in a parcel, with one thread; gives its result.

    Args:
        part: the large array of a name. It is not written to; a tensor of one that cannot be is a copy.
        keeps: also put the result where the call says that it is kept, since nobody may be there to take it.
    """
    import torch

    surroundings, modules, packed_call = pickle.loads(content)
    os.environ.update(surroundings)
    sys.path[:0] = [one for one in modules if one not in sys.path]
    importlib.invalidate_caches()  # a module may have been written after this process looked for it
    torch.set_num_threads(1)
    opener = _Opener(io.BytesIO(packed_call))
    opener.part = part
    function, args, kwargs, keep = opener.load()
    result = function(*args, **kwargs)
    if keeps and keep is not None:
        keep(result)
    return result


def _own_paths() -> list[str]:
    """Where this process finds modules beside those that are installed; workers have the same installed."""
    installed = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders = [os.path.abspath(one) for one in sys.path if os.path.isdir(one)]
    return [one for one in folders if not any(Path(one).is_relative_to(place) for place in installed)]


@cache
def _packer() -> type:
    import cloudpickle  # comes with Dask and with submitit; takes functions of a notebook, which no module holds

    class Packer(cloudpickle.Pickler):
        parts: dict[str, np.ndarray]

        def persistent_id(self, thing: Any) -> Hashable:
            kind, array = _large(thing)
            if array is None:
                return None
            name = _name(array)
            self.parts[name] = array
            return kind, name

    return Packer


class _Opener(pickle.Unpickler):
    part: Callable[[str], np.ndarray]

    def persistent_load(self, named: tuple[str, str]) -> Any:
        import torch

        kind, name = named
        array = self.part(name)
        if kind == "array":
            return array
        return torch.from_numpy(array if array.flags.writeable else array.copy())


def _large(thing: Any) -> tuple[str, np.ndarray | None]:
    """The kind of a large array, "array" or "tensor", and the array itself; None for all else."""
    if type(thing) is np.ndarray:
        large = thing.nbytes >= LARGE and not thing.dtype.hasobject and thing.flags.c_contiguous
        return "array", thing if large else None
    from torch import Tensor, bfloat16

    if type(thing) is not Tensor or thing.nbytes < LARGE or thing.requires_grad:
        return "", None
    if thing.device.type != "cpu" or thing.dtype == bfloat16 or not thing.is_contiguous():
        return "", None
    return "tensor", thing.numpy()


def _name(array: np.ndarray) -> str:
    """By content. A data set's arrays are the same objects at each call, and are read once."""
    known, name = _names.get(id(array), (lambda: None, ""))
    if known() is array:
        return name
    head = f"{array.dtype.str} {array.shape} ".encode()
    name = hashlib.sha256(head + memoryview(array).cast("B")).hexdigest()[:40]
    number = id(array)
    _names[number] = weakref.ref(array, lambda _: _names.pop(number, None)), name
    return name
