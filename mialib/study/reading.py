"""Reading the results table: one number a target, differences between settings, agreement between classes.

A *setting* is a dictionary of columns (compression, level, defense, ...) that a row must have; rows are those of
`study.rows`. What is special (one class, a variant, an attacker with a wrong belief) is only found if it is named.
Values are averaged over the trainings of an attack network first, so that a target counts once.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mialib.measures import Estimate, metrics
from mialib.study.rows import named, table

_SPECIAL = ("class", "variant", "attacker_compression", "attacker_level")


def by_target(rows: Sequence[dict], **where) -> np.ndarray:
    """The value of each target, (targets,) float64 in the order of their numbers; nan where it could not be resolved.

    Raises:
        ValueError: no row has these columns.
    """
    return _means(_ordinary(rows, **where), ["target"]).to_numpy()


def difference(rows: Sequence[dict], a: Mapping, b: Mapping, **common) -> Estimate:
    """Setting b minus setting a on the same targets: mean and interval over the targets.

    Raises:
        ValueError: the settings were not measured on the same targets.
    """
    before, after = (_means(_ordinary(rows, **common | {**setting}), ["target"]) for setting in (a, b))
    if not before.index.equals(after.index):
        raise ValueError(
            f"targets differ: {list(before.index)} of {dict(a)}, {list(after.index)} of {dict(b)}"
        )
    return metrics.over_targets(after.to_numpy() - before.to_numpy())


def values_by_class(rows: Sequence[dict], num_classes: int, **where) -> np.ndarray:
    """(targets, num_classes), nan where a target has no members or no non-members of a class."""
    return np.stack([by_target(rows, class_=number, **where) for number in range(num_classes)], axis=1)


def agreement(per_class: np.ndarray, other: np.ndarray | None = None) -> Estimate:
    """Do targets agree on which classes leak? Correlation of each target's classes (t, c) with the others' mean.

    With `other` (t, c), a second quantity: each target's classes by the first with the others' mean by the second.
    Classes that some target could not measure are left out. Interval over the targets.
    """
    return metrics.over_targets(correlations(per_class, other))


def correlations(per_class: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
    """The correlations of `agreement`, (targets,)."""
    other = per_class if other is None else other
    measured = ~(np.isnan(per_class) | np.isnan(other)).any(0)
    rest = [np.delete(other[:, measured], i, axis=0).mean(0) for i in range(len(other))]
    return np.array(
        [np.corrcoef(own, mean)[0, 1] for own, mean in zip(per_class[:, measured], rest, strict=True)]
    )


def by_attack(rows: Sequence[dict], metric: str = "auc", **where) -> dict[str, np.ndarray]:
    """What `by_target` finds for every attack of a setting: name -> (targets,)."""
    of_attacks = _ordinary(rows, metric=metric, **where).dropna(subset="attack")
    means = _means(of_attacks, ["attack", "target"]).unstack("target").sort_index(axis=1)
    return {name: values.to_numpy() for name, values in means.iterrows()}


def strongest(
    rows: Sequence[dict], metric: str = "auc", among: Sequence[str | None] = (None,), **where
) -> tuple[str, np.ndarray]:
    """The attack with the highest mean over targets in a setting, and its value on each target, (targets,).

    Among several adversaries ("adaptive", "unaware") the best attack of any: one who knows a defence may ignore it.
    """
    values = {
        f"{attack}, {adversary}" if adversary else attack: value
        for adversary in among
        for attack, value in by_attack(rows, metric, **where | {"adversary": adversary}).items()
    }
    # what is not resolved on every target comes last
    best = max(values, key=lambda name: np.nan_to_num(values[name].mean(), nan=-np.inf))
    return best, values[best]


def adversaries(setting: Mapping) -> list[str | None]:
    """The adversaries that a setting meets: one without a name where nothing is defended."""
    return [None] if setting["defense"] == "none" else ["adaptive", "unaware"]


def _ordinary(rows: Sequence[dict], **where) -> pd.DataFrame:
    where = named(where)  # before the defaults, so that `class_` overrides one
    ordinary = table(rows, **dict.fromkeys(_SPECIAL) | where)
    if ordinary.empty:
        raise ValueError(f"no row of the table has {where}")
    return ordinary


def _means(ordinary: pd.DataFrame, by: list[str]) -> pd.Series:
    """Means over the trainings; nan if one of them is not resolved, since the mean of the rest would flatter."""
    groups = ordinary.assign(value=ordinary["value"].astype(float)).groupby(by, sort=False)["value"]
    return (
        groups.mean().where(groups.count() == groups.size()).sort_index(level="target", sort_remaining=False)
    )
