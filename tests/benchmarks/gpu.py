"""What a training step costs on a GPU: as it is written and as a graph, one model and many, against the chip and a peer.

    python tests/benchmarks/gpu.py            (under two minutes on an H100-class GPU)
    python tests/benchmarks/gpu.py --toy      (any CPU, a few seconds: no graphs, tiny batches)

One line a network, precision and number of models k: milliseconds a step *a model*, as written and as a graph; the FLOP/s of
the faster one as a share of a matrix product's in that precision, measured in this run; the bytes that its operations read
and write, a second, as a share of a device copy's (counted for k = 1 as it is written: what is fused counts twice); the most
memory. A network that does not fit says so; what the time did not suffice for is named at the end. The peer is the usual
loop: a DataLoader, a module, `torch.optim.Adam`, the same network, batch and precision.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from mialib import models
from mialib.data import Dataset, Splits
from mialib.models import attack_networks
from mialib.training import Population, Recipe, cross_entropy, population, precision
from mialib.training.descent import Shuffling
from mialib.training.graphs import WARM_UP, Graphs
from mialib.training.hooks import Hooks
from mialib.training.loop import Shard

IMAGES = ("resnet18", "resnet20", "vgg16_bn", "densenet121", "mobilenet_v2")
NETWORKS = (*IMAGES, "samia", "columnfc")
FEATURES, CLASSES = 446, 10  # Location's features


@dataclass(frozen=True)
class Size:
    device: str
    batch: int
    together: tuple[int, ...]  # models
    networks: tuple[str, ...]
    examples: int
    side: int  # of the matrix product
    copied: int  # bytes
    seconds: float  # of one measurement, about
    most: float  # seconds in all


FULL = Size("cuda", 128, (1, 8, 64), NETWORKS, 2048, 8192, 2**30, 0.3, 105.0)
TOY = Size("cpu", 4, (1, 2), ("resnet20", "samia", "columnfc"), 16, 64, 2**16, 0.01, 105.0)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--toy", action="store_true", help="on the CPU, at toy size")
    size = TOY if parser.parse_args(arguments).toy else FULL
    began, left = time.perf_counter(), []
    print(f"torch {torch.__version__}, {_chip(size)}, batch {size.batch}")
    peaks = {}
    for name in _precisions(size):
        peaks[name] = product(size, name)
        print(f"matrix product, {name:8} {peaks[name] / 1e12:8.2f} TFLOP/s")
    bandwidth = copy(size)
    print(f"copy                     {bandwidth / 1e9:8.1f} GB/s")
    heads = ("network", "precision", "k", "written ms", "graph ms", "TFLOP/s", "of product", "of copy", "GB")
    print("{:13}{:10}{:>4}{:>11}{:>10}{:>9}{:>12}{:>9}{:>7}".format(*heads))
    for network, name, k in plan(size):
        if time.perf_counter() - began > size.most:
            left.append(f"{network} {name} k={k}")
            continue
        print(f"{network:13}{name:10}{k:4}" + row(size, network, name, k, peaks[name], bandwidth), flush=True)
    for name in _precisions(size):
        ms = 1e3 * peer(size, size.networks[0], name)
        print(f"peer: DataLoader, {size.networks[0]}, {name:10} {ms:8.2f} ms a step")
    print(f"{time.perf_counter() - began:.0f} s" + (f"; no time for {', '.join(left)}" if left else ""))


def plan(size: Size) -> Iterator[tuple[str, str, int]]:
    """(network, precision, models): the first network in every precision, the others in the fastest float32 there is."""
    first, usual = size.networks[0], _precisions(size)[-2]
    for k in size.together:
        yield from ((first, name, k) for name in _precisions(size))
        yield from ((network, usual, k) for network in size.networks[1:])


def row(size: Size, network: str, name: str, k: int, peak: float, bandwidth: float) -> str:
    """A line of the table, from the fourth column on."""
    try:
        with precision.arithmetic(name):
            one = shard(size, network, name, 1)
            flops, moved = counted(one, size)
            del one
            _forget(size)
            written = measured(shard(size, network, name, k), size, lambda shard: shard.update)
            graph = measured(shard(size, network, name, k), size, Graphs()) if size.device == "cuda" else None
    except torch.OutOfMemoryError:
        return "  does not fit"
    best = min(written, graph or written)
    return (
        f"{1e3 * written / k:11.3f}{'-' if graph is None else f'{1e3 * graph / k:.3f}':>10}"
        f"{flops * k / best / 1e12:9.3f}{flops * k / best / peak:12.1%}{moved * k / best / bandwidth:9.1%}"
        f"{_memory(size):7.2f}"
    )


def shard(size: Size, network: str, name: str, k: int) -> Shard:
    """k models of a network, alike but for their batches."""
    make_model, data = task(size, network)
    everyone = torch.ones(k, len(data), dtype=torch.bool)
    split = Splits(everyone, ~everyone, ~everyone, torch.arange(k))
    one = population.initial(make_model, [0])
    start = Population(make_model, *(_repeated(t, k) for t in (one.params, one.buffers)))
    recipe = Recipe(1, size.batch, precision=name)
    return Shard(make_model, data, recipe, split, Hooks(cross_entropy, Shuffling()), (), start)


def task(size: Size, network: str) -> tuple[Callable[[], nn.Module], Dataset]:
    """A network and random examples that it reads."""
    y = torch.arange(size.examples) % CLASSES
    if network in IMAGES:
        x = torch.randint(256, (size.examples, 3, 32, 32), dtype=torch.uint8)
        data = Dataset("random", x, y, CLASSES, torch.full((3,), 0.5), torch.full((3,), 0.25))
    else:
        wide = 3 * CLASSES if network == "samia" else FEATURES
        data = Dataset.of_features("random", torch.rand(size.examples, wide), y % 2, CLASSES)
    if network == "samia":
        return partial(attack_networks.samia_network, CLASSES), data.to(size.device)
    return models.make(network, data), data.to(size.device)


def measured(shard: Shard, size: Size, stepping: Callable) -> float:
    """Seconds of a step of all models, after those that warm up and record."""
    step, number = stepping(shard), 0
    index = next(shard.batches())
    for number in range(WARM_UP + 2):
        step(index, None, number)
    return _seconds(lambda: step(index, None, number), size)


def counted(shard: Shard, size: Size) -> tuple[int, int]:
    """FLOPs of a step, and the bytes that its operations read and write."""
    index, moved = next(shard.batches()), Moved()
    shard.update(index, None, 0)
    with FlopCounterMode(display=False) as flops:
        shard.update(index, None, 1)
    with moved:
        shard.update(index, None, 2)
    return flops.get_total_flops(), moved.bytes


class Moved(TorchDispatchMode):
    """Bytes of all tensors that operations within it get and give; views move nothing."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        returns = [one.alias_info for one in func._schema.returns]
        if not any(alias is not None and not alias.is_write for alias in returns):
            for tensor in tree.tree_leaves((args, kwargs, out)):
                if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                    self.bytes += tensor.nbytes
        return out


