"""Attacks that use labels alone: the predicted class of the candidate and of noisy copies of it.

All have the contract's one signature

    attack(target, shadows, shadow_member, seed) -> margins (n,) float64

and query the models through the door of the views. The attacker may ask about any input, even one that no example could
be (features that are no whole numbers, pixels outside the range). A margin is a share of copies minus a threshold,
> 0 = "member". With few copies many candidates share one value, and such ties stay.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mialib.asking import Views
from mialib.attacks import averaging, signals
from mialib.attacks.averaging import Change, gaussian, needs_door
from mialib.attacks.blindmi import shuffled_features
from mialib.attacks.threshold import best_threshold


@dataclass(frozen=True)
class NoiseRobustness:
    """A member keeps its true label under noise: the share of noisy copies that do, minus a threshold from the shadows.

    Source: Choquette-Choo et al. 2021, arXiv:2007.14321, the attack with random noise. Here the share is over several
    strengths, so that none has to be chosen. One threshold for all classes.

    Images get Gaussian noise on the normalised input, of standard deviation `strength`, and are not clipped. Each feature
    is replaced, with probability `strength`, by that of a candidate of the same model (any candidate, drawn for each
    feature on its own): for binary features, a flip weighted by how frequent the other value is.

    Args:
        strengths: of the noise, each > 0; for features at most 1.
        queries: copies of each candidate, shared evenly among the strengths: a multiple of their number. The attack asks
            the target and each shadow that many questions for each candidate.
        teachers: how many of the shadows are asked, the first ones: they only set the zero of the margins. None: all.

    Raises:
        ValueError: settings outside these ranges; when called, a target that is not one model, views without inputs or
            without a door, shadow_member that does not fit the shadows or lacks one of the two groups.
    """

    strengths: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)
    queries: int = 40
    teachers: int | None = None
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "queries"})

    def __post_init__(self):
        if not self.strengths or not all(0 < strength < math.inf for strength in self.strengths):
            raise ValueError(f"strengths must be one or more numbers above 0, found {self.strengths}")
        if self.queries < 1 or self.queries % len(self.strengths):
            raise ValueError(
                f"queries must be a multiple of the {len(self.strengths)} strengths, from 1 copy of each, "
                f"found {self.queries}"
            )
        if self.teachers is not None and self.teachers < 1:
            raise ValueError(f"teachers must be at least 1, or None for all shadows, found {self.teachers}")

    def __call__(self, target: Views, shadows: Views, shadow_member: Tensor, seed: int = 0) -> Tensor:
        self._check_target(target)
        return self.learn(shadows, shadow_member, seed)(target)

    def learn(self, shadows: Views, shadow_member: Tensor, seed: int = 0) -> Callable[[Views], Tensor]:
        """The attack on any target, margins(target) -> (n,): the shadows are asked only once for all targets."""
        needs_door(shadows, "shadows")
        self._check_strengths(shadows)
        signals.check_member(shadow_member, shadows.labels, "shadow_member")
        asked, member = shadows[: self.teachers], shadow_member[: self.teachers]
        threshold = best_threshold(self.robustness(asked, seed).flatten(), member.flatten())

        def margins(target: Views) -> Tensor:
            self._check_target(target)
            return self.robustness(target, seed)[0] - threshold

        return margins

    def _check_target(self, target: Views) -> None:
        target.check_single()
        needs_door(target, "target")
        self._check_strengths(target)

    def robustness(self, views: Views, seed: int = 0) -> Tensor:
        """Share of noisy copies to which each model gives their true label, (m, n) float64 in [0, 1]."""
        self._check_strengths(views)
        each = torch.tensor(self.strengths).repeat(self.queries // len(self.strengths))
        change = replaced_features(each) if views.x.ndim == 3 else gaussian(each)
        return share_labelled(views, views.labels, self.queries, change, seed)

    def _check_strengths(self, views: Views) -> None:
        if views.x.ndim == 3 and max(self.strengths) > 1:
            raise ValueError(
                f"strengths are probabilities where inputs are features, at most 1, found {self.strengths}"
            )


@dataclass(frozen=True)
class SwapDetector:
    """Finds the members whose label a defender swaps: most copies with a tiny bit of noise get another label.

    A label swapper recognises a member by the exact scores of the model. So the least noise slips past it, while the
    model's own label stays. Margin: share of copies whose label differs from the candidate's, minus 1/2; without a
    swapper most copies keep the label, even close to the model's boundary. The candidate's own label is the one in the
    views and is not asked for again.

    Source: our analysis of the swapper of Yang et al. 2023, arXiv:2212.00612; not published as far as we know. Needs no
    shadow models: they are ignored and may be None.

    Args:
        epsilon: standard deviation of the Gaussian noise on the normalised input, features included, > 0.
        queries: copies of each candidate; an odd number leaves no ties at the threshold.

    Raises:
        ValueError: settings outside these ranges; when called, a target that is not one model or that lacks inputs or
            the door.
    """

    epsilon: float = 1e-3
    queries: int = 9
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "queries"})

    def __post_init__(self):
        if not 0 < self.epsilon < math.inf:
            raise ValueError(f"epsilon must be above 0 and finite, found {self.epsilon}")
        if self.queries < 1:
            raise ValueError(f"queries must be at least 1 a candidate, found {self.queries}")

    def __call__(
        self, target: Views, shadows: Views | None = None, shadow_member: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        target.check_single()
        needs_door(target, "target")
        change = gaussian(torch.full((self.queries,), self.epsilon))
        kept = share_labelled(target, target.log_posteriors.argmax(-1), self.queries, change, seed)
        return 0.5 - kept[0]


def share_labelled(views: Views, labels: Tensor, queries: int, change: Change, seed: int = 0) -> Tensor:
    """Share of changed copies that a model labels `labels` int64 (m, n): (m, n) float64. See `averaging.of_copies`."""
    return averaging.of_copies(
        views,
        queries,
        change,
        lambda answers, model, rows: (answers.argmax(-1) == labels[model, rows]).double().mean(0),
        seed,
    )


def replaced_features(probabilities: Tensor) -> Change:
    """In copy j each feature, with probability probabilities[j], is another candidate's: x (n, d) -> (queries, b, d)."""

    def change(x: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        shape = (len(probabilities), len(rows), x.shape[1])
        replaced = torch.rand(shape, generator=generator) < probabilities[:, None, None]
        others = shuffled_features(x, shape[0] * shape[1], generator).view(shape)
        return torch.where(replaced.to(x.device), others, x[rows])

    return change
