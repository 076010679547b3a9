"""Can two sets of inputs be told apart without any network? A classifier of the inputs alone, cross-validated."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mialib import streams
from mialib.measures import Estimate, metrics

AT_MOST = 2000  # examples of each set
FOLDS = 5
SIDE = 6  # pictures are described at this height and width, beside their statistics


def apart(a: Tensor, b: Tensor, seed: int = 0) -> Estimate:
    """AUC, 0..1, of telling the examples of `a` (n, ...) from those of `b` (m, ...), with its 95 % interval; 0.5 is guessing.

    Extremely randomised trees (Geurts et al. 2006) on `described` inputs, at most `AT_MOST` of each set. Each example is
    scored by trees that saw neither it nor its fold. Both sets must have at least `FOLDS` examples.
    """
    from sklearn.ensemble import ExtraTreesClassifier  # here: seconds to import
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rng = np.random.default_rng(streams.seed(seed, "inputs told apart"))
    drawn = [x[torch.from_numpy(rng.permutation(len(x))[:AT_MOST])] for x in (a, b)]
    of_a = np.repeat([1, 0], [len(x) for x in drawn])
    state = int(rng.integers(2**31))
    trees = ExtraTreesClassifier(60, min_samples_leaf=3, class_weight="balanced", random_state=state)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=state)
    features = torch.cat([described(x) for x in drawn]).numpy()
    scores = cross_val_predict(trees, features, of_a, cv=folds, method="predict_proba")[:, 1]
    return metrics.auc(of_a, scores)


def described(x: Tensor) -> Tensor:
    """What the classifier sees of inputs (n, ...): float32 (n, features).

    Of each channel of a picture a small copy, mean, spread, smallest and largest value, the share of values at these, and how
    much neighbours differ to the right and below, which shows resizing and compression. Of a row its values and the same
    statistics of the whole row.
    """
    x = x.float()
    if x.ndim != 4:
        rows = x.reshape(len(x), -1)
        return torch.cat([rows, _statistics(rows[:, None])], 1)
    small = F.adaptive_avg_pool2d(x, [min(SIDE, side) for side in x.shape[2:]]).flatten(1)
    steps = [x.diff(dim=dim).abs().flatten(2).mean(2) for dim in (2, 3) if x.shape[dim] > 1]
    return torch.cat([small, _statistics(x.flatten(2)), *steps], 1)


def _statistics(x: Tensor) -> Tensor:
    """Of (n, channels, values): (n, features)."""
    low, high = x.amin(2), x.amax(2)
    at = [(x == end[:, :, None]).float().mean(2) for end in (low, high)]
    return torch.cat([x.mean(2), x.std(2, correction=0), low, high, *at], 1)
