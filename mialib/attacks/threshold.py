"""Threshold attacks: one signal, one cut, fitted on shadow models. They have the contract's one signature

    attack(target, shadows, shadow_member, seed) -> margins (n,) float64

target: Views of one model on n candidates; shadows: Views of s models; shadow_member: bool (s, n_s), 1 = member. A margin
is the signal's log-odds minus the threshold, > 0 = "member". Nothing here is random; `seed` is only part of the
signature.

A threshold maximises the balanced accuracy (TPR + TNR) / 2 over the rows of all shadow models together. Attacks per class
have one threshold for each true class, as in Song and Mittal 2021, arXiv:2003.10595, which is the zero of its margins;
`_global` means one for all. The names, with those that mia_prune (Yuan and Zhang 2022) gives its baselines:

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

import numpy as np
import torch
from torch import Tensor

from mialib.asking import Views
from mialib.attacks import signals
from mialib.data.tensors import must_be_tensor


def best_threshold(signal: Tensor, member: Tensor) -> Tensor:
    """The threshold t for which `signal > t` best tells members from non-members, a float64 scalar.

    signal float (n,), finite; member bool (n,) with members and non-members. Maximises the balanced accuracy
    over all cuts between distinct values; t is half-way between the neighbours, or just below the smallest value if
    calling everything a member is best. Of equally good cuts the lowest is taken (so a useless signal calls everything a
    member). Raises ValueError for other shapes or types, for values that are not finite, and if one of the two groups is
    empty.
    """
    return _best_cut(_checked(signal, member), member)


def class_thresholds(signal: Tensor, member: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """`best_threshold` of every class at once, (num_classes,) float64; labels int64 (n,) in [0, num_classes).

    A class with no member or no non-member gets the threshold of all classes together. Raises as
    `best_threshold` does, and on labels outside the classes.
    """
    signal = _checked(signal, member, labels)
    if not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(
            f"labels must lie in [0, {num_classes}), found {labels.min().item()} to {labels.max().item()}"
        )
    order = labels.argsort(stable=True)
    sizes = labels.bincount(minlength=num_classes).tolist()
    classes = zip(signal[order].split(sizes), member[order].split(sizes), strict=True)
    both = [(values, inside) if inside.any() and not inside.all() else None for values, inside in classes]
    of_all = None if all(both) else _best_cut(signal, member)
    return torch.stack([of_all if rows is None else _best_cut(*rows) for rows in both])


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
    """Balanced accuracy, which is also the AUC, of `gap` on a network with this train minus test accuracy: 1/2 + gap / 2."""
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
# attacks with one threshold for all classes that have a twin with a threshold for each
GLOBAL = ("confidence_global", "entropy_global", "modified_entropy_global")


def _best_cut(signal: Tensor, member: Tensor) -> Tensor:
    """`best_threshold` of rows that are already checked; signal float64 (n,)."""
    members, others = in_order(signal[member]), in_order(signal[~member])
    # Relative to calling every row a member, a cut above a non-member raises TNR by the non-members up to it and lowers
    # TPR by the members up to it; in whole numbers, so that equal cuts are exactly equal. The lowest best cut lies just
    # above a non-member, and above all rows equal to it: of these the last scores most.
    members_up_to = torch.searchsorted(members, others, right=True)
    others_up_to = torch.arange(1, len(others) + 1, device=others.device)
    score = others_up_to * len(members) - members_up_to * len(others)
    best = score.argmax()  # the first of equals
    if score[best] > 0:
        low = others[best]
        above = [members[members_up_to[best] :][:1], others[best + 1 :][:1]]
        high = torch.cat(above).min()
    else:  # every row is called a member
        high = torch.minimum(members[0], others[0])
        low = torch.nextafter(high, high.new_tensor(-torch.inf))
    middle = low + (high - low) / 2
    return torch.where(middle < high, middle, low)


def in_order(values: Tensor) -> Tensor:
    """The values from the smallest; numpy sorts plain numbers ten times as fast as torch, which also numbers them."""
    if values.device.type != "cpu":
        return values.sort().values
    return torch.from_numpy(np.sort(values.numpy()))


def _checked(signal: Tensor, member: Tensor, labels: Tensor | None = None) -> Tensor:
    """The signal in float64."""
    must_be_tensor("signal", signal)
    must_be_tensor("member", member, torch.bool)
    if labels is not None:
        must_be_tensor("labels", labels, torch.int64)
    shapes = [tuple(one.shape) for one in (signal, member, labels) if one is not None]
    if signal.ndim != 1 or len(set(shapes)) > 1:
        names = "signal and member" if labels is None else "signal, member and labels"
        raise ValueError(
            f"{names} must have one shape (n,), found {' and '.join(map(str, shapes))}: flatten the models' axis"
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
    return signal.double()


def _check(target: Views, shadows: Views, shadow_member: Tensor) -> None:
    target.check_single()
    signals.check_member(shadow_member, shadows.labels, "shadow_member")
    if target.log_posteriors.shape[-1] != shadows.log_posteriors.shape[-1]:
        raise ValueError(
            f"target and shadows must have the same classes, found {target.log_posteriors.shape[-1]} "
            f"and {shadows.log_posteriors.shape[-1]}"
        )
