"""What a paper claims, what this run found, and the verdict.

A claim is an ordering ("SAMIA > NN": a difference that should be positive) or a published number with a
tolerance, fixed before anything is run. A verdict looks at the whole 95% interval: `reproduced` where all of
it agrees with the claim, `not reproduced` where none of it does, `inconclusive` where it spans the boundary
or there is no interval, `not comparable` for a published number at another setting than the paper's, `not
run` for a claim without a result, or whose result compares a setting with itself. Claims about "every" and "the best" get their
intervals from `measures.extremes`. A run judges many claims: `family` says how many verdicts hold all together.
"""

import difflib
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mialib.measures import Estimate, WithTest, metrics
from mialib.reporting.vocabulary import with_interval

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = "reproduced", "not reproduced", "inconclusive"
NOT_COMPARABLE, NOT_RUN = "not comparable", "not run"
_NUMBER = r"-?\d+(?:\.\d+)?"
_ROUNDING = 1e-12  # 0.63 - 0.60 is a little more than 0.03 in binary


@dataclass(frozen=True)
class Claim:
    """One claim of a paper.

    paper: a published number, in the metric's unit; or, for an ordering, the paper's answer in words
    ("pruned > original"). tolerance: of a published number, > 0; how far ours may lie from it. An
    ordering has none. boundary: of an ordering, what the difference must exceed: 0 for "A > B", slightly
    less for "A is not worse than B". For "A < B", measure B - A. stable: the verdict may be compared exactly
    with another machine's, if its margin allows (it rests on nothing that is trained in reduced precision).
    """

    claim: str
    source: str
    paper: float | str
    tolerance: float | None = None
    boundary: float = 0.0
    stable: bool = False

    def __post_init__(self):
        if self.is_ordering and self.tolerance is not None:
            raise ValueError(
                f"claim {self.claim!r} is an ordering, so it has no tolerance; move its boundary instead"
            )
        if not self.is_ordering and not (self.tolerance or 0) > 0:
            raise ValueError(
                f"claim {self.claim!r} quotes a number, so it needs a tolerance > 0; fix it before running"
            )

    @property
    def is_ordering(self) -> bool:
        return isinstance(self.paper, str)


def stated(table: str) -> dict[str, Claim]:
    """The claims of a table in text, by key: a line for each, `key | claim | source | claimed`; blank lines part groups.

    `claimed` is an ordering in words, whose boundary is the number that it ends with ("8 bits - control > -0.02"), 0 where it
    ends with none ("A > B"); or a published number and its tolerance ("0.14 +- 0.03"). A fifth part, `stable`, marks a claim
    as such.

    Raises:
        ValueError: a line of other parts, a key that comes twice, an ordering without ">", a number without tolerance.
    """
    found: dict[str, Claim] = {}
    for line in filter(None, map(str.strip, table.splitlines())):
        key, *parts = (part.strip() for part in line.split(" | "))
        if len(parts) not in (3, 4) or parts[3:] not in ([], ["stable"]):
            raise ValueError(
                f"claim {line!r} has {len(parts) + 1} parts; it must be 'key | claim | source | claimed', then 'stable' or nothing"
            )
        if key in found:
            raise ValueError(f"the key {key!r} names two claims; give each its own")
        claim, source, claimed = parts[:3]
        found[key] = Claim(claim, source, **_claimed(key, claimed), stable=len(parts) == 4)
    return found


def _claimed(key: str, text: str) -> dict:
    """What an ordering or a published number in words means to a `Claim`."""
    number = re.fullmatch(rf"({_NUMBER}) \+- ({_NUMBER})", text)
    if number:
        return {"paper": float(number[1]), "tolerance": float(number[2])}
    if " > " not in text:
        raise ValueError(
            f"claim {key!r} claims {text!r}; it must be an ordering, 'A > B', or a number with its tolerance, '0.14 +- 0.03'"
        )
    end = text.rsplit(" > ", 1)[1]
    return {"paper": text, "boundary": float(end) if re.fullmatch(_NUMBER, end) else 0.0}


