"""How data sets travel to other processes: once to each, not once a task.

A data set is packed as arrays. They are the same objects each time, so joblib writes them to one file, which its workers map
into memory, and Dask sends them once. A worker unpacks the set at its first task and keeps it until another one comes.
"""

import copyreg
import uuid

import numpy as np
import torch
from torch import Tensor

from mialib.data.datasets import Dataset
from mialib.data.joined import Joined

_PACKED = "_packed"  # an attribute of a set that was sent: its name, and its tensors' arrays
_here: dict[str, Dataset] = {}  # the last one that came, by its name


def pack(data: Dataset) -> tuple:
    """What `pickle` makes of a data set."""
    if _PACKED not in vars(data):
        tensors = {name: value for name, value in vars(data).items() if isinstance(value, Tensor)}
        arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
        vars(data)[_PACKED] = uuid.uuid4().hex, arrays
    name, arrays = vars(data)[_PACKED]
    rest = {key: value for key, value in vars(data).items() if key not in arrays and key != _PACKED}
    return unpack, (type(data), name, arrays, rest, str(data.x.device))


def unpack(kind: type[Dataset], name: str, arrays: dict[str, np.ndarray], rest: dict, device: str) -> Dataset:
    """The data set, on the device that it was on."""
    if name not in _here:
        made = object.__new__(kind)  # it was checked where it was made
        tensors = {key: torch.from_numpy(array).to(device) for key, array in arrays.items()}
        vars(made).update(rest, **tensors)
        _here.clear()
        _here[name] = made
    return _here[name]


for _kind in (Dataset, Joined):
    copyreg.pickle(_kind, pack)
