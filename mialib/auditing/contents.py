"""The report as plain data, for programs: what `to_json` writes, and its JSON schema, report.schema.json beside this file."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from mialib import version
from mialib.auditing.gate import Outcome
from mialib.auditing.judging import RATES, Difference
from mialib.measures import Estimate

SCHEMA = 1  # of the JSON; it rises when a reader of the old one would go wrong


def schema() -> str:
    """The JSON schema (draft 2020-12) of what `of` gives, as text."""
    return (Path(__file__).parent / "report.schema.json").read_text(encoding="utf-8")


def of(report, outcome: Outcome | None = None) -> dict:
    """Dictionaries, lists, strings and numbers of a `report.Report`; what is not resolved is None.

    Args:
        outcome: of a gate, if there was one.
    """
    return {
        "schema": SCHEMA,
        "mialib": version(),
        "verdict": report.sentences,
        "refused": report.refused,
        "baseline": report.baseline,
        "control": report.control if isinstance(report.control, str) else None,
        "tolerance": report.tolerance,
        "gate": None if outcome is None else outcome._asdict(),
        "imitations": report.attacked.imitations,
        "networks": {name: _network(report, name) for name in report.networks},
        "findings": [asdict(one) for one in report.findings],
        "assumed": list(report.assumed),
    }


def _network(report, name: str) -> dict:
    one = report.networks[name]
    both, planted = report.attacked.together.get(name), report.attacked.canaries.get(name)
    return {
        "answers": one.kind,
        "accuracy": dict(zip(("members", "others"), map(_numbers, one.accuracy), strict=True)),
        "attack": one.judged.attack,
        "auc": _numbers(one.judged.auc),
        "tpr": {f"{rate:g}": _numbers(found) for rate, found in one.judged.tpr.items()},
        "minus": {than: _difference(report.difference(name, than)) for than in report.yardsticks(name)},
        "holding_both": None if both is None else _numbers(both.auc),
        "epsilon": one.judged.epsilon,
        "canaries": None
        if planted is None
        else {
            "count": planted.canaries,
            "auc": _numbers(planted.auc),
            "epsilon": planted.epsilon,
            "ceiling": planted.ceiling,
        },
        "control": report.control_of(name),
        "verdict": report.verdict(name) if name in report.compared else None,
        "columns": {str(key): str(value) for key, value in one.columns.items()},
        "members": int(one.judged.member.sum()),
        "others": int((~one.judged.member).sum()),
    }


def _difference(found: Difference) -> dict:
    return {
        "auc": _numbers(found.auc),
        "tpr": {f"{rate:g}": _numbers(found.tpr[rate]) for rate in RATES},
        "detectable": _number(found.detectable),
        "anew": None if found.anew is None else _numbers(found.anew),
    }


def _numbers(estimate: Estimate) -> dict:
    return dict(zip(("value", "low", "high"), map(_number, estimate), strict=True))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
