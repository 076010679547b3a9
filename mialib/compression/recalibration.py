"""What has to be measured again in a network quantised after training: BatchNorm's statistics, the ranges of its ReLUs.

Each model has its own calibration examples: `index` int64 (k, n). The notebooks use reserve data by default; members
are an ablation, since what is measured on them may reveal them.
"""

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from mialib.compression import quantized_relu
from mialib.data import Dataset
from mialib.training import Population, population

_BATCH = (
    64  # calibration examples at a time: what deeper layers see is normalised batch by batch, as in training
)
_KEPT = 100_000  # activations of a ReLU from which its range is chosen
_TRIED = 40  # ranges that are tried for each ReLU


def batchnorm(models: Population, data: Dataset, index: Tensor) -> Population:
    """The models with BatchNorm's running mean and variance measured anew, on all calibration examples.

    They go through the network in batches of at most 64, whose sizes differ by at most one. A layer's mean and unbiased
    variance are those of all its inputs, however these are split: batches count by their size, and the variance between
    their means counts too. Quantised weights shift what each layer sees; with the statistics of the full-precision
    network the quantised one would suffer for that. Models without BatchNorm are returned as they are.
    """
    check(models, index)
    fresh = []
    for module, rows in zip(models, index.to(data.x.device), strict=True):
        norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
        norms = [layer for layer in norms if layer.track_running_stats]
        if not norms:
            return models
        seen = {norm: [] for norm in norms}
        for norm in norms:
            norm.reset_running_stats()
            norm.train()  # and nothing else: dropout stays off
            norm.register_forward_pre_hook(partial(_note, seen[norm]))
        with torch.no_grad():
            # never a batch of one, which BatchNorm refuses
            for part in rows.tensor_split(math.ceil(len(rows) / _BATCH)):
                module(data.inputs(part))
            for norm, parts in ((norm, parts) for norm, parts in seen.items() if parts):
                mean, variance = pooled(*map(torch.stack, zip(*parts, strict=True)))
                norm.running_mean.copy_(mean)
                norm.running_var.copy_(variance)
        fresh.append(module)
    return replace(models, buffers=population.stack(models.make_model, fresh).buffers, keys=[])


def pooled(counts: Tensor, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of all values in p parts together, (c,) each.

    Args:
        counts: float64 (p, 1), the number of values in each part, at least 2 in all.
        means, variances: float64 (p, c), for each part; the variance is the mean squared distance from the part's mean.
    """
    mean = (counts * means).sum(0) / counts.sum(0)
    squares = (counts * (variances + (means - mean).square())).sum(0)
    return mean, squares / (counts.sum(0) - 1)


def _note(seen: list[tuple[Tensor, Tensor, Tensor]], _, inputs: tuple[Tensor]) -> None:
    """Add an input of a layer, (b, c, ...), to the list: values a channel (1,), their mean and variance (c,)."""
    values = inputs[0].double().transpose(0, 1).flatten(1)
    count = values.new_tensor([values.shape[1]])
    seen.append((count, values.mean(1), values.var(1, correction=0)))


def clips(
    models: Population, data: Dataset, index: Tensor, bits: float, last: float | None = None
) -> Population:
    """The models with quantised ReLUs, whose ranges are chosen on the calibration examples.

    Each range is the one with the smallest mean squared error among 40 between 0 and the largest activation. All are
    measured in the network before its activations are quantised.
    """
    check(models, index)
    make_model = quantized_relu.quantized(models.make_model, bits, last)
    widths = {
        n: m.bits for n, m in make_model().named_modules() if isinstance(m, quantized_relu.QuantizedReLU)
    }
    ranges = []
    for module, rows in zip(models, index.to(data.x.device), strict=True):
        seen = _activations(module.eval(), data.inputs(rows), list(widths))
        ranges.append({name: _best_range(seen[name], width) for name, width in widths.items()})
    chosen = {f"{name}.clip": torch.stack([of_model[name] for of_model in ranges]) for name in widths}
    return replace(models, make_model=make_model, buffers=models.buffers | chosen, keys=[])


def _activations(module: nn.Module, x: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Up to `_KEPT` outputs of each named layer on x (n, ...), evenly spread."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    hooks = [
        module.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: seen[name].append(out.flatten())
        )
        for name in names
    ]
    with torch.no_grad():
        population.in_batches(module, x)
    for hook in hooks:
        hook.remove()
    joined = {name: torch.cat(parts) for name, parts in seen.items()}
    return {name: values[:: len(values) // _KEPT + 1] for name, values in joined.items()}


def _best_range(values: Tensor, bits: int) -> Tensor:
    """The range with the smallest error, a scalar; 1 if nothing was active."""
    largest = values.max()
    if largest <= 0:
        return torch.ones_like(largest)
    tried = largest * torch.arange(1, _TRIED + 1, device=values.device) / _TRIED
    errors = torch.stack([(quantized_relu.clipped(values, c, bits) - values).square().mean() for c in tried])
    return tried[errors.argmin()]


def check(models: Population, index: Tensor) -> None:
    """Raises ValueError if a model lacks calibration examples of its own."""
    if index.ndim != 2 or len(index) != len(models) or index.shape[1] < 2:
        raise ValueError(
            f"calibration: index is {tuple(index.shape)}; it must hold at least 2 examples for each of the "
            f"{len(models)} models (splits.indices(split.reserve), for one)"
        )
