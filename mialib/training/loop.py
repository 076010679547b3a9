"""The one training loop: k models of one recipe, with per-model members, seeds, best checkpoint and patience.

Shapes: k models, b examples a batch, c classes. Tensors of all models are stacked along the first axis; one Adam or
SGD works element by element, so models trained together take the very steps they would take alone.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from mialib import streams
from mialib.data import Dataset, Splits, splits
from mialib.training import population, precision
from mialib.training.checkpoints import Checkpoints
from mialib.training.hooks import Augment, Batch, Forward, Hooks
from mialib.training.population import Population, Tensors, pick
from mialib.training.recipe import Recipe


class Step(Protocol):
    """One step of the models of a shard."""

    def __call__(self, index: Tensor, reference: Tensor | None, step: int) -> Tensor:
        """Losses (k,), without gradient, of step number `step` on the examples index int64 (k, b).

        reference: int64 (k, b), the examples that opponents are shown besides; None without an opponent.
        """


def train(
    make_model: Callable[[], nn.Module],
    data: Dataset,
    recipe: Recipe,
    *,
    split: Splits,
    hooks: Hooks,
    watch: tuple[str, ...] = (),
    start: Population | None = None,
    tick: Callable[[int], None] | None = None,
    graphs: "Callable[[Shard], Step] | None" = None,
) -> list[tuple[Tensors, dict]]:
    """Train the models of one shard together.

    The host waits for the device once an epoch, to read the losses and which models have stopped (`Shard.settled`).

    Args:
        tick: called with the number of models after each epoch.
        graphs: makes the step of a shard, as `graphs.Graphs`; default: `Shard.update` as it is.

    Returns:
        For each model its tensors, on the CPU, and its record.
    """
    began, device, seeds = time.perf_counter(), data.x.device, split.seeds.tolist()
    shard = Shard(make_model, data, recipe, split, hooks, watch, start)
    # dropout draws from the global stream: it is seeded for these models alone, and put back afterwards
    with (
        torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type),
        precision.arithmetic(recipe.precision),
    ):
        torch.manual_seed(streams.seed(seeds[0], "dropout"))
        step = graphs(shard) if graphs is not None else shard.update
        for epoch in range(recipe.epochs):
            shard.learn(epoch, step)
            shard.look(epoch)
            stopped = shard.settled(epoch)
            if tick is not None:
                tick(len(seeds) * (recipe.epochs - epoch if stopped else 1))
            if stopped:
                break
    seconds = round((time.perf_counter() - began) / len(seeds), 3)
    return [(tensors, record | {"seconds": seconds}) for tensors, record in shard.results()]


class Shard:
    """The models of one training: their raw parameters, the hooks' states, and what is noted."""

    def __init__(
        self,
        make_model: Callable[[], nn.Module],
        data: Dataset,
        recipe: Recipe,
        split: Splits,
        hooks: Hooks,
        watch: tuple[str, ...],
        start: Population | None,
    ):
        device, seeds = data.x.device, split.seeds.tolist()
        self.data, self.recipe, self.split, self.hooks, self.step = data, recipe, split, hooks, 0
        first = (start or population.initial(make_model, seeds)).to(device)
        self.params = {n: t.clone().requires_grad_(t.is_floating_point()) for n, t in first.params.items()}
        self.buffers = {name: t.clone() for name, t in first.buffers.items()}
        self.learning = population.skeleton(make_model).train()
        if recipe.precision == "bf16" and len(seeds) > 1:
            precision.float32_norms(self.learning)
        self.judging = population.skeleton(make_model).eval()
        self.compress = hooks.compress or _same
        self.generators = [streams.generator(seed, "reference batches") for seed in seeds]
        self.noise = streams.generator(seeds[0], "augmentation", device=device)
        opponent, of_opponents = hooks.opponent, streams.seeds(seeds, "opponent")
        self.play = opponent.begin(of_opponents, device) if opponent is not None else None
        self.bound = hooks.constraint.begin(self.params) if hooks.constraint is not None else None
        members = splits.indices(split.member).to(device)
        self.batches, self.backward = hooks.descent.begin(members, recipe.batch_size, seeds)
        self.optimiser = _optimiser(recipe, [p for p in self.params.values() if p.requires_grad])
        self.best = Checkpoints(len(seeds), recipe, self.params, self.buffers)
        self.reserve = _rows(split.reserve, device)
        self.pools = _rows(split.reserve, torch.device("cpu"))  # references are drawn from here
        self.watched = {
            f"{name}_accuracy": _rows(getattr(split, name), device)
            for name in watch
            if not (name == "reserve" and recipe.select_best)  # noted anyway
        }
        self.curves: dict[str, list[Tensor]] = {"loss": [], **{name: [] for name in self.watched}}

    def learn(self, epoch: int, update: Step) -> None:
        """One pass over the members."""
        self.set_rate(self.rate(epoch))
        total, count = torch.zeros(len(self.split), device=self.data.x.device), 0
        batches = list(
            self.batches()
        )  # all drawn first, so that nothing has to reach the device between steps
        for index, reference in zip(batches, self.references(batches), strict=True):
            losses = update(index, reference, self.step)
            if self.bound is not None:
                with torch.no_grad():
                    for name, value in self.bound.follow(self.params, self.step).items():
                        self.params[name].copy_(value)
            # weighted by size, for the mean over examples: batches differ in size, and those of DP-SGD may be empty
            size, self.step = index.shape[1], self.step + 1
            total, count = total + size * losses, count + size
        self.curves["loss"].append(total / max(count, 1))

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch."""
        return self.recipe.lr * 0.1 ** sum(epoch >= m for m in self.recipe.milestones)

    def set_rate(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            if isinstance(group["lr"], Tensor):  # a graph reads it where it lies
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def references(self, batches: list[Tensor]) -> list[Tensor | None]:
        """For each batch as many reserve examples of each model, (k, b); None without an opponent."""
        if self.play is None:
            return [None] * len(batches)
        sizes = [batch.shape[1] for batch in batches]
        drawn = [
            torch.stack([_draw(*one, size) for one in zip(self.pools, self.generators, strict=True)])
            for size in sizes
        ]
        return list(torch.cat(drawn, 1).to(self.data.x.device).split(sizes, 1))

    def update(self, index: Tensor, reference: Tensor | None, step: int) -> Tensor:
        """A `Step`: it runs as it is written, or a graph records it."""
        self.optimiser.zero_grad(set_to_none=True)
        batch = _batch(self.data, index, self.hooks.augment, self.noise)
        losses = self.backward(partial(self.losses, reference, step), self.params, batch)
        self.optimiser.step()
        # kept until the next step: on a CPU memory that is free at a step's end goes back to the system and has to be
        # asked for again (three times as many page faults, 6 % of a training of SAMIA)
        self.held = batch, losses
        return losses.detach()

    def losses(self, reference: Tensor | None, step: int, params: Tensors, batch: Batch) -> Tensor:
        """Objective and penalties together, for the raw parameters, (k,)."""
        answer, effective = _remembered(self.forward), self.compress(params)
        losses = self.hooks.objective(answer, effective, batch, step)
        if self.play is not None:
            shown = _batch(self.data, reference, self.hooks.augment, self.noise)
            losses = losses + self.play(answer, effective, batch, shown, step)
        return losses if self.bound is None else losses + self.bound.penalty(params, step)

    def forward(self, params: Tensors, x: Tensor) -> Tensor:
        with precision.autocast(self.recipe.precision, x.device):
            logits = population.forward(self.learning, params, self.buffers, x)
        return logits.float() if logits.dtype == torch.bfloat16 else logits

    @torch.no_grad()
    def look(self, epoch: int) -> None:
        """Note the accuracies that are watched, and keep the best weights so far."""
        if self.recipe.select_best:
            self.best.update(epoch, self.accuracy(self.reserve), self.params, self.buffers)
        for name, examples in self.watched.items():
            self.curves[name].append(self.accuracy(examples))

    def settled(self, epoch: int) -> bool:
        """Whether all models have stopped. Here the host waits for the device.

        Raises FloatingPointError for a loss that is not finite.
        """
        losses, stopped = torch.stack([self.curves["loss"][-1], self.best.stopped.float()]).tolist()
        _check_finite(losses, self.split, epoch, self.rate(epoch))
        return all(stopped)

    def accuracy(self, examples: list[Tensor]) -> Tensor:
        """Share of each model's own examples (one index tensor a model) that it gets right, (k,) on their device."""
        params, shares = self.compress(self.params), []
        for i, index in enumerate(examples):
            tensors = pick(params, slice(i, i + 1)), pick(self.buffers, slice(i, i + 1))
            hits = [
                population.forward(self.judging, *tensors, self.data.inputs(part)[None])[0].argmax(1)
                == self.data.y[part]
                for part in index.split(population.at_once(self.data.x))
            ]
            shares.append(torch.cat(hits).double().mean())
        return torch.stack(shares).float()

    @torch.no_grad()
    def results(self) -> list[tuple[Tensors, dict]]:
        """For each model its tensors, compression baked in, on the CPU, and its record."""
        params, buffers = self.best.weights(self.params, self.buffers)
        final = {name: tensor.detach().cpu() for name, tensor in (self.compress(params) | buffers).items()}
        noted = self.curves | (self.bound.curves if self.bound is not None else {})
        curves = {name: torch.stack(values).T.tolist() for name, values in noted.items() if values}
        return [
            (
                {name: tensor[i] for name, tensor in final.items()},
                {name: curves[name][i] if name in curves else [] for name in noted} | chosen,
            )
            for i, chosen in enumerate(self.best.records())
        ]


