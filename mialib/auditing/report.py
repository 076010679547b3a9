"""The report of an audit: the verdict first, then the table, the examples most exposed, and what was assumed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from mialib import version
from mialib.auditing import gate, page, verdicts
from mialib.auditing.attacked import Attacked
from mialib.auditing.findings import Finding
from mialib.auditing.judging import RATES, Difference, Judged, difference
from mialib.measures import Estimate, metrics
from mialib.reporting.vocabulary import in_words, metric_name, with_interval

SCHEMA = 1  # of the JSON; it rises when a reader of the old one would go wrong
FEWEST_OF_A_CLASS = 10  # members and others, for an AUC within the class


@dataclass(frozen=True)
class Network:
    """What is known of one network.

    Args:
        kind: what its answers were taken for, see `answers.recognised`.
        accuracy: of its served answers, on members and on others, 0..1 with intervals.
        judged: what the strongest attack finds.
        columns: the user's own, for the table.
    """

    kind: str
    accuracy: tuple[Estimate, Estimate]
    judged: Judged
    columns: Mapping = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Report:
    """What an audit found. Shown in a notebook or printed, it says the verdict and the table.

    Args:
        networks: by name, the baseline among them.
        baseline, control: names; control is None where there is none.
        findings: what was seen before any number; one of the kind "refused" forbids a verdict.
        assumed: sentences: what this audit takes for granted, and what it cannot see.
        tolerance: a rise of the AUC that does not matter.
        attacked: all that was found, with the study's tidy rows.
    """

    networks: Mapping[str, Network]
    baseline: str
    control: str | None
    findings: Sequence[Finding]
    assumed: Sequence[str]
    tolerance: float
    attacked: Attacked

    @property
    def refused(self) -> str:
        """Why no verdict can be given on any network; empty where one can."""
        return self._refusal("", self.baseline)

    def _refusal(self, *networks: str) -> str:
        return " ".join(
            one.text for one in self.findings if one.kind == "refused" and one.network in networks
        )

    @property
    def compared(self) -> list[str]:
        """The networks that are compared with the baseline: all others but the control."""
        return [name for name in self.networks if name not in (self.baseline, self.control)]

    def difference(self, name: str, than: str | None = None) -> Difference:
        """What is found of a network more than of another; default: than of the baseline."""
        pair = name, than or self.baseline
        if pair not in self._differences:  # sentences, table, gate and JSON all ask for it
            self._differences[pair] = difference(*(self._network(one).judged for one in pair))
        return self._differences[pair]

    @cached_property
    def _differences(self) -> dict[tuple[str, str], Difference]:
        return {}

    def verdict(self, name: str) -> str:
        """One of `verdicts`: "leaks more", "leaks less", "leaks no more" than the baseline, or "cannot tell"."""
        if self.refused or self._refusal(name):
            return verdicts.UNDECIDED
        return verdicts.verdict(self.difference(name).auc, self.tolerance)

    @property
    def sentences(self) -> list[str]:
        """The verdict in words: one sentence a network, then what the control says, or that there is none."""
        if self.refused:
            return [f"No verdict: {self.refused}"]
        said = []
        for name in self.compared:
            if wrong := self._refusal(name):
                said.append(f"No verdict on {name}: {wrong}")
                continue
            found, networks = self.difference(name), (self.networks[name], self.networks[self.baseline])
            leaks = tuple(one.judged.auc for one in networks)
            said.append(verdicts.sentence(name, self.baseline, leaks, found, self.tolerance))
            # what answers as the baseline does was not changed further: the control says nothing of it
            if self.control and found.detectable and not self._refusal(self.control):
                said.append(
                    verdicts.attribution(
                        name, self.control, self.difference(name, self.control), self.tolerance
                    )
                )
        own = with_interval(self.networks[self.baseline].judged.auc)
        said.append(f"The best attack on {self.baseline} itself has an AUC of {own}; 0.5 is guessing.")
        if self.compared and not self.control:
            said.append(
                "No control was given: a network changed as long but not compressed. So what differs may come from the further "
                "training instead of the compression."
            )
        return said

    @property
    def table(self) -> pd.DataFrame:
        """A line for each network, numbers as "0.612 [0.597, 0.627]", and the user's own columns."""
        lines = {}
        for name, one in self.networks.items():
            line = {
                "accuracy on members": f"{one.accuracy[0].value:.3f}",
                "on others": f"{one.accuracy[1].value:.3f}",
                "AUC": with_interval(one.judged.auc),
            }
            line |= {metric_name(f"tpr_at_{rate:g}"): _told(found) for rate, found in one.judged.tpr.items()}
            for than in filter(None, (self.baseline, self.control)):
                apart = "" if name == than else with_interval(self.difference(name, than).auc, "+")
                line[f"AUC minus that of {than}"] = apart
            line["verdict"] = self.verdict(name) if name in self.compared else ""
            line["best attack"] = in_words(one.judged.attack)
            lines[name] = dict(one.columns) | line
        return pd.DataFrame.from_dict(lines, orient="index")

    def worst(self, name: str | None = None, count: int = 10) -> pd.DataFrame:
        """The members that the strongest attack is surest of, the surest first: `count` of those that it was scored on.

        By its margin, which favours easy examples: those that were learned by heart against their label need shadow models to
        be seen. Default: of the first network that is compared.

        Columns: the example's row in what was given, its class, the margin, and the share of non-members that look as much
        like members or more: an attacker who accuses this one accuses these too.
        """
        one = self._network(name or [*self.compared, self.baseline][0]).judged
        others = np.sort(one.margin[~one.member])
        order = [i for i in np.argsort(-one.margin, kind="stable") if one.member[i]][:count]
        wrongly = 1 - np.searchsorted(others, one.margin[order], side="left") / len(others)
        return pd.DataFrame(
            {
                "example": one.example[order],
                "class": one.label[order],
                "margin": one.margin[order],
                "others as suspicious": wrongly,
            }
        )

    def classes(self, name: str | None = None) -> pd.DataFrame:
        """The AUC within each class, the most exposed first; of classes with ten members and ten others or more.

        Default: of the first network that is compared.
        """
        one, found = self._network(name or [*self.compared, self.baseline][0]).judged, {}
        for label in np.unique(one.label):
            here = one.label == label
            sides = int(one.member[here].sum()), int((~one.member[here]).sum())
            if min(sides) >= FEWEST_OF_A_CLASS:
                found[int(label)] = (*metrics.auc(one.member[here], one.margin[here]), *sides)
        columns = ["AUC", "low", "high", "members", "others"]
        frame = pd.DataFrame.from_dict(found, orient="index", columns=columns).rename_axis("class")
        return frame.sort_values("AUC", ascending=False)

    def check(
        self, max_increase: float = verdicts.TOLERANCE, metric: str = "auc", than: str | None = None
    ) -> None:
        """A gate: pass silently where no compared network's metric is above the baseline's by more than `max_increase`.

        Args:
            metric: "auc", "tpr_at_0.01" or "tpr_at_0.001".
            than: compare with this network instead of the baseline, for example with the control.

        Raises:
            gate.LeaksMore: one does: its whole interval lies above.
            gate.CannotTell: the intervals do not decide, or no verdict can be given.
        """
        if metric not in gate.METRICS:
            raise ValueError(f"metric is {metric!r}; it must be one of {', '.join(gate.METRICS)}")
        rises = {name: self._rise(name, metric, than) for name in self.compared}
        refused = self.refused or self._refusal(*self.compared, *filter(None, [than]))
        gate.check(rises, metric, max_increase, refused)

    def to_json(self, path: str | Path | None = None) -> str:
        """The report as JSON, also into a file if `path` is given. Its fields: `content`."""
        text = json.dumps(self.content, indent=1, allow_nan=False) + "\n"
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @property
    def content(self) -> dict:
        """What `to_json` writes: plain dictionaries, lists, strings and numbers; what is not resolved is None."""
        return {
            "schema": SCHEMA,
            "mialib": version(),
            "verdict": self.sentences,
            "refused": self.refused,
            "baseline": self.baseline,
            "control": self.control,
            "tolerance": self.tolerance,
            "networks": {name: self._content(name) for name in self.networks},
            "findings": [asdict(one) for one in self.findings],
            "assumed": list(self.assumed),
        }

    def to_html(self, path: str | Path) -> None:
        """The report as one page that needs no network: it opens on a phone, in dark mode, and prints."""
        Path(path).write_text(page.of(self), encoding="utf-8")

    def __repr__(self) -> str:
        return "\n".join([*self.sentences, "", self.table.T.to_string(), "", *self._told()])

    def _repr_html_(self) -> str:
        return page.body(self)

    def _told(self) -> list[str]:
        return [f"{one.kind}: {one.text}" for one in self.findings if one.kind != "refused"]

    def _network(self, name: str) -> Network:
        if name not in self.networks:
            raise ValueError(f"there is no network {name!r}; there are {', '.join(self.networks)}")
        return self.networks[name]

    def _rise(self, name: str, metric: str, than: str | None) -> Estimate:
        found = self.difference(name, than)
        return found.auc if metric == "auc" else found.tpr[float(metric.removeprefix("tpr_at_"))]

    def _content(self, name: str) -> dict:
        one = self.networks[name]
        against = {
            than: self.difference(name, than)
            for than in (self.baseline, self.control)
            if than not in (None, name)
        }
        return {
            "answers": one.kind,
            "accuracy": dict(zip(("members", "others"), map(_numbers, one.accuracy), strict=True)),
            "attack": one.judged.attack,
            "auc": _numbers(one.judged.auc),
            "tpr": {f"{rate:g}": _numbers(found) for rate, found in one.judged.tpr.items()},
            "minus": {
                than: {
                    "auc": _numbers(found.auc),
                    "tpr": {f"{rate:g}": _numbers(found.tpr[rate]) for rate in RATES},
                    "detectable": _number(found.detectable),
                }
                for than, found in against.items()
            },
            "verdict": self.verdict(name) if name in self.compared else None,
            "columns": {key: str(value) for key, value in one.columns.items()},
            "members": int(one.judged.member.sum()),
            "others": int((~one.judged.member).sum()),
        }


def _told(estimate: Estimate) -> str:
    return "too few others" if np.isnan(estimate.value) else with_interval(estimate)


def _numbers(estimate: Estimate) -> dict:
    return dict(zip(("value", "low", "high"), map(_number, estimate), strict=True))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
