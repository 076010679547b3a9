"""Defences that are a term in the training loss: objective(forward, params, batch, step) -> losses (k,).

Shapes: k models, b examples a batch, c classes. Each model's loss depends on its own answers alone.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mialib.training import Batch, Forward, Tensors, mean_cross_entropy


@dataclass(frozen=True)
class PPB:
    """Pair-based posterior balancing, L = CE + strength * mean over pairs of KL(p_second || p_first).

    p are *ranked* posteriors (each softmax sorted in descending order, so that the class is forgotten). A batch's first
    half is paired with its second half in the batch's random order; an odd last example is left out of the penalty. The
    gradient flows through both sides. Yuan & Zhang 2022, public code mia_prune `base_model.py`, where strength is lambda,
    4 by default.

    Raises:
        ValueError: a negative strength.
    """

    strength: float
    whole_batch: ClassVar[bool] = True  # it pairs examples

    def __post_init__(self):
        _require(self, "strength", self.strength >= 0, "0 or more (the paper's code uses 4)")

    def __call__(self, forward: Forward, params: Tensors, batch: Batch, step: int) -> Tensor:
        logits = forward(params, batch.x)
        return mean_cross_entropy(logits, batch.y) + self.strength * pair_divergence(logits)


@dataclass(frozen=True)
class LabelSmoothing:
    """Cross-entropy with the target (1 - strength) * one-hot + strength / c.

    Szegedy et al. 2016, arXiv:1512.00567, section 7, where strength is epsilon, 0.1. A baseline rather than a
    defence: Kaya, Hong & Dumitras 2020, arXiv:2006.05336, find that it may even help an attacker.

    Raises:
        ValueError: a strength outside [0, 1).
    """

    strength: float

    def __post_init__(self):
        _require(self, "strength", 0 <= self.strength < 1, "in [0, 1)")

    def __call__(self, forward: Forward, params: Tensors, batch: Batch, step: int) -> Tensor:
        logits, y = forward(params, batch.x), batch.y
        losses = F.cross_entropy(
            logits.flatten(0, 1), y.flatten(), reduction="none", label_smoothing=self.strength
        )
        return losses.view(y.shape).mean(1)


@dataclass(frozen=True)
class RelaxLoss:
    """Keeps a model's mean cross-entropy (CE) on a batch near strength instead of driving it to zero.

    Above strength a model descends as usual. Below it, it climbs for `period` steps, L = |CE - strength|, then its
    posteriors are flattened for `period` steps (see `flattening`), and so on. Each of the k models is above or below by
    itself.

    Chen, Yu & Fritz 2022, arXiv:2207.05801, where strength is alpha. This is their public code,
    DingfanChen/RelaxLoss `source/{cifar,nonimage}/defense/relaxloss.py`. Their Algorithm 1 and appendix B.3
    differ; we know them from the comments of reimplementations, such as `src/experiments/relax_loss.py` of
    ethz-spylab/misleading-privacy-evals, and not from the full text:

    - the paper counts epochs from 1, so that flattening comes first; the code counts from 0 and climbs first;
    - in the paper soft targets are constants; in the code the gradient flows through them;
    - on images the paper flattens only wrongly classified examples; so does the code, but every example also climbs
      in that phase.

    Args:
        strength: mean loss to keep, in nats, 0 or more; 0 is cross-entropy. The code's configurations:
            CIFAR-10 1 (ResNet-20) or 0.4 (VGG-11), CIFAR-100 3 or 0.5, Purchase 0.8, Texas 2.5.
        period: steps until the phases alternate, 1 or more; an epoch's in the paper and its code.
        upper: largest confidence that a soft target gives the true class, in (0, 1]; the code has 1 for CIFAR,
            0.3 for Purchase and 0.1 for Texas.
        images: use the code's rule for images (only wrong answers are flattened, every example climbs); else its rule
            for records (all are flattened, none climbs), which is meant for an upper well below 1.

    Raises:
        ValueError: a strength, period or upper out of range, with its name.
    """

    strength: float
    period: int
    upper: float = 1.0
    images: bool = True
    whole_batch: ClassVar[bool] = True  # it holds the mean loss of a batch, not the loss of an example
    captured: ClassVar[bool] = False  # its phases depend on the number of the step

    def __post_init__(self):
        _require(self, "strength", self.strength >= 0, "0 or more")
        _require(self, "period", isinstance(self.period, int) and self.period >= 1, "an integer, 1 or more")
        _require(self, "upper", 0 < self.upper <= 1, "in (0, 1]")

    def __call__(self, forward: Forward, params: Tensors, batch: Batch, step: int) -> Tensor:
        logits, y = forward(params, batch.x), batch.y
        losses = mean_cross_entropy(logits, y)
        if step // self.period % 2 == 0:
            return (losses - self.strength).abs()  # its gradient changes sign at strength
        flattened = flattening(logits, y, self.upper)
        if self.images:
            wrong = logits.argmax(-1) != y
            relaxed = (wrong * flattened).mean(1) - losses
        else:
            relaxed = flattened.mean(1)
        return torch.where(losses > self.strength, losses, relaxed)


@dataclass(frozen=True)
class SoftTargets:
    """Cross-entropy against posteriors instead of labels, L = mean over examples of -sum_c t_c log p_c: distillation.

    Each model has its own targets, looked up by `batch.index`, so augmented inputs keep the targets of the example they
    were made from. Rows that a model never trains on are never read and may hold anything, even nan.

    Args:
        targets: (k, n, c) floating point, each row read a distribution over the classes; on the data set's device.

    Raises:
        ValueError: targets of another shape or type.
    """

    targets: Tensor

    def __post_init__(self):
        if self.targets.ndim != 3 or not self.targets.is_floating_point():
            raise ValueError(
                f"SoftTargets: targets are {self.targets.dtype} {tuple(self.targets.shape)}; they must be "
                "floating point of shape (models, examples, classes)"
            )

    def __getitem__(self, models: slice | list[int]) -> "SoftTargets":
        return SoftTargets(self.targets[models])

    def __call__(self, forward: Forward, params: Tensors, batch: Batch, step: int) -> Tensor:
        logits = forward(params, batch.x)
        model = torch.arange(len(logits), device=logits.device)[:, None]
        return -(self.targets[model, batch.index].to(logits) * logits.log_softmax(-1)).sum(-1).mean(1)


@dataclass(frozen=True)
class Mixup:
    """Cross-entropy of mixed examples, each a blend of two of the batch, with the labels of both.

        L = lam CE(f(z), y) + (1 - lam) CE(f(z), y'),    z = lam x + (1 - lam) x',    lam ~ Beta(strength, strength)

    (x', y') is the batch in another order; each step has one lam and one order. Zhang et al. 2018, arXiv:1710.09412,
    where strength is alpha: 1 for CIFAR-10, 0.1 to 0.4 for ImageNet. With `mmd.MMD` as opponent it is the defence of
    Li, Li & Ribeiro 2021, arXiv:2002.12062; that opponent sees the batch unmixed, which costs one more forward pass.

    lam and the order are drawn from the number of the step: models get the same ones whether trained together or alone.
    Models of different seeds get them too, but their batches differ anyway.

    Raises:
        ValueError: a strength that is not positive and finite.
    """

    strength: float
    whole_batch: ClassVar[bool] = True  # it mixes examples
    captured: ClassVar[bool] = False  # share and order are drawn by the number of the step

    def __post_init__(self):
        _require(self, "strength", 0 < self.strength < math.inf, "positive and finite (0.1 to 1 are usual)")

    def __call__(self, forward: Forward, params: Tensors, batch: Batch, step: int) -> Tensor:
        generator = np.random.default_rng(step)
        share = generator.beta(self.strength, self.strength)
        order = torch.from_numpy(generator.permutation(batch.y.shape[1])).to(batch.y.device)
        logits = forward(params, share * batch.x + (1 - share) * batch.x[:, order])
        own, other = (mean_cross_entropy(logits, y) for y in (batch.y, batch.y[:, order]))
        return share * own + (1 - share) * other


def pair_divergence(logits: Tensor) -> Tensor:
    """Mean over pairs of KL(second || first) of the ranked posteriors of a batch's halves; (k, b, c) -> (k,) nats."""
    half = logits.shape[1] // 2
    ranked = logits[:, : 2 * half].sort(dim=-1, descending=True).values.log_softmax(-1)
    first, second = ranked[:, :half], ranked[:, half:]
    return (second.exp() * (second - first)).sum(-1).mean(-1)


def flattening(logits: Tensor, y: Tensor, upper: float) -> Tensor:
    """Cross-entropy with RelaxLoss's soft targets; logits (k, b, c) and y (k, b) -> (k, b) nats.

    A target keeps the posterior p_y of the true class, at most `upper`, and shares the rest equally among the other
    classes, so that none of them overtakes y. The gradient flows through the target too. So where y leads the others, a
    p_y below `upper` grows; one above it, whose target is a constant, falls towards it.
    """
    log_p = logits.log_softmax(-1)
    own = log_p.gather(-1, y[..., None]).squeeze(-1)
    others = (log_p.sum(-1) - own) / (logits.shape[-1] - 1)  # mean log-posterior of the other classes
    kept = own.exp().clamp(max=upper)
    return -(kept * own + (1 - kept) * others)


def _require(objective, name: str, valid: bool, rule: str) -> None:
    if not valid:
        raise ValueError(
            f"{type(objective).__name__}: {name} is {getattr(objective, name)!r}; it must be {rule}"
        )
