"""What is looked at before any number: do inputs, labels and answers allow a verdict at all?

Every function returns a list of `Finding`, empty where nothing is to be said, and changes none of its inputs. "Others" are
the examples that the network was not trained on.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy
import torch
from torch import Tensor

from mialib import streams
from mialib.auditing import copies, telling
from mialib.measures import Estimate, intervals, metrics

REFUSED, WARNING, NOTE = "refused", "warning", "note"
OVERLAP = 0.01  # of the smaller set; with more in common no verdict is given
APART, MILDLY_APART = (
    0.55,
    0.52,
)  # lower ends of the AUC on inputs alone
FEWEST_TO_TELL = 40  # examples of each set for that AUC
LABELS_APART = 0.1  # share of examples whose class would have to change, beyond chance
SPREADS_APART, MEANS_APART = (
    1.5,
    0.5,
)  # ratio of standard deviations; difference of means in standard deviations
BY_CHANCE = 0.001  # p-value below which a count is not taken for chance
FAR_BELOW, BELOW = 0.1, 0.02  # accuracy below what was stated: refused, warned of
WORSE = 0.05  # accuracy on others below the baseline's
SATURATED = 0.1  # share of rows from which on it is worth a warning
WIDE, ROUGH = 0.1, 0.05  # smallest AUC above 0.5 that would be seen: a warning, a note
NAMED = 5  # indices that a text gives


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Args:
        kind: "refused": no verdict can be given; "warning"; "note".
        about: "overlap", "classes", "inputs", "accuracy", "resolution", "saturated", ...
        text: one or two plain sentences: what was found, what it means, what to do.
        network: the one that it is about; empty: all.
    """

    kind: str
    about: str
    text: str
    network: str = ""


def of_inputs(
    members_x: Tensor, members_y: Tensor, others_x: Tensor, others_y: Tensor, seed: int = 0
) -> list[Finding]:
    """Examples in both sets, exactly or nearly; other preprocessing; inputs that give membership away without a network.

    Args:
        members_x, others_x: (n, ...) and (m, ...), on the CPU, any number type, the same shape but for the first size.
        members_y, others_y: int64 (n,) and (m,), true classes.
        seed: of the samples and of the classifier.

    Raises:
        ValueError: an empty set, other shapes, or labels that do not fit.
    """
    _must_fit(members_x, members_y, others_x, others_y)
    broken = [int((~torch.isfinite(x).flatten(1).all(1)).sum()) for x in (members_x, others_x)]
    if any(broken):
        text = (
            f"{broken[0]:,} members and {broken[1]:,} others hold values that are no finite numbers, so their inputs cannot "
            "be compared. Mend or leave out these examples."
        )
        return [Finding(REFUSED, "inputs", text)]
    hashed = copies.hashes(members_x), copies.hashes(others_x)
    found = (
        _exact(*hashed, members_y, others_y) + _repeated(*hashed) + _near(members_x, others_x, *hashed, seed)
    )
    preprocessing = _preprocessing(members_x, others_x)
    return found + (preprocessing or _told_apart(members_x, members_y, others_x, others_y, seed))


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
                f"{name} is right for {_percent(one)} of the others, {baseline} for {_percent(of_baseline)}. If that was not to be "
                "expected, check that its inputs come normalised as it wants them: a network that is worse also leaks less."
            )
            found.append(Finding("warning", "accuracy", text, name))
    for name, one in leaks.items():
        if one.high < 0.5:
            text = (
                f"the attacks on {name} take the others for the members (AUC {_with_interval(one)}, 0.5 is guessing). Check that "
                "members and non-members are not exchanged."
            )
            found.append(Finding("refused", "membership", text, name))
    return found


def of_size(members: int, others: int) -> list[Finding]:
    """Which false-positive rates that many others resolve, and how large a leak must be to be seen.

    members, others: how many examples the attack is judged on, at least 1 each.
    """
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


def _must_fit(members_x, members_y, others_x, others_y) -> None:
    for name, x, y in (("members", members_x, members_y), ("others", others_x, others_y)):
        if not len(x):
            raise ValueError(f"{name}_x is empty; it must hold at least one example")
        if x.ndim < 2 or not x[0].numel():
            raise ValueError(
                f"{name}_x has shape {tuple(x.shape)}; it must be (n, ...) with one value or more each"
            )
        if y.shape != (len(x),):
            raise ValueError(
                f"{name}_y has shape {tuple(y.shape)}; it must be ({len(x)},), one class for each of {name}_x"
            )
    if members_x.shape[1:] != others_x.shape[1:]:
        raise ValueError(
            f"an example has shape {tuple(members_x.shape[1:])} in members_x and {tuple(others_x.shape[1:])} in others_x; "
            "both must be the same, made by the same preprocessing"
        )


