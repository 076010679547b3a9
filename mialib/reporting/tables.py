"""Small tables for the eye, made of the results table's rows; `study.reading` says what a setting is."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from mialib import study
from mialib.measures import Estimate
from mialib.reporting import vocabulary
from mialib.study import adversaries, by_attack, by_target, difference, strongest


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
    counts = ["nonzero_parameters", "sparse_bytes"]
    wanted = ["epochs", "sparsity", *counts, "test_accuracy", "generalization_gap"]
    keys = ["compression", "level", "variant", "defense", "defense_strength"]
    means = study.table(study.aggregate([row for row in rows if row["metric"] in wanted]))
    table = means.pivot_table(index=keys, columns="metric", values="value", sort=False, dropna=False)
    table = table.reindex(columns=wanted)
    table = table[table["test_accuracy"].notna()]
    table[counts] = table[counts].astype(float).round().astype("Int64")
    return table.set_axis(_names(keys, table.index)).rename_axis(columns=None).dropna(axis=1, how="all")


def protection(rows: Sequence[dict], settings: Mapping[str, Mapping], metric: str = "auc") -> pd.DataFrame:
    """Each defence (rows): what the networks are worth, what the strongest attack finds, and what three others do.

    The strongest is the best attack of both attackers, one who knows the defence (adaptive) and one who does not
    (unaware). Of the others the adaptive one's value, and in brackets the unaware one's. Without a defence there is one
    attacker.
    """
    table = {}
    for name, setting in settings.items():
        who = adversaries(setting)
        best, value = strongest(rows, metric, who, **setting)
        attacked = [by_attack(rows, metric, **setting | {"adversary": one}) for one in who]
        table[name] = {
            "test accuracy": f"{by_target(rows, metric='test_accuracy', **setting).mean():.3f}",
            "train - test": f"{by_target(rows, metric='generalization_gap', **setting).mean():.3f}",
            "strongest attack": f"{value.mean():.3f}",
            "it is": best,
        } | {name: _pair(one[name] for one in attacked) for name in ("gap", "confidence", "samia")}
    return pd.DataFrame(table).T


def _pair(values) -> str:
    """Means over targets as '0.812' or '0.812 (0.700)'."""
    first, *second = (f"{value.mean():.3f}" for value in values)
    return first + "".join(f" ({value})" for value in second)


def knowledge(
    rows: Sequence[dict], settings: Mapping[str, Mapping], attack: str, metric: str
) -> pd.DataFrame:
    """Mean over targets of an attack on each setting (rows) by one who believes in each setting (columns)."""

    def value(target, believed):
        # of an attacker who knows the setting no belief is named
        named = () if believed is target else ("compression", "level")
        belief = {f"attacker_{name}": believed[name] for name in named}
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
        shown = models(study.select(content["rows"], class_=None)).round(4).to_string()
        return "\n".join(["Models, mean over them", "", shown, "", *_verdicts(content["claims"])])
    rows = study.select(content["rows"], metric=metric, class_=None, attacker_compression=None)
    means = study.table(study.aggregate(rows))
    means["setting"] = _names(keys, means[keys].itertuples(index=False))
    table = means.pivot_table(index="setting", columns="attack", values="value", sort=False).rename_axis(None)
    shown = table[[name for name in table if not name.endswith("_global")]].round(3).to_string()
    text = f"{metric.upper()} of each attack, mean over targets (0.5 = guessing)\n\n{shown}"
    return "\n".join([text, "", *_verdicts(content["claims"])])


def _verdicts(judged: Sequence[dict]) -> list[str]:
    width = max((len(claim["claim"]) for claim in judged), default=0)
    return [
        "Verdicts",
        *(f"{claim['claim']:{width}}  {claim['verdict']:16} {claim['ours']}" for claim in judged),
    ]


def _attacks_in(rows: Sequence[dict], metric: str) -> list[str]:
    """Names of the attacks that the metric was measured for, in order of first appearance."""
    return list(
        dict.fromkeys(row["attack"] for row in rows if row["attack"] is not None and row["metric"] == metric)
    )


def _names(keys: Sequence[str], settings: Iterable[tuple]) -> list[str]:
    """What settings are called, each given by its values in the columns `keys`."""
    filled = ({key: None if pd.isna(v) else v for key, v in zip(keys, s, strict=True)} for s in settings)
    return [vocabulary.setting_name(**columns) for columns in filled]


def signed(estimate: Estimate) -> str:
    """An estimate as "+0.012 [-0.003, +0.027]"."""
    return vocabulary.with_interval(estimate, "+")
