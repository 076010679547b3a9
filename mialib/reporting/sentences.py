"""What a run found, in sentences that its own verdicts choose: for the first screen of its notebook.

Prose in a notebook's text was true of the run that its author saw. A sentence here is written once for each way in which
a claim may end, and each run shows its own.
"""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from mialib.reporting.claims import NOT_REPRODUCED, NOT_RUN, REPRODUCED


class Told(NamedTuple):
    """A sentence for each way in which a claim may end. `{ours}` in it becomes what the run measured, or "not run".

    Args:
        yes: it is reproduced.
        no: it is not.
        open: it is undecided, not comparable or not run.
    """

    yes: str
    no: str
    open: str


def by_verdict(table: pd.DataFrame, told: Mapping[str, Told]) -> list[str]:
    """A sentence for each of these claims, in their order.

    Args:
        table: of `claims.compare`.
        told: key of a claim -> its sentences.

    Raises:
        ValueError: a key that the table does not have.
    """
    if strange := [key for key in told if key not in table.index]:
        raise ValueError(f"no claim {', '.join(strange)}; the table has {', '.join(table.index)}")
    return [
        _chosen(sentences, table.at[key, "verdict"]).replace("{ours}", table.at[key, "ours"] or NOT_RUN)
        for key, sentences in told.items()
    ]


def _chosen(sentences: Told, verdict: str) -> str:
    return {REPRODUCED: sentences.yes, NOT_REPRODUCED: sentences.no}.get(verdict, sentences.open)
