"""Counts by hand; timings only in so far as they are taken fairly."""

import pytest
import safetensors.torch
import torch
from torch import nn

from mialib.compression import deployment_cost


def test_sizes_by_hand(tmp_path):
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).train()
    found = deployment_cost.file_size(module)
    assert found["parameters"] == 6 + 2 + 2 + 2
    safetensors.torch.save_file(module.state_dict(), tmp_path / "file")
    assert found["file_bytes"] == (tmp_path / "file").stat().st_size
    assert (
        found["file_bytes"] > 4 * (12 + 2 + 2) + 8
    )  # float32 parameters and running statistics, int64 counter
    assert module.training and module[1].num_batches_tracked == 0


class Watched(nn.Linear):
    """Notes its number of outputs and the threads at each forward pass."""

    calls = []

    def forward(self, x):
        self.calls.append((self.out_features, torch.get_num_threads(), self.training))
        return super().forward(x)


def test_timings_take_turns_on_one_thread():
    Watched.calls.clear()
    threads = torch.get_num_threads()
    table = deployment_cost.compare(Watched(4, 2), Watched(4, 1), {"one": torch.randn(1, 4)}, repeats=2)
    assert Watched.calls == [(2, 1, False), (1, 1, False)] * (3 + 2)
    assert torch.get_num_threads() == threads
    assert (table > 0).all(axis=None)
    with pytest.raises(RuntimeError):
        deployment_cost.latencies([nn.Linear(4, 2)], torch.randn(1, 5))
    assert torch.get_num_threads() == threads


def test_callables_are_timed_as_they_are():
    seen = []
    module = nn.Linear(4, 2).train()
    found = deployment_cost.latencies(
        [lambda x: seen.append(x.shape), module, module.forward], torch.randn(3, 4), 2
    )
    assert seen == [(3, 4)] * (3 + 2)
    assert len(found) == 3 and min(found) > 0
    assert module.training
