"""Model inversion: a decoder redraws the input from the classifier's answer.

    minimise over H:  mean over auxiliary x of | x - sigmoid(H(features(f(x)))) |^2 / (number of pixels)

The attacker has auxiliary pictures, of people who are not in the private set. They ask the classifier f about them, as
it is served, learn a decoder H from answers to pictures, and then decode the answers to the private ones. The decoders
are a population like any other, one for each classifier, trained by the one training loop and cached.
Source: Yang, Zhang, Chang & Liang 2019 (CCS), arXiv:1902.08552.

An attacker who learns a decoder from the defence's served answers can always draw the mean auxiliary picture, whatever
the answer: see `ceiling`. Two decoders do worse than that. One was learned without the defence. The other gets answers
unlike any to the auxiliary pictures, for example a bare label that none of them got; it draws noise.

Shapes: m classifiers or decoders, n examples, c classes. Pictures are float32 in [0, 1], (m, n, channels, h, w);
features of tabular data, also in [0, 1], stand in for pixels, (m, n, d).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from mialib import asking, training
from mialib.data import Dataset, splits
from mialib.defenses import outputs
from mialib.models import decoders
from mialib.models.decoders import squared_error
from mialib.store import Store
from mialib.training import Batch, Forward, Population, Recipe, Tensors

WINDOW = 7  # pixels; side of the window of the structural similarity, as in scikit-image

# Chosen among other rates, batches and lengths by the error on held-out people of the auxiliary set of AT&T's faces.
SCHEDULE = Recipe(epochs=30, batch_size=16, lr=3e-4, weight_decay=0.0)


def check_disjoint(private: Dataset, auxiliary: Dataset) -> None:
    """Refuse auxiliary examples that are also in the private set.

    Raises ValueError if both hold the same identity (`groups`, where both have them) or the same input, bit by bit, or if
    their inputs differ in shape or type.
    """
    if private.x.shape[1:] != auxiliary.x.shape[1:] or private.x.dtype != auxiliary.x.dtype:
        raise ValueError(
            f"private inputs are {private.x.dtype} {tuple(private.x.shape[1:])}, auxiliary ones "
            f"{auxiliary.x.dtype} {tuple(auxiliary.x.shape[1:])}; they must be alike"
        )
    if private.groups is not None and auxiliary.groups is not None:
        shared = np.intersect1d(private.groups.cpu(), auxiliary.groups.cpu())
        if len(shared):
            raise ValueError(
                f"{len(shared)} identities are both private and auxiliary, among them {shared[:5].tolist()}; "
                "the attacker's pictures must be of other people"
            )
    shared = np.intersect1d(_as_bytes(private.x), _as_bytes(auxiliary.x))
    if len(shared):
        raise ValueError(
            f"{len(shared)} different inputs are both private and auxiliary; leave them out of the auxiliary set"
        )


@dataclass(frozen=True)
class Inversion:
    """The attack: `fit` learns a decoder for each classifier, `rebuild` draws pictures with them.

    Args:
        recipe: how decoders are trained. SCHEDULE differs from the released code, which has AMSGrad at 2e-4 with
            betas (0.5, 0.999), batches of 128 and 100 epochs: plain Adam at 3e-4 with betas (0.9, 0.999), batches of
            16, since our auxiliary sets hold hundreds of pictures, and 30 epochs; 10 do for thousands of pictures.
        width: factor on the decoders' filters, see `decoders.make`.
        keep: how many of the largest log-posteriors the decoder reads, see `decoders.features`.
        device: where decoders are trained and asked.
        cache: default: the store at its default place.
    """

    recipe: Recipe = SCHEDULE
    width: float = 1.0
    keep: int | None = None
    device: str = "cpu"
    cache: Store | None = None

    def fit(self, answers: Tensor, auxiliary: Dataset, seeds: list[int] | None = None) -> Population:
        """The decoders, each learned from the answers of its own classifier to the auxiliary examples.

        Args:
            answers: log-posteriors (m, n, c) of the m classifiers, as served to the attacker.
            auxiliary: the n examples.
            seeds: m of them, for initial weights and batches; default 0 to m - 1.

        Raises:
            ValueError: sizes that do not fit, features outside [0, 1], or a shape that no decoder draws.
        """
        m, n, c = answers.shape
        seeds = list(range(m)) if seeds is None else list(seeds)
        if n != len(auxiliary):
            raise ValueError(f"there are answers to {n} examples, and {len(auxiliary)} auxiliary examples")
        if len(seeds) != m:
            raise ValueError(f"seeds must be one for each of {m} classifiers, found {len(seeds)}")
        _check_unit(auxiliary)
        auxiliary = auxiliary.to(self.device)
        return training.fit(
            decoders.make(auxiliary.x.shape[1:], c, self.width),
            self._rows(answers),
            splits.blocks(torch.ones(m, n, dtype=torch.bool), torch.tensor(seeds)),
            self.recipe,
            objective=SquaredError(auxiliary.x, auxiliary.fingerprint),
            cache=self.cache,
            what="decoder",
            kind="decoders",
        )

    def rebuild(self, networks: Population, answers: Tensor) -> Tensor:
        """Each decoder's pictures of the inputs behind the answers: log-posteriors (m, n, c) -> (m, n, ...) in [0, 1].

        Raises ValueError unless there are answers of as many classifiers as there are decoders.
        """
        if len(networks) != len(answers):
            raise ValueError(f"there are {len(networks)} decoders and answers of {len(answers)} classifiers")
        rows = self._rows(answers)
        own = torch.arange(len(rows)).view(answers.shape[:2])
        return asking.logits(networks, rows, own).sigmoid()

    def _rows(self, answers: Tensor) -> Dataset:
        """What decoders read: one row for each classifier and example, without classes."""
        x = decoders.features(answers, self.keep).flatten(0, 1)
        y = torch.zeros(len(x), dtype=torch.int64)
        return Dataset.of_features("answers", x, y, 1).to(self.device)


@dataclass(frozen=True)
class SquaredError:
    """The decoders' objective: mean over pixels and batch of (picture - truth)^2; row i * n + j belongs to truth j.

    Args:
        x: the n auxiliary inputs, as in their Dataset.
        fingerprint: of that Dataset; it stands for `x` in the description that the store hashes.
    """

    x: Tensor = field(compare=False, repr=False)
    fingerprint: str

    def __call__(self, forward: Forward, params: Tensors, batch: Batch, step: int) -> Tensor:
        """(k,)."""
        truth = decoders.pixels(self.x, batch.index % len(self.x))
        return squared_error(forward(params, batch.x).sigmoid(), truth).mean(1)


# --- the attacker who knows the defence ----------------------------------------------------------------------------


def ways(
    attack: Inversion,
    answers: Tensor,
    *,
    own: Population,
    by_label: Population,
    old: Population,
    auxiliary: Dataset,
    undefended: Tensor,
) -> dict[str, Tensor]:
    """Four ways for an attacker who knows a defence to draw from its answers (m, n, c): name -> (m, n, ...).

    An attacker who learns a decoder anew need not use it. Every answer shows its label, so the decoder for bare labels
    can read any of them (for a label that none of the auxiliary examples got, its mean picture is drawn). The decoder
    from before the defence is still there. And the mean auxiliary picture needs no answer.

    Args:
        own, by_label, old: decoders learned through the defence, from bare labels, and without a defence, m each.
        undefended: (m, a, c), the classifiers' own answers to the auxiliary examples.
    """
    mean = mean_picture(auxiliary).cpu()
    labelled = attack.rebuild(by_label, outputs.OneHot()(answers))
    labelled[unseen(answers, undefended)] = mean
    return {
        "own decoder": attack.rebuild(own, answers),
        "by the label": labelled,
        "old decoder": attack.rebuild(old, answers),
        "mean picture": mean.expand_as(labelled),
    }


def best_way(drawn: Mapping[str, Tensor], truth: Tensor) -> tuple[Tensor, dict[str, float]]:
    """For each classifier, the pictures of the way with the least mean error over its examples.

    Chosen in hindsight, so an upper bound on what an attacker can do.

    Args:
        drawn: name of a way -> (m, n, ...) in [0, 1]; truth: (m, n, ...).

    Returns:
        The pictures (m, n, ...), and the error of each way, a mean over all.
    """
    errors = torch.stack([squared_error(one, truth).mean(1) for one in drawn.values()])
    every = list(drawn.values())
    best = torch.stack([every[int(way)][i] for i, way in enumerate(errors.argmin(0))])
    return best, dict(zip(drawn, errors.mean(1).tolist(), strict=True))


# --- how good is a picture -----------------------------------------------------------------------------------------


def pixels(dataset: Dataset, index: Tensor) -> Tensor:
    """The inputs themselves, float32 (m, n, ...) in [0, 1], for index int64 (m, n), or of any shape.

    Raises ValueError for features outside [0, 1].
    """
    _check_unit(dataset)
    return decoders.pixels(dataset.x, index.to(dataset.x.device))


def psnr(rebuilt: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each example in dB, -10 log10(squared error): (m, n, ...) twice -> (m, n).

    Infinite where both are equal.
    """
    return -10 * squared_error(rebuilt, truth).log10()