def _exact(hash_m, hash_o, members_y, others_y) -> list[Finding]:
    _, in_others = copies.shared(hash_m, hash_o)
    if not len(in_others):
        return []
    share = len(in_others) / min(len(hash_m), len(hash_o))
    values, index = np.unique(hash_m, return_index=True)
    first = index[np.searchsorted(values, hash_o[in_others])]
    relabelled = int((members_y[torch.from_numpy(first)] != others_y[torch.from_numpy(in_others)]).sum())
    other_label = f", {relabelled:,} of them with another label" if relabelled else ""
    text = (
        f"{_many(len(in_others), 'example')} of the others {_are(len(in_others))} also among the members{other_label} "
        f"({share:.1%} of the smaller set; others {_first(in_others)}; members {_first(first)}). They are no "
        f"non-members and hide a leak. Leave them out of the others."
    )
    return [Finding(REFUSED if share > OVERLAP else WARNING, "overlap", text)]


def _repeated(hash_m, hash_o) -> list[Finding]:
    again = [len(one) - len(np.unique(one)) for one in (hash_m, hash_o)]
    if not any(again):
        return []
    text = (
        f"{again[0]:,} of {len(hash_m):,} members and {again[1]:,} of {len(hash_o):,} others repeat an example of their own "
        "set. Repeated examples count more than once, so intervals are somewhat too narrow."
    )
    return [Finding(NOTE, "duplicates", text)]


def _near(members_x, others_x, hash_m, hash_o, seed) -> list[Finding]:
    """More near pairs across the sets than the pairs within them lead one to expect."""
    found = copies.nearly(members_x, others_x, hash_m, hash_o, seed)
    across, smaller = len(found.across), min(len(hash_m), len(hash_o))
    if not across:
        return []
    expected = found.within * found.chance / (1 - found.chance)
    pairs = f"{_many(across, 'pair')} of a member and another example {_are(across)} nearly equal (a copy with other brightness, contrast, rounding or compression)"
    p = scipy.stats.binomtest(across, across + found.within, found.chance, alternative="greater").pvalue
    if p < BY_CHANCE:
        share = (across - expected) / smaller
        text = (
            f"{pairs}, where {expected:.0f} {'is' if round(expected) == 1 else 'are'} expected from how many there are within "
            f"the sets: {share:.1%} of the smaller set too many. The nearest: members {_first(found.across[:, 0])}, others "
            f"{_first(found.across[:, 1])}. Such others are no real non-members; leave them out."
        )
        return [Finding(REFUSED if share > OVERLAP else WARNING, "near overlap", text)]
    if across > OVERLAP * smaller:
        text = (
            f"{pairs}, about as many as expected from the {found.within:,} such pairs within the sets: the data repeat "
            "themselves. An attack cannot tell such a member from its near copy."
        )
        return [Finding(NOTE, "near overlap", text)]
    return []


def _preprocessing(members_x, others_x) -> list[Finding]:
    """Other mean, spread or range of values: named, since the remedy is known."""
    about = [_values(x) for x in (members_x, others_x)]
    (mean_m, spread_m, low_m, high_m, error_m), (mean_o, spread_o, low_o, high_o, error_o) = about
    if not max(spread_m, spread_o):
        return []
    ratio = spread_o / spread_m if spread_m else math.inf
    significant = (
        abs(mean_m - mean_o) > 5 * math.hypot(error_m, error_o) or min(len(members_x), len(others_x)) >= 100
    )
    far = abs(mean_m - mean_o) > MEANS_APART * min(spread_m, spread_o)
    if not significant or not (far or max(ratio, 1 / ratio if ratio else math.inf) > SPREADS_APART):
        return []
    larger, by = ("others", ratio) if ratio > 1 else ("members", 1 / ratio if ratio else math.inf)
    mean = mean_o / mean_m if mean_m else math.inf
    if 200 < by < 320 and 200 < (mean if ratio > 1 else 1 / mean) < 320:
        named = f"Values of the {larger} are about 255 times as large: one side was divided by 255 and the other was not"
    else:
        named = "Members and others were prepared differently, most likely with another normalisation"
    text = (
        f"{named}. Members: mean {mean_m:.3g}, standard deviation {spread_m:.3g}, from {low_m:.3g} to {high_m:.3g}; others: mean "
        f"{mean_o:.3g}, standard deviation {spread_o:.3g}, from {low_o:.3g} to {high_o:.3g}. What an attack finds would be "
        "that and not membership; prepare both in the same way."
    )
    return [Finding(REFUSED, "inputs", text)]


