"""The one training loop: k models of one recipe, with per-model members, seeds, best checkpoint and patience.

Shapes: k models, b examples a batch, c classes. Tensors of all models are stacked along the first axis; one Adam or
SGD works element by element, so models trained together take the very steps they would take alone.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mialib import streams
from mialib.data import Dataset, Splits, splits
from mialib.training import population
from mialib.training.checkpoints import Checkpoints
from mialib.training.hooks import Augment, Batch, Forward, Hooks
from mialib.training.population import Population, Tensors, pick
from mialib.training.recipe import Recipe


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
) -> list[tuple[Tensors, dict]]:
    """Train the models of one shard together.

    Args:
        tick: called with the number of models after each epoch.

    Returns:
        For each model its tensors, on the CPU, and its record.
    """
    began, device, seeds = time.perf_counter(), data.x.device, split.seeds.tolist()
    shard = _Shard(make_model, data, recipe, split, hooks, watch, start)
    # dropout draws from the global stream: seeded for these models alone, and left as it was
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(streams.seed(seeds[0], "dropout"))
        for epoch in range(recipe.epochs):
            shard.learn(epoch)
            shard.look(epoch)
            stopped = shard.best.all_stopped
            if tick is not None:
                tick(len(seeds) * (recipe.epochs - epoch if stopped else 1))
            if stopped:
                break
    seconds = round((time.perf_counter() - began) / len(seeds), 3)
    return [(tensors, record | {"seconds": seconds}) for tensors, record in shard.results()]


class _Shard:
    """The models of one training: their raw parameters, what the hooks keep of them, and what is noted."""

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
        self.judging = population.skeleton(make_model).eval()
        self.compress = hooks.compress or _same
        self.references = [streams.generator(seed, "reference batches") for seed in seeds]
        self.noise = streams.generator(seeds[0], "augmentation", device=device)
        opponent, of_opponents = hooks.opponent, streams.seeds(seeds, "opponent")
        self.play = opponent.begin(of_opponents, device) if opponent is not None else None
        self.bound = hooks.constraint.begin(self.params) if hooks.constraint is not None else None
        members = splits.indices(split.member).to(device)
        self.batches, self.backward = hooks.descent.begin(members, recipe.batch_size, seeds)
        self.optimiser = _optimiser(recipe, [p for p in self.params.values() if p.requires_grad])
        self.best = Checkpoints(len(seeds), recipe, self.params, self.buffers)
        self.reserve = _rows(split.reserve, device)
        self.watched = {
            f"{name}_accuracy": _rows(getattr(split, name), device)
            for name in watch
            if not (name == "reserve" and recipe.select_best)  # noted anyway
        }
        self.curves: dict[str, list[Tensor]] = {"loss": [], **{name: [] for name in self.watched}}

    def learn(self, epoch: int) -> None:
        """One pass over the members."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.lr * 0.1 ** sum(epoch >= m for m in self.recipe.milestones)
        total, count = torch.zeros(len(self.split), device=self.data.x.device), 0
        for index in self.batches():
            self.optimiser.zero_grad(set_to_none=True)
            batch = _batch(self.data, index, self.hooks.augment, self.noise)
            losses = self.backward(self.losses, self.params, batch)
            self.optimiser.step()
            if self.bound is not None:
                with torch.no_grad():
                    for name, value in self.bound.follow(self.params, self.step).items():
                        self.params[name].copy_(value)
            # a mean over examples: batches differ in size, and those of DP-SGD may be empty
            size, self.step = index.shape[1], self.step + 1
            total, count = total + size * losses.detach(), count + size
        self.curves["loss"].append(total / max(count, 1))
        _check_finite(self.curves["loss"][-1], self.split, epoch, self.optimiser.param_groups[0]["lr"])

    def losses(self, params: Tensors, batch: Batch) -> Tensor:
        """Objective and penalties of the raw parameters, (k,)."""
        answer, effective = _remembered(self.forward), self.compress(params)
        losses = self.hooks.objective(answer, effective, batch, self.step)
        if self.play is not None:
            pools = zip(self.reserve, self.references, strict=True)
            drawn = torch.stack([_draw(pool, batch.index.shape[1], generator) for pool, generator in pools])
            reference = _batch(self.data, drawn, self.hooks.augment, self.noise)
            losses = losses + self.play(answer, effective, batch, reference, self.step)
        return losses if self.bound is None else losses + self.bound.penalty(params, self.step)

    def forward(self, params: Tensors, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            logits = population.forward(self.learning, params, self.buffers, x)
        return logits.float() if logits.dtype == torch.bfloat16 else logits

    @torch.no_grad()
    def look(self, epoch: int) -> None:
        """Note the accuracies that are watched, and keep the weights of what is best so far."""
        if self.recipe.select_best:
            self.best.update(epoch, self.accuracy(self.reserve), self.params, self.buffers)
        for name, examples in self.watched.items():
            self.curves[name].append(self.accuracy(examples))

    def accuracy(self, examples: list[Tensor]) -> Tensor:
        """Share of each model's own examples (one index tensor a model) that it gets right, (k,) on the CPU."""
        params, shares = self.compress(self.params), []
        for i, index in enumerate(examples):
            tensors = pick(params, slice(i, i + 1)), pick(self.buffers, slice(i, i + 1))
            hits = [
                population.forward(self.judging, *tensors, self.data.inputs(part)[None])[0].argmax(1)
                == self.data.y[part]
                for part in index.split(population.at_once(self.data.x))
            ]
            shares.append(torch.cat(hits).double().mean())
        return torch.stack(shares).float().cpu()

    @torch.no_grad()
    def results(self) -> list[tuple[Tensors, dict]]:
        """Of each model its tensors, compression baked in, on the CPU, and its record."""
        params, buffers = self.best.weights(self.params, self.buffers)
        final = {name: tensor.detach() for name, tensor in self.compress(params).items()} | buffers
        noted = self.curves | (self.bound.curves if self.bound is not None else {})
        curves = {name: torch.stack(values).T.tolist() for name, values in noted.items() if values}
        return [
            (
                {name: tensor[i].cpu() for name, tensor in final.items()},
                {name: curves[name][i] if name in curves else [] for name in noted} | self.best.record(i),
            )
            for i in range(len(self.split))
        ]


def _optimiser(recipe: Recipe, params: list[Tensor]) -> torch.optim.Optimizer:
    common = dict(lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(params, **common)
    return torch.optim.SGD(params, momentum=recipe.momentum, **common)


def _remembered(forward: Forward) -> Forward:
    """Asked again about the very same tensors, the answer of before: objective and opponent share a forward pass."""
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


def _draw(pool: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return pool[torch.randint(len(pool), (count,), generator=generator).to(pool.device)]


def _rows(mask: Tensor, device: torch.device) -> list[Tensor]:
    return [row.nonzero()[:, 0].to(device) for row in mask]


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
