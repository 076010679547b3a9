"""What a network that is quantised after training has to measure again: BatchNorm's statistics, the range of its ReLUs.

The calibration examples are each model's own: `index` int64 (k, n). Reserve data by default in the notebooks; members
are an ablation, since what is measured on them may tell of them.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from mialib.compression import quantized_relu
from mialib.data import Dataset
from mialib.training import Population, population

_KEPT = 100_000  # activations of a ReLU that its range is chosen by
_TRIED = 40  # ranges that are tried for each ReLU


def batchnorm(models: Population, data: Dataset, index: Tensor) -> Population:
    """The models with BatchNorm's running mean and variance measured anew, as averages over batches of 64.

    Quantised weights shift what each layer sees; statistics of the full-precision network would punish the quantised
    one for that. Models without BatchNorm come back as they are.
    """
    _check(models, index)
    fresh = []
    for module, rows in zip(models, index.to(data.x.device), strict=True):
        norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
        if not norms:
            return models
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average
            norm.train()  # and nothing else: dropout stays off
        with torch.no_grad():
            for part in rows.split(64):
                if len(part) > 1:
                    module(data.inputs(part))
        fresh.append(module)
    return replace(models, buffers=population.stack(models.make_model, fresh).buffers, keys=[])


def clips(
    models: Population, data: Dataset, index: Tensor, bits: float, last: float | None = None
) -> Population:
    """The models with quantised ReLUs, whose ranges are chosen on the calibration examples.

    Each range is the one of 40 between nothing and the largest activation that has the smallest mean squared error; all
    are measured in the network before its activations are quantised.
    """
    _check(models, index)
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
    """A scalar; 1 where nothing was active."""
    largest = values.max()
    if largest <= 0:
        return torch.ones_like(largest)
    tried = largest * torch.arange(1, _TRIED + 1, device=values.device) / _TRIED
    errors = torch.stack([(quantized_relu.clipped(values, c, bits) - values).square().mean() for c in tried])
    return tried[errors.argmin()]


def _check(models: Population, index: Tensor) -> None:
    if index.ndim != 2 or len(index) != len(models) or index.shape[1] < 2:
        raise ValueError(
            f"calibration: index is {tuple(index.shape)}; it must hold at least 2 examples for each of the "
            f"{len(models)} models (splits.indices(split.reserve), for one)"
        )
