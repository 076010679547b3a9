"""Threshold attacks: one signal, one cut, fitted on shadow models. Attacks have the contract's one signature

    attack(target, shadows, shadow_member, seed) -> margins (n,) float64

target: Views of one model on n candidates; shadows: Views of s models; shadow_member: bool (s, n_s), 1 =
member. A margin is the signal's log-odds minus the threshold, > 0 = "member". Nothing here is random, `seed`
is part of the signature only.

A threshold maximises the balanced accuracy (TPR + TNR) / 2 over the rows of all shadow models together. Per
class means one threshold for each true class, as in Song and Mittal 2021, arXiv:2003.10595, which the margins
then share as their zero; `_global` means one for all. The names, beside those that mia_prune (Yuan and Zhang
2022) gives to its baselines:

    gap                  "correctness"; no threshold, margins are +1 or -1
    confidence           "Conf"
    entropy              "Xent" or "Entr"
    modified_entropy     "Mentr"
    confidence_global    "Top1-conf" or "Hconf": the code really thresholds the true class's confidence
    top1                 what "Top1-conf" claims to be: the largest posterior, one threshold, no labels used

`entropy_global` and `modified_entropy_global` have no counterpart there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mialib.asking import Views
from mialib.attacks import signals
from mialib.data.tensors import must_be_tensor


def best_threshold(signal: Tensor, member: Tensor) -> Tensor:
    """The threshold t for which `signal > t` best tells members from non-members, a float64 scalar.

    signal float (n,), finite; member bool (n,) with members and non-members. Maximises the balanced accuracy
    over all cuts between distinct values; t is half-way between the neighbours, or just below the smallest
    value where calling everything a member is best. Of equally good cuts the lowest is taken (so a useless
    signal calls everything a member). Raises ValueError on other shapes or types, on values that are not
    finite, and where one of the two groups is empty.
    """
    signal, member, labels = _flat(signal, member, torch.zeros_like(signal, dtype=torch.int64))
    thresholds, _ = _best_by_class(signal, member, labels, 1)
    return thresholds[0]


def class_thresholds(signal: Tensor, member: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """`best_threshold` of every class at once, (num_classes,) float64; labels int64 (n,) in [0, num_classes).

    A class with no member or no non-member gets the threshold of all classes together. Raises as
    `best_threshold` does, and on labels outside the classes.
    """
    signal, member, labels = _flat(signal, member, labels)
    if not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(
            f"labels must lie in [0, {num_classes}), found {labels.min().item()} to {labels.max().item()}"
        )
    thresholds, both = _best_by_class(signal, member, labels, num_classes)
    return thresholds if both.all() else torch.where(both, thresholds, best_threshold(signal, member))


@dataclass(frozen=True)
class ThresholdAttack:
    """Margin = signal minus its best threshold on the shadows' rows.

    `signal` is a function of `mialib.attacks.signals`; `per_class`: a threshold for each true class.
    Raises ValueError unless target is one model, shadow_member fits the shadows and holds both groups, and
    target and shadows have the same classes.
    """

    signal: Callable[[Tensor, Tensor], Tensor]
    per_class: bool = True

    def __call__(self, target: Views, shadows: Views, shadow_member: Tensor, seed: int = 0) -> Tensor:
        _check(target, shadows, shadow_member)
        labels, num_classes = shadows.labels.flatten(), shadows.log_posteriors.shape[-1]
        signal = self.signal(shadows.log_posteriors, shadows.labels).flatten()
        member = shadow_member.flatten()
        if self.per_class:
            threshold = class_thresholds(signal, member, labels, num_classes)[target.labels[0]]
        else:
            threshold = best_threshold(signal, member)
        return self.signal(target.log_posteriors[0], target.labels[0]) - threshold


def gap(
    target: Views, shadows: Views | None = None, shadow_member: Tensor | None = None, seed: int = 0
) -> Tensor:
    """+1 where the target classifies the candidate correctly, else -1: the floor that any attack must beat.

    Its balanced accuracy is 1/2 + (train accuracy - test accuracy) / 2. It needs no shadow models and ignores
    any. Source: Yeom et al. 2018, arXiv:1709.01604.
    """
    target.check_single()
    return signals.correctness(target.log_posteriors[0], target.labels[0])


def gap_accuracy(generalization_gap):
    """Balanced accuracy, and AUC, of `gap` on a network of this training minus test accuracy: 1/2 + gap / 2."""
    return 0.5 + generalization_gap / 2


gap.needs = frozenset({"labels"})
confidence = ThresholdAttack(signals.confidence)
entropy = ThresholdAttack(signals.entropy)
modified_entropy = ThresholdAttack(signals.modified_entropy)
confidence_global = ThresholdAttack(signals.confidence, per_class=False)
entropy_global = ThresholdAttack(signals.entropy, per_class=False)
modified_entropy_global = ThresholdAttack(signals.modified_entropy, per_class=False)
top1 = ThresholdAttack(signals.top1, per_class=False)

ATTACKS = {
    "gap": gap,
    "confidence": confidence,
    "entropy": entropy,
    "modified_entropy": modified_entropy,
    "confidence_global": confidence_global,
    "entropy_global": entropy_global,
    "modified_entropy_global": modified_entropy_global,
    "top1": top1,
}
# those of ATTACKS that hold all classes to one threshold where another holds each to its own
GLOBAL = ("confidence_global", "entropy_global", "modified_entropy_global")


def _best_by_class(signal: Tensor, member: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Thresholds (num_classes,) and which classes hold both groups (the others' mean nothing)."""
    order = signal.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]  # by class, then by signal
    signal, member, labels = signal[order], member[order], labels[order]
    size, position = len(signal), torch.arange(len(signal), device=signal.device)

    members = torch.bincount(labels[member], minlength=num_classes)
    nonmembers = torch.bincount(labels[~member], minlength=num_classes)
    start = (members + nonmembers).cumsum(0) - members - nonmembers  # where each class's rows begin

    # The cut below row j calls row j and its class's later ones members. Relative to calling all of them
    # members, TPR falls by the members before j and TNR rises by the non-members before j; in whole numbers,
    # so that equal cuts are exactly equal. The cut above a class's last row ("no members") is as good as the
    # one below its first, which ties prefer: not needed.
    before = member.cumsum(0) - member.long()
    members_before = before - before[start.clamp(max=size - 1)][labels]
    nonmembers_before = position - start[labels] - members_before
    score = nonmembers_before * members[labels] - members_before * nonmembers[labels]
    below = position - 1  # a class's first row has none, and is never asked for it
    first = position == start[labels]
    tied = ~first & (signal == signal[below])
    score = score.masked_fill(tied, -1)  # no cut between equal values; a class's first row scores 0

    best = score.new_zeros(num_classes).scatter_reduce(0, labels, score, "amax")
    cut = torch.where(score == best[labels], position, size)
    cut = torch.full_like(best, size).scatter_reduce(0, labels, cut, "amin").clamp(max=size - 1)

    high = signal[cut]
    low = torch.where(first[cut], torch.nextafter(high, high.new_tensor(-torch.inf)), signal[below[cut]])
    middle = low + (high - low) / 2
    return torch.where(middle < high, middle, low), (members > 0) & (nonmembers > 0)


