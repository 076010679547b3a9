"""Tidy rows, one a measurement, for all notebooks: made, selected and averaged.

A row is a dict with exactly the keys in `COLUMNS`; None = does not apply, or cannot be resolved. `low` and `high` are the
95% interval over the examples of one target; `low_seeds` and `high_seeds` are that over targets, in an aggregate
(`target` and `seed` None). `compression` is "none" for the original model. `level` is a sparsity below 1 if it prunes,
a bit-width from 1 if it quantises; 0.0 and 32 are the controls: the same fine-tuning, with nothing removed or rounded.
"""

import difflib
import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from mialib.measures import Estimate, metrics

# fmt: off
COLUMNS = (
    "dataset", "model", "protocol", "knowledge",
    "compression", "level", "defense", "defense_strength", "adversary",
    "attacker_compression", "attacker_level", "variant", "attack", "class", "target", "seed",
    "metric", "value", "low", "high", "low_seeds", "high_seeds", "n_members", "n_nonmembers", "n_shadows",
)
# fmt: on
# columns that hold text; all others hold numbers
TEXTS = frozenset(
    "dataset model protocol knowledge compression defense adversary attacker_compression variant attack metric".split()
)
MEASURED = ("value", "low", "high", "low_seeds", "high_seeds")
_COUNTS = ("n_members", "n_nonmembers")
# columns in which the rows of one setting may differ: all others make up the setting
WITHIN_A_SETTING = {"target", "seed", *MEASURED, *_COUNTS}


def is_control(level: float | None) -> bool:
    """Whether nothing is compressed at this level: a sparsity of 0, or the 32 bits of full precision."""
    return level in (0, 32)


def tidy_row(metric: str, value, **columns) -> dict:
    """One tidy row of a number or of an `Estimate`, which fills low and high.

    Columns not named are None; `class_` may stand for `class`; numpy and tensor scalars become Python's.
    Raises ValueError for an unknown column (with the nearest name) and for a value that is no scalar.
    """
    columns = named(columns)
    if isinstance(value, Estimate):
        if {"low", "high"} & columns.keys():
            raise ValueError(
                "low and high are given twice: in the Estimate and as columns; leave the columns out"
            )
        columns |= value._asdict()
    else:
        columns["value"] = value
    columns["metric"] = metric
    return {name: _scalar(name, columns.get(name)) for name in COLUMNS}


def attack_rows(member, margin, measures=metrics.STANDARD, **columns) -> list[dict]:
    """A row for each measure of an attack's margins (n,); `measures`: name -> measure(member, margin)."""
    n_members = int(metrics.vector("member", member).sum())
    columns |= {"n_members": n_members, "n_nonmembers": len(member) - n_members}
    return [tidy_row(metric, measure(member, margin), **columns) for metric, measure in measures.items()]


def class_rows(member, margin, labels, num_classes: int, measures: Mapping, **columns) -> list[dict]:
    """A row for each class and measure: members of the class against non-members of the class.

    nan for a class without members or non-members. member, margin, labels: (n,) arrays.
    """
    rows = []
    for number in range(num_classes):
        own = labels == number
        both = member[own].any() and not member[own].all()
        rows += [
            tidy_row(
                metric, measure(member[own], margin[own]) if both else math.nan, **columns, class_=number
            )
            for metric, measure in measures.items()
        ]
    return rows


def aggregate(rows: list[dict]) -> list[dict]:
    """Each setting's mean over the seeds of a target, then over targets; in order of first appearance.

    A setting is every column except those of `WITHIN_A_SETTING`. The numbers of members and non-members, which differ
    between targets by chance, are kept if all agree, else None. `low_seeds` and `high_seeds` are Student's t interval
    over the targets' means, None for one target. One unresolved value makes the whole aggregate None, since the mean of
    the rest would flatter. Raises ValueError if two rows measure the same thing, for example after appending them
    twice.
    """
    groups: dict[tuple, list[dict]] = {}
    for item in rows:
        _check_columns(item)
        setting = tuple(item.get(name) for name in COLUMNS if name not in WITHIN_A_SETTING)
        groups.setdefault(setting, []).append(item)
    return [_aggregate_group(group) for group in groups.values()]


def _aggregate_group(group: list[dict]) -> dict:
    by_target: dict = {}
    for item in group:
        seeds = by_target.setdefault(item.get("target"), {})
        if item.get("seed") in seeds:
            where = f"attack {item.get('attack')}, target {item.get('target')}, seed {item.get('seed')}"
            raise ValueError(
                f"two rows measure {item['metric']} in one setting ({where});"
                " tell them apart by target, seed or variant, or drop one"
            )
        seeds[item.get("seed")] = math.nan if item["value"] is None else item["value"]
    mean = metrics.over_targets([np.mean(list(seeds.values())) for seeds in by_target.values()])
    counts = {name: {item.get(name) for item in group} for name in _COUNTS}
    common = {name: values.pop() if len(values) == 1 else None for name, values in counts.items()}
    measured = {"value": mean.value, "low_seeds": mean.low, "high_seeds": mean.high}
    combined = {**group[0], **common, **measured, **dict.fromkeys(("low", "high", "target", "seed"))}
    return {name: finite(name, combined.get(name)) for name in COLUMNS}


def table(rows: list[dict], **where) -> pd.DataFrame:
    """The rows that `select` finds, as a tidy DataFrame."""
    return pd.DataFrame(select(rows, **where), columns=list(COLUMNS))


def select(rows: list[dict], **where) -> list[dict]:
    """The rows whose columns equal `where` (or are in it, for a list)."""
    wanted = {
        name: value if isinstance(value, (list, tuple, set)) else [value]
        for name, value in named(where).items()
    }
    return [item for item in rows if all(item[name] in values for name, values in wanted.items())]


def named(columns: Mapping) -> dict:
    """The columns under their own names, `class_` as `class`; raises ValueError for an unknown one."""
    columns = {"class" if name == "class_" else name: value for name, value in columns.items()}
    _check_columns(columns)
    return columns


def _check_columns(names) -> None:
    for name in names:
        if name not in COLUMNS:
            nearest = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0)[0]
            raise ValueError(
                f"unknown column {name!r}; did you mean {nearest!r}? Columns: {', '.join(COLUMNS)}"
            )


def _scalar(name, value):
    if getattr(value, "shape", None) == ():  # a numpy or tensor scalar
        value = value.item()
    if value is not None and not isinstance(value, (str, int, float)):
        raise ValueError(
            f"column {name!r} holds a {type(value).__name__}; it must be a string, a number or None"
        )
    if isinstance(value, str) is not (name in TEXTS) and value is not None:
        raise ValueError(
            f"column {name!r} holds {value!r}; it must be {'text' if name in TEXTS else 'a number'} or None"
        )
    return value


def finite(name, value):
    """The value of a column; None for a measured one that is nan or infinite, which JSON cannot hold."""
    return None if name in MEASURED and value is not None and not math.isfinite(value) else value