def _values(x: Tensor) -> tuple[float, float, float, float, float]:
    """Mean, standard deviation, smallest and largest of all values; the standard error of the mean over examples."""
    blocks = x.flatten(1).split(max(1, copies.BLOCK // x[0].numel()))
    of = torch.cat([_of_each(block) for block in blocks])
    mean, square, low, high = of.unbind(1)
    spread = math.sqrt(max(float(square.mean() - mean.mean() ** 2), 0.0))
    return (
        float(mean.mean()),
        spread,
        float(low.min()),
        float(high.max()),
        float(mean.std(correction=0)) / math.sqrt(len(x)),
    )


def _of_each(rows: Tensor) -> Tensor:
    rows = rows.float()
    return torch.stack([rows.mean(1), (rows**2).mean(1), rows.amin(1), rows.amax(1)], 1).double()


def _told_apart(members_x, members_y, others_x, others_y, seed) -> list[Finding]:
    if min(len(members_x), len(others_x)) < FEWEST_TO_TELL:
        text = (
            f"With {len(members_x):,} members and {len(others_x):,} others it cannot be checked whether their inputs come from the "
            f"same distribution; {FEWEST_TO_TELL} of each are the least."
        )
        return [Finding(NOTE, "inputs", text)]
    rows, matched = _matched(members_y, others_y, seed)
    found = telling.apart(*(x[of] for x, of in zip((members_x, others_x), rows, strict=True)), seed)
    if not found.low > MILDLY_APART:
        return []
    refused = found.low > APART
    equal = " with the same shares of classes" if matched else ""
    means = (
        "Members and others come from different distributions; what an attack finds would be that and not membership. "
        "Draw both at random from the same data, and prepare them in the same way."
        if refused
        else "Members and others differ a little without any network, and a part of what an attack finds can be that. A "
        "difference between two networks suffers less."
    )
    text = f"A classifier of the inputs alone tells members from others{equal}: AUC {_with_interval(found)}, where 0.5 is guessing. {means}"
    return [Finding(REFUSED if refused else WARNING, "inputs", text)]


def _matched(members_y, others_y, seed) -> tuple[tuple[Tensor, Tensor], bool]:
    """Rows of both sides with the same number of each class, if that leaves half of the smaller side; else all rows."""
    sides = [y.numpy() for y in (members_y, others_y)]
    values = np.intersect1d(*sides)
    rng = np.random.default_rng(streams.seed(seed, "classes matched"))
    drawn = [[], []]
    for value in values:
        of = [np.flatnonzero(y == value) for y in sides]
        count = min(map(len, of))
        for side in (0, 1):
            drawn[side].append(rng.permutation(of[side])[:count])
    least = max(FEWEST_TO_TELL, min(map(len, sides)) / 2)
    if sum(map(len, drawn[0])) < least:
        return tuple(torch.arange(len(y)) for y in sides), False
    return tuple(torch.from_numpy(np.sort(np.concatenate(side))) for side in drawn), True


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
            text = f"The {lacks} lack {_classes(absent)}, of which the {has} have {_many(int(there[absent].sum()), 'example')}. {means}"
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
    text = f"{name} is right for {_percent(found)} of all examples; the same answers dealt out at random would be for {chance:.1%}. {end}"
    return [Finding(REFUSED if clear else WARNING, "accuracy", text)]


def _unexpected(on, expected, name) -> list[Finding]:
    found = on["others"]
    if found.high < expected - BELOW:
        far = found.value < expected - FAR_BELOW
        text = (
            f"{name} is right for {_percent(found)} of the others, and {expected:.1%} was stated. The commonest cause is "
            "another normalisation of the inputs than in training; check also the order of the classes and the weights."
        )
        return [Finding(REFUSED if far else WARNING, "accuracy", text)]
    if found.low > expected + FAR_BELOW:
        text = (
            f"{name} is right for {_percent(found)} of the others, far more than the {expected:.1%} that was stated. "
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
        f"{name} is right for {_percent(on['members'])} of the members but for {_percent(on['others'])} of the others. Training "
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


def _percent(found: Estimate) -> str:
    return f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}]"


def _with_interval(found: Estimate) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _classes(which) -> str:
    return ("class " if len(which) == 1 else "classes ") + _first(which)


def _first(indices) -> str:
    more = ", ..." if len(indices) > NAMED else ""
    return ", ".join(str(int(one)) for one in indices[:NAMED]) + more
