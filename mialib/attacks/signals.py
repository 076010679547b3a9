"""Membership signals for each example, computed from a model's answers.

Every signal maps log-posteriors (..., n, c) and labels (..., n) to (..., n) float64, larger = more likely a
member; leading axes are models. Log-posteriors are those of log_softmax in float64: rows whose probabilities
sum to one, -inf allowed. No function changes its inputs. All raise ValueError on log-posteriors above zero or
nan (logits passed by mistake, a model that diverged), on labels whose shape does not fit, and on labels
outside [0, c).

All have one unit. A surprisal u >= 0 in nats (cross-entropy -log p_y, entropy, modified entropy, -log max p) is given as
the log-odds of the probability that has it, -log(expm1(u)); for the cross-entropy that is log(p_y / (1 - p_y)). An
overfit model's posteriors saturate: log p_y is exactly 0 while the other classes still say -60. Everything here is
computed from the complements 1 - p, in the log domain, so that such an example gets 60 and not infinity. Results are
clamped to [-LIMIT, LIMIT], which is reached only by posteriors of exactly 0 or 1, or by logits more than LIMIT apart.
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from mialib.asking.posteriors import LIMIT, check_labels, checked, log_odds, true_class
from mialib.data.tensors import must_be_tensor

BLOCK = 1024  # rows at a time; 135,000 x 100 posteriors then take a quarter of the time
NEGLIGIBLE = -40.0  # e**-40 is below float64's resolution beside 1: log(-log1p(-e**q)) and q agree


class Gap(NamedTuple):
    """How differently a model treats members and non-members; positive = it leaks."""

    overall: Tensor  # (...,) float64
    per_class: Tensor  # (..., c) float64, nan where a class has no member or no non-member


def correctness(log_posteriors: Tensor, labels: Tensor) -> Tensor:
    """+1 where the largest posterior is that of the true class, else -1."""
    log_p = checked(log_posteriors, labels)
    return (log_p.argmax(-1) == labels).double() * 2 - 1


def confidence(log_posteriors: Tensor, labels: Tensor) -> Tensor:
    """Log-odds of the true class, log(p_y / (1 - p_y)).

    Source: the logit-scaled confidence of Carlini et al. 2022, arXiv:2112.03570; as a ranking, the same as
    the posterior of the true class and as minus the cross-entropy.
    """
    return log_odds(checked(log_posteriors, labels), labels)


def top1(log_posteriors: Tensor, labels: Tensor) -> Tensor:
    """Log-odds of the largest posterior, whichever class it is. The labels are only checked, never used."""
    log_p = checked(log_posteriors, labels)
    return log_odds(log_p, log_p.argmax(-1))


def _in_blocks(signal):
    """The same signal, computed over `BLOCK` rows at a time: its many temporaries then stay in the processor's cache."""

    @functools.wraps(signal)
    def blocked(log_posteriors: Tensor, labels: Tensor) -> Tensor:
        log_p = checked(log_posteriors, labels)
        rows = zip(log_p.flatten(0, -2).split(BLOCK), labels.flatten().split(BLOCK), strict=True)
        return torch.cat([signal(*block) for block in rows]).view(labels.shape)

    return blocked


@_in_blocks
def entropy(log_posteriors: Tensor, labels: Tensor) -> Tensor:
    """Prediction entropy H = -sum_c p_c log p_c as log-odds: certain answers are high.

    The labels are only checked, never used.
    Source: Song and Mittal 2021, arXiv:2003.10595. The README of mia_prune calls it "Xent", but it is no
    cross-entropy.
    """
    log_p = checked(log_posteriors, labels)
    terms = log_p + _log_surprisal(log_p, log_complement(log_p))
    terms = terms.masked_fill(log_p == -math.inf, -math.inf)  # 0 log 0 = 0
    return _log_odds(terms.logsumexp(-1))


