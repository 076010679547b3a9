"""Do labels, answers and the number of examples allow a verdict?

Every function returns a list of `Finding`, empty where nothing is to be said, and changes none of its inputs. "Others" are
the examples that the network was not trained on. `input_checks` looks at the inputs.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mialib import streams
from mialib.auditing import findings
from mialib.auditing.findings import BY_CHANCE, NOTE, REFUSED, WARNING, Finding
from mialib.measures import Estimate, intervals, metrics
from mialib.reporting.vocabulary import with_interval

LABELS_APART = 0.1  # share of examples whose class would have to change, beyond chance
FAR_BELOW, BELOW = 0.1, 0.02  # accuracy below what was stated: refused, warned of
FEWEST_JUDGED = 20  # of each side; with fewer no verdict is given
WORSE = 0.05  # accuracy on others below the baseline's
SATURATED = 0.1  # share of rows from which on it is worth a warning
WIDE, ROUGH = 0.1, 0.05  # smallest AUC above 0.5 that would be seen: a warning, a note


def of_labels(members_y: Tensor, others_y: Tensor, classes: int) -> list[Finding]:
    """Classes in other shares among members than among others, and classes that one side lacks.

    Args:
        members_y, others_y: int64 (n,) and (m,), in 0..classes - 1, not empty.
    """
    counts = np.stack([torch.bincount(y, minlength=classes).numpy() for y in (members_y, others_y)])
    moved, usual, spread, p = _moved(counts)
    found = []
    if p < BY_CHANCE:
        beyond = moved - usual
        refused = beyond - 2 * spread > LABELS_APART
        text = (
            f"Classes come in other shares among members than among others: {moved:.0%} of the members would have to change "
            f"their class, and chance explains {usual:.0%} (chi-square test, p at most {BY_CHANCE:g}); {_most_unequal(counts)}. "
            f"The class alone tells members from others with a balanced accuracy of about {0.5 + max(beyond, 0) / 2:.2f}, where "
            "0.5 is guessing"
        )
        end = ", so no verdict can be given. " if refused else ". "
        found.append(
            Finding(
                REFUSED if refused else WARNING,
                "classes",
                text + end + "Draw as many of each class on both sides.",
            )
        )
    return found + _lacking(counts)


def of_answers(
    log_posteriors: Tensor, labels: Tensor, member: Tensor, name: str, expected_accuracy: float | None = None
) -> list[Finding]:
    """A network that does not do its work, so that its answers say nothing about it; answers that cannot be told apart.

    Args:
        log_posteriors: float64 (n, classes).
        labels, member: int64 and bool (n,), both members and others among them.
        name: of the network.
        expected_accuracy: on examples that it was not trained on, as the user states it, in (0, 1].

    Raises:
        ValueError: an expected accuracy outside (0, 1].
    """
    if expected_accuracy is not None and not 0 < expected_accuracy <= 1:
        hint = f"; give {expected_accuracy / 100:g}" if 1 < expected_accuracy <= 100 else ""
        raise ValueError(f"expected_accuracy is {expected_accuracy:g}; it must be a share in (0, 1]{hint}")
    answered = log_posteriors.argmax(1)
    right = answered == labels
    on = {side: _share(right[of]) for side, of in (("members", member), ("others", ~member))}
    found = _the_same(log_posteriors, answered, labels, name) or _at_chance(answered, labels, name)
    if expected_accuracy is not None:
        found += _unexpected(on, expected_accuracy, name)
    found += _others_at_chance(answered[~member], labels[~member], name) if not found else []
    found += _swapped(right, member, on, name) + _saturated(log_posteriors, member, name)
    return [replace(one, network=name) for one in found]


def of_results(
    accuracies: Mapping[str, Estimate], leaks: Mapping[str, Estimate], baseline: str
) -> list[Finding]:
    """Networks much worse than the baseline, and attacks that take the others for the members.

    Args:
        accuracies: of each network, on others, with intervals.
        leaks: AUC of the strongest attack on each.
    """
    found, of_baseline = [], accuracies[baseline]
    for name, one in accuracies.items():
        if one.high < of_baseline.low and of_baseline.value - one.value > WORSE:
            text = (
                f"{name} is right for {findings.percent(one)} of the others, {baseline} for {findings.percent(of_baseline)}. If that was not to be "
                "expected, check that its inputs come normalised as it wants them: a network that is worse also leaks less."
            )
            found.append(Finding("warning", "accuracy", text, name))
    for name, one in leaks.items():
        if one.high < 0.5:
            text = (
                f"the attacks on {name} take the others for the members (AUC {with_interval(one)}, 0.5 is guessing). Check that "
                "members and non-members are not exchanged."
            )
            found.append(Finding("refused", "membership", text, name))
    return found


def of_size(members: int, others: int) -> list[Finding]:
    """Which false-positive rates that many others resolve, and how large a leak must be to be seen.

    members, others: how many examples the attack is judged on, at least 1 each.
    """
    if min(members, others) < FEWEST_JUDGED:
        text = (
            f"Attacks would be judged on {members:,} members and {others:,} others. That proves nothing either way: give enough "
            f"for {FEWEST_JUDGED} of each, better hundreds (without imitations, half of what is given goes to the attacker)."
        )
        return [Finding(REFUSED, "size", text)]
    found = []
    for rate in (0.01, 0.001):
        allowed = math.floor(rate * others + 1e-9)
        if allowed < 1:
            need = round(1 / rate)
            text = (
                f"A false-positive rate of {rate:.1%} cannot be seen with {others:,} others: one false accusation alone is "
                f"{1 / others:.1%}. Give at least {need:,} others to judge on, better ten times as many."
            )
            found.append(Finding(NOTE, "resolution", text))
        elif allowed < 10:
            text = (
                f"With {others:,} others a false-positive rate of {rate:.1%} means {allowed} false accusations, so rates of "
                "true positives there are rough, and too high on average."
            )
            found.append(Finding(NOTE, "resolution", text))
    # the variance of the AUC where nothing leaks (Mann & Whitney 1947); 2.8: 5 % on both sides, found four times in five
    least = 2.8 * math.sqrt((members + others + 1) / (12 * members * others))
    if least > ROUGH:
        seen = f"only an AUC above {0.5 + least:.2f}" if least < 0.5 else "no AUC, not even 1,"
        text = (
            f"With {members:,} members and {others:,} others to judge on, {seen} would be told from guessing (0.5) four times in "
            "five. A smaller leak can be there and not be seen; give more of both."
        )
        found.append(Finding(WARNING if least > WIDE else NOTE, "size", text))
    return found


def _moved(counts: np.ndarray, draws: int = 1999) -> tuple[float, float, float, float]:
    """Share of members that would have to change class; its mean and spread by chance; p-value of the chi-square test.

    By chance: the same examples, dealt to the sides at random. Classes may be as rare as they like.
    """
    sizes = counts.sum(1)
    total = counts.sum(0)
    expected = np.maximum(total * sizes[0] / sizes.sum(), 1e-300)
    rng = np.random.default_rng(streams.seed(0, "classes dealt at random"))
    dealt = rng.multivariate_hypergeometric(total, sizes[0], draws, method="marginals")
    of_members = np.concatenate([counts[:1], dealt])
    moved = np.abs(of_members / sizes[0] - (total - of_members) / sizes[1]).sum(1) / 2
    chi = ((of_members - expected) ** 2 / expected).sum(1)
    p = float((chi >= chi[0] * (1 - 1e-9)).mean())
    return float(moved[0]), float(moved[1:].mean()), float(moved[1:].std()), p


def _most_unequal(counts: np.ndarray) -> str:
    shares = counts / counts.sum(1, keepdims=True)
    one = int(np.abs(shares[0] - shares[1]).argmax())
    return (
        f"most of all class {one}, {shares[0, one]:.1%} of the members and {shares[1, one]:.1%} of the others"
    )


def _lacking(counts: np.ndarray) -> list[Finding]:
    """Classes that one side lacks: a warning where so many are too many for chance."""
    found = []
    for (here, there), (lacks, has) in zip(
        (counts, counts[::-1]), (("members", "others"), ("others", "members")), strict=True
    ):
        absent = np.flatnonzero((here == 0) & (there > 0))
        if len(absent):
            # dealt at random, all of a class fall to the other side with this chance
            chance = (there.sum() / counts.sum()) ** there[absent]
            kind = WARNING if chance.min() * counts.shape[1] < BY_CHANCE else NOTE
            verb = "This class tells" if len(absent) == 1 else "These classes tell"
            means = (
                f"{verb} membership without a network."
                if kind == WARNING
                else "So few examples of them are there that chance explains it."
            )
            text = f"The {lacks} lack {findings.classes(absent)}, of which the {has} have {findings.many(int(there[absent].sum()), 'example')}. {means}"
            found.append(Finding(kind, "classes", text))
    return found


def _the_same(log_posteriors, answered, labels, name) -> list[Finding]:
    posteriors = log_posteriors.exp()
    if len(posteriors) > 1 and float((posteriors.amax(0) - posteriors.amin(0)).max()) <= 1e-6:
        text = (
            f"{name} gives the same answer to all {len(answered):,} examples, so it does not look at them. "
            "Check how it was loaded and what it was given."
        )
        return [Finding(REFUSED, "accuracy", text)]
    if log_posteriors.shape[1] > 1 and len(labels.unique()) > 1 and bool((answered == answered[0]).all()):
        text = (
            f"{name} answers class {int(answered[0])} to all {len(answered):,} examples. The commonest causes are another "
            "normalisation than in training, and weights that were not loaded."
        )
        return [Finding(REFUSED, "accuracy", text)]
    return []


def _at_chance(answered, labels, name) -> list[Finding]:
    classes = int(max(answered.max(), labels.max())) + 1
    shares = [torch.bincount(one, minlength=classes).double() / len(one) for one in (answered, labels)]
    chance = float((shares[0] * shares[1]).sum())
    found = _share(answered == labels)
    if found.low > chance or len(labels.unique()) == 1:
        return []
    clear = found.high < chance + FAR_BELOW
    end = (
        "So it does not know these examples, not even the members. Check the normalisation of the inputs, the order of the classes, "
        "and that labels and answers are in the same order."
        if clear
        else "These examples are too few to tell it from one that guesses; give more."
    )
    text = f"{name} is right for {findings.percent(found)} of all examples; the same answers dealt out at random would be for {chance:.1%}. {end}"
    return [Finding(REFUSED if clear else WARNING, "accuracy", text)]


def _others_at_chance(answered, labels, name) -> list[Finding]:
    """As `_at_chance` for the others alone: a network may have learned nothing but its members, but labels may be wrong too."""
    if not _at_chance(answered, labels, name):
        return []
    text = (
        f"{name} is right for the others no more often than by chance ({findings.percent(_share(answered == labels))}). Unless it "
        "can do nothing but recall its members, their labels are wrong, or in another order than their inputs."
    )
    return [Finding(WARNING, "accuracy", text)]


def _unexpected(on, expected, name) -> list[Finding]:
    found = on["others"]
    if found.high < expected - BELOW:
        far = found.value < expected - FAR_BELOW
        text = (
            f"{name} is right for {findings.percent(found)} of the others, and {expected:.1%} was stated. The commonest cause is "
            "another normalisation of the inputs than in training; check also the order of the classes and the weights."
        )
        return [Finding(REFUSED if far else WARNING, "accuracy", text)]
    if found.low > expected + FAR_BELOW:
        text = (
            f"{name} is right for {findings.percent(found)} of the others, far more than the {expected:.1%} that was stated. "
            "Make sure that it was not trained on them."
        )
        return [Finding(WARNING, "accuracy", text)]
    return []


def _swapped(right, member, on, name) -> list[Finding]:
    hits = float(right[~member].sum()), float((~right[member]).sum())
    low, _ = intervals.mean_of_shares(hits, (int((~member).sum()), int(member.sum())))
    if low <= 0.5 + BELOW / 2:
        return []
    text = (
        f"{name} is right for {findings.percent(on['members'])} of the members but for {findings.percent(on['others'])} of the others. Training "
        "does the opposite, so make sure that member marks what it was trained on, and not the rest."
    )
    return [Finding(WARNING, "membership", text)]


def _saturated(log_posteriors, member, name) -> list[Finding]:
    one = log_posteriors.amax(1) == 0
    if not one.any():
        return []
    members, others = (float(one[side].double().mean()) for side in (member, ~member))
    text = (
        f"The largest posterior of {name} is exactly 1 for {members:.1%} of the members and {others:.1%} of the others. Their scores "
        "cannot be told apart, and a leak can hide there; give logits, which keep the digits."
    )
    return [Finding(WARNING if max(members, others) >= SATURATED else NOTE, "saturated", text)]


def _share(right: Tensor) -> Estimate:
    return metrics.share(int(right.sum()), len(right))
