"""What models answer: logits, log-posteriors, prediction sensitivity, accuracy.

Everything here runs in eval mode and in full float32 (TF32 and reduced-precision matmuls off): the sensitivity
divides a difference of posteriors by 1e-3 and would drown in rounding otherwise. Shapes: m models, n examples,
c classes; `index` is int64 (m, n), each model's own rows of the data set, or (n,), the same for all.
"""

import math
from contextvars import ContextVar
from typing import Protocol

import torch
from joblib import effective_n_jobs
from torch import Tensor, nn

from mialib import progress, streams
from mialib.asking import noise
from mialib.data import Dataset
from mialib.training import Population, tasks
from mialib.training.population import at_once, in_batches
from mialib.training.precision import arithmetic

ROWS = 512  # examples at a time on a CPU
TOGETHER = 8  # models that are asked about the same noise once it is made; the answers of each stay in memory meanwhile
# numbers of noise at a time, float32: 64 MiB on a CPU, 512 MiB elsewhere
_NOISE = {"cpu": 2**24}
_NOISE_ELSEWHERE = 2**27


class Answering(Protocol):
    """Answers instead of networks, see `INSTEAD`."""

    def logits(self, population: Population, data: Dataset, index: Tensor) -> Tensor:
        """(m, n, c) float32, to rows of a data set, index int64 (m, n)."""

    def sensitivity(self, population: Population, data: Dataset, index: Tensor, queries: int) -> Tensor:
        """(m, n, c) float64, of `queries` queries an example."""

    def of_inputs(self, population: Population, x: Tensor) -> Tensor:
        """Logits (n, c) of a single network to inputs that the attacker makes, (n, ...)."""


# if set, this is asked instead of networks, by this file and by doors
INSTEAD: ContextVar[Answering | None] = ContextVar("instead of asking", default=None)


def logits(population: Population, data: Dataset, index: Tensor) -> Tensor:
    """(m, n, c) float32 on the CPU."""
    index = index.expand(len(population), -1)
    if (instead := INSTEAD.get()) is not None:
        return instead.logits(population, data, index)
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
    clean: Tensor | None = None,
) -> Tensor:
    """How much the posterior moves under tiny input noise, (m, n, c) float64.

    s_c(x) = 1 / (queries * epsilon) * sum_j |f_c(x + epsilon u_j) - f_c(x)|, u_j ~ N(0, I) on normalised inputs.
    Yuan & Zhang 2022; public code mia_prune `base_model.py`. An example of the data set gets the same noise from every
    model, on every device and beside any other examples, so that differences between models are not differences of noise.
    Costs `queries` queries an example, and one more where `clean` is not given.

    Args:
        clean: `log_posteriors` of the same population and index, f(x), where they are known.

    Raises:
        ValueError: `clean` belongs to other models or examples, as far as its shape shows that.
    """
    index = index.expand(len(population), -1)
    if clean is None:
        clean = log_posteriors(population, data, index)
    if clean.shape[:2] != index.shape:
        raise ValueError(
            f"sensitivity: clean is {tuple(clean.shape)}, must be {(*index.shape, 'c')}: what log_posteriors gives for "
            "the same population and index"
        )
    if (instead := INSTEAD.get()) is not None:
        return instead.sensitivity(population, data, index, queries)
    key = streams.seed(seed, "sensitivity")
    return _of_each(
        _sensitivity, population, data, index, clean, together=TOGETHER, options=(queries, epsilon, key)
    )


def accuracy(population: Population, data: Dataset, mask: Tensor) -> Tensor:
    """Share of each model's examples in `mask` bool (m, n) that it classifies correctly, (m,) float64."""
    shares = []
    for i in range(len(population)):
        index = mask[i].nonzero()[:, 0]
        hits = logits(population[i : i + 1], data, index)[0].argmax(1) == data.y.cpu()[index]
        shares.append(hits.double().mean())
    return torch.stack(shares)


