"""The one training loop: k models of one recipe, with per-model members, seeds, best checkpoint and patience.

Shapes: k models, b examples a batch, c classes. Tensors of all models are stacked along the first axis; one Adam or
SGD works element by element, so models trained together take the very steps they would take alone.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mialib import population, splits
from mialib.data import Dataset
from mialib.population import Tensors, pick
from mialib.splits import Splits


@dataclass(frozen=True)
class Recipe:
    """How models are trained. Two models of one recipe differ by members and seed only.

    Args:
        epochs: passes over the members, at most.
        batch_size: examples a step; a last batch of one example is left out (BatchNorm needs two).
        lr, weight_decay, momentum: of the optimiser; the decay is an L2 term in the gradient, as in torch.optim.
        optimizer: "adam" or "sgd".
        milestones: epochs at whose start the learning rate is divided by ten.
        select_best: keep the weights of the epoch with the best accuracy on the reserve set, else the last epoch's.
        patience: with select_best, stop after more than this many epochs in a row without a better one; None never.
        precision: "float32" or "bf16" (autocast; parameters and optimiser stay in float32).

    Raises:
        ValueError: a value out of range, with its name.
    """

    epochs: int
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 5e-4
    optimizer: str = "adam"
    momentum: float = 0.9
    milestones: tuple[int, ...] = ()
    select_best: bool = False
    patience: int | None = None
    precision: str = "float32"

    def steps_per_epoch(self, n_members: int) -> int:
        """Optimiser steps in one pass over so many members."""
        full, rest = divmod(n_members, self.batch_size)
        return full + (rest > 1 or n_members == 1)

    def __post_init__(self):
        for name, valid, rule in (
            ("epochs", self.epochs >= 0, "0 or more"),
            ("batch_size", self.batch_size >= 2, "2 or more"),
            ("lr", self.lr > 0, "positive"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("optimizer", self.optimizer in ("adam", "sgd"), "'adam' or 'sgd'"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("patience", self.patience is None or self.select_best, "None unless select_best is set"),
            ("precision", self.precision in ("float32", "bf16"), "'float32' or 'bf16'"),
        ):
            if not valid:
                raise ValueError(f"recipe: {name} is {getattr(self, name)!r}; it must be {rule}")


@dataclass(frozen=True)
class Shuffling:
    """The usual descent: each epoch shuffles the members and cuts them into batches; plain gradients.

    A descent is how the loop finds its batches and gradients. `begin` gives two functions:
    batches() -> one epoch's index tensors int64 (k, b), and
    backward(losses, params, batch) -> losses (k,), which leaves a gradient in each of the (raw) parameters, where
    losses(params, batch) -> (k,). Per-example clipping (DP-SGD) and released code that trains otherwise are others.
    """

    def begin(self, members: Tensor, batch_size: int, generators: list[torch.Generator]):
        """members int64 (k, n), a generator for each model."""
        return partial(_shuffled, members, batch_size, generators), _plain_gradient


@dataclass(frozen=True)
class Batch:
    """x float32 (k, b, ...) normalised, y int64 (k, b), index int64 (k, b) into the data set."""

    x: Tensor
    y: Tensor
    index: Tensor


Forward = Callable[[Tensors, Tensor], Tensor]  # (params, x (k, b, ...)) -> logits (k, b, c)


def cross_entropy(forward: Forward, params: Tensors, batch: Batch, step: int) -> Tensor:
    """Mean cross-entropy of each model, (k,)."""
    return mean_cross_entropy(forward(params, batch.x), batch.y)


def mean_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """logits (k, b, c), y (k, b) -> (k,)."""
    return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(y.shape).mean(1)


def train(
    make_model,
    data,
    recipe,
    *,
    split,
    start,
    objective,
    compress,
    constraint,
    opponent,
    descent,
    augment,
    watch,
    tick,
):
    """Train the models of one shard; returns [(tensors, record)], a pair for each model."""
    began, device, k = time.perf_counter(), data.x.device, len(split)
    seeds = split.seeds.tolist()
    first = (start or population.initial(make_model, seeds)).to(device)
    params = {name: t.clone().requires_grad_(t.is_floating_point()) for name, t in first.params.items()}
    buffers = {name: t.clone() for name, t in first.buffers.items()}
    compress = compress or _same
    learning, judging = population.skeleton(make_model).train(), population.skeleton(make_model).eval()
    amp = partial(torch.autocast, device.type, torch.bfloat16, enabled=recipe.precision == "bf16")

    def forward(params, x):
        with amp():
            logits = population.forward(learning, params, buffers, x)
        return logits.float() if logits.dtype == torch.bfloat16 else logits

    members = splits.indices(split.member).to(device)
    reserve = [row.nonzero()[:, 0].to(device) for row in split.reserve]
    watched = {
        f"{name}_accuracy": [row.nonzero()[:, 0].to(device) for row in getattr(split, name)]
        for name in watch
        if not (name == "reserve" and recipe.select_best)  # noted anyway
    }
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    # of their own, so that an opponent leaves the order of the batches as it is
    references = [torch.Generator().manual_seed(seed + 1) for seed in seeds]
    noise = torch.Generator(device).manual_seed(seeds[0])
    play = opponent.begin(seeds, device) if opponent is not None else None
    bound = constraint.begin(params) if constraint is not None else None
    batches, backward = (descent or Shuffling()).begin(members, recipe.batch_size, generators)
    optimiser = _optimiser(recipe, [p for p in params.values() if p.requires_grad])
    best = _Best(k, recipe, params, buffers)
    losses_by_epoch, curves, step = [], {name: [] for name in watched}, 0

    def losses_of(params, batch):
        answer, effective = _remembered(forward), compress(params)
        losses = objective(answer, effective, batch, step)
        if play is not None:
            drawn = [_draw(r, batch.index.shape[1], g) for r, g in zip(reserve, references, strict=True)]
            reference = _batch(data, torch.stack(drawn), augment, noise)
            losses = losses + play(answer, effective, batch, reference, step)
        return losses if bound is None else losses + bound.penalty(params, step)

    # dropout draws from the global stream: seed it for these models alone, and leave it as it was
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seeds[0])
        for epoch in range(recipe.epochs):
            for group in optimiser.param_groups:
                group["lr"] = recipe.lr * 0.1 ** sum(epoch >= m for m in recipe.milestones)
            total, count = torch.zeros(k, device=device), 0
            for index in batches():
                optimiser.zero_grad(set_to_none=True)
                losses = backward(losses_of, params, _batch(data, index, augment, noise))
                optimiser.step()
                if bound is not None:
                    with torch.no_grad():
                        for name, value in bound.follow(params, step).items():
                            params[name].copy_(value)
                total, count, step = total + losses.detach(), count + 1, step + 1
            losses_by_epoch.append(total / max(count, 1))
            _check_finite(losses_by_epoch[-1], split, epoch, optimiser.param_groups[0]["lr"])
            with torch.no_grad():
                if recipe.select_best:
                    best.update(
                        epoch, _accuracy(judging, compress(params), buffers, data, reserve), params, buffers
                    )
                for name, index in watched.items():
                    curves[name].append(_accuracy(judging, compress(params), buffers, data, index))
            if tick is not None:
                tick(k)
            if best.all_stopped:
                if tick is not None:
                    tick(k * (recipe.epochs - epoch - 1))
                break

    with torch.no_grad():
        final, buffers = best.weights(params, buffers)
        final = {name: tensor.detach() for name, tensor in compress(final).items()}
    history = {"loss": losses_by_epoch} | curves | (bound.curves if bound is not None else {})
    history = {
        name: torch.stack(values).T.tolist() if values else [[] for _ in seeds]
        for name, values in history.items()
    }
    seconds = (time.perf_counter() - began) / k
    return [
        (
            {name: tensor[i].cpu() for name, tensor in (final | buffers).items()},
            {name: values[i] for name, values in history.items()}
            | {"seconds": round(seconds, 3), **best.record(i)},
        )
        for i in range(k)
    ]


@dataclass
class _Best:
    """Best checkpoint on reserve data and patience, for each of k models; inert unless recipe.select_best."""

    k: int
    recipe: Recipe
    params: Tensors = field(repr=False)
    buffers: Tensors = field(repr=False)

    def __post_init__(self):
        self.accuracy = torch.full((self.k,), -1.0)
        self.epoch = torch.zeros(self.k, dtype=torch.long)
        self.waited = torch.zeros(self.k, dtype=torch.long)
        self.stopped = torch.zeros(self.k, dtype=torch.bool)
        self.curve: list[Tensor] = []
        if self.recipe.select_best:
            self.params = {name: t.detach().clone() for name, t in self.params.items()}
            self.buffers = {name: t.clone() for name, t in self.buffers.items()}

    def update(self, epoch: int, accuracy: Tensor, params: Tensors, buffers: Tensors) -> None:
        better = (accuracy > self.accuracy) & ~self.stopped
        self.accuracy = torch.where(better, accuracy, self.accuracy)
        self.epoch[better] = epoch
        self.waited = torch.where(better, 0, self.waited + 1)
        if self.recipe.patience is not None:
            self.stopped |= self.waited > self.recipe.patience
        self.curve.append(accuracy)
        for kept, current in ((self.params, params), (self.buffers, buffers)):
            for name, tensor in current.items():
                rows = better.to(tensor.device)
                kept[name][rows] = tensor.detach()[rows]

    @property
    def all_stopped(self) -> bool:
        return bool(self.stopped.all())

    def weights(self, params: Tensors, buffers: Tensors) -> tuple[Tensors, Tensors]:
        return (self.params, self.buffers) if self.recipe.select_best else (params, buffers)

    def record(self, i: int) -> dict:
        if not self.curve:
            return {}
        return {
            "best_epoch": int(self.epoch[i]),
            "reserve_accuracy": [round(float(a[i]), 6) for a in self.curve],
        }


def _optimiser(recipe: Recipe, params: list[Tensor]) -> torch.optim.Optimizer:
    common = dict(lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(params, **common)
    return torch.optim.SGD(params, momentum=recipe.momentum, **common)


def _shuffled(members: Tensor, batch_size: int, generators: list[torch.Generator]) -> Iterator[Tensor]:
    n = members.shape[1]
    order = torch.stack([torch.randperm(n, generator=g) for g in generators]).to(members.device)
    for index in members.gather(1, order).split(batch_size, dim=1):
        if index.shape[1] > 1 or n == 1:  # BatchNorm needs two
            yield index


def _plain_gradient(losses_of, params: Tensors, batch: Batch) -> Tensor:
    losses = losses_of(params, batch)
    losses.sum().backward()  # the models share no parameter, so the sum's gradient is each one's own
    return losses


def _remembered(forward: Forward) -> Forward:
    """Asked again about the very same tensors, the answer of before: objective and opponent share a forward pass."""
    answers = {}

    def answer(params, x):
        asked = id(params), id(x)
        if asked not in answers:  # x is kept along: a freed tensor's id may come again
            answers[asked] = forward(params, x), params, x
        return answers[asked][0]

    return answer


def _batch(data: Dataset, index: Tensor, augment, generator: torch.Generator) -> Batch:
    x = data.inputs(index)
    return Batch(x if augment is None else augment(x, generator), data.y[index], index)


def _draw(pool: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return pool[torch.randint(len(pool), (count,), generator=generator).to(pool.device)]


def _accuracy(module, params: Tensors, buffers: Tensors, data: Dataset, examples: list[Tensor]) -> Tensor:
    """Share of each model's own examples (one index tensor a model) that it classifies correctly, (k,) on the CPU."""
    shares = []
    for i, index in enumerate(examples):
        one = slice(i, i + 1)
        hits = [
            population.forward(module, pick(params, one), pick(buffers, one), data.inputs(part)[None])[
                0
            ].argmax(1)
            == data.y[part]
            for part in index.split(population.at_once(data.x))
        ]
        shares.append(torch.cat(hits).double().mean())
    return torch.stack(shares).float().cpu()


def _check_finite(losses: Tensor, split: Splits, epoch: int, lr: float) -> None:
    finite = losses.isfinite().cpu()
    if not bool(finite.all()):
        i = int((~finite).nonzero()[0])
        raise FloatingPointError(
            f"loss of the model with seed {int(split.seeds[i])} became {float(losses[i])} in epoch {epoch} at learning "
            f"rate {lr:g}; lower the learning rate or the strength of the objective. Models already finished are cached"
        )


def _same(params: Tensors) -> Tensors:
    return params
