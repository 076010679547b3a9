"""Small tables for the eye, of a study's arms or of stored rows."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from mialib.attacks import threshold
from mialib.measures import Estimate
from mialib.reporting import vocabulary
from mialib.study import Arm, Attacker, Study, aggregate, select, table

Who = Arm | Attacker


def attacks(
    study: Study, arms: Iterable[Arm], metric: str, attacks: Iterable[str] | None = None
) -> pd.DataFrame:
    """Mean over targets of each attack (rows) on each arm (columns), by attackers who know it.

    attacks: default: all that were run on the first arm.
    """
    arms = list(arms)
    names = study.attacks(arms[0]) if attacks is None else list(attacks)
    return pd.DataFrame(
        {arm.label: {name: study.values(arm, metric, name).mean() for name in names} for arm in arms}
    )


def differences(
    study: Study, pairs: Mapping[str, tuple[Who, Who]], metric: str, attacks: Iterable[str], **attacker
) -> pd.DataFrame:
    """Of each attack, a minus b for each pair (a, b) of arms or attackers, as '+0.012 [-0.003, +0.027]'.

    attacker: believing, knowing, of arms.
    """
    return pd.DataFrame(
        {
            title: {name: signed(study.difference(a, b, metric, name, **attacker)) for name in attacks}
            for title, (a, b) in pairs.items()
        }
    )


def models(rows: Sequence[dict]) -> pd.DataFrame:
    """Each setting's targets on average: sparsity over all parameters, what is left, accuracy and its gap."""
    counts = ["nonzero_parameters", "sparse_bytes"]
    wanted = ["epochs", "sparsity", *counts, "test_accuracy", "generalization_gap"]
    keys = ["compression", "level", "variant", "defense", "defense_strength"]
    means = table(aggregate([row for row in rows if row["metric"] in wanted]))
    shown = means.pivot_table(index=keys, columns="metric", values="value", sort=False, dropna=False)
    shown = shown.reindex(columns=wanted)
    shown = shown[shown["test_accuracy"].notna()]
    shown[counts] = shown[counts].astype(float).round().astype("Int64")
    return shown.set_axis(_names(keys, shown.index)).rename_axis(columns=None).dropna(axis=1, how="all")


def protection(study: Study, arms: Iterable[Arm], metric: str = "auc") -> pd.DataFrame:
    """Each arm (rows): what its networks are worth, what the strongest attack finds, and what three others do.

    The strongest is the best attack of all attackers, those who know a defence (adaptive) and those who do not (unaware).
    Of the others the adaptive one's value, and in brackets the unaware one's. Without a defence there is one attacker.
    """
    lines = {}
    for arm in arms:
        best = study.strongest(arm, metric, unaware=True)
        who = study.attackers(arm)
        lines[arm.label] = {
            "test accuracy": f"{study.values(arm, 'test_accuracy').mean():.3f}",
            "train - test": f"{study.values(arm, 'generalization_gap').mean():.3f}",
            "strongest attack": f"{best.values.mean():.3f}",
            "it is": best.name,
        } | {
            name: _pair(study.values(one, metric, name) for one in who)
            for name in ("gap", "confidence", "samia")
        }
    return pd.DataFrame(lines).T


def _pair(values) -> str:
    """Means over targets as '0.812' or '0.812 (0.700)'."""
    first, *second = (f"{value.mean():.3f}" for value in values)
    return first + "".join(f" ({value})" for value in second)


def knowledge(study: Study, arms: Iterable[Arm], attack: str, metric: str) -> pd.DataFrame:
    """Mean over targets of an attack on each arm (rows) by one who believes in each (columns)."""
    arms = list(arms)
    return pd.DataFrame(
        {
            believed.label: {
                arm.label: study.values(arm, metric, attack, believing=believed).mean() for arm in arms
            }
            for believed in arms
        }
    )


def headline(content: dict, metric: str = "auc") -> str:
    """The table that a finished run prints: each attack in each setting, and the verdicts."""
    keys = ["compression", "level", "defense", "defense_strength", "adversary", "variant", "knowledge"]
    if not any(row["attack"] for row in content["rows"]):
        shown = models(select(content["rows"], class_=None)).round(4).to_string()
        return "\n".join(["Models, mean over them", "", shown, "", *_verdicts(content["claims"])])
    rows = select(content["rows"], metric=metric, class_=None, attacker_compression=None)
    means = table(aggregate(rows))
    means["setting"] = _names(keys, means[keys].itertuples(index=False))
    shown = means.pivot_table(index="setting", columns="attack", values="value", sort=False).rename_axis(None)
    shown = shown.drop(columns=list(threshold.GLOBAL), errors="ignore").round(3).to_string()
    text = f"{metric.upper()} of each attack, mean over targets (0.5 = guessing)\n\n{shown}"
    return "\n".join([text, "", *_verdicts(content["claims"])])


def _verdicts(judged: Mapping[str, dict]) -> list[str]:
    width = max((len(claim["claim"]) for claim in judged.values()), default=0)
    return [
        "Verdicts",
        *(f"{claim['claim']:{width}}  {claim['verdict']:16} {claim['ours']}" for claim in judged.values()),
    ]


def _names(keys: Sequence[str], settings: Iterable[tuple]) -> list[str]:
    """What settings are called, each given by its values in the columns `keys`."""
    filled = ({key: None if pd.isna(v) else v for key, v in zip(keys, s, strict=True)} for s in settings)
    return [vocabulary.setting_name(**columns) for columns in filled]


def signed(estimate: Estimate) -> str:
    """An estimate as "+0.012 [-0.003, +0.027]"."""
    return vocabulary.with_interval(estimate, "+")
