"""The best epoch of each model on reserve data, and patience."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mialib.training.population import Tensors
from mialib.training.recipe import Recipe


@dataclass
class Checkpoints:
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
