"""Pruning by ADMM: step by step the weights are drawn to where a hard projection would put them.

    min L(W)  subject to  card(W_i) <= l_i        with g the indicator of the constraint, Z a copy of W that satisfies it,
                                                  and U the scaled dual variable of W = Z:
    W-step   W <- argmin  L(W) + sum_i rho/2 ||W_i - Z_i + U_i||^2      (some epochs of the usual training)
    Z-step   Z <- the nearest point to W + U that satisfies the constraint (keep the largest, zero the rest)
    U-step   U <- U + W - Z

The residual ||W - Z|| / ||W|| tells whether it has worked: if it is not small, the pruning that follows is only magnitude
pruning with a detour. Source: Zhang et al. 2018, arXiv:1804.03294, equations 3 to 8; scaled form, and rescaling of U with
rho: Boyd et al. 2011, sections 3.1.1 and 3.4.1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mialib.compression.pruning import Masks
from mialib.training import Population, Tensors


@dataclass(frozen=True)
class ADMM:
    """The `constraint` of `fit` that pulls the weights towards the values that `project` keeps.

    The records get `residual`, one value an iteration over all constrained parameters, and `residual <name>` for each.
    Prune afterwards with `project(population.params)`, and retrain under that mask from a fresh optimiser.

    project: project(params) -> Masks of the weights that may stay (`cardinality.LargestWeights`,
        `channels.LargestChannels`).
        project: project(params) -> Masks of what may stay (`cardinality.LargestWeights`, `channels.LargestChannels`).
        every: optimiser steps of a W-step; after each of them Z, U and rho move.
        rho: strength of the pull in the first iteration.
        growth: factor on rho after each iteration (the "multi-rho" of public code multiplies by 10 now and then).

    Raises:
        ValueError: no step, a pull that is not positive, or one that shrinks.
    """

    project: Callable[[Tensors], Masks]
    every: int
    rho: float = 1e-3
    growth: float = 1.0

    def __post_init__(self):
        for name, valid, rule in (
            ("every", self.every >= 1, "1 or more"),
            ("rho", self.rho > 0, "positive"),
            ("growth", self.growth >= 1, "1 or more"),
        ):
            if not valid:
                raise ValueError(f"ADMM: {name} is {getattr(self, name)!r}; it must be {rule}")

    def begin(self, params: Tensors) -> "_Splitting":
        """Z = the projection of W, U = 0."""
        return _Splitting(self, params)


def residuals(population: Population) -> dict[str, list[list[float]]]:
    """How far W and Z were apart after each iteration, ||W - Z|| / ||W||, 0 or more, of models that were trained by ADMM.

    Returns:
        Name of each constrained parameter -> (k, iterations); then that of all together, under "all".

    Raises:
        ValueError: models that were not trained with `ADMM` as their constraint.
    """
    first = population.records[0] if population.records else {}
    if "residual" not in first:
        raise ValueError("these models have no residual; train them with constraint=ADMM(...)")
    curves = {name.removeprefix("residual "): name for name in first if name.startswith("residual ")}
    curves["all"] = "residual"
    return {part: [record[name] for record in population.records] for part, name in curves.items()}


class _Splitting:
    """W is the loop's; Z, U and rho are kept here, for the constrained parameters of k models."""

    def __init__(self, admm: ADMM, params: Tensors):
        self.admm, self.rho = admm, admm.rho
        self.names = list(admm.project(params).kept)
        self.z = self._project(self._w(params))
        self.u = {name: torch.zeros_like(z) for name, z in self.z.items()}
        # the penalty reads Z, U and the pull in place, so that a captured step follows them
        self.pull = next(iter(self.z.values())).new_tensor(self.rho / 2)
        self.curves = {name: [] for name in ("residual", *(f"residual {name}" for name in self.names))}

    def penalty(self, params: Tensors, step: int) -> Tensor:
        """sum over the layers of rho/2 ||W - Z + U||^2, (k,)."""
        apart = (params[name] - self.z[name] + self.u[name] for name in self.names)
        return self.pull * sum(part.square().flatten(1).sum(1) for part in apart)

    def follow(self, params: Tensors, step: int) -> Tensors:
        """Z, U and rho move at the end of an iteration; W is left to the optimiser."""
        if (step + 1) % self.admm.every == 0:
            w = self._w(params)
            z = self._project({name: w[name] + self.u[name] for name in self.names})
            for name in self.names:
                self.z[name].copy_(z[name])
            self._note(w)
            for name in self.names:
                # U is the dual variable divided by rho, so it shrinks where rho grows
                self.u[name].copy_((self.u[name] + w[name] - self.z[name]) / self.admm.growth)
            self.rho *= self.admm.growth
            self.pull.fill_(self.rho / 2)
        return {}

    def _w(self, params: Tensors) -> Tensors:
        return {name: params[name].detach() for name in self.names}

    def _project(self, near: Tensors) -> Tensors:
        return self.admm.project(near)(near)

    def _note(self, w: Tensors) -> None:
        apart = {n: (w[n] - self.z[n]).square().flatten(1).sum(1) for n in self.names}
        length = {n: w[n].square().flatten(1).sum(1) for n in self.names}
        for name in self.names:
            self.curves[f"residual {name}"].append((apart[name] / length[name]).sqrt())
        self.curves["residual"].append((sum(apart.values()) / sum(length.values())).sqrt())
