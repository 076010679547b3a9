"""Every hook as a Protocol, with its shapes: what the training loop calls, and what defences and attacks are.

k models are trained as one, on batches of b examples; m models answer on n candidates, with c classes. Parameters are
stacked, name -> (k, *shape). A hook that keeps something for each model (masks, soft targets, a purifier) is indexed by
model, `population.pick`; all others serve every model alike. A hook is a module-level function, a `functools.partial` of
one, or a frozen dataclass, so that `hashing.describe` can tell hooks apart.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from mialib.training.population import Population, Tensors, pick

Forward = Callable[[Tensors, Tensor], Tensor]  # (params, x (k, b, ...)) -> logits (k, b, c)


@dataclass(frozen=True)
class Batch:
    """x float32 (k, b, ...) normalised, y int64 (k, b), index int64 (k, b) into the data set."""

    x: Tensor
    y: Tensor
    index: Tensor


class Objective(Protocol):
    """A training loss, which is minimised."""

    def __call__(self, forward: Forward, params: Tensors, batch: Batch, step: int) -> Tensor:
        """Losses (k,); each model's depends on its own parameters only. `step` counts optimiser steps from 0."""


@runtime_checkable
class BatchObjective(Protocol):
    """An `Objective` that declares whether it needs the examples of a whole batch.

    It does if it pairs or mixes examples, or is a function of their mean loss: on one example at a time it would be
    something else, or nothing. An objective that declares nothing is a mean over examples, each by itself.
    """

    whole_batch: bool


@runtime_checkable
class Capturable(Protocol):
    """A hook that declares whether its part of a step can be captured in a CUDA graph (`graphs`).

    A captured step is played back: the same kernels on the same tensors, without the host. So a hook cannot be captured
    if it depends on the number of the step, draws on the host, looks at a value, picks rows by a bool mask, or keeps
    something by other means than writing into a tensor that was there before. A hook that declares nothing can be
    captured. Of a constraint only the penalty is captured; `follow` runs between the steps, as it is written.
    """

    captured: bool


class Compress(Protocol):
    """Changes the parameters before every forward pass, and for good at the end: masks, a quantiser."""

    def __call__(self, params: Tensors) -> Tensors:
        """Pure: new tensors for the parameters that it changes; the others pass through."""


class ConstraintState(Protocol):
    """A constraint in one training.

    curves: name -> [(k,), ...], noted in the records.
    """

    curves: dict[str, list[Tensor]]

    def penalty(self, params: Tensors, step: int) -> Tensor | float:
        """A term added to the losses: (k,), or one number for all."""

    def follow(self, params: Tensors, step: int) -> Tensors:
        """After an optimiser step, without gradients: new values for the parameters that it names."""


class Constraint(Protocol):
    """Leads the raw parameters somewhere while they learn: ADMM, gradual pruning."""

    def begin(self, params: Tensors) -> ConstraintState:
        """Its state for one training, from the parameters at the start."""


class Play(Protocol):
    """An opponent in one training."""

    def __call__(
        self, forward: Forward, params: Tensors, batch: Batch, reference: Batch, step: int
    ) -> Tensor:
        """Penalty (k,), added to the losses. It may learn; `reference` is a batch of b reserve examples."""


class Opponent(Protocol):
    """The other player of a min-max game."""

    def begin(self, seeds: list[int], device: torch.device) -> Play:
        """A fresh player for each of the k models, each from its own seed."""


# (raw params, batch) -> losses (k,) of objective and penalties together
Losses = Callable[[Tensors, Batch], Tensor]


class Backward(Protocol):
    """How gradients are computed."""

    def __call__(self, losses: Losses, params: Tensors, batch: Batch) -> Tensor:
        """Losses (k,); leaves a gradient in each of the raw parameters."""


