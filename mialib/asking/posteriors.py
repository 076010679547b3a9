"""Log-posteriors, which all attacks and output defences read: checked, per class, as log-odds, beside a label.

Log-posteriors are those of log_softmax in float64: (..., n, c), rows whose probabilities sum to one, -inf allowed; labels
are int64 (..., n). No function changes its inputs.
"""

import math

import torch
from torch import Tensor

from mialib.data.tensors import must_be_tensor

TOLERANCE = 1e-3  # of a row's sum: wide enough for posteriors saved in half precision, or ten of them with four digits
BLOCK = 4096  # rows whose temporaries stay in the processor's cache
LIMIT = 1000.0  # log-odds; more than the logits of a trained model say, finite so that inf - inf never arises


def check_rows(log_posteriors: Tensor, what: str) -> None:
    """Raises ValueError where one of the rows (m, n, c) is no posterior, with the first such row; `what` names the rows.

    A row is a posterior if it holds no nan and its probabilities sum to one, up to `TOLERANCE`; -inf is allowed.
    """
    # model by model, which needs no second copy of all answers; nan and +inf fail the comparison too
    sums = [one.exp().sum(-1) for one in log_posteriors]
    wrong = [(i, (~((one - 1).abs() <= TOLERANCE)).nonzero()[:, 0]) for i, one in enumerate(sums)]
    wrong = [(i, rows) for i, rows in wrong if len(rows)]
    if not wrong:
        return
    (model, rows), count = wrong[0], sum(len(rows) for _, rows in wrong)
    first = log_posteriors[model, rows[0]]
    found = "holds nan" if first.isnan().any() else f"sums to {sums[model][rows[0]].item():.4g}"
    raise ValueError(
        f"{what}: {count} of {sum(map(len, sums))} rows are no log-posteriors; that of model {model}, example "
        f"{int(rows[0])} {found}. Valid are log_softmax of logits without nan and what a defence makes of it: "
        f"probabilities that sum to one (within {TOLERANCE:g}), -inf for a class that has none"
    )


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
    """Raises ValueError for labels that do not belong to values (..., n, c), which the message calls `name`."""
    must_be_tensor(name, values)
    must_be_tensor("labels", labels)
    if values.ndim < 2 or labels.shape != values.shape[:-1]:
        raise ValueError(
            f"labels must have the shape of {name} without its last axis (classes), "
            f"found labels {tuple(labels.shape)} and {name} {tuple(values.shape)}"
        )
    must_be_tensor("labels", labels, torch.int64)
    if labels.numel() and not (labels.min() >= 0 and labels.max() < values.shape[-1]):
        raise ValueError(
            f"labels must lie in [0, {values.shape[-1]}), "
            f"found {labels.min().item()} to {labels.max().item()}"
        )


def true_class(values: Tensor, labels: Tensor) -> Tensor:
    """The entry of the true class: values (..., n, c), labels (..., n) -> (..., n)."""
    return values.gather(-1, labels[..., None]).squeeze(-1)


def log_odds(log_posteriors: Tensor, index: Tensor, limit: float = LIMIT) -> Tensor:
    """log(p / (1 - p)) of the class at `index` (..., n), clamped to +-limit: (..., n).

    The logsumexp of the others never saturates: where p rounds to 1, it may still say -60.
    """
    rows, index_of_row, found = log_posteriors.reshape(-1, log_posteriors.shape[-1]), index.reshape(-1), []
    for some, at in zip(rows.split(BLOCK), index_of_row.split(BLOCK), strict=True):
        others = some.scatter(-1, at[:, None], -math.inf)  # out of place: the caller's stay whole
        found.append(true_class(some, at) - others.logsumexp(-1))
    return torch.cat(found).view(index.shape).clamp(-limit, limit)


def with_label(values: Tensor, labels: Tensor) -> Tensor:
    """[values, one-hot label], what attack networks read: (..., n, c), (..., n) -> (..., n, 2c) in values' type."""
    # F.one_hot would check the labels, and the host would have to wait for that
    one_hot = torch.zeros_like(values).scatter(-1, labels[..., None], 1.0)
    return torch.cat([values, one_hot], dim=-1)
