"""outputs/README.md: the results of all runs on one page, made from each metrics.json and from nothing else.

The page knows no notebook by name, and computes nothing: means over targets are the aggregates that each run saved. A
*setting* is a kind of network: what compressed it, what defended it, variant and protocol. Who attacks it is a column.
"""

import html
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from mialib import study
from mialib.reporting import claims, origin, tables, vocabulary
from mialib.reporting.files import load

_NETWORK = ("compression", "level", "variant", "defense", "defense_strength", "protocol")
_ATTACKERS = ("", "unaware: ", "known members: ")  # the first has shadow models and knows the defence
_FOLDED = 40  # a table of more rows is folded
_INTRODUCTION = f"""\
# Results of all runs

Written by `mialib overview` from the `metrics.json` of each run, where the means over targets stand with their intervals; the numbers of each target stand in `rows.csv.gz`.

A *member* is an example that the network under attack (the *target*) was trained on; an attack scores candidates, and its
AUC is the chance that a member scores higher than a non-member: 0.5 is guessing, 1 is perfect. Values are means over
targets that were trained on different examples, `[low, high]` is a 95 % interval over these targets, and a *control* was
trained on like the compressed networks, but nothing was pruned or rounded.

- *setting*: the compression and its level (a share of pruned weights, or bits), then the defence with its strength and the
  variant, in the words of the notebook, which explains them. *gap*: training accuracy less test accuracy.
- *best attack in hindsight*: the one with the highest AUC, and of how many. Compare two settings by it only if as many were
  tried. *TPR at 1% FPR*: the share of members it finds while it accuses 1 % of the non-members.
- `confidence` thresholds the posterior of the true class, and `samia` is a network that learns from posteriors; the other
  attacks are in `mialib/attacks`. With `_global` one threshold serves all classes, without it each class has its own.
- The attacker has shadow models and knows what was done to the target. *unaware*: the shadow models lack the defence.
  *known members*: no shadow models, but half of the target's members; what was done is known.
- *inversion error*: of what an attacker redraws of members from the answers, squared, mean per pixel; more is safer.
- An empty cell was not measured, or there were too few examples to resolve it. Tables of more than {_FOLDED} rows are folded.
- Left out: single classes, attackers who assume another compression, paired differences, and variations of an attack on
  networks that stand here already (they have no test accuracy of their own).
- *claims*: where each stands ("ours": our own question, or a control), what it says, and for each run our verdict and
  number. A number with a sign is a difference, or what is compared with the number on the right. The verdict looks at the
  whole interval: *inconclusive* spans the boundary or has none, *not comparable* was measured at another setting.
- *minutes*: of the last execution, which may have found its networks trained.
"""


def results_page(root: Path) -> str:
    """The page, in Markdown, of the results in `root`/<notebook>/<run>/metrics.json."""
    paths = sorted(root.glob("*/*/metrics.json"))
    contents, sections = [], []
    for notebook, of_notebook in itertools.groupby(paths, lambda path: path.parts[-3]):
        runs = {path.parts[-2]: load(path) for path in of_notebook}
        links = []
        for run, content in runs.items():
            there = {file: f"{notebook}/{run}/{file}" for file in ("executed.ipynb", "figures/")}
            files = [f"[{file}]({path})" for file, path in there.items() if (root / path).exists()]
            links.append(f"[{run}](#{notebook}-{run}) ({', '.join(files)})".removesuffix(" ()"))
            sections += [f"## {notebook}, {run}", _origin(content), _markdown(_settings(content["rows"]))]
        contents.append(f"- **{notebook}**: {'; '.join(links)}; [claims](#{notebook}-claims)")
        together = {run: claims.stored_family(content["claims"]) for run, content in runs.items()}
        said = "\n".join(f"- {run}: {text}" for run, text in together.items() if text)
        sections += [f"## {notebook}, claims", _markdown(_claims(runs)), *filter(None, [said])]
    return "\n\n".join([_INTRODUCTION + "\n" + "\n".join(contents), *sections]) + "\n"


def _origin(content: Mapping) -> str:
    """One line: the data, and what made the results."""
    targets = len({row["target"] for row in content["rows"]} - {None})
    known = content["parameters"] | content["provenance"] | {"targets": targets}
    if known.get("seconds") is not None:
        known["minutes"] = f"{known['seconds'] / 60:.1f}"
    if known.get("commit"):
        known["commit"] = origin.short(known["commit"])
    shown = ("dataset", "model", "targets", "n_shadows", "device", "torch", "commit", "minutes")
    parts = (
        f"{name.replace('n_shadows', 'shadow models')}: {known[name]}" for name in shown if known.get(name)
    )
    return _safe("; ".join(parts))


