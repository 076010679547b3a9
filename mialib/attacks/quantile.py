"""Quantile regression: is the target surer of a candidate than it would be if it had not learned it?

What a model says of examples that it has not learned depends on the example: easy ones get a high confidence anyway. Of
examples that are known not to be members the attacker learns how phi, the log-odds of the true class
(`signals.confidence`), is distributed given the example:

    margin = phi - q(x)                          q(x): what a share `fpr` of non-members like x exceeds
    margin = (phi - mean(x)) / spread(x) - z     a Gaussian's mean and spread, z: what a share `fpr` of z-values exceeds

Source: Bertran et al. 2023, Scalable membership inference attacks via quantile regression, NeurIPS. It asks the target
alone: no shadow models, no knowledge of the architecture. They are ignored and may be None.

The zero of the margins is set on the known non-members alone, so that a share `fpr` of other non-members is taken for
members: the two models are learned in folds, and what is subtracted is a quantile of the margins of those that were left
out of a fold (ours, after conformalised quantile regression, Romano, Patterson and Candes 2019, arXiv:1905.03222: trees
follow the few examples that they have, and their own quantiles are too low).

The paper trains a network on x. Here trees learn from x and the true class, on the processor, in seconds: of tables the
features as they are, of pictures the first principal components of their pixels, those of the known non-members. Pixels say
little of natural pictures: give `features`, as those of a network that was trained on other data.
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
CATEGORIES = 255  # what scikit-learn's trees can tell apart
FLOOR = 1e-6  # smallest squared residual, squared log-odds: a spread of 0 divides nothing
SMALL = {
    "max_iter": 50,
    "max_leaf_nodes": 8,
    "early_stopping": False,
}  # trees; known non-members are hundreds


@dataclass(frozen=True)
class QuantileRegression:
    """The attack; how it is called stands in the module's first lines.

    Args:
        fpr: share of non-members that the margins' zero takes for members, in (0, 1).
        gaussian: mean and spread, which rank at all rates; else the quantile at `fpr` alone.
        features: features(x (n, ...)) -> (n, d), what the trees see of an input; None: see the module's first lines.

    Raises:
        ValueError: an fpr outside (0, 1); when called, a target that is not one model, without inputs or without public
            examples, or with fewer of these than can show so low a rate: 1 / fpr - 1, at least 20.
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
        # the smallest of them that at most a share fpr of one more, unseen, exceeds
        place = math.ceil((1 - self.fpr) * (len(phi) + 1) - 1e-9)
        zero = np.sort(held_out)[place - 1]
        return torch.from_numpy(of(seen[1], _confidence(target).numpy()) - zero)

    def _quantile(self, x: np.ndarray, phi: np.ndarray, fold: np.ndarray, seed: int):
        """Margins (r,) of the known, each from those of other folds, and margins(x, phi) of others."""
        trees = _trees(x, seed, loss="quantile", quantile=1 - self.fpr)
        held_out = phi - _left_out(trees, x, phi, fold)
        trees.fit(x, phi)
        return held_out, lambda x, phi: phi - trees.predict(x)

    def _gaussian(self, x: np.ndarray, phi: np.ndarray, fold: np.ndarray, seed: int):
        mean, variance = (
            _trees(x, seed),
            _trees(x, seed, loss="gamma"),
        )  # as squares of Gaussian residuals are
        residual = phi - _left_out(mean, x, phi, fold)
        squared = np.maximum(residual**2, FLOOR)
        held_out = residual / np.sqrt(_left_out(variance, x, squared, fold))
        mean.fit(x, phi)
        variance.fit(x, squared)
        return held_out, lambda x, phi: (phi - mean.predict(x)) / np.sqrt(variance.predict(x))

    def _seen(self, views: Views, known: Views) -> np.ndarray:
        """What the trees see of the examples, (n, d + 1) float32: the true class is in the last column."""
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

    # classes have no order; of more than these the trees know none but an order
    classes = [x.shape[1] - 1] if x[:, -1].max() < CATEGORIES else None
    return HistGradientBoostingRegressor(**loss, **SMALL, random_state=seed, categorical_features=classes)


def _left_out(
    trees: "HistGradientBoostingRegressor", x: np.ndarray, y: np.ndarray, fold: np.ndarray
) -> np.ndarray:
    """What is predicted for each row by trees that learned from the other folds, (r,)."""
    found = np.empty(len(y))
    for number in range(FOLDS):
        here = fold == number
        found[here] = trees.fit(x[~here], y[~here]).predict(x[here])
    return found


def _components(x: Tensor, known: Tensor) -> Tensor:
    """The first principal components of `known` (r, d), in them x (n, d): (n, up to `COMPONENTS`)."""
    mean = known.mean(0)
    _, _, axes = torch.linalg.svd(known - mean, full_matrices=False)
    return (x - mean) @ axes[:COMPONENTS].T
