"""Small tables for the eye, of a study's arms or of stored rows. Arms, attacks and settings are named in words."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from mialib.attacks import threshold
from mialib.data import Splits
from mialib.measures import Estimate, metrics
from mialib.reporting import claims, vocabulary
from mialib.study import Arm, Attacker, Study, aggregate, select, table

Who = Arm | Attacker


def worded(table: Mapping | pd.DataFrame, **how) -> pd.DataFrame:
    """A table, or one of columns (each a mapping from lines to what stands there), its lines and columns named in words.

    how: as of pandas.DataFrame.
    """
    return pd.DataFrame(table, **how).rename(index=_in_words, columns=_in_words)


def _in_words(name):
    return vocabulary.in_words(name) if isinstance(name, str) else name


def sizes(split: Splits, lines: Sequence[str]) -> pd.DataFrame:
    """How many members, test and reserve examples the first models of a split have: a line each, named by `lines`."""
    named = {"member": "members", "test": "test examples", "reserve": "reserve"}
    return pd.DataFrame(split.counts()[: len(lines)], index=list(lines)).rename(columns=named)


def attacks(
    study: Study, arms: Iterable[Arm], metric: str, attacks: Iterable[str] | None = None
) -> pd.DataFrame:
    """Mean over targets of each attack (rows) on each arm (columns), by attackers who know it.

    attacks: default: all that were run on the first arm.
    """
    arms = list(arms)
    names = study.attacks(arms[0]) if attacks is None else list(attacks)
    return worded(
        {arm.label: {name: study.values(arm, metric, name).mean() for name in names} for arm in arms}
    )


def differences(
    study: Study, pairs: Mapping[str, tuple[Who, Who]], metric: str, attacks: Iterable[str], **attacker
) -> pd.DataFrame:
    """Of each attack, a minus b for each pair (a, b) of arms or attackers, as '+0.012 [-0.003, +0.027]'.

    attacker: believing, knowing, of arms.
    """
    return worded(
        {
            title: {name: signed(study.difference(a, b, metric, name, **attacker)) for name in attacks}
            for title, (a, b) in pairs.items()
        }
    )


def means(
    study: Study, lines: Mapping[str, Who], columns: Mapping[str, str | tuple[str, str]], digits: int = 3
) -> pd.DataFrame:
    """Means over targets as "0.612", a line for each arm or attacker; empty where not resolved, or its attack not run.

    Args:
        columns: title -> metric, or metric and attack.
    """
    table = {}
    for title, who in lines.items():
        asked = {name: (one, None) if isinstance(one, str) else one for name, one in columns.items()}
        run = {None, *study.attacks(who)}
        found = {name: study.values(who, *one).mean() for name, one in asked.items() if one[1] in run}
        table[title] = {
            name: "" if pd.isna(found.get(name)) else f"{found[name]:.{digits}f}" for name in columns
        }
    return worded(table).T


def changes(
    study: Study, lines: Mapping[str, Who], base: Who, columns: Mapping[str, str], attack: str
) -> pd.DataFrame:
    """How an attack's measures change from the base, in points: a line for each arm or attacker, without the base.

    Args:
        columns: title -> metric.
    """
    table = {
        line: {
            title: vocabulary.in_points(study.difference(who, base, metric, attack, pair="target"))
            for title, metric in columns.items()
        }
        for line, who in lines.items()
        if who != base
    }
    return worded(table).T


def ladder(
    study: Study, ladders: Mapping[str, Mapping[str, Arm]], metric: str = "test_accuracy"
) -> pd.DataFrame:
    """Means over targets from step to step, a line for each ladder; last, whether none is below the one before.

    Args:
        ladders: name -> {step -> arm}, from the step where the least is expected. `metrics.rises` judges.
    """
    table = {}
    for name, steps in ladders.items():
        values = {step: study.values(arm, metric) for step, arm in steps.items()}
        table[name] = {step: f"{found.mean():.3f}" for step, found in values.items()}
        table[name]["never falls (beyond chance)"] = metrics.rises(list(values.values()))
    return worded(table).T


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
    shown = shown.set_axis(_names(keys, shown.index)).rename_axis(columns=None)
    return worded(shown.dropna(axis=1, how="all"))


def protection(study: Study, arms: Iterable[Arm], metric: str = "auc") -> pd.DataFrame:
    """Each arm (rows): what its networks are worth, what the strongest attack finds, and what three others do.

    The strongest is the best attack of all attackers, those who know a defence (adaptive) and those who do not (unaware).
    Of the others the adaptive one's value, and in brackets the unaware one's. Without a defence there is one attacker.
    """
    lines, measured = {}, f"{vocabulary.metric_name(metric)} of"
    for arm in arms:
        best = study.strongest(arm, metric, unaware=True)
        who = study.attackers(arm)
        lines[arm.label] = {
            "test accuracy": f"{study.values(arm, 'test_accuracy').mean():.3f}",
            "train - test": f"{study.values(arm, 'generalization_gap').mean():.3f}",
            f"{measured} the strongest attack": f"{best.values.mean():.3f}",
            "which is": vocabulary.in_words(best.name),
        } | {
            f"{measured} {name}": _pair(study.values(one, metric, name) for one in who)
            for name in ("gap", "confidence", "samia")
        }
    return worded(lines).T


def _pair(values) -> str:
    """Means over targets as '0.812' or '0.812 (0.700)'."""
    first, *second = (f"{value.mean():.3f}" for value in values)
    return first + "".join(f" ({value})" for value in second)


def averages(columns: Mapping[str, Mapping[Arm, np.ndarray]]) -> pd.DataFrame:
    """title -> {arm: values over targets (targets,)} as their means: a line for each arm, a column for each title."""
    return worded(
        {
            title: {arm.label: values.mean() for arm, values in found.items()}
            for title, found in columns.items()
        }
    )


SPREADS = {
    "entropy": "entropy",
    "entropy_sd": "sd of the entropy",
    "class_spread": "trace of the covariance",
    "top_sd": "sd of the largest score",
    "beyond_the_label": "beyond the label",
}


def dispersion(study: Study, arms: Iterable[Arm], members: str, others: str) -> pd.DataFrame:
    """How far each arm's answers (rows) spread, as `study.dispersion` measured it: a pair of columns for each measure.

    Args:
        members, others: what the columns of members and of other candidates are called.
    """
    arms, sides = list(arms), {"member": members, "test": others}
    return averages(
        {
            (title, side): {arm: study.values(arm, f"{key}_{metric}") for arm in arms}
            for metric, title in SPREADS.items()
            for key, side in sides.items()
        }
    )


def costs(study: Study, arms: Iterable[Arm]) -> pd.DataFrame:
    """What each arm (rows) costs, mean over targets; nan for label loss and distortion of what no output defence serves.

    Accuracy on members as `study.accuracy` or `study.utility` measured it, all else on strangers as `study.cost` did.
    """
    lines = {}
    for arm in arms:
        on_members = study.values(arm, "test_accuracy") + study.values(arm, "generalization_gap")
        line = {"accuracy on members": on_members, "test accuracy": study.values(arm, "rest_accuracy")}
        if arm.before is not None:
            moved = study.values(arm, "rest_distortion")
            line |= {
                "label loss": study.values(arm, "rest_label_loss"),
                "distortion L1": moved,
                "L1 / 2": moved / 2,
            }
        lines[arm.label] = {title: values.mean() for title, values in line.items()}
    return worded(lines).T


def redrawn(
    study: Study,
    arms: Iterable[Arm],
    metric: str,
    attackers: Mapping[str, Mapping[Arm, Arm]],
    base: Arm | None = None,
) -> pd.DataFrame:
    """What inversion attackers (columns) drew of each arm's answers (rows), mean over targets, as '0.041 (1.25x)'.

    Args:
        metric: as of `study.rebuilt`: "member_inversion_error", ...
        attackers: title -> the arm that the attacker of each arm believes in; blank where none is named.
        base: in brackets the factor to what was drawn of this arm by who knows it, mean over targets; None: no brackets.
    """
    arms, table = list(arms), {}
    one = None if base is None else study.values(base, metric, "inversion")
    for title, believing in attackers.items():
        found = {
            arm.label: study.values(arm, metric, "inversion", believing=believing[arm])
            for arm in arms
            if arm in believing
        }
        table[title] = {
            label: f"{values.mean():.3f}" + (f" ({(values / one).mean():.2f}x)" if one is not None else "")
            for label, values in found.items()
        }
    return worded(table, index=[arm.label for arm in arms], dtype=object).fillna("")


def knowledge(study: Study, arms: Iterable[Arm], attack: str, metric: str) -> pd.DataFrame:
    """Mean over targets of an attack on each arm (rows) by one who believes in each (columns)."""
    arms = list(arms)
    return worded(
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
        shown = _blank(models(select(content["rows"], class_=None)).round(4))
        return "\n".join(["Models, mean over them", "", shown, "", *_verdicts(content["claims"])])
    rows = select(content["rows"], metric=metric, class_=None, attacker_compression=None)
    means = table(aggregate(rows))
    means["setting"] = _names(keys, means[keys].itertuples(index=False))
    shown = means.pivot_table(index="setting", columns="attack", values="value", sort=False).rename_axis(None)
    shown = _blank(shown.drop(columns=list(threshold.GLOBAL), errors="ignore").round(3))
    text = f"{metric.upper()} of each attack, mean over targets (0.5 = guessing)\n\n{shown}"
    return "\n".join([text, "", *_verdicts(content["claims"])])


def _blank(shown: pd.DataFrame) -> str:
    """A table as text; where it has gaps, they are empty, and a line below says why."""
    text = shown.to_string(na_rep="")
    return f"{text}\n(blank: not run, or not resolved)" if shown.isna().to_numpy().any() else text


def _verdicts(judged: Mapping[str, dict]) -> list[str]:
    width = max((len(claim["claim"]) for claim in judged.values()), default=0)
    return [
        "Verdicts",
        *(f"{claim['claim']:{width}}  {claim['verdict']:16} {claim['ours']}" for claim in judged.values()),
        *filter(None, [claims.stored_family(judged)]),
    ]


def _names(keys: Sequence[str], settings: Iterable[tuple]) -> list[str]:
    """What settings are called, each given by its values in the columns `keys`."""
    filled = ({key: None if pd.isna(v) else v for key, v in zip(keys, s, strict=True)} for s in settings)
    return [vocabulary.in_words(vocabulary.setting_name(**columns)) for columns in filled]


def signed(estimate: Estimate) -> str:
    """An estimate as "+0.012 [-0.003, +0.027]"."""
    return vocabulary.with_interval(estimate, "+")
