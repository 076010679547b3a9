"""Log-posteriors, what all attacks and output defences read: checked, per class, as log-odds, beside a label.

Log-posteriors are those of log_softmax in float64: (..., n, c), rows whose probabilities sum to one, -inf allowed; labels
are int64 (..., n). No function changes its inputs.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LIMIT = 1000.0  # log-odds; beyond what a trained model's logits say, finite so that inf - inf never arises


def checked(log_posteriors: Tensor, labels: Tensor) -> Tensor:
    """The log-posteriors in float64.

    Raises:
        ValueError: log-posteriors above zero or nan (logits passed by mistake, a model that diverged), labels whose
            shape does not fit or that lie outside [0, c).
    """
    check_labels(log_posteriors, labels, "log_posteriors")
    if log_posteriors.numel() and not (highest := log_posteriors.max()) <= 1e-6:  # a nan fails this too
        raise ValueError(
            f"log_posteriors must be at most 0, found {highest.item():.4g}: pass log_softmax of the logits"
        )
    return log_posteriors.double()


def check_labels(values: Tensor, labels: Tensor, name: str) -> None:
    """Raises ValueError for labels that are none of values (..., n, c), which the message calls `name`."""
    if values.ndim < 2 or labels.shape != values.shape[:-1]:
        raise ValueError(
            f"labels must have the shape of {name} without its last axis (classes), "
            f"found labels {tuple(labels.shape)} and {name} {tuple(values.shape)}"
        )
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64, found {labels.dtype}")
    if labels.numel() and not (labels.min() >= 0 and labels.max() < values.shape[-1]):
        raise ValueError(
            f"labels must lie in [0, {values.shape[-1]}), "
            f"found {labels.min().item()} to {labels.max().item()}"
        )


def true_class(values: Tensor, labels: Tensor) -> Tensor:
    """The true class's entry: values (..., n, c), labels (..., n) -> (..., n)."""
    return values.gather(-1, labels[..., None]).squeeze(-1)


def log_odds(log_posteriors: Tensor, index: Tensor, limit: float = LIMIT) -> Tensor:
    """log(p / (1 - p)) of the class at `index` (..., n), clamped to +-limit: (..., n).

    The others' logsumexp never saturates: where p rounds to 1 it still says -60.
    """
    others = log_posteriors.scatter(-1, index[..., None], -math.inf)  # out of place: the caller's stay whole
    return (true_class(log_posteriors, index) - others.logsumexp(-1)).clamp(-limit, limit)


def with_label(values: Tensor, labels: Tensor) -> Tensor:
    """[values, one-hot label], what attack networks read: (..., n, c), (..., n) -> (..., n, 2c) in values' type."""
    return torch.cat([values, F.one_hot(labels, values.shape[-1]).to(values)], dim=-1)
