"""Gradual magnitude pruning: the smallest weights are removed a few at a time while the others learn.

    share pruned so far = final share * (1 - (1 - t)^3),    t from 0 to 1 over the ramp

Source: Zhu & Gupta 2017, arXiv:1710.01878, equation 1 with an initial sparsity of 0.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mialib.compression.pruning import Masks
from mialib.training import Tensors


@dataclass(frozen=True)
class Gradual:
    """The `constraint` of `fit` that zeroes more and more weights; a zero stays zero.

    Args:
        project: project(params) -> Masks at the end, project.partly(share) on the way there.
        steps: optimiser steps of the ramp.
        every: steps between two prunings.

    Raises:
        ValueError: no step.
    """

    project: Callable[[Tensors], Masks]
    steps: int
    every: int

    def __post_init__(self):
        for name in ("steps", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"gradual pruning: {name} is {getattr(self, name)}; it must be 1 or more")

    def begin(self, params: Tensors) -> "_Ramp":
        return _Ramp(self)


class _Ramp:
    def __init__(self, gradual: Gradual):
        self.gradual, self.curves = gradual, {}
        self.masks: Masks | None = None

    def penalty(self, params: Tensors, step: int) -> float:
        return 0.0

    def follow(self, params: Tensors, step: int) -> dict[str, Tensor]:
        """New masks every `every` steps; the present ones after each step, since momentum would move zeroed weights."""
        done = step + 1
        if self.masks is None or done % self.gradual.every == 0 or done == self.gradual.steps:
            share = 1 - (1 - min(done / self.gradual.steps, 1)) ** 3
            # zeros are the smallest, so pruned weights are pruned again
            self.masks = self.gradual.project.partly(share)(params)
        pruned = self.masks(params)
        return {name: pruned[name] for name in self.masks.kept}
