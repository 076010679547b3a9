"""The report of an audit: the verdict first, then the table, the examples most exposed, and what was assumed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from mialib.auditing import contents, exposed, page, printed, verdicts, yardsticks
from mialib.auditing import gate as gates
from mialib.auditing.attacked import Attacked
from mialib.auditing.findings import Finding
from mialib.auditing.judging import Difference, Judged, difference
from mialib.figures import Picture
from mialib.measures import Estimate, metrics
from mialib.reporting.vocabulary import in_words, metric_name, with_interval

ITS_OWN = "its control"
ANEW = ", trained anew"
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
    columns: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Report:
    """What an audit found. Shown in a notebook or printed, it says the verdict and the table.

    Args:
        networks: by name, the baseline among them.
        baseline: a name.
        control: a name, or network -> name of its own control; None where there is none.
        findings: what was seen before any number; one of the kind "refused" forbids a verdict.
        assumed: sentences: what this audit takes for granted, and what it cannot see.
        tolerance: a rise of the AUC that does not matter.
        attacked: all that was found, with the study's tidy rows.
        pictures: example -> its picture, of the few that `gallery` shows; empty where inputs are no pictures.
    """

    networks: Mapping[str, Network]
    baseline: str
    control: yardsticks.Control
    findings: Sequence[Finding]
    assumed: Sequence[str]
    tolerance: float
    attacked: Attacked
    pictures: Mapping[int, np.ndarray] = field(default_factory=dict)

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
        """The networks that are compared with the baseline: all others but the controls."""
        return list(self._controls)

    @cached_property
    def _controls(self) -> dict[str, str | None]:
        return yardsticks.of_each(self.networks, self.baseline, self.control)

    def control_of(self, name: str) -> str | None:
        """The name of a network's control; None where it has none, and for controls and the baseline."""
        return self._controls.get(name)

    def yardsticks(self, name: str) -> list[str]:
        """What its numbers are set against: the baseline, and the control of all or its own."""
        control = self.control if isinstance(self.control, str) else self.control_of(name)
        return [one for one in (self.baseline, control) if one not in (None, name)]

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
        """The verdict in words: some sentences a network, then what is known of the baseline, or that a control is missing."""
        return [one for part in self.paragraphs for one in part]

    @property
    def paragraphs(self) -> list[list[str]]:
        """The same `sentences`, those on one network together, the verdict on it first."""
        if self.refused:
            return [[f"No verdict: {self.refused}"]]
        own = with_interval(self.networks[self.baseline].judged.auc)
        last = [f"The best attack on {self.baseline} itself has an AUC of {own}; 0.5 is guessing."]
        if not self.attacked.imitations:
            last.append(
                "It uses thresholds; an attacker who imitates the networks (`shadows`) usually finds more."
            )
        if lacking := yardsticks.without(self._controls, self.control):
            last.append(verdicts.without_control(lacking if len(lacking) < len(self.compared) else []))
        return [*map(self._sentences, self.compared), last]

    @property
    def brief(self) -> list[str]:
        """The verdict on each network in one sentence, which names its control if it has one."""
        if self.refused:
            return [f"No verdict: {self.refused}"]
        said = []
        for name in self.compared:
            if wrong := self._refusal(name):
                said.append(f"No verdict on {name}: {wrong}")
                continue
            apart = {than: self.difference(name, than) for than in self.yardsticks(name)}
            said.append(verdicts.brief(name, apart, self.tolerance))
        return said

    def _sentences(self, name: str) -> list[str]:
        if wrong := self._refusal(name):
            return [f"No verdict on {name}: {wrong}"]
        found, networks = self.difference(name), (self.networks[name], self.networks[self.baseline])
        leaks = tuple(one.judged.auc for one in networks)
        said = [verdicts.sentence(name, self.baseline, leaks, found, self.tolerance)]
        control = self.control_of(name)
        # what answers as the baseline does was not changed further: the control says nothing of it
        if control and found.detectable and not self._refusal(control):
            said.append(verdicts.attribution(name, control, self.difference(name, control), self.tolerance))
        if found.anew is not None and found.detectable:
            said.append(
                verdicts.anew(name, self.baseline, found.anew, self.attacked.imitations, self.tolerance)
            )
        if name in self.attacked.together and (more := self.more_by_both(name)).low > 0:
            said.append(verdicts.both(name, self.baseline, self.attacked.together[name].auc, more))
        return said

    def more_by_both(self, name: str) -> Estimate:
        """The AUC of an attacker who holds a network and the baseline, minus that of one who holds the baseline alone."""
        both, alone = self.attacked.together[name], self.networks[self.baseline].judged
        return metrics.paired_difference(both.member, both.margin, alone.margin, "auc")

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
            line |= self._apart(name) | self._beyond(name)
            line["verdict"] = self.verdict(name) if name in self.compared else ""
            line["best attack"] = in_words(one.judged.attack)
            lines[name] = dict(one.columns) | line
        return pd.DataFrame.from_dict(lines, orient="index", dtype=object)  # whole numbers stay whole

    def _apart(self, name: str) -> dict[str, str]:
        """The cells of a network's differences, by their titles; a control of its own is named in the cell."""
        control = ITS_OWN if isinstance(self.control, Mapping) else self.control
        parts = {"": "auc", ANEW: "anew"} if self.attacked.imitations else {"": "auc"}
        thans = [than for than in (self.baseline, control) if than]
        cells = {f"AUC minus that of {than}{how}": "" for than in thans for how in parts}
        for than in self.yardsticks(name):
            is_own = than != self.baseline and isinstance(self.control, Mapping)
            found, title = self.difference(name, than), f"AUC minus that of {ITS_OWN if is_own else than}"
            for how, part in parts.items():
                apart = with_interval(getattr(found, part), "+")
                cells[title + how] = f"{apart} ({than})" if is_own else apart
        return cells

    def _beyond(self, name: str) -> dict[str, str]:
        """Cells about attackers who hold the baseline too, about canaries, and the bounds on epsilon."""
        both, planted = self.attacked.together.get(name), self.attacked.canaries.get(name)
        cells = {f"AUC, holding {self.baseline} too": "" if both is None else with_interval(both.auc)}
        if not self.attacked.together:
            cells = {}
        if planted is not None:
            cells["AUC on canaries"] = with_interval(planted.auc)
            cells["epsilon at least, by canaries"] = (
                f"{planted.epsilon:.2f} (of {planted.ceiling:.2f} that could be shown)"
            )
        return cells | {"epsilon at least, by members": f"{self._network(name).judged.epsilon:.2f}"}

    def worst(self, name: str | None = None, count: int = 10) -> pd.DataFrame:
        """The members that the strongest attack is surest of, the surest first: `count` of those that it was scored on.

        By its margin. Thresholds favour easy examples: those that were learned by heart against their label need imitations to
        be seen. Default: of the first network that is compared.

        Columns: the example's row in what was given, its class, the margin, and the share of non-members that look as much
        like members or more: an attacker who accuses this one accuses these too.
        """
        one = self._network(self._chosen(name)).judged
        others = np.sort(one.margin[~one.member])
        order = exposed.surest(one, count)
        wrongly = 1 - np.searchsorted(others, one.margin[order], side="left") / len(others)
        return pd.DataFrame(
            {
                "example": one.example[order],
                "class": one.label[order],
                "margin": one.margin[order],
                "others as suspicious": wrongly,
            }
        )

    def gallery(self, name: str | None = None, count: int = exposed.KEPT) -> Picture:
        """How the members look that the strongest attack is surest of, and below them the others that it takes for members.

        Default: of the first network that is compared. `count` of each, at most 10. Numbers of the others are counted on
        after those of the members.

        Raises:
            ValueError: inputs that are no pictures, or are not known since only answers were given.
        """
        name = self._chosen(name)
        return exposed.gallery(name, self._network(name).judged, self.pictures, count)

    def classes(self, name: str | None = None) -> pd.DataFrame:
        """The AUC within each class, the most exposed first; of classes with ten members and ten others or more.

        Default: of the first network that is compared.
        """
        one, found = self._network(self._chosen(name)).judged, {}
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
            than: compare with this network instead of the baseline; "control": each with its own control.

        Raises:
            gate.LeaksMore: one does: its whole interval lies above.
            gate.CannotTell: the intervals do not decide, or no verdict can be given.
            ValueError: an unknown metric or network, or no control where it is asked for.
        """
        if metric not in gates.METRICS:
            raise ValueError(f"metric is {metric!r}; it must be one of {', '.join(gates.METRICS)}")
        gates.check_size(max_increase)
        over = yardsticks.over(than, self.networks, self.baseline, self.control)
        rises = {name: self._rise(name, metric, one) for name, one in over.items()}
        refused = self.refused or self._refusal(*over, *over.values())
        gates.check(rises, gates.Condition(metric, max_increase, than), refused)

    def outcome(self, gate: str | gates.Condition) -> gates.Outcome:
        """What a gate says, without raising where it is not passed.

        Args:
            gate: as on the command line, see `gate.condition`: "auc_increase > 0.02", "auc_increase over control > 0.02".

        Raises:
            ValueError: another text, an unknown network, or no control where it is asked for.
        """
        wanted = gates.condition(gate) if isinstance(gate, str) else gate
        try:
            self.check(wanted.most, wanted.metric, wanted.than)
        except gates.GateError as error:
            return gates.Outcome(str(wanted), error.said, str(error), error.networks)
        return gates.Outcome(str(wanted), gates.PASSED, wanted.passed, [])

    def to_json(self, path: str | Path | None = None, *, gate: str | gates.Condition | None = None) -> str:
        """The report as JSON, also into a file if `path` is given. Its fields: `contents.schema`.

        Args:
            gate: whose outcome stands in it, see `outcome`.
        """
        content = contents.of(self, None if gate is None else self.outcome(gate))
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @property
    def content(self) -> dict[str, object]:
        """What `to_json` writes: plain dictionaries, lists, strings and numbers; what is not resolved is None."""
        return contents.of(self)

    def to_html(self, path: str | Path, *, gate: str | gates.Condition | None = None) -> None:
        """The report as one page that needs no network: it opens on a phone, in dark mode, and prints.

        Args:
            gate: whose outcome stands in it, see `outcome`.
        """
        text = page.of(self, None if gate is None else self.outcome(gate))
        Path(path).write_text(text, encoding="utf-8")

    def __repr__(self) -> str:
        return printed.text(self)

    def _repr_html_(self) -> str:
        return page.body(self)

    def _chosen(self, name: str | None) -> str:
        """The name itself, or that of the first network that is compared, or of the only one."""
        return name or [*self.compared, self.baseline][0]

    def _network(self, name: str) -> Network:
        if name not in self.networks:
            raise ValueError(f"there is no network {name!r}; there are {', '.join(self.networks)}")
        return self.networks[name]

    def _rise(self, name: str, metric: str, than: str) -> Estimate:
        found = self.difference(name, than)
        return found.auc if metric == "auc" else found.tpr[float(metric.removeprefix("tpr_at_"))]


def _told(estimate: Estimate) -> str:
    return "too few others" if np.isnan(estimate.value) else with_interval(estimate)
