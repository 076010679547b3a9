"""What attackers see of targets and shadow models: queried once, then served, halved, or believed to be otherwise."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mialib import asking
from mialib.asking import Views, posteriors
from mialib.attacks import signals
from mialib.attacks.averaging import averaged, needs_door
from mialib.data import Dataset, Splits, splits
from mialib.training import Population, pick
from mialib.training.hooks import OutputDefense


@dataclass(frozen=True)
class Observation:
    """What an attacker sees of one setting (one way to compress and defend).

    Args:
        targets: one single-model Views for each target, on its own shuffled candidates.
        shadows: what attacks learn from: Views of all shadow models, each on its own candidates.
        member, shadow_member: bool (targets, n) and (shadows, n). The attacks never get `member`.
        columns: the setting in the vocabulary of the results table (compression, level, defense, ...).
        teachers: the rows of `shadows` that each target's own attacker learns from; None: one attacker learns from all
            of them, for all targets.
    """

    targets: list[Views]
    shadows: Views
    member: Tensor
    shadow_member: Tensor
    columns: dict = field(default_factory=dict)
    teachers: list[list[int]] | None = None

    def attackers(self) -> Iterator[tuple[list[Views], Views, Tensor]]:
        """Of each attacker: the targets, and the shadows and their membership that it learns from."""
        if self.teachers is None:
            yield self.targets, self.shadows, self.shadow_member
            return
        for one, rows in zip(self.targets, self.teachers, strict=True):
            yield [one], self.shadows[rows], self.shadow_member[rows]

    def n_shadows(self, target: int) -> int:
        """How many shadow models the target's attacker learns from; 0 if it knows members of the target instead."""
        if self.columns.get("knowledge") == "known_members":
            return 0
        return len(self.shadows) if self.teachers is None else len(self.teachers[target])

    def true_class(self, what: str) -> list[Tensor]:
        """The true class's "confidence", "log-odds" (of it) or "sensitivity" of each target's candidates, (n,) each."""
        values = {
            "confidence": lambda target, y: posteriors.true_class(target.log_posteriors[0].exp(), y),
            "log-odds": lambda target, y: signals.confidence(target.log_posteriors[0], y),
            "sensitivity": lambda target, y: posteriors.true_class(target.sensitivity[0], y),
        }[what]
        return [values(target, target.labels[0]) for target in self.targets]

    def unaware(self, believed: "Observation", **columns) -> "Observation":
        """The same targets, attacked with the shadow models of an attacker who believes in another setting."""
        return replace(
            self,
            shadows=believed.shadows,
            shadow_member=believed.shadow_member,
            columns=self.columns | columns,
            teachers=believed.teachers,
        )

    def served(self, defense: OutputDefense, /, **columns) -> "Observation":
        """The same models behind an output defence, log-posteriors (m, n, c) -> (m, n, c).

        The attacker knows the defence: the shadows answer through it too, each through its own if it holds one state a
        model (see `defenses.defender`). `.unaware(believed)` makes one who does not. The sensitivity is not served, so
        neither samia nor `divergence` can be had.

        Raises:
            ValueError: a defence with one state a model, where the shadows are not the models that follow the targets.
        """
        n_targets = len(self.targets)
        if self.teachers is not None and pick(defense, slice(1)) is not defense:
            raise ValueError(
                "a defence with one state a model stands before targets that are followed by their shadows, as "
                "study.observe sees them; serve those, then take the known half"
            )
        return replace(
            self,
            targets=[asking.serve(one, pick(defense, [i])) for i, one in enumerate(self.targets)],
            shadows=asking.serve(self.shadows, pick(defense, slice(n_targets, None))),
            columns=self.columns | columns,
        )


def observe(
    population: Population,
    data: Dataset,
    split: Splits,
    n_targets: int,
    seed: int = 0,
    sensitive: bool = True,
    remember: bool = False,
    **columns,
) -> Observation:
    """Query every model on its own candidates: posteriors, sensitivity, and the doors for further questions.

    Args:
        population: the first `n_targets` models are targets, the rest shadows, as in `splits.target_shadow`.
        sensitive: ask for the sensitivity, which samia and `divergence` need: eleven queries an example, not one.
        remember: answers to further questions are kept, so that many output defences before the same models can be
            asked the same at the cost of one (`asking.Door`).
    """
    index, member = splits.candidates(split, seed)
    # all at once: the models share out the processes
    seen = asking.ask(population, data, index, sensitive=sensitive, probes=True, remember=remember, seed=seed)
    targets = [seen[[i]] for i in range(n_targets)]
    return Observation(targets, seen[n_targets:], member[:n_targets], member[n_targets:], columns)


