"""How batches are drawn and gradients computed; `mialib.defenses.differential_privacy` (DP-SGD) is another way."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from mialib import streams
from mialib.training.hooks import Backward, Batch, Losses
from mialib.training.population import Tensors


@dataclass(frozen=True)
class Shuffling:
    """The usual descent: each epoch shuffles the members and cuts them into batches; plain gradients."""

    alone: ClassVar[bool] = False

    def check(self, make_model: Callable[[], nn.Module]) -> None:
        """Accept every architecture."""

    def begin(
        self, members: Tensor, batch_size: int, seeds: list[int]
    ) -> tuple[Callable[[], Iterator[Tensor]], Backward]:
        generators = [streams.generator(seed, "batch order") for seed in seeds]
        return partial(_shuffled, members, batch_size, generators), _plain_gradient


def _shuffled(members: Tensor, batch_size: int, generators: list[torch.Generator]) -> Iterator[Tensor]:
    n = members.shape[1]
    order = torch.stack([torch.randperm(n, generator=g) for g in generators]).to(members.device)
    for index in members.gather(1, order).split(batch_size, dim=1):
        if index.shape[1] > 1 or n == 1:  # BatchNorm needs two
            yield index


def _plain_gradient(losses: Losses, params: Tensors, batch: Batch) -> Tensor:
    of_models = losses(params, batch)
    of_models.sum().backward()  # the models share no parameter, so each one's part of the sum's gradient is its own
    return of_models
