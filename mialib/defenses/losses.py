"""Defences that are a term in the training loss: objective(forward, params, batch, step) -> losses (k,)."""

from dataclasses import dataclass

from torch import Tensor

from mialib.loop import Batch, Forward, mean_cross_entropy
from mialib.population import Tensors


@dataclass(frozen=True)
class PPB:
    """Pair-based posterior balancing, L = CE + strength * mean over pairs of KL(p_second || p_first).

    p are *ranked* posteriors (each softmax sorted in descending order, so that the class is forgotten); a batch's
    first half is paired with its second half in the batch's random order, an odd last example is left out of the
    penalty. The gradient flows through both sides. Yuan & Zhang 2022, public code mia_prune `base_model.py`, where
    strength is lambda, 4 by default.

    Raises:
        ValueError: a negative strength.
    """

    strength: float

    def __post_init__(self):
        if not self.strength >= 0:
            raise ValueError(
                f"PPB: strength is {self.strength}; it must be 0 or more (the paper's code uses 4)"
            )

    def __call__(self, forward: Forward, params: Tensors, batch: Batch, step: int) -> Tensor:
        logits = forward(params, batch.x)
        return mean_cross_entropy(logits, batch.y) + self.strength * pair_divergence(logits)


def pair_divergence(logits: Tensor) -> Tensor:
    """Mean over pairs of KL(ranked second-half posterior || ranked first-half posterior); (k, b, c) -> (k,) nats."""
    half = logits.shape[1] // 2
    ranked = logits[:, : 2 * half].sort(dim=-1, descending=True).values.log_softmax(-1)
    first, second = ranked[:, :half], ranked[:, half:]
    return (second.exp() * (second - first)).sum(-1).mean(-1)
