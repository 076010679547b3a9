"""What an audit finds before any number, and the words in which it is said."""

from dataclasses import dataclass

from mialib.measures import Estimate

REFUSED, WARNING, NOTE = "refused", "warning", "note"
BY_CHANCE = 0.001  # p-value below which a count is not taken for chance
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


def percent(found: Estimate) -> str:
    """A share with its interval, as "52.0% [45.1%, 58.8%]"."""
    return f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}]"


def many(count: int, what: str) -> str:
    """A count with its noun, as "1 example" or "2,000 examples"."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def are(count: int) -> str:
    """The verb after that many."""
    return "is" if count == 1 else "are"


def classes(which) -> str:
    """Classes by their numbers, as "class 3" or "classes 1, 2"."""
    return ("class " if len(which) == 1 else "classes ") + first(which)


def first(indices) -> str:
    """The first of many numbers."""
    more = ", ..." if len(indices) > NAMED else ""
    return ", ".join(str(int(one)) for one in indices[:NAMED]) + more
