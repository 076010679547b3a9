"""What models answer: logits, log-posteriors, prediction sensitivity, and the views an attacker gets of them.

Everything here runs in eval mode and in full float32 (TF32 and reduced-precision matmuls off): the sensitivity
divides a difference of posteriors by 1e-3 and would drown in rounding otherwise. Shapes: m models, n examples,
c classes; `index` is int64 (m, n), each model's own rows of the data set, or (n,), the same for all.
"""

import hashlib
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from joblib import Parallel, delayed
from torch import Tensor, nn

from mialib import progress, splits
from mialib.data import Dataset
from mialib.population import Population, in_batches, pick
from mialib.splits import Splits

ROWS = 512  # examples at a time; fixed, so that the noise of the sensitivity does not depend on memory


@dataclass(frozen=True)
class Views:
    """What an attacker sees of m models, each on n candidates.

    Args:
        log_posteriors: (m, n, c) float64, may hold -inf behind an output defence.
        labels: (m, n) int64, the true classes.
        sensitivity: (m, n, c) float64, `sensitivity` below; None where the attacker may not query.
        x: (m, n, ...) float32, the candidates' normalised inputs; only for attacks that build probes from them. A
            tensor, or `Inputs`, which has its shape and makes x[i] when asked.
        query: query(x (m, b, ...)) -> log_posteriors (m, b, c), each model's answers to inputs of the attacker's own.
            Indexed by model if the m models differ, as `Door`.
    """

    log_posteriors: Tensor
    labels: Tensor
    sensitivity: Tensor | None = None
    x: "Tensor | Inputs | None" = None
    query: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self):
        m, n, _ = self.log_posteriors.shape
        if self.log_posteriors.dtype != torch.float64:
            raise ValueError(f"views: log_posteriors must be float64, found {self.log_posteriors.dtype}")
        if self.labels.shape != (m, n):
            raise ValueError(
                f"views: labels must be {(m, n)} as the log-posteriors, found {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.log_posteriors)

    def __getitem__(self, models: slice | list[int]) -> "Views":
        parts = (self.log_posteriors, self.labels, self.sensitivity, self.x)
        return Views(*(None if part is None else part[models] for part in parts), pick(self.query, models))

    def check_single(self) -> None:
        """Raises ValueError for the views of more models than one, or of none, where a target's are needed."""
        if len(self) != 1:
            raise ValueError(f"target must be the views of one model, (1, n, c), found {len(self)} models")

    def answers(self) -> "Views":
        """The same without the candidates' inputs and the door: small enough to be sent to other processes."""
        return replace(self, x=None, query=None)

    def rows(self, index: Tensor) -> "Views":
        """What is seen of some of the candidates: `index` int64 (m, r) into the n, for each model its own."""
        model = torch.arange(len(index))[:, None]
        x = self.x.rows(index) if isinstance(self.x, Inputs) else self.x
        return Views(
            self.log_posteriors[model, index],
            self.labels[model, index],
            None if self.sensitivity is None else self.sensitivity[model, index],
            x[model, index] if isinstance(x, Tensor) else x,
            self.query,
        )


@dataclass(frozen=True)
class Inputs:
    """The normalised inputs of candidates (m, n), made on demand: dozens of views of one data set share its memory."""

    data: Dataset
    index: Tensor

    @property
    def shape(self) -> torch.Size:
        return torch.Size([*self.index.shape, *self.data.x.shape[1:]])

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, models: int | slice | list[int]) -> "Tensor | Inputs":
        """The inputs of one model's candidates (n, ...), or those of some of the models, not yet made."""
        if not isinstance(models, int):
            return Inputs(self.data, self.index[models])
        return self.data.inputs(self.index[models].to(self.data.x.device)).cpu()

    def rows(self, index: Tensor) -> "Inputs":
        """The inputs of some of the candidates, `index` int64 (m, r)."""
        return Inputs(self.data, self.index.gather(1, index))


def logits(population: Population, data: Dataset, index: Tensor) -> Tensor:
    """(m, n, c) float32 on the CPU."""
    return _of_each(_logits, population, data, index)


def log_posteriors(population: Population, data: Dataset, index: Tensor) -> Tensor:
    """log softmax of the logits, (m, n, c) float64."""
    return logits(population, data, index).double().log_softmax(-1)


def sensitivity(
    population: Population,
    data: Dataset,
    index: Tensor,
    *,
    queries: int = 10,
    epsilon: float = 1e-3,
    seed: int = 0,
) -> Tensor:
    """How much the posterior moves under tiny input noise, (m, n, c) float64.

    s_c(x) = 1 / (queries * epsilon) * sum_j |f_c(x + epsilon u_j) - f_c(x)|, u_j ~ N(0, I) on normalised inputs.
    Yuan & Zhang 2022; public code mia_prune `base_model.py`. Example number i gets the same noise from every model,
    so that differences between models are not differences of noise. Costs queries + 1 queries an example.
    """
    return _of_each(_sensitivity, population, data, index, queries, epsilon, seed)


def accuracy(population: Population, data: Dataset, mask: Tensor) -> Tensor:
    """Share of each model's examples in `mask` bool (m, n) that it classifies correctly, (m,) float64."""
    shares = []
    for i in range(len(population)):
        index = mask[i].nonzero()[:, 0]
        hits = logits(population[i : i + 1], data, index)[0].argmax(1) == data.y.cpu()[index]
        shares.append(hits.double().mean())
    return torch.stack(shares)


