"""The best epoch of each model on reserve data, and patience. All of it stays on the models' device until it is read."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mialib.training.population import Tensors
from mialib.training.recipe import Recipe


@dataclass
class Checkpoints:
    """Best checkpoint on reserve data and patience, for each of k models; inert unless recipe.select_best.

    stopped: bool (k,), models whose patience is over.
    """

    k: int
    recipe: Recipe
    params: Tensors = field(repr=False)
    buffers: Tensors = field(repr=False)

    def __post_init__(self):
        device = next(iter(self.params.values())).device
        self.accuracy = torch.full((self.k,), -1.0, device=device)
        self.epoch = torch.zeros(self.k, dtype=torch.long, device=device)
        self.waited = torch.zeros(self.k, dtype=torch.long, device=device)
        self.stopped = torch.zeros(self.k, dtype=torch.bool, device=device)
        self.curve: list[Tensor] = []
        if self.recipe.select_best:
            self.params = {name: t.detach().clone() for name, t in self.params.items()}
            self.buffers = {name: t.clone() for name, t in self.buffers.items()}

    def update(self, epoch: int, accuracy: Tensor, params: Tensors, buffers: Tensors) -> None:
        """Keep the weights of models that beat all their earlier epochs: accuracy (k,) after epoch number `epoch`."""
        better = (accuracy > self.accuracy) & ~self.stopped
        self.accuracy = torch.where(better, accuracy, self.accuracy)
        self.epoch = torch.where(better, epoch, self.epoch)
        self.waited = torch.where(better, 0, self.waited + 1)
        if self.recipe.patience is not None:
            self.stopped = self.stopped | (self.waited > self.recipe.patience)
        self.curve.append(accuracy)
        for kept, current in ((self.params, params), (self.buffers, buffers)):
            for name, tensor in current.items():
                rows = better.view(-1, *[1] * (tensor.ndim - 1))
                # for all models alike, without a look at which are better: so the host need not wait for the answer
                kept[name] = torch.where(rows, tensor.detach(), kept[name])

    def weights(self, params: Tensors, buffers: Tensors) -> tuple[Tensors, Tensors]:
        return (self.params, self.buffers) if self.recipe.select_best else (params, buffers)

    def records(self) -> list[dict]:
        """For each model, the epoch that was kept and the curve that chose it."""
        if not self.curve:
            return [{} for _ in range(self.k)]
        curves = torch.stack(self.curve, 1).tolist()
        return [
            {"best_epoch": epoch, "reserve_accuracy": [round(value, 6) for value in curve]}
            for epoch, curve in zip(self.epoch.tolist(), curves, strict=True)
        ]