def compare(
    paper: Mapping[str, Claim],
    ours: Mapping[str, Estimate | float],
    at_paper_setting: bool = False,
    incomparable: Collection[str] = (),
) -> pd.DataFrame:
    """The table paper vs ours: claim, source, paper, ours, paired, verdict (strings), margin and p, by key in the paper's order.

    Claims without a result are "not run". `paired`: by target, or by example of a single one; empty where nothing is
    subtracted. `margin` says how far the interval's end that decides is from where the verdict would change: inf where no
    number could change it, nan where there is none to decide by (no interval, or not resolved). `p`: the two-sided level at
    which the verdict would just be lost, at most 0.05 where it is decided; nan where the result does not bring its test along.

    Args:
        paper: key -> claim.
        ours: key -> its result: for an ordering the `Estimate` of the difference, for a published number an `Estimate` or a
            plain number.
        incomparable: keys of claims that keep their result, while the verdict is "not comparable".

    Raises:
        ValueError: a key that the paper does not have (with the nearest one), an ordering's result without an interval.
    """
    for key in (*ours, *incomparable):
        if key not in paper:
            nearest = difflib.get_close_matches(key, paper, cutoff=0)
            raise ValueError(
                f"the paper has no claim {key!r}; did you mean {nearest[0] if nearest else None!r}?"
            )
    for key, result in ours.items():
        if paper[key].is_ordering and not isinstance(result, Estimate):
            raise ValueError(
                f"the result of ordering {key!r} is {result!r}; it must be an Estimate of the difference"
            )
    rows = {key: _row(item, ours.get(key), at_paper_setting) for key, item in paper.items()}
    rows = {
        key: (*row[:5], NOT_COMPARABLE, math.inf, math.nan)
        if key in incomparable and row[5] != NOT_RUN
        else row
        for key, row in rows.items()
    }
    columns = ["claim", "source", "paper", "ours", "paired", "verdict", "margin", "p"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("key")


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """What a notebook shows of `compare`: a line for each claim, the verdict first, without keys, margins and p-values."""
    told = table.set_index("claim").rename(columns={"paper": "claimed"})
    return told[["verdict", "ours", "claimed", "paired", "source"]]


def family(table: pd.DataFrame, level: float = 0.05) -> str:
    """What to make of that many verdicts, for the reader of a table of `compare`: two sentences.

    How many intervals may be expected to miss, and how many verdicts would hold if all were to be right together with
    95 % (Holm 1979: the p-values in rising order, each against the level divided by how many are left; right whatever the
    dependence). Claims that were not run, not resolved or not comparable were not judged. A verdict without a p-value counts as
    one that does not hold.
    """
    judged = table[
        table["verdict"].isin([REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE]) & table["margin"].notna()
    ]
    decided = judged["verdict"] != INCONCLUSIVE
    p = (
        judged["p"].astype(float).where(decided).sort_values()
    )  # undecided or unknown is nan: it comes last and never holds
    holds = p <= level / np.arange(len(p), 0, -1)
    survive = len(p) if holds.all() else holds.argmin()
    unknown = (decided & judged["p"].isna()).sum()
    text = (
        f"{len(judged)} claims are judged, each at {1 - level:.0%} for itself: expect {level * len(judged):.1f} of the intervals "
        f"to miss. Verdicts that hold for all claims together (Holm's correction): {survive} of {decided.sum()} decided ones"
    )
    return text + (f"; {unknown} have no p-value and count as lost." if unknown else ".")


def stored_family(records: Mapping[str, Mapping]) -> str | None:
    """`family` of claims as they are stored, by key; None of older results, which do not hold what it needs."""
    if not records or not all({"margin", "p"} <= record.keys() for record in records.values()):
        return None
    return family(pd.DataFrame.from_dict(records, orient="index"))


def firm(paper: Mapping[str, Claim], table: pd.DataFrame, margin: float = 0.01) -> pd.DataFrame:
    """Verdict by claim of what another machine must find too: `stable` claims, decided by at least `margin`."""
    stable = table.index.isin([key for key, claim in paper.items() if claim.stable])
    decided = table["verdict"].isin([REPRODUCED, NOT_REPRODUCED]) & (table["margin"] >= margin)
    return table[stable & decided].set_index("claim")[["verdict"]]


def detectable(differences, of: str) -> str:
    """A sentence: how large a true difference these (n,), one a target, would have shown (`metrics.minimum_detectable`).

    of: what was measured, as "the AUC left, E minus D".
    """
    smallest = metrics.minimum_detectable(differences)
    if math.isnan(smallest.value):
        return f"With one target, no difference in {of} can be told from chance."
    return (
        f"With {len(differences)} targets, a true difference of {smallest.value:.3f} in {of}, would be found four times in five;"
        f" a much smaller one may be missed. (The spread over targets is an estimate too: {smallest.low:.3f} to"
        f" {smallest.high:.3f} are possible.)"
    )


def _row(item: Claim, result, at_paper_setting):
    claimed = item.paper if item.is_ordering else f"{item.paper:g} (tolerance {item.tolerance:g})"
    paired = result.paired if isinstance(result, WithTest) else ""
    if result is None or paired == "itself":
        ours = "" if result is None else "a setting compared with itself"
        return item.claim, item.source, claimed, ours, "", NOT_RUN, math.inf, math.nan
    estimate = result if isinstance(result, Estimate) else Estimate(float(result))
    region = item.boundary, math.inf
    ends = estimate.low, estimate.high
    if not item.is_ordering:
        region = item.paper - item.tolerance - _ROUNDING, item.paper + item.tolerance + _ROUNDING
        ends = (estimate.value, estimate.value) if _is_bare(estimate) else ends
    verdict, margin = _judge(*ends, *region) if math.isfinite(estimate.value) else (INCONCLUSIVE, math.nan)
    if not item.is_ordering and not at_paper_setting:
        verdict, margin = NOT_COMPARABLE, math.inf
    p = _p(estimate, region) if verdict != NOT_COMPARABLE else math.nan
    text = _text(estimate, "+" if item.is_ordering else "")
    return item.claim, item.source, claimed, text, paired, verdict, margin, p


def _p(estimate: Estimate, region: tuple[float, float]) -> float:
    """The larger p-value of the region's ends, 0 at infinity: the level at which the interval would just reach one."""
    if not isinstance(estimate, WithTest) or estimate.p is None:
        return math.nan
    return max(map(estimate.p, region))


def _is_bare(estimate: Estimate) -> bool:
    """Whether it is a value without an interval."""
    return math.isnan(estimate.low) or math.isnan(estimate.high)


def _judge(low, high, region_low, region_high) -> tuple[str, float]:
    """Verdict on "the interval lies within the open region", and how far its ends are from another."""
    if math.isnan(low) or math.isnan(high):
        return INCONCLUSIVE, math.nan
    outside = max(region_low - low, high - region_high)  # how far the interval pokes out of the region
    overlap = min(high - region_low, region_high - low)
    if outside < 0:
        return REPRODUCED, -outside
    if overlap <= 0:
        return NOT_REPRODUCED, -overlap
    return INCONCLUSIVE, min(outside, overlap)


def _text(estimate: Estimate, sign: str) -> str:
    if not math.isfinite(estimate.value):
        return "not resolved"
    return f"{estimate.value:{sign}.3f}" if _is_bare(estimate) else with_interval(estimate, sign)
