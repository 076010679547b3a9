"""Stand-ins for networks and answers where nothing is trained or asked: of the right shape, quick, the same each time.

All untrained networks of an architecture share one piece of memory. Answers are a fixed function of a network's name and
of the input, and say nothing about membership.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from mialib import hashing, streams
from mialib.data import Dataset
from mialib.training import Population, Recipe, Tensors, population
from mialib.training.fitting import _Order

SMALL = 1_000_000  # parameters; what has fewer may be an output defence
ROWS = 512  # examples at a time


class Networks:
    """Untrained networks, made once for each architecture."""

    def __init__(self):
        self._fresh: dict[str, Population] = {}

    def untrained(self, order: _Order, keys: list[str], watch: tuple[str, ...]) -> Population:
        """What training would give, except for weights and curves: one network for each row of the split."""
        name = str(hashing.describe(order.make_model))
        if order.start is None and name not in self._fresh:
            self._fresh[name] = population.initial(order.make_model, [0])
        first = (order.start or self._fresh[name])[0:1].to(order.data.x.device)
        hooks = order.hooks[[0]]
        params = first.params if hooks.compress is None else hooks.compress(first.params)
        if sum(tensor.numel() for tensor in params.values()) < SMALL:
            # output defences answer by themselves, and no two trainings of one are alike
            nudge = 1 + int(keys[0][:4], 16) / 1e7
            params = {name: tensor * nudge for name, tensor in params.items()}
        bound = None if hooks.constraint is None else hooks.constraint.begin(first.params)
        record = curves(order.recipe, watch, () if bound is None else bound.curves)
        return Population(
            order.make_model,
            of_all(params, len(keys)),
            of_all(first.buffers, len(keys)),
            [dict(record) for _ in keys],
            keys,
            [name for _, own in order.parts for name in own.fingerprints()],
        )


def of_all(tensors: Tensors, k: int) -> Tensors:
    """Tensors (1, ...) of one network given to k of them, (k, ...): the same memory, except for single numbers."""
    return {
        name: (tensor.detach().expand(k, *tensor.shape[1:]) if tensor.ndim > 1 else tensor.detach().repeat(k))
        for name, tensor in tensors.items()
    }


def once(function: Callable, of: Callable = lambda given: given) -> Callable:
    """`function` for networks that share one piece of memory: it gets the first alone, and its result serves all.

    of: gives the tensors of the first argument, name -> (k, ...).
    """

    def quick(given, *options):
        tensors = of(given)
        k = len(next(iter(tensors.values()), ()))
        if k < 2 or not all(tensor.stride(0) == 0 for tensor in tensors.values() if tensor.ndim > 1):
            return function(given, *options)
        one = {name: tensor[:1] for name, tensor in given.items()} if isinstance(given, dict) else given[0:1]
        return _for_all(function(one, *options), k)

    return quick


def _for_all(result, k: int):
    if isinstance(result, list):
        return result * k
    if isinstance(result, Tensor):
        return result.expand(k)
    if isinstance(result, dict):
        return of_all(result, k)
    return replace(result, **{name: _for_all(value, k) for name, value in vars(result).items()})


def curves(recipe: Recipe, watch: tuple[str, ...], more: tuple[str, ...] = ()) -> dict:
    """What the loop would note if no epoch were better than the others: waiting for an accuracy takes all epochs.

    more: further curves, of a constraint.
    """
    epochs = recipe.epochs
    # below any accuracy, and best before the last epoch: stopping there means training anew what all epochs had cached
    waiting = [-1e-3 * (epochs - epoch % max(1, epochs - 1)) / epochs for epoch in range(epochs)]
    record = {"loss": [1.0] * epochs} | {f"{name}_accuracy": waiting for name in watch}
    record |= dict.fromkeys(more, [1.0] * max(1, epochs))
    if recipe.select_best and epochs:
        record |= {"best_epoch": epochs - 1, "reserve_accuracy": waiting}
    return record | {"seconds": 0.0}


def logits(networks: Population, number: int, where: Tensor, shape: torch.Size) -> Tensor:
    """Logits (n, *shape) of network `number` for inputs at the places `where` (n,): waves, others for each network."""
    keys = getattr(networks, "keys", None)
    name = keys[number] if keys else str(number)
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    generator = streams.generator(seed, "said without asking")
    frequency, phase = 100 * torch.randn((2, shape.numel()), generator=generator)
    return (3 * torch.sin(where[:, None] * frequency + phase)).view(-1, *shape)


def places(data: Dataset) -> Tensor:
    """The `place` of every example of a data set, (n,); kept with the data set."""
    if "_places" not in data.__dict__:
        parts = torch.arange(len(data)).split(ROWS)
        data.__dict__["_places"] = torch.cat([place(data.inputs(part).cpu()) for part in parts])
    return data.__dict__["_places"]


def place(x: Tensor) -> Tensor:
    """A number for each input x (n, ...), about -1 to 1: the same in every batch, up to rounding."""
    flat = x.flatten(1).float()
    direction = torch.randn(flat.shape[1], generator=streams.generator(0, "places of inputs"))
    return flat @ (direction / math.sqrt(flat.shape[1]))
