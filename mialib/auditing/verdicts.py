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
        end = f" A true difference of {found.detectable:.3f} would have been found four times in five{_more(found, tolerance)}."
    elif said == MORE and found.auc.high <= tolerance:
        end = f" That is less than {tolerance:g}, which was said not to matter."
    else:
        end = ""
    return f"{lead}: {moved}.{end}"


def _more(found: Difference, tolerance: float) -> str:
    """How many more examples it takes to find a difference of the tolerance: intervals shrink by the root of their number."""
    times = (found.detectable / tolerance) ** 2 if tolerance else 0
    return f"; one of {tolerance:g} takes about {times:.0f} times as many examples" if times >= 1.5 else ""


def attribution(name: str, control: str, found: Difference, tolerance: float) -> str:
    """What is left of the difference against the control.

    The control was trained further for as long but not compressed. For a network that was not changed further, such as one that was only
    rounded, the baseline is the yardstick.
    """
    by = vocabulary.with_interval(found.auc, "+")
    lead = {
        MORE: f"{name} leaks more too",
        LESS: f"{name} leaks less",
        NO_MORE: f"{name} leaks no more, within {tolerance:g}",
        UNDECIDED: f"whether {name} leaks more is not decided",
    }[verdict(found.auc, tolerance)]
    return f"Against {control}, trained further for as long but not compressed, {lead} ({by})."


def brief(name: str, apart: Mapping[str, Difference], tolerance: float) -> str:
    """The verdicts on one network against each of its yardsticks, in one sentence: "pruned leaks more than original (...)".

    Args:
        apart: yardstick -> the network minus the yardstick.
    """
    said = []
    for than, one in apart.items():
        found = one.auc
        lead = {MORE: "leaks more than", LESS: "leaks less than", NO_MORE: "leaks no more than"}.get(
            verdict(found, tolerance), "perhaps leaks more than"
        )
        anew = (
            ""
            if one.anew is None
            else f"; trained anew, on average {vocabulary.with_interval(one.anew, '+')}"
        )
        said.append(f"{lead} {than} ({vocabulary.with_interval(found, '+')}{anew})")
    return f"**{name}** {', and '.join(said)}."


def without_control(names: Sequence[str]) -> str:
    """What it means that networks have no control; `names`: which, empty for all of them."""
    if names:
        return (
            f"No control was given for {', '.join(names)}. Where a network was trained further, what differs may come from that "
            "instead of the compression."
        )
    return (
        "No control was given: a network trained further for as long but not compressed. So what differs may come from the further "
        "training instead of the compression."
    )


def anew(name: str, than: str, found: Estimate, imitations: int, tolerance: float) -> str:
    """What the imitations say: the mean difference between them."""
    by = vocabulary.with_interval(found, "+")
    lead = {
        MORE: f"{name} leaks more than {than} on average",
        LESS: f"{name} leaks less than {than} on average",
        NO_MORE: f"{name} leaks no more than {than} on average, within {tolerance:g}",
        UNDECIDED: f"whether {name} leaks more than {than} on average is not decided",
    }[NO_MORE if -tolerance < found.low and found.high <= tolerance else verdict(found, tolerance)]
    return f"Where both are trained anew, {lead} ({by}, {imitations} imitations of each)."


def both(name: str, baseline: str, auc: Estimate, more: Estimate) -> str:
    """What an attacker finds who holds two networks."""
    return (
        f"An attacker who holds both {baseline} and {name} finds more than with {baseline} alone: an AUC of {auc.value:.3f}, "
        f"{vocabulary.with_interval(more, '+')} more."
    )