def ssim(rebuilt: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each picture, 1 = equal: (m, n, c, h, w) twice -> (m, n) float64; mean over colours.

    Source: Wang et al. 2004, as scikit-image computes it in windows of 7x7 pixels. Raises ValueError for features and
    for pictures smaller than a window.
    """
    if rebuilt.ndim != 5 or min(rebuilt.shape[-2:]) < WINDOW:
        raise ValueError(
            f"structural similarity needs pictures (m, n, c, h, w) of at least {WINDOW} x {WINDOW} pixels, "
            f"found {tuple(rebuilt.shape)}"
        )
    planes = [x.double().cpu().flatten(0, 2).numpy() for x in (rebuilt, truth)]
    options = {"channel_axis": 0, "data_range": 1.0, "win_size": WINDOW, "full": True}
    everywhere = torch.from_numpy(structural_similarity(*planes, **options)[1])
    edge = (
        WINDOW // 2
    )  # where the window extends beyond the picture; scikit-image leaves it out of its mean too
    return everywhere[:, edge:-edge, edge:-edge].mean((1, 2)).view(rebuilt.shape[:3]).mean(2)


def named(classifier: Population, data: Dataset, rebuilt: Tensor, labels: Tensor) -> Tensor:
    """Share of the rebuilt pictures whose class a classifier recognises: (m, n, ...), int64 (m, n) -> (m,) float64.

    The classifier should be independent, since the decoder may share the errors of the attacked one.

    Args:
        classifier: a population of one.
        data: a data set like the one it learned from, for shape and normalisation.

    Raises:
        ValueError: more than one classifier.
    """
    if len(classifier) != 1:
        raise ValueError(f"classifier must be a population of one, found {len(classifier)} models")
    x = rebuilt.flatten(0, 1).cpu()
    if data.is_image:
        x = (255 * x).round().to(torch.uint8)
    pictures = replace(data.to("cpu"), x=x, y=labels.flatten().cpu(), groups=None).to(classifier.device)
    answers = asking.logits(classifier, pictures, torch.arange(len(x)))[0]
    return (answers.argmax(1) == pictures.y.cpu()).double().view(labels.shape).mean(1)


# --- yardsticks ----------------------------------------------------------------------------------------------------


def mean_picture(auxiliary: Dataset) -> Tensor:
    """The mean of the auxiliary pictures, (...) in [0, 1]: an attacker can draw it without any answer."""
    return pixels(auxiliary, torch.arange(len(auxiliary))).mean(0)


def unseen(answers: Tensor, to_learn: Tensor) -> Tensor:
    """Which answers (m, n, c) have a predicted class that none of the decoder's own (m, a, c) had, bool (m, n).

    There a decoder that reads labels draws noise, and an attacker who knows that draws the mean picture instead.
    """
    labels = answers.argmax(-1)
    learned = torch.zeros(len(labels), answers.shape[-1], dtype=torch.bool)
    learned.scatter_(1, to_learn.argmax(-1), True)
    return ~learned.gather(1, labels)


def class_means(private: Dataset) -> Tensor:
    """The mean picture of each class, (num_classes, ...) in [0, 1]. It needs the private set, so it is no attack.

    nan for a class without examples.
    """
    x = pixels(private, torch.arange(len(private)))
    total = x.new_zeros(private.num_classes, *x.shape[1:]).index_add_(0, private.y, x)
    counts = private.y.bincount(minlength=private.num_classes)
    return total / counts.view(-1, *[1] * (x.ndim - 1))


def ceiling(undefended_error: float, mean_error: float) -> float:
    """The largest factor by which any defence can raise the error of an attacker who retrains: mean / undefended.

    They can draw the mean auxiliary picture whatever the answer.

    Args:
        undefended_error: of the decoder without a defence, > 0.
        mean_error: of the mean auxiliary picture.
    """
    if not undefended_error > 0:
        raise ValueError(f"undefended_error is {undefended_error}; it must be positive")
    return mean_error / undefended_error


def _check_unit(dataset: Dataset) -> None:
    if dataset.is_image:
        return
    low, high = float(dataset.x.min()), float(dataset.x.max())
    if low < 0 or high > 1:
        raise ValueError(
            f"features of {dataset.name!r} must lie in [0, 1] to be drawn, found {low:g} to {high:g}"
        )


def _as_bytes(x: Tensor) -> np.ndarray:
    """Each row of x as one opaque value (n,), equal where all its bytes are."""
    rows = np.ascontiguousarray(x.flatten(1).cpu().numpy())
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]