@_in_blocks
def modified_entropy(log_posteriors: Tensor, labels: Tensor) -> Tensor:
    """Modified entropy M = -(1 - p_y) log p_y - sum over c != y of p_c log(1 - p_c), as log-odds.

    Unlike the entropy it tells a certain right answer (M near 0) from a certain wrong one (M large). Source: Song and
    Mittal 2021, arXiv:2003.10595. Their code and mia_prune's clip the logarithms at log 1e-30, so that all smaller
    posteriors look alike; here they stay exact, and only the result is clamped.
    """
    log_p = checked(log_posteriors, labels)
    log_q = log_complement(log_p)
    y = labels[..., None]
    of_class_y = log_q.gather(-1, y) + _log_surprisal(log_p.gather(-1, y), log_q.gather(-1, y))
    of_others = log_p + _log_surprisal(log_q, log_p)
    return _log_odds(of_others.scatter(-1, y, of_class_y).logsumexp(-1))


def log_complement(log_p: Tensor) -> Tensor:
    """log(1 - p_c) for every class, (..., c) -> (..., c), precise even where p_c rounds to 1.

    All classes but the largest have p <= 1/2, where log1p loses nothing; the largest takes the logsumexp of
    the others.
    """
    largest = log_p.argmax(-1, keepdim=True)
    others = log_p.scatter(-1, largest, -math.inf)
    return torch.log1p(-others.exp()).scatter(-1, largest, others.logsumexp(-1, keepdim=True))


def confidence_gap(log_posteriors: Tensor, labels: Tensor, member: Tensor) -> Gap:
    """Mean posterior of the true class over members minus that over non-members; member bool (..., n).

    Source: the prediction divergence of Yuan and Zhang 2022, arXiv:2202.03335.
    """
    return _gap(checked(log_posteriors, labels).exp(), labels, member)


def sensitivity_gap(sensitivity: Tensor, labels: Tensor, member: Tensor) -> Gap:
    """Mean sensitivity of the true class over non-members minus that over members; member bool (..., n).

    The sign is turned, since a model is less sensitive where it has memorised. Sensitivities (..., n, c)
    are >= 0. Source: as for `confidence_gap`; the notebook divergence_plot.ipynb of mia_prune.
    """
    check_labels(sensitivity, labels, "sensitivity")
    return _gap(-sensitivity, labels, member)


def check_member(member: Tensor, labels: Tensor, name: str = "member", where: str = "") -> None:
    """Raises ValueError unless `member` is bool, in the shape of the labels, and of at least one model.

    name, where: what the message calls `member`, and what it begins with.
    """
    must_be_tensor(name, member, torch.bool, where)
    if member.shape != labels.shape:
        raise ValueError(
            f"{where}{name} must have the shape of the labels, {tuple(labels.shape)}, found {tuple(member.shape)}"
        )
    if not len(labels):
        raise ValueError(
            f"{where}{name} is of no model, and there is nothing to learn from: train shadow models (n_shadows), or learn from "
            'the half of the target\'s members that is known, study.attack(..., knowing="half")'
        )


def _log_surprisal(log_p: Tensor, log_q: Tensor) -> Tensor:
    """log(-log p): from log p if p < 1/2, else from log q = log(1 - p), each where it is precise."""
    from_q = torch.where(log_q < NEGLIGIBLE, log_q, (-torch.log1p(-log_q.exp())).log())
    return torch.where(log_p < -math.log(2), (-log_p).log(), from_q)


def _log_odds(log_u: Tensor) -> Tensor:
    """Log of a surprisal u in nats -> log-odds -log(expm1(u)), clamped."""
    u = log_u.exp()
    odds = torch.where(log_u < NEGLIGIBLE, -log_u, -u - (-torch.expm1(-u)).log())
    return odds.clamp(-LIMIT, LIMIT)


def _gap(values: Tensor, labels: Tensor, member: Tensor) -> Gap:
    check_member(member, labels)
    value, side = true_class(values, labels), torch.stack([member, ~member]).double()  # (2, ..., n)
    classes = labels.expand_as(side)
    zeros = side.new_zeros(*side.shape[:-1], values.shape[-1])
    sums, counts = zeros.scatter_add(-1, classes, side * value), zeros.scatter_add(-1, classes, side)
    of_members, of_nonmembers = sums / counts
    overall = sums.sum(-1) / counts.sum(-1)
    return Gap(overall[0] - overall[1], of_members - of_nonmembers)
