"""A call travels without its large arrays, and arrives with what it needs to know."""

import os
import pickle
import sys

import numpy as np
import pytest
import torch

from mialib import places
from mialib.data import Dataset
from mialib.training import parcels, tasks

N = 5_000


@pytest.fixture
def surroundings(monkeypatch):
    """What a worker changes in its process, put back."""
    for name in ("MIALIB_DATA", "MIALIB_BESIDE", "MIALIB_CACHE", "MIALIB_PROGRESS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setattr(sys, "path", [*sys.path])
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def wide():
    return Dataset.of_features("wide", torch.randn(N, 60), torch.arange(N) % 3, 3)


def added(data, masks, small, bias=0.0):
    return data.fingerprint, masks.double().sum() + small.sum() + bias


def opened(call, **options):
    content, parts = parcels.packed(call)
    return parcels.made(content, {name: array.copy() for name, array in parts.items()}.__getitem__, **options)


def test_a_call_arrives_as_it_was(surroundings):
    data, masks, small = wide(), torch.rand(2, N * 4) > 0.5, torch.arange(3)
    fingerprint, total = opened(tasks.Call(0, added, (data, masks, small), {"bias": 0.5}))
    assert fingerprint == data.fingerprint and total == masks.sum() + 3.5


def test_large_arrays_stay_out_and_have_one_name_by_content():
    data, start = wide(), torch.randn(N, 10)
    one = parcels.packed(tasks.Call(0, added, (data, start, torch.arange(3))))
    other = parcels.packed(tasks.Call(1, added, (data, start.clone(), torch.arange(4))))
    assert one.parts.keys() == other.parts.keys() and len(one.parts) == 2
    assert sum(array.nbytes for array in one.parts.values()) == data.x.nbytes + start.nbytes
    assert len(one.content) < parcels.LARGE
    assert parcels.packed(tasks.Call(0, added, (data, start + 1))).parts.keys() != one.parts.keys()


def test_the_same_bytes_in_another_shape_or_type_are_another_array():
    bytes_ = np.arange(parcels.LARGE, dtype=np.int8)
    kinds = (bytes_, bytes_.reshape(2, -1), bytes_.view(np.uint8))
    assert len({name for one in kinds for name in parcels.packed(tasks.Call(0, added, (one,))).parts}) == 3


def test_what_has_no_array_of_its_own_travels_inside(surroundings):
    halves = torch.randn(N, 60).bfloat16()
    transposed = torch.randn(N, 60).T
    weights = torch.randn(N, 60, requires_grad=True)
    call = tasks.Call(0, torch.equal, (halves, halves))
    assert not parcels.packed(call).parts and opened(call)
    for one in (transposed, weights):
        assert not parcels.packed(tasks.Call(0, torch.equal, (one, one))).parts
        assert opened(tasks.Call(0, torch.equal, (one.detach(), one.detach().clone())))


def test_an_array_that_cannot_be_written_to_becomes_a_tensor_of_its_own(surroundings):
    content, parts = parcels.packed(tasks.Call(0, torch.Tensor.zero_, (torch.ones(N, 60),)))
    [array] = parts.values()
    array = array.copy()
    array.flags.writeable = False
    assert not bool(parcels.made(content, lambda _: array).any()) and array.all()


def test_a_worker_learns_where_store_and_data_lie_and_uses_one_thread(surroundings, monkeypatch):
    monkeypatch.setenv("MIALIB_DATA", "/somewhere")
    expected = str(places.cache_root())
    content, _ = parcels.packed(tasks.Call(0, told))
    monkeypatch.setenv("MIALIB_DATA", "/elsewhere")
    monkeypatch.setenv("MIALIB_CACHE", "/elsewhere")
    torch.set_num_threads(2)
    assert parcels.made(content, {}.__getitem__) == (expected, "/somewhere", os.devnull, 1)


def told():
    environment = [os.environ.get(name) for name in ("MIALIB_CACHE", "MIALIB_DATA", "MIALIB_PROGRESS")]
    return *environment, torch.get_num_threads()


def test_modules_beside_the_parameters_are_found(surroundings, monkeypatch, tmp_path):
    (tmp_path / "my_own_networks.py").write_text("def make(): return 'mine'\n")
    monkeypatch.setenv("MIALIB_BESIDE", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_own_networks

    content, _ = parcels.packed(tasks.Call(0, my_own_networks.make))
    sys.path.remove(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_own_networks")
    assert parcels.made(content, {}.__getitem__) == "mine"
    assert sys.modules["my_own_networks"] is not my_own_networks


def test_what_is_kept_is_kept_only_where_nobody_may_be_left(surroundings):
    kept = []
    call = tasks.Call(0, max, (1, 2), keep=kept.append)
    assert opened(call) == 2 and kept == []
    content, _ = parcels.packed(tasks.Call(0, max, (1, 2), keep=print))
    assert pickle.loads(content)  # a keep travels too
    assert opened(tasks.Call(0, max, (1, 2), keep=_refuse)) == 2
    with pytest.raises(OSError, match="kept 2"):
        opened(tasks.Call(0, max, (1, 2), keep=_refuse), keeps=True)


def _refuse(result):
    raise OSError(f"kept {result}")


def test_an_array_is_free_once_no_call_needs_it():
    used = parcels.InUse()
    for names in (["data", "a"], ["data", "b"]):
        used.update(names)
    assert used.give_back(["data", "a"]) == ["a"]
    assert used.give_back(["data", "b"]) == ["data", "b"]
    assert not used
