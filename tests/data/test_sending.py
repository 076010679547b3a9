"""Data sets travel to workers once, and arrive as what they were."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import joblib
import pytest
import torch

from mialib.data import Dataset, Joined, sending
from mialib.training import tasks


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")
def test_workers_map_one_file_and_unpack_it_once():
    n = 10_000  # more than joblib sends by value
    sent = Dataset.of_features("wide", torch.randn(n, 60), torch.arange(n) % 3, 3)
    sent = replace(sent, groups=torch.arange(n))
    with joblib.parallel_config(backend="loky", n_jobs=2, inner_max_num_threads=1):
        found = [seen for _, seen in tasks.as_finished(tasks.Call(i, _seen, (sent,)) for i in range(6))]
    assert len({(process, name) for process, name, *_ in found}) == len({process for process, *_ in found})
    expected = (sent.fingerprint, int(sent.groups.sum()), True)
    assert all(one[2:5] == expected for one in found)
    assert len({files for *_, files in found}) == 1 and found[0][5]


def _seen(data):
    """What a worker sees of a data set: who it is, the object, its values, and the file in which they lie."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    files = sorted({line.split()[-1] for line in maps if "joblib_memmapping" in line})
    return (
        os.getpid(),
        id(data),
        data.fingerprint,
        int(data.groups.sum()),
        data.x.is_contiguous(),
        tuple(files),
    )


def test_a_packed_data_set_is_the_same_of_its_kind():
    parts = [Dataset.of_features("two", torch.randn(4, 2), torch.arange(4) % 2, 2) for _ in range(2)]
    joined = Joined.of(parts)
    again = pickle.loads(pickle.dumps(joined))
    assert type(again) is Joined and again.fingerprints == joined.fingerprints and again.sizes == (4, 4)
    assert torch.equal(again.x, joined.x) and again.fingerprint == joined.fingerprint


def test_only_the_last_one_is_kept_and_a_changed_copy_is_another():
    first = Dataset.of_features("two", torch.randn(4, 2), torch.arange(4) % 2, 2)
    packed = pickle.dumps(first)
    changed = pickle.dumps(replace(first, y=1 - first.y))
    one = pickle.loads(packed)
    assert pickle.loads(packed) is one
    assert torch.equal(pickle.loads(changed).y, 1 - first.y)
    assert pickle.loads(packed) is not one and len(sending._here) == 1
