"""The benchmark of a GPU runs on a CPU at toy size, and measures what it says."""

import re

import torch

from tests.benchmarks import gpu


def test_it_runs_at_toy_size(capsys):
    gpu.main(["--toy"])
    said = capsys.readouterr().out
    for network in gpu.TOY.networks:
        for k in gpu.TOY.together:
            (line,) = re.findall(rf"^{network} +float32 +{k} +(.*)$", said, re.M)
            written, graph, flops, of_product, *_ = line.split()
            assert float(written) > 0 and graph == "-" and float(flops) >= 0 and of_product.endswith("%"), (
                line
            )
    assert "peer: DataLoader, resnet20, bf16" in said and "no time for" not in said


def test_every_network_is_measured_alone_and_together():
    planned = list(gpu.plan(gpu.FULL))
    assert {(network, k) for network, _, k in planned} == {(n, k) for n in gpu.NETWORKS for k in (1, 8, 64)}
    assert {name for network, name, _ in planned if network == "resnet18"} == {"float32", "tf32", "bf16"}
    assert {name for network, name, _ in planned if network != "resnet18"} == {"tf32"}


def test_bytes_and_operations_are_those_of_a_product_by_hand():
    a, b = torch.ones(4, 8), torch.ones(8, 2)
    with gpu.Moved() as moved:
        (a @ b).t()  # the view moves nothing
    assert moved.bytes == 4 * (4 * 8 + 8 * 2 + 4 * 2)


def test_what_does_not_fit_says_so(monkeypatch):
    def full(*position):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(gpu, "shard", full)
    assert gpu.row(gpu.TOY, "samia", "float32", 2, 1.0, 1.0) == "  does not fit"
