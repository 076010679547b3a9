"""What a paper claims, what this run found, and the verdict.

A claim is an ordering ("SAMIA > NN": a difference that should be positive) or a published number with a
tolerance, fixed before anything is run. A verdict looks at the whole 95% interval: `reproduced` where all of
it agrees with the claim, `not reproduced` where none of it does, `inconclusive` where it spans the boundary
or there is no interval, `not comparable` for a published number at another setting than the paper's, `not
run` for a claim without a result.
"""

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pandas as pd

from mialib.measures import Estimate
from mialib.reporting.vocabulary import with_interval

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = "reproduced", "not reproduced", "inconclusive"
NOT_COMPARABLE, NOT_RUN = "not comparable", "not run"
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
        if not self.is_ordering and not (self.tolerance and self.tolerance > 0):
            raise ValueError(
                f"claim {self.claim!r} quotes a number, so it needs a tolerance > 0; fix it before running"
            )

    @property
    def is_ordering(self) -> bool:
        return isinstance(self.paper, str)


def compare(
    paper: Mapping[str, Claim],
    ours: Mapping[str, Estimate | float],
    at_paper_setting: bool = False,
    incomparable: Collection[str] = (),
) -> pd.DataFrame:
    """The table paper vs ours: claim, source, paper, ours, verdict (strings) and margin, by key and in the paper's order.

    Claims without a result are "not run". `margin` says how far the interval's end that decides is from where the verdict
    would change; inf where no number could change it.

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
            nearest = difflib.get_close_matches(key, paper, n=1, cutoff=0)
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
        key: (*row[:4], NOT_COMPARABLE, math.inf) if key in incomparable and row[4] != NOT_RUN else row
        for key, row in rows.items()
    }
    columns = ["claim", "source", "paper", "ours", "verdict", "margin"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("key")


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """What a notebook shows of `compare`: a line for each claim, without keys and margins."""
    return table.drop(columns="margin").set_index("claim")


def firm(paper: Mapping[str, Claim], table: pd.DataFrame, margin: float = 0.01) -> list[dict]:
    """Claim and verdict of what another machine must find too: `stable` claims, decided by at least `margin`."""
    stable = [key for key, claim in paper.items() if claim.stable]
    decided = table["verdict"].isin([REPRODUCED, NOT_REPRODUCED]) & (table["margin"] >= margin)
    return table[table.index.isin(stable) & decided][["claim", "verdict"]].to_dict("records")


def _row(item: Claim, result, at_paper_setting):
    claimed = item.paper if item.is_ordering else f"{item.paper:g} (tolerance {item.tolerance:g})"
    if result is None:
        return item.claim, item.source, claimed, "", NOT_RUN, math.inf
    estimate = result if isinstance(result, Estimate) else Estimate(float(result))
    if item.is_ordering:
        verdict, margin = _judge(estimate.low, estimate.high, item.boundary, math.inf)
    elif not at_paper_setting:
        verdict, margin = NOT_COMPARABLE, math.inf
    else:
        ends = (estimate.value, estimate.value) if _is_bare(estimate) else (estimate.low, estimate.high)
        region = item.paper - item.tolerance - _ROUNDING, item.paper + item.tolerance + _ROUNDING
        verdict, margin = _judge(*ends, *region)
    return item.claim, item.source, claimed, _text(estimate, "+" if item.is_ordering else ""), verdict, margin


def _is_bare(estimate: Estimate) -> bool:
    """Whether it is a value without an interval."""
    return math.isnan(estimate.low) or math.isnan(estimate.high)


def _judge(low, high, region_low, region_high) -> tuple[str, float]:
    """Verdict on "the interval lies within the open region", and how far its ends are from another."""
    if math.isnan(low) or math.isnan(high):
        return INCONCLUSIVE, math.inf
    outside = max(region_low - low, high - region_high)  # how far the interval pokes out of the region
    overlap = min(high - region_low, region_high - low)
    if outside < 0:
        return REPRODUCED, -outside
    if overlap <= 0:
        return NOT_REPRODUCED, -overlap
    return INCONCLUSIVE, min(outside, overlap)


def _text(estimate: Estimate, sign: str) -> str:
    if math.isnan(estimate.value):
        return "not resolved"
    return f"{estimate.value:{sign}.3f}" if _is_bare(estimate) else with_interval(estimate, sign)
