"""Quantile regression: is the target surer of a candidate than it would be without having learned it?

What a model says about examples that it has not learned depends on the example: easy ones get a high confidence anyway.
From examples that are known to be non-members the attacker learns the distribution, given the example, of phi, the
log-odds of the true class (`signals.confidence`):

    margin = phi - q(x)                          q(x): exceeded by a share `fpr` of non-members like x
    margin = (phi - mean(x)) / spread(x) - z     a Gaussian's mean and spread, z: exceeded by a share `fpr` of z-values

Source: Bertran et al. 2023, Scalable membership inference attacks via quantile regression, NeurIPS. It asks the target
alone and needs no shadow models and no knowledge of the architecture. Shadows are ignored and may be None.

The zero of the margins is set on the known non-members alone, so that a share `fpr` of other non-members is taken for
members. For that the two models are learned in folds, and a quantile of the margins of the examples left out of a fold is
subtracted (ours, after conformalised quantile regression, Romano, Patterson and Candes 2019, arXiv:1905.03222: trees
follow the few examples that they have, and their own quantiles are too low).

The paper trains a network on x. Here trees learn from x and the true class, on the processor, in seconds: for tables from
the features as they are, for pictures from the first principal components of the known non-members' pixels. Pixels say
little about natural pictures: give `features`, for example those of a network trained on other data.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from mialib import streams
from mialib.asking import Views
from mialib.attacks import signals

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor

FOLDS = 5
COMPONENTS = 32  # of pictures
CATEGORIES = 255  # as many as scikit-learn's trees can tell apart
FLOOR = 1e-6  # smallest squared residual, squared log-odds: a spread of 0 divides nothing
SMALL = {
    "max_iter": 50,
    "max_leaf_nodes": 8,
    "early_stopping": False,
}  # trees; known non-members are hundreds


@dataclass(frozen=True)
class QuantileRegression:
    """The attack; the module's first lines say how to call it.

    Args:
        fpr: share of non-members that the margins' zero takes for members, in (0, 1).
        gaussian: mean and spread, which give a ranking for all rates; else the quantile at `fpr` alone.
        features: features(x (n, ...)) -> (n, d), what the trees see of an input; None: as the module's first lines say.

    Raises:
        ValueError: an fpr outside (0, 1); when called, a target that is not one model, or lacks inputs or public
            examples, or has too few of these to show that rate: it needs 1 / fpr - 1, at least 20.
    """

    fpr: float = 0.05
    gaussian: bool = True
    features: Callable[[Tensor], Tensor] | None = None
    needs: ClassVar[frozenset[str]] = frozenset({"public"})

    def __post_init__(self):
        if not 0 < self.fpr < 1:
            raise ValueError(f"fpr must be between 0 and 1, found {self.fpr}")

    def __call__(
        self, target: Views, shadows: Views | None = None, shadow_member: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        target.check_single()
        self._check(target)
        known = target.public
        phi = _confidence(known).numpy()
        seen = self._seen(known, known), self._seen(target, known)
        generator = streams.generator(seed, "folds of the public examples")
        fold = torch.randperm(len(phi), generator=generator).numpy() % FOLDS
        learn = self._gaussian if self.gaussian else self._quantile
        held_out, of = learn(seen[0], phi, fold, streams.seed(seed, "quantile regression") % 2**32)
        # the smallest margin such that at most a share fpr of further examples exceeds it
        place = math.ceil((1 - self.fpr) * (len(phi) + 1) - 1e-9)
        zero = np.sort(held_out)[place - 1]
        return torch.from_numpy(of(seen[1], _confidence(target).numpy()) - zero)

    def _quantile(self, x: np.ndarray, phi: np.ndarray, fold: np.ndarray, seed: int):
        """Margins (r,) of the known examples, each from trees of other folds, and margins(x, phi) for others."""
        trees = _trees(x, seed, loss="quantile", quantile=1 - self.fpr)
        held_out = phi - _left_out(trees, x, phi, fold)
        trees.fit(x, phi)
        return held_out, lambda x, phi: phi - trees.predict(x)

    def _gaussian(self, x: np.ndarray, phi: np.ndarray, fold: np.ndarray, seed: int):
        mean, variance = (
            _trees(x, seed),
            _trees(x, seed, loss="gamma"),
        )  # squares of Gaussian residuals have this distribution
        residual = phi - _left_out(mean, x, phi, fold)
        squared = np.maximum(residual**2, FLOOR)
        held_out = residual / np.sqrt(_left_out(variance, x, squared, fold))
        mean.fit(x, phi)
        variance.fit(x, squared)
        return held_out, lambda x, phi: (phi - mean.predict(x)) / np.sqrt(variance.predict(x))

    def _seen(self, views: Views, known: Views) -> np.ndarray:
        """The examples as the trees see them, (n, d + 1) float32, with the true class in the last column."""
        x = views.x[0]
        if self.features is not None:
            x = self.features(x)
        elif x.ndim > 2:
            x = _components(x.flatten(1).double(), known.x[0].flatten(1).double())
        return torch.cat([x.float().cpu(), views.labels[0, :, None].float()], 1).numpy()

    def _check(self, target: Views) -> None:
        for name, value in (("x", target.x), ("public", target.public)):
            if value is None:
                raise ValueError(
                    f"target.{name} is needed, found None: take an arm of a study, arm.targets(public=True)"
                )
        fewest = max(math.ceil(1 / self.fpr - 1e-9) - 1, 20)
        if (found := target.public.labels.shape[1]) < fewest:
            raise ValueError(
                f"target.public has {found} examples; fpr = {self.fpr:g} needs {fewest} or more: raise fpr, or leave a "
                "larger reserve"
            )


def _confidence(views: Views) -> Tensor:
    return signals.confidence(views.log_posteriors[0], views.labels[0]).cpu()


def _trees(x: np.ndarray, seed: int, **loss) -> "HistGradientBoostingRegressor":
    from sklearn.ensemble import HistGradientBoostingRegressor  # here: seconds to import

    # classes have no order; with more of them than this, the trees have to use an order
    classes = [x.shape[1] - 1] if x[:, -1].max() < CATEGORIES else None
    return HistGradientBoostingRegressor(**loss, **SMALL, random_state=seed, categorical_features=classes)


def _left_out(
    trees: "HistGradientBoostingRegressor", x: np.ndarray, y: np.ndarray, fold: np.ndarray
) -> np.ndarray:
    """The prediction for each row by trees that learned from the other folds, (r,)."""
    found = np.empty(len(y))
    for number in range(FOLDS):
        here = fold == number
        found[here] = trees.fit(x[~here], y[~here]).predict(x[here])
    return found


def _components(x: Tensor, known: Tensor) -> Tensor:
    """x (n, d) in the first principal components of `known` (r, d): (n, up to `COMPONENTS`)."""
    mean = known.mean(0)
    _, _, axes = torch.linalg.svd(known - mean, full_matrices=False)
    return (x - mean) @ axes[:COMPONENTS].T
