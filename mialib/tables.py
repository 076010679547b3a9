"""Reading the results table: one number a target, differences between settings, and small tables for the eye.

A *setting* is a dictionary of columns (compression, level, defense, ...) that a row must have; rows are those of
`mialib.results`. What is special (one class, a variant, an attacker with a wrong belief) is only found if it is named.
Values are averaged over the trainings of an attack network first, so that a target counts once.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mialib import metrics, results

_SPECIAL = ("class", "variant", "attacker_compression", "attacker_level")


def by_target(rows: Sequence[dict], **where) -> np.ndarray:
    """The value of each target, (targets,) float64 in the order of their numbers; nan where it could not be resolved.

    Raises:
        ValueError: no row has these columns.
    """
    return _means(_ordinary(rows, **where), ["target"]).to_numpy()


def difference(rows: Sequence[dict], a: Mapping, b: Mapping, **common) -> metrics.Estimate:
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


def per_class(rows: Sequence[dict], num_classes: int, **where) -> np.ndarray:
    """(targets, num_classes), nan where a target has no members or no non-members of a class."""
    return np.stack([by_target(rows, class_=number, **where) for number in range(num_classes)], axis=1)


def agreement(per_class: np.ndarray, other: np.ndarray | None = None) -> metrics.Estimate:
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


def attacks(rows: Sequence[dict], settings: Mapping[str, Mapping], metric: str) -> pd.DataFrame:
    """Mean over targets of each attack (rows) in each setting (columns)."""
    names = _attacks_in(rows, metric)
    return pd.DataFrame(
        {
            setting: {name: by_target(rows, attack=name, metric=metric, **columns).mean() for name in names}
            for setting, columns in settings.items()
        }
    )


def differences(
    rows: Sequence[dict], settings: Mapping[str, tuple[Mapping, Mapping]], metric: str
) -> pd.DataFrame:
    """Of each attack, setting b minus a for each pair (a, b), as '+0.012 [-0.003, +0.027]', over the targets."""
    names = _attacks_in(rows, metric)
    return pd.DataFrame(
        {
            title: {name: signed(difference(rows, *pair, attack=name, metric=metric)) for name in names}
            for title, pair in settings.items()
        }
    )


def models(rows: Sequence[dict]) -> pd.DataFrame:
    """Each setting's targets on average: sparsity over all parameters, what is left, accuracy and its gap."""
    wanted = [
        "epochs",
        "sparsity",
        "nonzero_parameters",
        "sparse_bytes",
        "test_accuracy",
        "generalization_gap",
    ]
    keys = ["compression", "level", "variant", "defense", "defense_strength"]
    means = results.table(results.aggregate([row for row in rows if row["metric"] in wanted]))
    table = means.pivot_table(index=keys, columns="metric", values="value", sort=False, dropna=False)
    table = table.reindex(columns=wanted)
    table = table[table["test_accuracy"].notna()]
    counts = ["nonzero_parameters", "sparse_bytes"]
    table[counts] = table[counts].astype(float).round().astype("Int64")
    compression, level, variant, *defense = zip(
        *((None if pd.isna(v) else v for v in key) for key in table.index), strict=True
    )
    names = map(_name, compression, level, *defense, [None] * len(table), variant)
    return table.set_axis(list(names)).rename_axis(columns=None).dropna(axis=1, how="all")


def by_attack(rows: Sequence[dict], metric: str = "auc", **where) -> dict[str, np.ndarray]:
    """What `by_target` finds for every attack of a setting: name -> (targets,)."""
    found = _ordinary(rows, metric=metric, **where).dropna(subset="attack")
    table = _means(found, ["attack", "target"]).unstack("target").sort_index(axis=1)
    return {name: values.to_numpy() for name, values in table.iterrows()}


def strongest(
    rows: Sequence[dict], metric: str = "auc", adversaries: Sequence[str | None] = (None,), **where
) -> tuple[str, np.ndarray]:
    """The attack with the highest mean over targets in a setting, and its value on each target, (targets,).

    With several adversaries ("adaptive", "unaware") the best attack of any of them: who knows a defence may ignore it.
    """
    found = {
        f"{attack}, {adversary}" if adversary else attack: value
        for adversary in adversaries
        for attack, value in by_attack(rows, metric, **where | {"adversary": adversary}).items()
    }
    best = _best(found)
    return best, found[best]


def _best(found: Mapping[str, np.ndarray]) -> str:
    """Highest mean; what is not resolved on every target comes last."""
    return max(found, key=lambda name: np.nan_to_num(found[name].mean(), nan=-np.inf))


def operating_point(
    rows: Sequence[dict], settings: Mapping[str, Mapping], base: Mapping, slack: float
) -> str:
    """The strongest of a defence's settings that costs at most `slack` of the base's reserve accuracy.

    Settings are named, and ordered by their `defense_strength`. If every one costs more, the one that costs least.
    Neither members, test examples nor attacks have a say in it.
    """
    cost = {name: -difference(rows, base, s, metric="reserve_accuracy").value for name, s in settings.items()}
    if any(np.isnan(value) for value in cost.values()):
        raise ValueError(
            "an operating point is chosen by reserve accuracy, which was not measured in all settings"
        )
    fair = [
        name for name in settings if cost[name] <= slack + 1e-9
    ]  # accuracies are shares, slack a round number
    if not fair:
        return min(cost, key=cost.get)
    return max(fair, key=lambda name: settings[name]["defense_strength"])