def _settings(rows: Sequence[dict]) -> pd.DataFrame:
    """A row for each setting that has a test accuracy; in a run without attacks the table of models."""
    means = study.select(rows, class_=None, attacker_compression=None, attacker_level=None, target=None)
    if not any(row["attack"] for row in means):
        table = tables.models(means).reset_index(names="setting")
        return table.rename(columns=vocabulary.metric_name)
    home = next((row["protocol"] for row in means if row["metric"] == "test_accuracy"), None)
    settings: dict[tuple, dict] = {}
    for row in means:
        who = _ATTACKERS[row["adversary"] == "unaware"]
        *network, protocol = (row[name] for name in _NETWORK)
        if row["knowledge"] == "known_members":  # the protocol is the attacker's, the networks are as at home
            protocol, who = home, _ATTACKERS[2] + who
        cells = settings.setdefault((*network, protocol), {})
        if (cell := (who, row["attack"], row["metric"])) in cells:
            raise ValueError(f"one setting has two kinds of rows {cell}; tell them apart by variant")
        cells[cell] = row["value"]
    settings = {setting: cells for setting, cells in settings.items() if ("", None, "test_accuracy") in cells}
    table = pd.DataFrame(map(_line, settings.values())).dropna(axis=1, how="all")
    table.insert(0, "setting", _names(list(settings), home))
    return table


def _line(cells: Mapping[tuple, float | None]) -> dict:
    """What is said of a setting, whose values are found by attacker, attack and metric."""
    line = {"test accuracy": cells["", None, "test_accuracy"]}
    line["gap"] = cells.get(("", None, "generalization_gap"))
    for who in _ATTACKERS:
        tried = {key[1]: value for key, value in cells.items() if (key[0], key[2]) == (who, "auc")}
        best = max((name for name in tried if tried[name] is not None), key=tried.get, default=None)
        line[f"{who}best attack in hindsight"] = best and f"{best}, of {len(tried)}"
        line[f"{who}AUC"] = tried.get(best)
        line[f"{who}inversion error"] = cells.get((who, "inversion", "member_inversion_error"))
        if not who:
            line[vocabulary.metric_name("tpr_at_0.01")] = cells.get((who, best, "tpr_at_0.01"))
            line |= {f"AUC of {name}": tried.get(name) for name in ("confidence", "samia")}
    return line


def _names(settings: Sequence[tuple], home: str | None) -> list[str]:
    """Each setting in words, the compression first; two that would share a name get their columns added."""
    names = []
    for compression, level, variant, *defense, protocol in settings:
        network = vocabulary.model_name(compression, level)
        name = vocabulary.setting_name(compression, level, None, *defense)
        if variant and variant.casefold() != name.casefold():  # some only repeat the defence
            name = vocabulary.setting_name(compression, level, variant, *defense)
        name = name if compression == "none" or name == network else f"{network}: {name}"
        names.append(name if protocol == home else f"{name}, {protocol}".replace("_", " "))
    columns = [", ".join(str(part) for part in setting if part is not None) for setting in settings]
    return [f"{name} ({columns[i]})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _claims(runs: Mapping[str, dict]) -> pd.DataFrame:
    """The claims of a notebook, each once, with verdict and number in a column for each run."""
    results: dict[str, dict] = {}
    said: dict[str, tuple] = {}  # a run of an older notebook may say it in other words: the last one's count
    for run, content in runs.items():
        for claim in content["claims"].values():
            ours = ": ".join(filter(None, (claim["verdict"], claim["ours"])))
            results.setdefault(claim["claim"], {})[run] = ours
            said[claim["claim"]] = claim["source"], claim["paper"]
    lines = [[claim, *said[claim], *map(ours.get, runs)] for claim, ours in results.items()]
    return pd.DataFrame(lines, columns=["claim", "source", "paper", *runs])


def _markdown(table: pd.DataFrame) -> str:
    lines = [table.columns, ["--:" if kind.kind in "fi" else "---" for kind in table.dtypes]]
    lines += table.astype(object).itertuples(index=False)
    text = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
    if len(table) > _FOLDED:
        return f"<details><summary>{len(table)} rows</summary>\n\n{text}\n\n</details>"
    return text


def _cell(value) -> str:
    return "" if pd.isna(value) else f"{value:.3f}" if isinstance(value, float) else _safe(str(value))


def _safe(text: str) -> str:
    """Text that Markdown shows as it stands, in a table too."""
    return html.escape(text, quote=False).replace("|", r"\|").replace("*", r"\*")
