"""Do the inputs allow a verdict: examples in both sets, other preprocessing, sets that differ in more than membership?

"Others" are the examples that the networks were not trained on. No function changes its inputs.
"""

import math

import numpy as np
import scipy
import torch
from torch import Tensor

from mialib import streams
from mialib.auditing import copies, findings, telling
from mialib.auditing.findings import BY_CHANCE, NOTE, REFUSED, WARNING, Finding
from mialib.reporting.vocabulary import with_interval

OVERLAP = 0.01  # of the smaller set; with more in common no verdict is given
APART, MILDLY_APART = 0.55, 0.52  # lower ends of the AUC on inputs alone
FEWEST_TO_TELL = 40  # examples of each set for that AUC
SPREADS_APART = 1.5  # ratio of standard deviations
MEANS_APART = 0.5  # difference of means in standard deviations


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
        f"{findings.many(len(in_others), 'example')} of the others {findings.are(len(in_others))} also among the members{other_label} "
        f"({share:.1%} of the smaller set; others {findings.first(in_others)}; members {findings.first(first)}). They are no "
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
    pairs = f"{findings.many(across, 'pair')} of a member and another example {findings.are(across)} nearly equal (a copy with other brightness, contrast, rounding or compression)"
    p = scipy.stats.binomtest(across, across + found.within, found.chance, alternative="greater").pvalue
    if p < BY_CHANCE:
        share = (across - expected) / smaller
        text = (
            f"{pairs}, where {expected:.0f} {'is' if round(expected) == 1 else 'are'} expected from how many there are within "
            f"the sets: {share:.1%} of the smaller set too many. The nearest: members {findings.first(found.across[:, 0])}, others "
            f"{findings.first(found.across[:, 1])}. Such others are no real non-members; leave them out."
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
    text = f"A classifier of the inputs alone tells members from others{equal}: AUC {with_interval(found)}, where 0.5 is guessing. {means}"
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