def product(size: Size, name: str) -> float:
    """FLOP/s of a matrix product."""
    kind = torch.bfloat16 if name == "bf16" else torch.float32
    a = torch.rand(size.side, size.side, device=size.device, dtype=kind)
    with precision.arithmetic(name):
        a @ a
        return 2 * size.side**3 / _seconds(lambda: a @ a, size)


def copy(size: Size) -> float:
    """Bytes a second, read and written, of a copy on the device."""
    a = torch.zeros(size.copied, dtype=torch.uint8, device=size.device)
    b = a.clone()
    return 2 * size.copied / _seconds(lambda: b.copy_(a), size)


def peer(size: Size, network: str, name: str) -> float:
    """Seconds of a step of the usual loop, its DataLoader included; the first epoch warms up."""
    make_model, data = task(size, network)
    host = data.to("cpu")
    examples = TensorDataset(host.inputs(torch.arange(len(host))), host.y)
    loader = DataLoader(examples, size.batch, shuffle=True, drop_last=True)
    module = make_model().to(size.device).train()
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3, weight_decay=5e-4)
    device = torch.device(size.device)

    def epoch():
        for x, y in loader:
            optimiser.zero_grad()
            with precision.autocast(name, device):
                loss = nn.functional.cross_entropy(module(x.to(device)), y.to(device))
            loss.backward()
            optimiser.step()

    with precision.arithmetic(name):
        epoch()
        return _seconds(epoch, size) / len(loader)


def _seconds(once: Callable[[], object], size: Size) -> float:
    """Of one call; calls go on for about as long as a measurement is to take."""
    _wait(size)
    began, times = time.perf_counter(), 0
    while times < 3 or time.perf_counter() - began < size.seconds:
        for _ in range(3):
            once()
        times += 3
        _wait(size)
    return (time.perf_counter() - began) / times


def _wait(size: Size) -> None:
    if size.device == "cuda":
        torch.cuda.synchronize()


def _forget(size: Size) -> None:
    """Memory is counted from here on."""
    if size.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _memory(size: Size) -> float:
    """The most that was allocated, in GB; nan where nobody counts."""
    return torch.cuda.max_memory_allocated() / 1e9 if size.device == "cuda" else float("nan")


def _precisions(size: Size) -> tuple[str, ...]:
    return tuple(name for name in precision.PRECISIONS if size.device == "cuda" or name != "tf32")


def _chip(size: Size) -> str:
    return torch.cuda.get_device_name() if size.device == "cuda" else "CPU"


def _repeated(tensors: dict[str, torch.Tensor], k: int) -> dict[str, torch.Tensor]:
    return {name: t.expand(k, *t.shape[1:]) for name, t in tensors.items()}


if __name__ == "__main__":
    main()