def _flat(signal: Tensor, member: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    for name, value, dtype in (
        ("signal", signal, None),
        ("member", member, torch.bool),
        ("labels", labels, torch.int64),
    ):
        must_be_tensor(name, value, dtype)
    if signal.ndim != 1 or member.shape != signal.shape or labels.shape != signal.shape:
        raise ValueError(
            f"signal, member and labels must have one shape (n,), found {tuple(signal.shape)}, "
            f"{tuple(member.shape)} and {tuple(labels.shape)}: flatten the models' axis"
        )
    if not signal.isfinite().all():
        raise ValueError(
            "signal must be finite, found nan or infinity: clamp it, or look for a model that diverged"
        )
    if member.all() or not member.any():
        raise ValueError(
            f"member must hold both groups, "
            f"found {int(member.sum())} members and {int((~member).sum())} non-members"
        )
    return signal.double(), member, labels


def _check(target: Views, shadows: Views, shadow_member: Tensor) -> None:
    target.check_single()
    signals.check_member(shadow_member, shadows.labels, "shadow_member")
    if target.log_posteriors.shape[-1] != shadows.log_posteriors.shape[-1]:
        raise ValueError(
            f"target and shadows must have the same classes, found {target.log_posteriors.shape[-1]} "
            f"and {shadows.log_posteriors.shape[-1]}"
        )