def observe_halves(
    population: Population, data: Dataset, split: Splits, n_targets: int, seed: int = 0, **columns
) -> Observation:
    """Query every model on the same candidates, all examples outside the reserve: what LiRA needs.

    The first model of each of the first `n_targets` pairs is a target, attacked with the models of all other pairs.
    The other model of its own pair is left out: its membership is the target's, turned round, and so the number of the
    remaining models that have a candidate as a member would say whether the target has. Without the pair that number is
    the same for all.

    Args:
        split: of `splits.random_halves`. The candidates' order depends on their number and on `seed` only.

    Raises:
        ValueError: fewer than two pairs, more targets than pairs, models whose reserves differ, or pairs that do
            not halve the same candidates.
    """
    k = len(split)
    if k < 4 or k % 2 or not 1 <= n_targets <= k // 2:
        raise ValueError(
            f"random halves need two pairs of models or more and 1 to {k // 2} targets, one of a pair, found {k} models "
            f"and {n_targets} targets"
        )
    if not (split.reserve == split.reserve[0]).all():
        raise ValueError("random halves share one reserve, and these models' reserves differ")
    covered = split.member | split.test
    paired = split.member[0::2] == split.test[1::2]
    if not (covered == covered[0]).all() or not (paired & (split.test[0::2] == split.member[1::2])).all():
        raise ValueError(
            "every pair of random halves covers the same candidates, each one's members being the other's test "
            "examples, and these models' do not: take splits.random_halves"
        )
    index = splits.candidates(split[:1], seed)[0][0]
    same = index.expand(k, -1)
    seen = asking.ask(population, data, same, sensitive=False, probes=True)
    targets = [seen[[i]] for i in range(0, 2 * n_targets, 2)]
    member = split.member[:, index]
    teachers = [[j for j in range(k) if j // 2 != pair] for pair in range(n_targets)]
    columns = columns | {"protocol": "random_halves"}
    return Observation(targets, seen, member[: 2 * n_targets : 2], member, columns, teachers)


def known_half(seen: Observation, split: Splits, seed: int = 0) -> Observation:
    """The same targets under the stronger attacker, who is given half of a target's members and non-members.

    It learns from the target's answers on the known half and is scored on the other half; it needs no shadow models.
    Nasr, Shokri & Houmansadr 2018. A table that mixes its numbers with those of shadow models means nothing.

    Args:
        seen: of `observe` with the same `split` and `seed`.

    Raises:
        ValueError: `seen` is not, so that its rows are other candidates than the split says.
    """
    n_targets = len(seen.targets)
    index, member = splits.candidates(split[:n_targets], seed)
    if not torch.equal(member, seen.member):
        raise ValueError("the known half is one of study.observe's candidates: give its own split and seed")
    known, _ = splits.known_and_scored(split[:n_targets], seed)
    known = known.gather(1, index)
    given, scored = splits.indices(known), splits.indices(~known)
    return replace(
        seen,
        targets=[one.rows(scored[i : i + 1]) for i, one in enumerate(seen.targets)],
        shadows=asking.together([one.rows(given[i : i + 1]) for i, one in enumerate(seen.targets)]),
        member=seen.member.gather(1, scored),
        shadow_member=seen.member.gather(1, given),
        columns=seen.columns | {"protocol": "known_half", "knowledge": "known_members"},
        teachers=[[i] for i in range(n_targets)],
    )


def transfers(seen: Mapping[str, Observation]) -> dict[str, Observation]:
    """Each setting attacked by those who believe in each of the others: "target <- believed" -> Observation.

    The attacker's belief stands in the columns attacker_compression and attacker_level. Needs no new models.
    """
    return {
        f"{name} <- {other}": target.unaware(
            believed,
            attacker_compression=believed.columns["compression"],
            attacker_level=believed.columns.get("level"),
        )
        for name, target in seen.items()
        for other, believed in seen.items()
        if other != name
    }


def averaged_observation(
    seen: Observation, queries: int, epsilon: float, seed: int = 0, **columns
) -> Observation:
    """`averaging.averaged` for targets and shadows: the attacker treats its shadows as it treats the target.

    Args:
        seen: of `observe` or `observe_halves`, behind a defence or not. The shadows of `known_half` have no door: take
            the known half afterwards.
        columns: what they say of the setting now.

    Raises:
        ValueError: as `averaged`, before any query.
    """
    for name, views in (("target", seen.targets), ("shadows", [seen.shadows])):
        for one in views:
            needs_door(one, name)
    return replace(
        seen,
        targets=[averaged(one, queries, epsilon, seed) for one in seen.targets],
        shadows=averaged(seen.shadows, queries, epsilon, seed),
        columns=seen.columns | columns,
    )