class Descent(Protocol):
    """How batches are drawn and gradients computed: shuffling, DP-SGD.

    alone: models are trained one after the other, since their batches differ in size or take examples one by one.
    """

    alone: bool

    def check(self, make_model: Callable[[], nn.Module]) -> None:
        """Raises ValueError for an architecture that it cannot train."""

    def begin(
        self, members: Tensor, batch_size: int, seeds: list[int]
    ) -> tuple[Callable[[], Iterator[Tensor]], Backward]:
        """For members int64 (k, n): a function that gives one epoch's index tensors int64 (k, b), and the gradients.

        All batches of an epoch are drawn before its first step, on the host, and moved to the members' device together.
        Its random streams derive from the models' `seeds` (k,) and names of its own (`mialib.streams`).
        """


class Augment(Protocol):
    """Random changes of the training inputs."""

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """x (k, b, ...), normalised; each example is changed on its own."""


@dataclass(frozen=True)
class Hooks:
    """All hooks of one training; None where there is none."""

    objective: Objective
    descent: Descent
    compress: Compress | None = None
    constraint: Constraint | None = None
    opponent: Opponent | None = None
    augment: Augment | None = None

    @property
    def captured(self) -> bool:
        """Whether a step with all of them can be captured; see `Capturable`."""
        return all(hook.captured for hook in vars(self).values() if isinstance(hook, Capturable))

    def __getitem__(self, models: slice | list[int]) -> "Hooks":
        return Hooks(**{name: pick(hook, models) for name, hook in vars(self).items()})


class OutputDefense(Protocol):
    """Stands between a model's answer and whoever asked."""

    def __call__(self, log_posteriors: Tensor) -> Tensor:
        """(m, n, c) float64 -> the same, -inf allowed. A defence that holds one state a network is indexed by network."""


# `asking.Views`, which comes after training and is not imported here
ViewsT = TypeVar("ViewsT", contravariant=True)


class Attack(Protocol[ViewsT]):
    """The one signature of all attacks. The target's membership is not among the arguments."""

    def __call__(self, target: ViewsT, shadows: ViewsT, shadow_member: Tensor, seed: int = 0) -> Tensor:
        """Margins float64 (n,) of the target's candidates; > 0 = member. shadow_member bool (s, n_s)."""


# what an attack may need beside posteriors and labels: eleven queries a candidate; inputs and a door; labels without
# scores; shadows that answer on the target's own candidates; other versions of each model beside it; a target's answers
# to examples that are known to be non-members
NEEDS = frozenset({"sensitivity", "queries", "labels", "same candidates", "versions", "public"})


@runtime_checkable
class DemandingAttack(Protocol):
    """An `Attack` that declares what it needs, some of `NEEDS`: nothing else is asked for it.

    One that declares "labels" sees no scores. One that declares nothing gets posteriors, labels, inputs and the door.
    """

    needs: frozenset[str]


@runtime_checkable
class LearningAttack(Protocol[ViewsT]):
    """An `Attack` that asks and learns from the shadows once for all targets."""

    def learn(self, shadows: ViewsT, shadow_member: Tensor, seed: int = 0) -> Callable[[ViewsT], Tensor]:
        """margins(target) -> float64 (n,)."""


@runtime_checkable
class NetworkAttack(Protocol[ViewsT]):
    """An `Attack` by networks that learn from the shadows, in `trainings` trainings, cached by name and content."""

    name: str
    trainings: int

    def fit(self, shadows: ViewsT, shadow_member: Tensor, seeds: list[int] | None = None) -> Population:
        """The trained attack networks, of the trainings `seeds` or, by default, of all."""

    def judge(self, networks: Population, targets: ViewsT) -> Tensor:
        """Margins float64 (targets, trainings, n)."""


@runtime_checkable
class PopulationAttack(NetworkAttack[ViewsT], Protocol[ViewsT]):
    """A `NetworkAttack` that can train the networks of several lessons at once, as one population.

    together: whether to train them at once, in this process (as on a CUDA device); else each lesson is a task for as many
        processes as joblib is set to.
    """

    together: bool

    def fit_all(
        self, lessons: Sequence[tuple[ViewsT, Tensor]], seeds: list[int] | None = None
    ) -> list[Population]:
        """What `fit` gives for each of the lessons, (shadows, shadow_member)."""