def _of_each(
    question,
    population: Population,
    data: Dataset,
    index: Tensor,
    *known: Tensor,
    together: int = 1,
    options: tuple = (),
) -> Tensor:
    """question(modules, data, own rows (g, n), *known (g, ...), *options) -> (g, n, c) of every model, (m, n, c).

    In as many processes as joblib is set to; each gets up to `together` models at a time.
    """
    count, index = len(population), index.to(data.x.device)
    several = data.x.device.type == "cpu" and count > 1
    jobs = effective_n_jobs(None) if several else 1
    size = max(1, min(together, -(-count // jobs)))
    groups = [list(range(count))[first : first + size] for first in range(0, count, size)]
    calls = (
        tasks.Call(
            number,
            question,
            ([population[i] for i in group], data, index[group], *(one[group] for one in known), *options),
        )
        for number, group in enumerate(groups)
    )
    with progress.bar(count, f"queries, {question.__name__.strip('_')}", "model") as bar:
        found = []
        for one in tasks.in_order(calls, n_jobs=None if several else 1):
            found.append(one)
            bar.update(len(one))
    return torch.cat(found)


def _logits(modules: list[nn.Module], data: Dataset, index: Tensor) -> Tensor:
    size = ROWS if data.x.device.type == "cpu" else at_once(data.x)
    with torch.no_grad(), arithmetic("float32"):
        return torch.stack(
            [
                # brought to the CPU at the end: the host waits for the device once a model
                torch.cat([in_batches(module, data.inputs(rows)) for rows in own.split(size)]).cpu()
                for module, own in zip(modules, index, strict=True)
            ]
        )


def _sensitivity(
    modules: list[nn.Module],
    data: Dataset,
    index: Tensor,
    clean: Tensor,
    queries: int,
    epsilon: float,
    key: int,
) -> Tensor:
    """Asks block after block of all examples that any of the modules is asked about: noise is made once for all of them.

    A module is asked about its own next examples together, whatever the blocks. The last bits of its answers depend on
    which examples are asked together, so they do not depend on which modules are asked together.
    """
    device, shape = data.x.device, data.x.shape[1:]
    block = max(1, _NOISE.get(device.type, _NOISE_ELSEWHERE) // (queries * math.prod(shape)))
    examples, place = index.to(device).unique(return_inverse=True)
    blocks = examples.split(block)
    place, order = place.sort(dim=1, stable=True)
    # how many of each module's examples, sorted by number, come before each block; here the host waits for the device
    starts = torch.arange(len(blocks) + 1, device=device) * block
    edges = torch.searchsorted(place, starts.expand(len(place), -1).contiguous()).tolist()
    step = max(1, at_once(data.x) // queries)
    before = clean.to(device).exp()
    moved = torch.empty_like(before)
    waiting: list[Tensor | None] = [None] * len(modules)  # too few to be asked yet
    with torch.no_grad(), arithmetic("float32"):
        for number, rows in enumerate(blocks):
            noisy = noise.normal(key, rows, queries, shape).mul_(epsilon).add_(data.inputs(rows)[:, None])
            for i, module in enumerate(modules):
                first, last = edges[i][number : number + 2]
                ready = noisy[place[i, first:last] - number * block]
                if waiting[i] is not None:
                    first -= len(waiting[i])
                    ready = torch.cat([waiting[i], ready])
                count = len(ready) if last == index.shape[1] else len(ready) // step * step
                waiting[i] = ready[count:].clone()  # a copy, which frees the block
                if count:
                    asked = order[i, first : first + count]
                    parts = [in_batches(module, part.flatten(0, 1)) for part in ready[:count].split(step)]
                    after = torch.cat(parts).double().softmax(1).view(count, queries, -1)
                    moved[i, asked] = (after - before[i, asked, None]).abs().sum(1) / (queries * epsilon)
    return moved.cpu()
