"""Attackers of an arm: what they believe, know, see and learn from; and the margins and rows of their attacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from joblib import effective_n_jobs
from torch import Tensor

from mialib import asking, progress
from mialib.asking import Views
from mialib.data import splits
from mialib.measures import metrics
from mialib.study.arms import Arm
from mialib.study.rows import attack_rows, class_rows, is_control, named, tidy_row
from mialib.training import tasks
from mialib.training.hooks import Attack, DemandingAttack, LearningAttack, NetworkAttack, PopulationAttack

KNOWING = ("shadows", "half")


class Lesson(NamedTuple):
    """The material that an attacker learns from, and the targets that are attacked with it.

    key: equal for two lessons that teach the same, so that they are learned once.
    """

    key: tuple
    targets: list[Views]
    shadows: Views
    member: Tensor


@dataclass(frozen=True)
class Attacker:
    """An attacker of an arm.

    Args:
        believed: the arm whose shadow models they train, or whose answers they think they get: for an attacker who knows
            the arm, the arm itself.
        knowing: "shadows": they train shadow models; "half": they are given half of a target's members and non-members
            (Nasr, Shokri & Houmansadr 2018), learn from the target's answers to these and are scored on the others. The
            numbers of both cannot be compared in one table.
    """

    arm: Arm
    believed: Arm
    knowing: str = "shadows"

    def __str__(self) -> str:
        believing = (
            "" if self.believed == self.arm else f" by an attacker who believes in {self.believed.label!r}"
        )
        return f"arm {self.arm.label!r} attacked{believing}, knowing {self.knowing}"

    @property
    def columns(self) -> dict:
        """The columns of their rows: those of the arm, and of the attacker."""
        columns = dict(self.arm.columns)
        if self.knowing == "half":
            columns |= {"protocol": "known_half", "knowledge": "known_members"}
        if self.believed == self.arm:
            return columns | {"adversary": self.arm.adversary}
        true, believed = (_compressed(one) for one in (self.arm, self.believed))
        if believed != true:
            columns |= {"attacker_compression": believed[0], "attacker_level": believed[1]}
        return columns | {"adversary": self.arm.adversary and "unaware"}

    @property
    def member(self) -> Tensor:
        """Which of the candidates that they are scored on are members, bool (targets, n)."""
        return self.arm.member.gather(1, self._places) if self.knowing == "half" else self.arm.member

    @property
    def labels(self) -> Tensor:
        """True classes of the candidates that they are scored on, int64 (targets, n)."""
        roles = self.arm.roles
        labels = roles.data.y.cpu()[roles.index[roles.targets]]
        return labels.gather(1, self._places) if self.knowing == "half" else labels

    def n_shadows(self, target: int) -> int:
        """The number of shadow models they learn from; 0 if they know members of the target instead."""
        roles = self.arm.roles
        if self.knowing == "half":
            return 0
        return len(roles.shadows if roles.teachers is None else roles.teachers[target])

    def lessons(self, needs: frozenset[str] = frozenset()) -> list[Lesson]:
        """One lesson for all targets, or one for each that has its own shadows; asks only for what an attack needs."""
        sensitive, roles = "sensitivity" in needs, self.arm.roles
        arm, believed = (one.by_label if "labels" in needs else one for one in (self.arm, self.believed))
        targets = arm.targets(sensitive, "public" in needs)
        if self.knowing == "half":
            given = splits.indices(roles.known)
            known = self.arm.member.gather(1, given)
            return [
                Lesson(
                    (believed, self.knowing, i),
                    [target.rows(self._places[[i]])],
                    teacher.rows(given[[i]]),
                    known[[i]],
                )
                for i, (target, teacher) in enumerate(zip(targets, believed.targets(sensitive), strict=True))
            ]
        shadows, member = believed.shadows(sensitive), roles.member[roles.shadows]
        if roles.teachers is None:
            return [Lesson((believed, self.knowing), targets, shadows, member)]
        return [
            Lesson((believed, self.knowing, *rows), [target], shadows[rows], member[rows])
            for target, rows in zip(targets, roles.teachers, strict=True)
        ]

    @property
    def scored(self) -> Tensor:
        """The candidates that they are scored on, as rows of the data set, int64 (targets, n)."""
        index = self.arm.roles.index[self.arm.roles.targets]
        return index.gather(1, self._places) if self.knowing == "half" else index

    @property
    def _places(self) -> Tensor:
        return splits.indices(~self.arm.roles.known)


def _compressed(arm: Arm) -> tuple[str, float | None]:
    """How an arm is compressed; a control, in which nothing was removed or rounded, is not."""
    compression, level = arm.columns["compression"], arm.columns["level"]
    return ("none", None) if is_control(level) else (compression, level)


def needs(attack: Attack[Views]) -> frozenset[str]:
    """What an attack declares that it needs besides posteriors and labels, see `training.hooks.NEEDS`."""
    return attack.needs if isinstance(attack, DemandingAttack) else frozenset()


def check(
    attackers: Sequence[Attacker],
    suite: Mapping[str, Attack[Views]],
    known: Mapping[tuple[Attacker, str], Attack[Views]] = MappingProxyType({}),
) -> None:
    """Raises ValueError, before any model is asked, if an arm cannot give what an attack needs.

    Or if an earlier attack of that name, in `known`, was a different one.
    """
    for one in attackers:
        if one.knowing == "half":
            _check_half(one)
    for name, attack in suite.items():
        wanted = needs(attack)
        for one in attackers:
            if known.get((one, name), attack) != attack:
                raise ValueError(
                    f"another attack {name!r} was run on arm {one.arm.key!r}; give this one another name"
                )
            for arm in (one.arm, one.believed):
                if "sensitivity" in wanted and not arm.answers.sensitive:
                    raise ValueError(
                        f"attack {name!r} needs the sensitivity, and arm {arm.key!r} does not give it: it is asked of "
                        "the networks themselves, not behind a defence; leave this attack out of its suite"
                    )
            versions = {arm.key: arm.answers.versions for arm in (one.arm, one.believed)}
            if "versions" in wanted and (not all(versions.values()) or len({*versions.values()}) > 1):
                found = " and ".join(f"arm {key!r} {number}" for key, number in versions.items())
                raise ValueError(
                    f"attack {name!r} needs other versions beside each model, as many in what is attacked as in what is "
                    f"believed in; found {found}. Make an arm that has them, study.arm(..., beside=[original])"
                )
            roles = one.arm.roles
            targets = range(len(roles.targets)) if "public" in wanted else ()
            lacking = [i for i in targets if not roles.public(i).numel()]
            if lacking:
                raise ValueError(
                    f"attack {name!r} learns from examples that are known not to be members, and target {lacking[0]} has "
                    "none: every example is one of its candidates; leave a reserve, splits.random_halves(..., "
                    "reserve_fraction=0.1)"
                )
            if "same candidates" in wanted and (not roles.same_candidates or one.knowing == "half"):
                raise ValueError(
                    f"attack {name!r} compares models on the same candidates, and those of this study have their own: "
                    'take a study of splits.random_halves, Study(..., protocol="random_halves")'
                )


def _check_half(attacker: Attacker) -> None:
    roles = attacker.arm.roles
    member = roles.member[roles.targets]
    fewest = min(
        int((side & half).sum(1).min()) for side in (member, ~member) for half in (roles.known, ~roles.known)
    )
    if fewest < 1:
        raise ValueError(
            f'knowing="half": half of {int(member.sum(1).min())} members and {int((~member).sum(1).min())} others leaves '
            "one side of a half empty; two of each are the least, and dozens are needed to say anything"
        )


def train(attackers: Sequence[Attacker], suite: Mapping[str, Attack[Views]]) -> dict[str, dict]:
    """Train all attack networks that are not yet in the store, each once.

    They run elsewhere or in as many processes as joblib is set to, each as its own task. In a single process, or if an attack's
    networks learn as one population (`training.hooks.PopulationAttack`), all that an attack needs are trained at once.

    Returns:
        For each attack, what was learned in this process, by lesson; what other processes learned is in the store.
    """
    networks = {name: one for name, one in suite.items() if isinstance(one, NetworkAttack)}
    lessons = {name: _once(attackers, needs(one)) for name, one in networks.items()}
    several = tasks.runner() is not None or effective_n_jobs(None) > 1
    here = [name for name, one in networks.items() if not several or _together(one)]
    away = [name for name in networks if name not in here]
    away.sort(key=lambda name: networks[name].name != "samia")  # the longest first: processes end together
    calls = [
        tasks.Call(
            (name, number, seed), networks[name].fit, (lesson.shadows.answers(), lesson.member, [seed])
        )
        for name in away
        for number, lesson in enumerate(lessons[name].values())
        for seed in range(networks[name].trainings)
    ]
    learned: dict[str, dict] = {name: {} for name in suite}
    with progress.bar(len(calls) + len(here), "attack networks", "fit") as shown:
        for _ in tasks.as_finished(calls, large=True):
            shown.update()
        for name in here:
            found = _fit_all(networks[name], [(one.shadows, one.member) for one in lessons[name].values()])
            learned[name] = dict(zip(lessons[name], found, strict=True))
            shown.update()
    return learned


def _together(attack: NetworkAttack[Views]) -> bool:
    return isinstance(attack, PopulationAttack) and attack.together


def _fit_all(attack: NetworkAttack[Views], taught: list[tuple[Views, Tensor]]) -> list:
    if isinstance(attack, PopulationAttack):
        return attack.fit_all(taught)
    return [attack.fit(shadows, member) for shadows, member in taught]


def _once(attackers: Sequence[Attacker], wanted: frozenset[str]) -> dict[tuple, Lesson]:
    """All lessons by what they teach, each once."""
    return {lesson.key: lesson for one in attackers for lesson in one.lessons(wanted)}


def margins(attacker: Attacker, attack: Attack[Views], learned: dict) -> Tensor:
    """Margins of one attack, float64 (targets, trainings, n).

    Args:
        learned: what was learned from shadows, by lesson, at first by `train`; it serves other targets and attackers too.
    """
    found = []
    for key, targets, shadows, member in attacker.lessons(needs(attack)):
        if isinstance(attack, NetworkAttack):
            if key not in learned:
                learned[key] = attack.fit(shadows, member)
            found.append(attack.judge(learned[key], asking.together(targets)))
        elif isinstance(attack, LearningAttack):
            if key not in learned:
                learned[key] = attack.learn(shadows, member, 0)
            found += [learned[key](target)[None, None] for target in targets]
        else:
            found += [attack(target, shadows, member, 0)[None, None] for target in targets]
    return torch.cat(found)


def rows(
    attacker: Attacker, name: str, margins: Tensor, measures: Mapping, by_class: bool = False, **columns
) -> list[dict]:
    """A row for each target, training and measure of an attack; or for each target, class and measure.

    Args:
        margins: (targets, trainings, n). By class, the trainings' mean is judged.
        measures: name in the table -> measure(member, margin) -> Estimate.
        columns: further columns of the rows.
    """
    found, columns = [], attacker.columns | named(columns) | {"attack": name}
    for target, (member, trainings) in enumerate(zip(attacker.member.numpy(), margins.numpy(), strict=True)):
        if by_class:
            labels, classes = attacker.labels[target].numpy(), attacker.arm.roles.data.num_classes
            here = columns | {"target": target}
            found += class_rows(member, trainings.mean(0), labels, classes, measures, **here)
            continue
        here = columns | {"target": target, "n_shadows": attacker.n_shadows(target)}
        for training, margin in enumerate(trainings):
            found += attack_rows(member, margin, measures, **here, seed=training)
    return found


def paired_rows(
    a: Attacker, b: Attacker, name: str, margins: tuple[Tensor, Tensor], metric: str
) -> list[dict]:
    """Rows of a's metric minus b's, for each target and training, over its paired examples: see `Study.paired`."""
    found = []
    variant = ", ".join(part for part in (a.columns.get("variant"), f"minus {b.arm.key}") if part)
    for target, (member, *both) in enumerate(zip(a.member.numpy(), *margins, strict=True)):
        for training, pair in enumerate(zip(*both, strict=True)):
            difference = metrics.paired_difference(member, *pair, metric)
            here = a.columns | {"variant": variant, "attack": name, "target": target, "seed": training}
            found.append(tidy_row(f"{metric}_difference", difference, **here))
    return found
