"""The study: arms are compared, attacked on the same candidates, and the results come out as tidy rows.

    study = Study(pool, split, n_targets, seed=seed, model="small_cnn")
    original = study.arm("original", population)
    pruned = study.arm("pruned", smaller, compression="l1_unstructured", level=0.7)
    study.measure(utility)
    study.attack(suite)
    study.difference(pruned, original, "auc", attack="samia")

A study does not train targets, choose, draw, save or judge claims. Other candidates or another membership (random halves,
the reserve instead of the members, redrawn membership as a null control) are another study. So are the canaries in the
same networks:

    average = Study(data, split, n_targets, candidates=~chosen, protocol="random_halves")
    worst = Study(data, split, n_targets, candidates=chosen, protocol="canaries")
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from mialib import progress
from mialib.asking import Views
from mialib.data import Dataset, Splits
from mialib.measures import metrics
from mialib.study import attackers, reading, roles
from mialib.study.arms import Answers, Arm, Asked, Borrowed, Served, Versions
from mialib.study.attackers import Attacker
from mialib.study.reading import Difference, Strongest
from mialib.study.rows import named, select, tidy_row
from mialib.training import Population
from mialib.training.hooks import Attack, OutputDefense

Who = Arm | Attacker
# how targets are chosen, by protocol; "own": members of your own choice, of which "own_then_halves" has imitations too
PROTOCOLS = {
    "target_shadow": roles.apart,
    "random_halves": roles.one_of_each_pair,
    "canaries": roles.by_coins,
    "d1_d2_d3": roles.targets_first,
    "official": roles.targets_first,
    "own": roles.targets_first,
    "own_then_halves": roles.own_then_halves,
}


class Study:
    """Arms on the candidates of one split, their attackers, and the rows of both.

    Args:
        pool, split: the data, and which examples are members of which model.
        n_targets: the first `n_targets` models are attacked; under the protocols "random_halves" and "canaries" one model
            of each of the first pairs.
        seed: of the candidates' order.
        member: bool (targets, n), which candidates count as members of the targets; default: those that are. The attacks
            never get it, so a null control may redraw it.
        candidates: bool (examples,), which examples are attacked, under the protocols "random_halves" and "canaries" (see
            the roles of these); default: all that can be.
        columns: of all rows: model, protocol (one of `PROTOCOLS`), ... Default: the pool's name, "target_shadow", "shadow",
            and "none" for compression and defense.

    `arms` has all arms by their keys, `rows` all rows, `member` the targets' members: bool (targets, n).
    """

    def __init__(
        self,
        pool: Dataset,
        split: Splits,
        n_targets: int,
        *,
        seed: int = 0,
        member: Tensor | None = None,
        candidates: Tensor | None = None,
        **columns,
    ):
        if split.member.shape[1] != len(pool):
            raise ValueError(
                f"the split is over {split.member.shape[1]} examples, {pool.name} has {len(pool)}"
            )
        plain = {
            "dataset": pool.name,
            "protocol": "target_shadow",
            "knowledge": "shadow",
            "compression": "none",
        }
        self.columns = plain | {"level": None, "defense": "none"} | named(columns)
        protocol = self.columns["protocol"]
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol is {protocol!r}; it must be one of {', '.join(PROTOCOLS)}")
        made = roles.made(PROTOCOLS[protocol], pool, split, n_targets, seed, candidates)
        self.roles = made if member is None else replace(made, truth=member)
        self.arms: dict[str, Arm] = {}
        self._rows: list[tuple[Who, dict]] = []
        # by attacker, attack, metric, and whether it is of each class
        self._index: dict[tuple[Who, str | None, str, bool], list[dict]] = defaultdict(list)
        self._margins: dict[tuple[Attacker, str], tuple[Attack[Views], Tensor]] = {}

    def __len__(self) -> int:
        """The number of targets."""
        return len(self.roles.targets)

    @property
    def member(self) -> Tensor:
        """Which candidates count as members of the targets, bool (targets, n)."""
        return self.roles.truth

    @property
    def rows(self) -> list[dict]:
        """All rows, in the order in which they were measured."""
        return [row for _, row in self._rows]

    def arm(
        self,
        key: str,
        source: Population | Arm | Answers,
        label: str | None = None,
        *,
        behind: OutputDefense | None = None,
        shadows: Arm | None = None,
        beside: Sequence[Arm] = (),
        defends: bool | None = None,
        keeps_labels: bool = False,
        other_members: bool = False,
        **columns,
    ) -> Arm:
        """Add one of the things that are compared. Where no column tells it from another arm, its key is its `variant`.

        Args:
            key, label: its name in code, and in tables and pictures (default: the key).
            source: networks for all models of the split, or for the targets alone; answers that already exist; or another
                arm, whose answers, asked once, and columns it shares.
            behind: an output defence before targets and shadows, indexed by model if it holds one state a model.
            shadows: the arm whose shadows it uses if it has none.
            beside: arms whose answers the attackers see too, because they hold several versions of each model; shadows
                likewise.
            defends: whether it is a defence, so that an attacker who knows it is called adaptive, and one who does not
                unaware. Default: whether its columns name a defence.
            keeps_labels: its defence changes no label, so that an attacker who sees only labels sees `source`.
            other_members: the networks were trained on other members than the split's, for example with the reserve
                instead of the members.
            columns: compression (str), level (number), defense (str), defense_strength (number), variant (str), ...

        Raises:
            ValueError: a key that is taken, an unknown column or a value of another type, networks that do not fit the
                split: another number, or trained on other members.
        """
        if key in self.arms:
            raise ValueError(f"an arm {key!r} is there already; give another key")
        before = source if isinstance(source, Arm) else None
        columns = (self.columns if before is None else before.columns) | named(columns)
        tidy_row("", 0.0, **columns)  # names a value of another type
        if any(columns == arm.columns for arm in self.arms.values()):
            columns["variant"] = key
        if isinstance(source, Arm):
            answers, networks = source.answers, source.networks
        elif isinstance(source, Answers):
            answers, networks = source, None
        else:
            answers = Asked(source, self.roles, other_members)
            networks = source[self.roles.targets] if answers.complete else source
        if shadows is not None:
            answers = Borrowed(answers, shadows.answers)
        if behind is not None:
            answers = Served(answers, behind, self.roles)
        if beside:
            answers = Versions(answers, [self.attacker(one).arm.answers for one in beside])
        defends = columns["defense"] != "none" if defends is None else defends
        adversary = "adaptive" if defends else None
        self.arms[key] = Arm(
            key, label or key, columns, self.roles, answers, networks, adversary, before, keeps_labels
        )
        return self.arms[key]

    def attacker(
        self, who: Who, believing: Arm | Mapping[Arm, Arm] | None = None, knowing: str = "shadows"
    ) -> Attacker:
        """The attacker of an arm, who knows it or believes in another (see `Attacker`); an attacker is returned as it is."""
        if isinstance(who, Attacker):
            return who
        if not isinstance(who, Arm):
            raise ValueError(f"found {who!r} ({type(who).__name__}); an arm is needed, as study.arms[key]")
        if knowing not in attackers.KNOWING:
            raise ValueError(f"knowing is {knowing!r}; attackers know one of {', '.join(attackers.KNOWING)}")
        believed = believing.get(who, who) if isinstance(believing, Mapping) else believing or who
        for arm in (who, believed):
            if self.arms.get(arm.key) is not arm:
                raise ValueError(
                    f"arm {arm.key!r} is of another study; this one has {', '.join(self.arms) or 'none'}"
                )
        return Attacker(who, believed, knowing)

    def attack(
        self,
        suite: Mapping[str, Attack[Views]],
        arms: Arm | Iterable[Arm] | None = None,
        *,
        believing: Arm | Mapping[Arm, Arm] | None = None,
        knowing: str = "shadows",
        measures: Mapping[str, Callable] = metrics.STANDARD,
        by_class: bool = False,
        **columns,
    ) -> None:
        """Run every attack of the suite on every arm; a row for each target, training and measure.

        Attack networks are trained first, all together and each once, and cached one by one: an interrupted run goes on
        with the first missing one. What was attacked or measured before is not attacked or measured again.

        Args:
            suite: name -> attack, as `attacks.suites` and `threshold.ATTACKS` have them.
            arms: one or several; default: all.
            believing: the arm that attackers believe in, or one for each arm; None: they know what they attack. An
                attacker who believes in an arm and attacks that arm is left out: they know it.
            knowing: "shadows" or "half", see `Attacker`.
            measures: name in the table -> measure(member, margin) -> Estimate; `measures.decisions` has more. The
                caller names one with a parameter: {"precision_at_recall_0.5": partial(precision_at_recall, recall=0.5)}.
            by_class: also within each class: the trainings' mean margins, members of the class against its non-members.
            columns: further columns of the rows.

        Raises:
            ValueError: an arm cannot give what an attack needs; two attacks of one name.
        """
        met = [self.attacker(arm, believing, knowing) for arm in self._chosen(arms)]
        met = [one for one in met if believing is None or one.believed != one.arm]
        attackers.check(met, suite, {key: known for key, (known, _) in self._margins.items()})
        with progress.bar(2, "attacks", "part") as shown:  # the networks learn, then all judge
            new = [one for one in met if any((one, name) not in self._margins for name in suite)]
            learned = attackers.train(new, suite)
            shown.update()
            for one in progress.follow(met, "arms", "arm"):
                for name, attack in suite.items():
                    if (one, name) not in self._margins:
                        self._margins[one, name] = attack, attackers.margins(one, attack, learned[name])
                    for each in (False, True) if by_class else (False,):
                        left = {k: m for k, m in measures.items() if (one, name, k, each) not in self._index}
                        if left:
                            margin = self._margins[one, name][1]
                            self._add(one, attackers.rows(one, name, margin, left, each, **columns))

    def measure(
        self,
        rows_of: Callable[[Arm], list[dict]],
        arms: Arm | Iterable[Arm] | None = None,
        *,
        attack: str | None = None,
        believing: Arm | None = None,
    ) -> None:
        """Rows without margins, rows_of(arm) -> rows, like those of `row_makers`: accuracy, distortion, inversion.

        Args:
            attack, believing: the attack, and what its attacker believes, if an attacker is behind it.
        """
        for arm in self._chosen(arms):
            who = self.attacker(arm, believing) if attack else arm
            told = who.columns | {"attack": attack} if attack else {}
            self._add(who, [row | told for row in rows_of(arm)])

    def note(self, who: Who, metric: str, values: Sequence, attack: str | None = None) -> None:
        """A row for each target of a number that was found elsewhere, values (targets,)."""
        who = self._who(who, attack)
        columns = who.columns | {"attack": attack}
        self._add(who, [tidy_row(metric, one, **columns, target=i) for i, one in enumerate(values)])

    def paired(self, a: Who, b: Who, metric: str = "auc") -> None:
        """Rows of a minus b, for every attack on both, each target and training; intervals over the paired examples.

        The rows' `variant` says what was subtracted.
        """
        a, b = self.attacker(a), self.attacker(b)
        for name in [name for name in self.attacks(a) if (b, name) in self._margins]:
            pair = self.margins(a, name), self.margins(b, name)
            self._add(a, attackers.paired_rows(a, b, name, pair, metric))

    def attackers(self, arm: Arm, knowing: str = "shadows") -> list[Attacker]:
        """The attackers of an arm: first the one who knows it, then those who believe in another."""
        met = dict.fromkeys(one for one, _ in self._margins if (one.arm, one.knowing) == (arm, knowing))
        return sorted(met, key=lambda one: one.believed != arm)

    def attacks(self, who: Who) -> list[str]:
        """The attacks that an attacker ran; for an arm, those of the attacker who knows it."""
        who = self.attacker(who)
        return [name for one, name in self._margins if one == who]

    def margins(self, who: Who, attack: str, **attacker) -> Tensor:
        """Margins of an attack, float64 (targets, trainings, n); `attacker`: believing, knowing."""
        who = self.attacker(who, **attacker)
        if (who, attack) not in self._margins:
            found = ", ".join(self.attacks(who)) or "none"
            raise ValueError(
                f"attack {attack!r} was not run on arm {who.arm.key!r} by this attacker; found {found}"
            )
        return self._margins[who, attack][1]

    def values(
        self, who: Who, metric: str, attack: str | None = None, *, by_class: bool = False, **attacker
    ) -> np.ndarray:
        """The measured value of each target, (targets,) float64, or of each class of each target, (targets, classes).

        Trainings of an attack network are averaged, so that a target counts once; nan where one is not resolved.

        Args:
            attack: None for a metric that needs no attacker.
            attacker: believing, knowing, as in `attack`.

        Raises:
            ValueError: nothing was measured, or two rows measure the same.
        """
        who = self._who(who, attack, **attacker)
        rows = self._index.get((who, attack, metric, by_class))
        if rows is None:
            found = ", ".join(sorted({m for one, name, m, _ in self._index if (one, name) == (who, attack)}))
            others = ", ".join(
                dict.fromkeys(str(name) for one, name, *_ in self._index if one == who and name)
            )
            if attack is None:
                advice = f"measured: {found or 'nothing'}; name an attack, or measure it: study.measure(study.utility)"
            elif found:
                advice = f"measured by {attack!r}: {found}"
            else:
                advice = f"{attack!r} was not run; run were: {others or 'none'}. Call study.attack first"
            raise ValueError(f"{who} has no {metric!r}: {advice}")
        return reading.by_class(rows, self.roles.data.num_classes) if by_class else reading.by_target(rows)

    def difference(
        self,
        a: Who,
        b: Who,
        metric: str,
        attack: str | None = None,
        *,
        of: "Study | None" = None,
        pair: str | None = None,
        **attacker,
    ) -> Difference:
        """a minus b on the same targets.

        Args:
            a, b: arms, or attackers who differ in what they believe or know.
            of: the study that b belongs to, if it is another one; it must have the same targets.
            pair: "target": mean and interval over the targets; "example": for one target over its paired examples, for
                "auc" and "balanced_accuracy" of an attack. Default: by example for a single target if that is possible,
                else by target. An arm (or attacker) and itself: 0, paired by "itself".

        Raises:
            ValueError: the studies have different targets; a pairing that is not possible.
        """
        other = of or self
        roles.check_same_targets(self.roles, other.roles)
        can = len(self) == 1 and attack is not None and metric in metrics.PAIRED
        pair = pair or ("example" if can else "target")
        if pair != "target" and not (pair == "example" and can):
            raise ValueError(
                f"pair is {pair!r}; it must be 'target', or 'example' for the {' or '.join(metrics.PAIRED)} of an attack "
                f"on a single target (found {len(self)} targets, {metric!r})"
            )
        itself = other is self and self._who(a, attack, **attacker) == self._who(b, attack, **attacker)
        paired = "itself" if itself else pair
        if pair == "target":
            change = self.values(a, metric, attack, **attacker) - other.values(b, metric, attack, **attacker)
            return Difference.of(metrics.over_targets(change), paired)
        margins = (study.margins(one, attack, **attacker)[0] for study, one in ((self, a), (other, b)))
        member = self.attacker(a, **attacker).member[0]
        return Difference.of(metrics.paired_difference(member, *margins, metric), paired)

    def strongest(
        self,
        who: Who,
        metric: str = "auc",
        attacks: Collection[str] | None = None,
        *,
        unaware: bool = False,
        **attacker,
    ) -> Strongest:
        """The attack with the highest mean over targets, and its value on each target.

        It is chosen by the quantity it is scored on: a description, no ground for a verdict.

        Args:
            attacks: choose among these; default: among all that were run.
            unaware: also among attackers who believe in another arm, since an attacker who knows a defence may ignore it.
        """
        who = self.attacker(who, **attacker)
        found = self._tried(who, metric, attacks, unaware)
        return reading.strongest(found, f"{metric} of {who}")

    def tried(
        self,
        who: Who,
        metric: str = "auc",
        attacks: Collection[str] | None = None,
        *,
        unaware: bool = False,
        **attacker,
    ) -> list[np.ndarray]:
        """The values of every attack, a list of (targets,): the candidates of `strongest`, for `measures.extremes`.

        Attacks that are not resolved on every target are left out.
        """
        found = self._tried(self.attacker(who, **attacker), metric, attacks, unaware)
        return [values for values in found.values() if not np.isnan(values).any()]

    def select(self, arms: Arm | Iterable[Arm] | None = None, **where) -> list[dict]:
        """The rows of these arms whose columns equal `where` (or are in it, for a list)."""
        chosen = set(self._chosen(arms))
        return select([row for who, row in self._rows if _arm(who) in chosen], **where)

    def _tried(self, who: Attacker, metric: str, attacks: Collection[str] | None, unaware: bool) -> dict:
        """(attacker, attack) -> values (targets,)."""
        return {
            (one, name): self.values(one, metric, name)
            for one in (self.attackers(who.arm, who.knowing) if unaware else [who])
            for name in sorted(self.attacks(one))
            if attacks is None or name in attacks
        }

    def _chosen(self, arms: Arm | Iterable[Arm] | None) -> list[Arm]:
        if isinstance(arms, Arm):
            return [arms]
        return list(self.arms.values() if arms is None else arms)

    def _who(self, who: Who, attack: str | None, **attacker) -> Who:
        """The attacker if there is an attack, else the arm: rows belong to one or the other."""
        return _arm(who) if attack is None else self.attacker(who, **attacker)

    def _add(self, who: Who, rows: list[dict]) -> None:
        for row in rows:
            self._rows.append((who, row))
            self._index[who, row["attack"], row["metric"], row["class"] is not None].append(row)


def _arm(who: Who) -> Arm:
    return who.arm if isinstance(who, Attacker) else who