def protection(rows: Sequence[dict], settings: Mapping[str, Mapping], metric: str = "auc") -> pd.DataFrame:
    """Each defence (rows): what the networks are worth, what the strongest attack finds, and what three others do.

    The strongest is the best attack of both attackers, who knows the defence (adaptive) and who does not (unaware). Of
    the others the adaptive one's value, and in brackets the unaware one's. Without a defence there is one attacker.
    """
    table = {}
    for name, setting in settings.items():
        who = attackers(setting)
        best, value = strongest(rows, metric, who, **setting)
        found = [by_attack(rows, metric, **setting | {"adversary": one}) for one in who]
        table[name] = {
            "test accuracy": f"{by_target(rows, metric='test_accuracy', **setting).mean():.3f}",
            "train - test": f"{by_target(rows, metric='generalization_gap', **setting).mean():.3f}",
            "strongest attack": f"{value.mean():.3f}",
            "it is": best,
        } | {name: _pair(one[name] for one in found) for name in ("gap", "confidence", "samia")}
    return pd.DataFrame(table).T


def attackers(setting: Mapping) -> list[str | None]:
    """The adversaries that a setting meets: one without a name where nothing is defended."""
    return [None] if setting["defense"] == "none" else ["adaptive", "unaware"]


def _pair(values) -> str:
    """Means over targets as '0.812' or '0.812 (0.700)'."""
    first, *second = (f"{value.mean():.3f}" for value in values)
    return first + "".join(f" ({value})" for value in second)


def knowledge(
    rows: Sequence[dict], settings: Mapping[str, Mapping], attack: str, metric: str
) -> pd.DataFrame:
    """Mean over targets of an attack on each setting (rows) by one who believes in each setting (columns)."""

    def value(target, believed):
        belief = (
            {}  # who knows: no belief is named
            if believed is target
            else {f"attacker_{name}": believed[name] for name in ("compression", "level")}
        )
        return by_target(rows, attack=attack, metric=metric, **target | belief).mean()

    return pd.DataFrame(
        {
            other: {name: value(target, believed) for name, target in settings.items()}
            for other, believed in settings.items()
        }
    )


def headline(content: dict, metric: str = "auc") -> str:
    """The table that a finished run prints: each attack in each setting, and the verdicts."""
    keys = ["compression", "level", "defense", "defense_strength", "adversary", "variant", "knowledge"]
    if not any(row["attack"] for row in content["rows"]):
        shown = models(results.select(content["rows"], class_=None)).round(4).to_string()
        return "\n".join(["Models, mean over them", "", shown, "", *_verdicts(content["claims"])])
    rows = results.select(content["rows"], metric=metric, class_=None, attacker_compression=None)
    means = results.table(results.aggregate(rows))
    means["setting"] = [
        _name(*(None if pd.isna(v) else v for v in row)) for row in means[keys].itertuples(index=False)
    ]
    table = means.pivot_table(index="setting", columns="attack", values="value", sort=False).rename_axis(None)
    shown = table[[name for name in table if not name.endswith("_global")]].round(3).to_string()
    text = f"{metric.upper()} of each attack, mean over targets (0.5 = guessing)\n\n{shown}"
    return "\n".join([text, "", *_verdicts(content["claims"])])


def _verdicts(found: Sequence[dict]) -> list[str]:
    width = max((len(claim["claim"]) for claim in found), default=0)
    return [
        "Verdicts",
        *(f"{claim['claim']:{width}}  {claim['verdict']:16} {claim['ours']}" for claim in found),
    ]


def _ordinary(rows: Sequence[dict], **where) -> pd.DataFrame:
    if "class_" in where:
        where["class"] = where.pop("class_")  # before the defaults, so that it overrides one
    found = results.table(rows, **dict.fromkeys(_SPECIAL) | where)
    if found.empty:
        raise ValueError(f"no row of the table has {where}")
    return found


def _means(found: pd.DataFrame, by: list[str]) -> pd.Series:
    """Means over the trainings; nan if one of them is not resolved, since the mean of the rest would flatter."""
    groups = found.assign(value=found["value"].astype(float)).groupby(by, sort=False)["value"]
    return (
        groups.mean().where(groups.count() == groups.size()).sort_index(level="target", sort_remaining=False)
    )


def _attacks_in(rows: Sequence[dict], metric: str) -> list[str]:
    """Names of the attacks that the metric was measured for, in order of first appearance."""
    return list(
        dict.fromkeys(row["attack"] for row in rows if row["attack"] is not None and row["metric"] == metric)
    )


def _name(compression, level, defense, strength, adversary, variant, knowledge=None) -> str:
    by = ", known members" if knowledge == "known_members" else ""  # shadows are the rule
    if defense in (None, "none"):
        return (variant or results.model_name(compression, level)) + by
    strength = "" if strength is None else f" {strength:g}"
    return f"{defense}{strength}" + "".join(f" {part}" for part in (variant, adversary) if part) + by


def signed(estimate: metrics.Estimate) -> str:
    """An estimate as "+0.012 [-0.003, +0.027]"."""
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