def _optimiser(recipe: Recipe, params: list[Tensor]) -> torch.optim.Optimizer:
    common = dict(lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(params, **common, capturable=params[0].device.type == "cuda")
    return torch.optim.SGD(params, momentum=recipe.momentum, **common)


def _remembered(forward: Forward) -> Forward:
    """The same function, which answers a repeated question from memory: objective and opponent share a forward pass."""
    answers: list[tuple[Tensors, Tensor, Tensor]] = []

    def answer(params, x):
        for asked, about, logits in answers:
            if asked is params and about is x:
                return logits
        answers.append((params, x, forward(params, x)))
        return answers[-1][-1]

    return answer


def _batch(data: Dataset, index: Tensor, augment: Augment | None, generator: torch.Generator) -> Batch:
    x = data.inputs(index)
    return Batch(x if augment is None else augment(x, generator), data.y[index], index)


def _draw(pool: Tensor, generator: torch.Generator, count: int) -> Tensor:
    return pool[torch.randint(len(pool), (count,), generator=generator)]


def _rows(mask: Tensor, device: torch.device) -> list[Tensor]:
    return [row.nonzero()[:, 0].to(device) for row in mask]


def _check_finite(losses: list[float], split: Splits, epoch: int, lr: float) -> None:
    lost = [i for i, loss in enumerate(losses) if not math.isfinite(loss)]
    if lost:
        raise FloatingPointError(
            f"loss of the model with seed {int(split.seeds[lost[0]])} became {losses[lost[0]]} in epoch {epoch} at learning "
            f"rate {lr:g}; lower the learning rate or the strength of the objective. Models already finished are cached"
        )


def _same(params: Tensors) -> Tensors:
    return params