def candidates(split: Splits, seed: int) -> tuple[Tensor, Tensor]:
    """The examples that each model is attacked on, shuffled, and which of them are members.

    The order depends on the set of candidates and the seed only, never on who is a member: exchanging members and
    non-members of a target leaves everything an attack sees as it was.

    Returns:
        index int64 (k, n) into the data set, member bool (k, n).
    """
    index = splits.indices(split.member | split.test)
    order = torch.stack(
        [
            torch.randperm(index.shape[1], generator=torch.Generator().manual_seed(seed + i))
            for i in range(len(split))
        ]
    )
    index = index.gather(1, order)
    return index, split.member.gather(1, index)


def views(
    population: Population,
    data: Dataset,
    index: Tensor,
    *,
    sensitive: bool = True,
    probes: bool = False,
    remember: bool = False,
    seed: int = 0,
) -> Views:
    """What an attacker sees of the models on `index` (m, n).

    Args:
        sensitive: also measure the sensitivity (10 further queries an example).
        probes: also give the inputs and the door to query the models with inputs of the attacker's own.
        remember: the door remembers its answers, see `Door`.
    """
    with progress.bar(1 + sensitive, "queries", "question") as shown:
        answers = log_posteriors(population, data, index)
        shown.update()
        moved = sensitivity(population, data, index, seed=seed) if sensitive else None
    seen = Views(answers, data.y.cpu()[index], moved)
    if not probes:
        return seen
    memory = [{} for _ in range(len(population))] if remember else None
    return replace(seen, x=Inputs(data, index), query=Door(population, memory))


def together(targets: list[Views]) -> Views:
    """What is seen of several models in one Views, without the doors to query them."""
    return Views(
        torch.cat([target.log_posteriors for target in targets]),
        torch.cat([target.labels for target in targets]),
        None if targets[0].sensitivity is None else torch.cat([target.sensitivity for target in targets]),
    )


def serve(served: Views, defense: Callable[[Tensor], Tensor]) -> Views:
    """The views behind an output defence that maps log-posteriors to log-posteriors, without their sensitivity.

    A defence that holds one state a model is indexed by model and takes the answers of all of them, (m, n, c).
    """
    query = served.query and Guarded(served.query, defense)
    return replace(served, log_posteriors=defense(served.log_posteriors), sensitivity=None, query=query)


@dataclass(frozen=True)
class Door:
    """Asks each model of a population about inputs of the attacker's own, (m, b, ...) -> log-posteriors (m, b, c).

    Args:
        memory: one dictionary a model, for answers to be remembered in (by a hash of the inputs): whoever asks the same
            of the same model again, behind whatever output defence, costs nothing. It grows with every question.
    """

    population: Population
    memory: list[dict] | None = None

    def __getitem__(self, models: slice | list[int]) -> "Door":
        return Door(self.population[models], pick(self.memory, models))

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        memory = self.memory or [None] * len(self.population)
        asked = zip(self.population, x, memory, strict=True)
        return torch.stack([self._answer(*one) for one in asked]).double().log_softmax(-1)

    def _answer(self, module: nn.Module, x: Tensor, memory: dict | None) -> Tensor:
        if memory is None:
            return self._ask(module, x)
        question = hashlib.blake2b(x.cpu().contiguous().numpy(), digest_size=16).digest()
        if question not in memory:
            memory[question] = self._ask(module, x)
        return memory[question]

    def _ask(self, module: nn.Module, x: Tensor) -> Tensor:
        device = next(module.parameters(), x).device  # a deployed network has no parameters
        with full_precision():
            return torch.cat([in_batches(module, part.to(device)).cpu() for part in x.split(ROWS)])


@dataclass(frozen=True)
class Guarded:
    """A door behind an output defence."""

    door: Callable[[Tensor], Tensor]
    defense: Callable[[Tensor], Tensor]

    def __getitem__(self, models: slice | list[int]) -> "Guarded":
        return Guarded(pick(self.door, models), pick(self.defense, models))

    def __call__(self, x: Tensor) -> Tensor:
        return self.defense(self.door(x))


def _of_each(question, population: Population, data: Dataset, index: Tensor, *options) -> Tensor:
    """question(module, data, own rows, *options) of every model, stacked; in as many processes as joblib is set to."""
    index = index.expand(len(population), -1).to(data.x.device)
    run = Parallel(
        n_jobs=None if data.x.device.type == "cpu" and len(population) > 1 else 1, return_as="generator"
    )
    answers = run(delayed(question)(population[i], data, index[i], *options) for i in range(len(population)))
    what = f"queries, {question.__name__.strip('_')}"
    return torch.stack(list(progress.follow(answers, what, "model", len(population))))


def _logits(module: nn.Module, data: Dataset, index: Tensor) -> Tensor:
    with torch.no_grad(), full_precision():
        return torch.cat([in_batches(module, data.inputs(rows)).cpu() for rows in index.split(ROWS)])


def _sensitivity(
    module: nn.Module, data: Dataset, index: Tensor, queries: int, epsilon: float, seed: int
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device gets the same noise
    found = []
    with torch.no_grad(), full_precision():
        block = max(1, ROWS // queries)
        for rows in index.split(block):
            x = data.inputs(rows)
            clean = in_batches(module, x).double().softmax(1)
            # a whole block is drawn even for the last rows: an example's noise does not depend on what follows it
            noise = torch.randn((queries, block, *x.shape[1:]), generator=generator)[:, : len(x)].to(x)
            noisy = in_batches(module, (x + epsilon * noise).flatten(0, 1))
            moved = noisy.double().softmax(1).view(queries, *clean.shape) - clean
            found.append((moved.abs().sum(0) / (queries * epsilon)).cpu())
    return torch.cat(found)


@contextmanager
def full_precision():
    """float32 means float32: no TF32 in convolutions or matrix products, whatever the caller has set."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])
