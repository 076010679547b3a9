"""What models answer: logits, log-posteriors, prediction sensitivity, accuracy.

Everything here runs in eval mode and in full float32 (TF32 and reduced-precision matmuls off): the sensitivity
divides a difference of posteriors by 1e-3 and would drown in rounding otherwise. Shapes: m models, n examples,
c classes; `index` is int64 (m, n), each model's own rows of the data set, or (n,), the same for all.
"""

import torch
from joblib import Parallel, delayed
from torch import Tensor, nn

from mialib import progress, streams
from mialib.data import Dataset
from mialib.training import Population
from mialib.training.population import in_batches
from mialib.training.precision import arithmetic

ROWS = 512  # examples at a time; fixed, so that the noise of the sensitivity does not depend on memory


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


def _of_each(question, population: Population, data: Dataset, index: Tensor, *options) -> Tensor:
    """question(module, data, own rows, *options) of every model, stacked; in as many processes as joblib is set to."""
    index = index.expand(len(population), -1).to(data.x.device)
    several = data.x.device.type == "cpu" and len(population) > 1
    run = Parallel(n_jobs=None if several else 1, return_as="generator")
    answers = run(delayed(question)(population[i], data, index[i], *options) for i in range(len(population)))
    what = f"queries, {question.__name__.strip('_')}"
    return torch.stack(list(progress.follow(answers, what, "model", len(population))))


def _logits(module: nn.Module, data: Dataset, index: Tensor) -> Tensor:
    with torch.no_grad(), full_precision():
        return torch.cat([in_batches(module, data.inputs(rows)).cpu() for rows in index.split(ROWS)])


def _sensitivity(
    module: nn.Module, data: Dataset, index: Tensor, queries: int, epsilon: float, seed: int
) -> Tensor:
    generator = streams.generator(seed, "sensitivity")  # on the CPU, so that every device gets the same noise
    sensitivities = []
    with torch.no_grad(), full_precision():
        block = max(1, ROWS // queries)
        for rows in index.split(block):
            x = data.inputs(rows)
            clean = in_batches(module, x).double().softmax(1)
            # a whole block is drawn even for the last rows: an example's noise does not depend on what follows it
            noise = torch.randn((queries, block, *x.shape[1:]), generator=generator)[:, : len(x)].to(x)
            noisy = in_batches(module, (x + epsilon * noise).flatten(0, 1))
            moved = noisy.double().softmax(1).view(queries, *clean.shape) - clean
            sensitivities.append((moved.abs().sum(0) / (queries * epsilon)).cpu())
    return torch.cat(sensitivities)


def full_precision():
    """float32 means float32: no TF32 in convolutions or matrix products, whatever the caller has set."""
    return arithmetic("float32")
