"""A training step as a CUDA graph: recorded once for each shape of batch, then played back by a single launch.

A small step costs hundreds of launches: one of a ResNet18 at batch 128 takes 8.8 ms as it is written and 2.3 ms as a
graph (one H200, bf16). The recorded step is `loop.Shard.update`, the same that runs where there is no graph, on the
same tensors: indices of the batch, parameters, buffers, the optimiser's state and its learning rate.

A graph knows addresses. So the tensors of the first recorded models stay, and the next models of the same training are
copied into them. The state of an opponent or a constraint is not copied: with one of them every training records anew.
Hooks that cannot be recorded say so (`hooks.Capturable`). With them, and for batches of rare shapes, steps run as they
are written.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial

import torch
from torch import Tensor

from mialib.training.hooks import Hooks
from mialib.training.loop import Shard, Step

# steps of a shape before it is recorded: in them the optimiser makes its state, and libraries choose kernels
WARM_UP = 3
SHAPES = 2  # shapes that are recorded: the usual batch and the last one of an epoch

# (function, its random streams) -> a function that repeats it on the same tensors; `function` is called, yet does nothing
Record = Callable[[Callable[[], None], list[torch.Generator]], Callable[[], None]]


def on_cuda(function: Callable[[], None], generators: list[torch.Generator]) -> Callable[[], None]:
    """The `Record` of this file: a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph, stream=_side()):
        function()
    return graph.replay


class Graphs:
    """Makes the steps of shards, one after the other, that differ only by members, seeds and weights.

    Args:
        record: how a step is recorded.
    """

    def __init__(self, record: Record = on_cuda):
        self.record = record
        self.recorded: _Recorded | None = None

    def __call__(self, shard: Shard) -> Step:
        """The step of a shard; the shard may take over the tensors of the one before it."""
        if not _capturable(shard):
            return shard.update
        if self.recorded is not None and self.recorded.serves(shard):
            self.recorded.take(shard)
        else:
            self.recorded = None  # free its memory first
            self.recorded = _Recorded(shard, self.record)
        return self.recorded


class _Recorded:
    """The `Step` of one shard, and of later ones that take over its tensors."""

    def __init__(self, shard: Shard, record: Record):
        self.shard, self.record = shard, record
        self.warm: dict[int, int] = {}  # batch size -> steps that ran as they are written
        self.plays: dict[int, _Play] = {}
        device = shard.data.x.device
        for group in shard.optimiser.param_groups:
            group["lr"] = torch.tensor(group["lr"], device=device)  # float32, as the fused kernels read it

    def __call__(self, index: Tensor, reference: Tensor | None, step: int) -> Tensor:
        size = index.shape[1]
        if size not in self.plays:
            warm = self.warm.get(size, 0)
            if warm < WARM_UP or len(self.plays) == SHAPES:
                self.warm[size] = warm + 1
                return _aside(partial(self.shard.update, index, reference, step), index.device)
            self.plays[size] = _Play(self.shard, self.record, index, reference, step)
        return self.plays[size](index, reference)

    def serves(self, shard: Shard) -> bool:
        """Whether all that the step reads and writes of a shard can be copied here."""
        alone = shard.play is None and shard.bound is None
        return alone and len(shard.split) == len(self.shard.split)

    @torch.no_grad()
    def take(self, shard: Shard) -> None:
        """Copy the shard's values into the tensors that lie here; the shard goes on with these."""
        mine = self.shard
        for here, there in ((mine.params, shard.params), (mine.buffers, shard.buffers)):
            for name, tensor in there.items():
                here[name].copy_(tensor)
        for here, there in zip(tensors(_read(mine.hooks)), tensors(_read(shard.hooks)), strict=True):
            if here is not there:
                here.copy_(there)
        for state in mine.optimiser.state.values():
            for tensor in state.values():
                tensor.zero_()  # a momentum too: starting from 0, the first step is what it is without one
        mine.noise.set_state(shard.noise.get_state())
        shard.params, shard.buffers, shard.optimiser = mine.params, mine.buffers, mine.optimiser
        shard.noise = mine.noise


class _Play:
    """One recording: the batch is copied to where it reads, the losses are read where it writes."""

    def __init__(self, shard: Shard, record: Record, index: Tensor, reference: Tensor | None, step: int):
        self.index, self.reference = index.clone(), None if reference is None else reference.clone()
        written: list[Tensor] = []
        generators = [] if shard.hooks.augment is None else [shard.noise]

        def once():
            written[:] = [shard.update(self.index, self.reference, step)]

        self.repeat = record(once, generators)
        (self.losses,) = written

    def __call__(self, index: Tensor, reference: Tensor | None) -> Tensor:
        self.index.copy_(index)
        if self.reference is not None:
            self.reference.copy_(reference)
        self.repeat()
        return self.losses


def tensors(thing) -> Iterator[Tensor]:
    """Every tensor that hooks hold: those of their fields, arguments and items."""
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, partial):
        yield from tensors([thing.func, thing.args, thing.keywords])
    elif is_dataclass(thing) and not isinstance(thing, type):
        yield from tensors([getattr(thing, field.name) for field in fields(thing)])
    elif isinstance(thing, dict):
        yield from tensors(list(thing.values()))
    elif isinstance(thing, list | tuple):
        for part in thing:
            yield from tensors(part)


def _read(hooks: Hooks) -> list:
    """The hooks whose own tensors a step reads; opponents and constraints move theirs when they begin."""
    return [hooks.objective, hooks.compress, hooks.augment]


def _capturable(shard: Shard) -> bool:
    device, hooks = shard.data.x.device, shard.hooks
    # a tensor elsewhere would be fetched in every step, and a graph cannot fetch
    return hooks.captured and all(tensor.device == device for tensor in tensors(_read(hooks)))


def _aside(function: Callable[[], Tensor], device: torch.device) -> Tensor:
    """Run on the stream that records, where there is CUDA, since autograd remembers which stream it ran on."""
    if device.type != "cuda":
        return function()
    side, now = _side(), torch.cuda.current_stream()
    side.wait_stream(now)
    with torch.cuda.stream(side):
        result = function()
    now.wait_stream(side)
    return result


_streams: dict[int, "torch.cuda.Stream"] = {}


def _side() -> "torch.cuda.Stream":
    device = torch.cuda.current_device()
    if device not in _streams:
        _streams[device] = torch.cuda.Stream()
    return _streams[device]
