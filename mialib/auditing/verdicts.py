"""From differences to a verdict, and to the sentences that say it."""

from collections.abc import Mapping, Sequence

from mialib.auditing.judging import Difference
from mialib.measures import Estimate
from mialib.reporting import vocabulary

MORE, LESS, NO_MORE, UNDECIDED = "leaks more", "leaks less", "leaks no more", "cannot tell"
TOLERANCE = 0.02  # a rise of the AUC that does not matter, where the user says nothing else


def verdict(difference: Estimate, tolerance: float = TOLERANCE) -> str:
    """What an interval of (network minus yardstick) says of the network.

    More or less: the interval leaves out 0. No more: it reaches no higher than `tolerance`. Else it cannot be told.
    """
    if difference.low > 0:
        return MORE
    if difference.high < 0:
        return LESS
    return NO_MORE if difference.high <= tolerance else UNDECIDED


def sentence(
    name: str, than: str, leaks: tuple[Estimate, Estimate], found: Difference, tolerance: float
) -> str:
    """The verdict on one network against another: who leaks more, by how much, and what would have been found.

    Args:
        leaks: the AUC of the strongest attack on each.
    """
    by = vocabulary.with_interval(found.auc, "+")
    said = verdict(found.auc, tolerance)
    lead = {
        MORE: f"{name} leaks more than {than}",
        LESS: f"{name} leaks less than {than}",
        NO_MORE: f"{name} leaks no more than {than}, within {tolerance:g}",
        UNDECIDED: f"Whether {name} leaks more than {than}, these examples cannot tell",
    }[said]
    moved = f"the best attack's AUC goes from {leaks[1].value:.3f} to {leaks[0].value:.3f}, by {by}"
    if (
        said in (NO_MORE, UNDECIDED) and not found.detectable
    ):  # every attack sees the examples in the same order
        end = " To these attacks their answers are the same."
    elif said in (NO_MORE, UNDECIDED):
        end = f" A true difference of {found.detectable:.3f} would have been found four times in five."
    elif said == MORE and found.auc.high <= tolerance:
        end = f" That is less than {tolerance:g}, which was said not to matter."
    else:
        end = ""
    return f"{lead}: {moved}.{end}"


def attribution(name: str, control: str, found: Difference, tolerance: float) -> str:
    """What is left of the difference against the control.

    The control was changed as long but not compressed. For a network that was not changed further, such as one that was only
    rounded, the baseline is the yardstick.
    """
    by = vocabulary.with_interval(found.auc, "+")
    return {
        MORE: f"Against {control}, changed as long but not compressed, {name} leaks more too ({by}).",
        LESS: f"Against {control}, changed as long but not compressed, {name} leaks less ({by}).",
        NO_MORE: f"Against {control}, changed as long but not compressed, {name} leaks nothing more that matters ({by}).",
        UNDECIDED: f"Against {control}, changed as long but not compressed, the difference of {name} is not decided ({by}).",
    }[verdict(found.auc, tolerance)]


def brief(name: str, apart: Mapping[str, Estimate], tolerance: float) -> str:
    """The verdicts on one network against each of its yardsticks, in one sentence: "pruned leaks more than original (...)".

    Args:
        apart: yardstick -> AUC of the network minus that of the yardstick.
    """
    said = []
    for than, found in apart.items():
        lead = {MORE: "leaks more than", LESS: "leaks less than", NO_MORE: "leaks no more than"}.get(
            verdict(found, tolerance), "perhaps leaks more than"
        )
        said.append(f"{lead} {than} ({vocabulary.with_interval(found, '+')})")
    return f"**{name}** {'; it '.join(said)}."


def without_control(names: Sequence[str]) -> str:
    """What it means that networks have no control; `names`: which, empty for all of them."""
    if names:
        return (
            f"No control was given for {', '.join(names)}. Where a network was trained further, what differs may come from that "
            "instead of the compression."
        )
    return (
        "No control was given: a network changed as long but not compressed. So what differs may come from the further training "
        "instead of the compression."
    )


def anew(name: str, than: str, found: Estimate, imitations: int, tolerance: float) -> str:
    """What the imitations say: the mean difference between them."""
    by = vocabulary.with_interval(found, "+")
    return {
        MORE: f"Trained anew by the same recipe, {name} is to be expected to leak more than {than}",
        LESS: f"Trained anew by the same recipe, {name} is to be expected to leak less than {than}",
        NO_MORE: f"Trained anew by the same recipe, {name} is to be expected to leak nothing more that matters than {than}",
        UNDECIDED: f"Whether {name} would leak more than {than}, were both trained anew, is not decided",
    }[verdict(found, tolerance)] + f" ({by}, {imitations} imitations of each)."


def both(name: str, baseline: str, auc: Estimate, more: Estimate) -> str:
    """What an attacker finds who holds two networks."""
    return (
        f"An attacker who holds both {baseline} and {name} finds more than with {baseline} alone: an AUC of {auc.value:.3f}, "
        f"{vocabulary.with_interval(more, '+')} more."
    )
