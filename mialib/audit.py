"""From models to a table: what the attacker observes, every attack on every target, one tidy row a measurement."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from joblib import Parallel, delayed, effective_n_jobs
from torch import Tensor

from mialib import metrics, predict, progress, results, splits
from mialib.attacks import signals
from mialib.compression import size
from mialib.data import Dataset
from mialib.population import Population
from mialib.predict import Views
from mialib.splits import Splits


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
            "confidence": lambda target, y: signals.true_class(target.log_posteriors[0].exp(), y),
            "log-odds": lambda target, y: signals.confidence(target.log_posteriors[0], y),
            "sensitivity": lambda target, y: signals.true_class(target.sensitivity[0], y),
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

    def served(self, defense: Callable[[Tensor], Tensor], /, **columns) -> "Observation":
        """The same models behind an output defence, log-posteriors (..., c) -> (..., c).

        The attacker knows the defence: the shadows answer through it too. `.unaware(believed)` makes one who
        does not. The sensitivity is not served, so neither samia nor `divergence` can be had.
        """
        return replace(
            self,
            targets=[predict.serve(one, defense) for one in self.targets],
            shadows=predict.serve(self.shadows, defense),
            columns=self.columns | columns,
        )


def observe(
    population: Population,
    data: Dataset,
    split: Splits,
    n_targets: int,
    seed: int = 0,
    sensitive: bool = True,
    **columns,
) -> Observation:
    """Query every model on its own candidates: posteriors, sensitivity, and for the targets a door for probes.

    Args:
        population: the first `n_targets` models are targets, the rest shadows, as in `splits.target_shadow`.
        sensitive: ask for the sensitivity, which samia and `divergence` need: eleven queries an example, not one.
    """
    index, member = predict.candidates(split, seed)
    # all at once: the models share out the processes
    seen = predict.views(population, data, index, sensitive=sensitive, seed=seed)
    targets = _with_doors(seen, population, data, index, range(n_targets))
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
    index = predict.candidates(split[:1], seed)[0][0]
    same = index.expand(k, -1)
    seen = predict.views(population, data, same, sensitive=False)
    targets = _with_doors(seen, population, data, same, range(0, 2 * n_targets, 2))
    member = split.member[:, index]
    teachers = [[j for j in range(k) if j // 2 != pair] for pair in range(n_targets)]
    columns = columns | {"protocol": "random_halves"}
    return Observation(targets, seen, member[: 2 * n_targets : 2], member, columns, teachers)


def _with_doors(
    seen: Views, population: Population, data: Dataset, index: Tensor, targets: range
) -> list[Views]:
    """What is seen of each of the models `targets`, by itself and with its inputs and its door for probes."""
    rows = [slice(i, i + 1) for i in targets]
    return [predict.with_probes(seen[one], population[one], data, index[one]) for one in rows]


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
    index, member = predict.candidates(split[:n_targets], seed)
    if not torch.equal(member, seen.member):
        raise ValueError("the known half is one of audit.observe's candidates: give its own split and seed")
    known, _ = splits.known_half(split[:n_targets], seed)
    known = known.gather(1, index)
    given, scored = splits.indices(known), splits.indices(~known)
    return replace(
        seen,
        targets=[one.rows(scored[i : i + 1]) for i, one in enumerate(seen.targets)],
        shadows=predict.together([one.rows(given[i : i + 1]) for i, one in enumerate(seen.targets)]),
        member=seen.member.gather(1, scored),
        shadow_member=seen.member.gather(1, given),
        columns=seen.columns | {"protocol": "known_half", "knowledge": "known_members"},
        teachers=[[i] for i in range(n_targets)],
    )


def utility(population: Population, data: Dataset, split: Splits, n_targets: int, **columns) -> list[dict]:
    """Rows on each target itself: epochs trained, accuracies, gap (train - test), non-zero weights, bytes."""
    targets = population[:n_targets]
    train, test, reserve = (
        predict.accuracy(targets, data, mask[:n_targets])
        for mask in (split.member, split.test, split.reserve)
    )
    sizes = size.sizes(targets.params)
    rows = []
    for i in range(n_targets):
        found = {
            "epochs": _epochs(targets.records[i]) if targets.records else None,
            "test_accuracy": test[i],
            "reserve_accuracy": reserve[i],
            "generalization_gap": train[i] - test[i],
            "sparsity": 1 - sizes[i].density,
            "nonzero_parameters": sizes[i].nonzero,
            "sparse_bytes": sizes[i].sparse_bytes,
        }
        rows += [results.row(metric, value, **columns, target=i) for metric, value in found.items()]
    return rows


def _epochs(record: dict) -> int:
    """Epochs behind a model's weights: up to the best one, or all."""
    return record["best_epoch"] + 1 if "best_epoch" in record else len(record["loss"])


def divergence(seen: Observation) -> list[dict]:
    """Rows of prediction divergence: each target's confidence gap and sensitivity gap, overall and for each class."""
    rows = []
    for i, (target, member) in enumerate(zip(seen.targets, seen.member, strict=True)):
        gaps = {
            "confidence_gap": signals.confidence_gap(target.log_posteriors[0], target.labels[0], member),
            "sensitivity_gap": signals.sensitivity_gap(target.sensitivity[0], target.labels[0], member),
        }
        for metric, gap in gaps.items():
            rows.append(results.row(metric, gap.overall, **seen.columns, target=i))
            rows += [
                results.row(metric, value, **seen.columns, target=i, class_=number)
                for number, value in enumerate(gap.per_class)
            ]
    return rows


def calibration(seen: Observation) -> list[dict]:
    """Rows on how far each target's posteriors can be believed, from what was observed: no new queries.

    calibration_error is that on the non-members among the candidates; member_loss and test_loss are the mean
    cross-entropies in nats of members and of non-members, an example's being at most `signals.LIMIT`.
    """
    rows = []
    for i, (target, member) in enumerate(zip(seen.targets, seen.member, strict=True)):
        log_p, labels = target.log_posteriors[0], target.labels[0]
        loss = -signals.true_class(log_p, labels).clamp(min=-signals.LIMIT)
        found = {
            "calibration_error": metrics.calibration_error(log_p[~member], labels[~member]),
            "member_loss": loss[member].mean(),
            "test_loss": loss[~member].mean(),
        }
        rows += [results.row(metric, value, **seen.columns, target=i) for metric, value in found.items()]
    return rows


def accuracy(seen: Observation) -> list[dict]:
    """Rows on each target's answers as they were observed: test_accuracy and generalization_gap, without new queries.

    For what `utility` cannot ask, as networks behind an output defence; of equal posteriors the first class counts.
    """
    rows = []
    for i, (target, member) in enumerate(zip(seen.targets, seen.member, strict=True)):
        right = target.log_posteriors[0].argmax(-1) == target.labels[0]
        train, test = (right[side].double().mean() for side in (member, ~member))
        found = {"test_accuracy": test, "generalization_gap": train - test}
        rows += [results.row(metric, value, **seen.columns, target=i) for metric, value in found.items()]
    return rows


def per_class(seen: Observation, margins: Tensor, metric: str = "auc", **columns) -> list[dict]:
    """Rows of an attack within each class: members of the class against non-members of the class.

    Args:
        margins: of one attack, float64 (targets, trainings, n), as in `Measurements.margins`; the trainings' mean is
            judged. nan for a class without members or non-members among a target's candidates.
    """
    rows = []
    measure = {"auc": metrics.auc, "balanced_accuracy": metrics.balanced_accuracy}[metric]
    for i, (target, member, margin) in enumerate(
        zip(seen.targets, seen.member, margins.mean(1), strict=True)
    ):
        for number in range(target.log_posteriors.shape[-1]):
            own = target.labels[0] == number
            both = bool(member[own].any()) and not bool(member[own].all())
            value = measure(member[own].numpy(), margin[own].numpy()) if both else math.nan
            rows.append(results.row(metric, value, **seen.columns, **columns, target=i, class_=number))
    return rows


@dataclass(frozen=True)
class Measurements:
    """Tidy rows, and the margins behind them: margins[setting][attack] is float64 (targets, trainings, n)."""

    rows: list[dict]
    margins: dict[str, dict[str, Tensor]]
    member: dict[str, Tensor]

    def paired(self, a: str, b: str, columns: Mapping, metric: str = "auc") -> list[dict]:
        """Rows of b minus a for every attack, target and training; intervals over the paired examples.

        Args:
            columns: those of setting b; the rows' `variant` says what was subtracted.
        """
        variant = ", ".join(part for part in (columns.get("variant"), f"minus {a}") if part)
        return [
            results.row(
                f"{metric}_difference",
                metrics.paired_difference(
                    self.member[b][target].numpy(), before.numpy(), after.numpy(), metric
                ),
                **columns | {"variant": variant},
                attack=attack,
                target=target,
                seed=training,
            )
            for attack, found in self.margins[b].items()
            for target, pair in enumerate(zip(self.margins[a][attack], found, strict=True))
            for training, (before, after) in enumerate(zip(*pair, strict=True))
        ]


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


def attack(
    observations: Mapping[str, Observation],
    suite: Mapping[str, object],
    measures: Mapping[str, Callable] = metrics.STANDARD,
) -> Measurements:
    """Every attack of the suite on every target of every observation.

    Attack networks are trained first, over as many processes as `joblib.parallel_config(n_jobs=...)` allows, and
    cached one by one: an interrupted run goes on with the first one that is missing.

    Args:
        suite: name -> attack. An attack that has `fit` learns first: it needs `name`, `trainings`, fit(shadows,
            shadow_member, seeds) and judge(fitted, targets) -> (targets, trainings, n), as `NeuralAttack`.
        measures: name in the table -> measure(member, margin) -> Estimate; `decisions` has more. The caller
            names one with a parameter: {"precision_at_recall_0.5": partial(precision_at_recall, recall=0.5)}.
    """
    _train_networks(list(observations.values()), suite)
    rows, margins = [], {}
    for setting, seen in progress.follow(observations.items(), "attacks", "setting"):
        margins[setting] = {name: _margins(seen, one) for name, one in suite.items()}
        for name, found in margins[setting].items():
            for target, trainings in enumerate(found):
                for training, margin in enumerate(trainings):
                    rows += results.attack_rows(
                        seen.member[target].numpy(),
                        margin.numpy(),
                        measures,
                        **seen.columns,
                        attack=name,
                        target=target,
                        seed=training,
                        n_shadows=seen.n_shadows(target),
                    )
    return Measurements(rows, margins, {setting: seen.member for setting, seen in observations.items()})


def _margins(seen: Observation, one) -> Tensor:
    """(targets, trainings, n); attack networks are fetched once for all targets of an attacker."""
    found = []
    for targets, shadows, member in seen.attackers():
        if hasattr(one, "fit"):
            found.append(one.judge(one.fit(shadows, member), predict.together(targets)))
        else:
            found += [one(target, shadows, member, 0)[None, None] for target in targets]
    return torch.cat(found)


def _train_networks(observations, suite) -> None:
    networks = [one for one in suite.values() if hasattr(one, "fit")]
    if not networks:
        return
    # the same shadows stand in several observations (unaware attackers): train on them once
    shared = {(id(seen.shadows), str(seen.teachers)): seen for seen in observations}.values()
    shadows = [attacker[1:] for seen in shared for attacker in seen.attackers()]
    networks.sort(key=lambda one: one.name != "samia")  # the longest first, so that processes end together
    # in one process all trainings at once (on CUDA under vmap), else each as a task of its own
    together = effective_n_jobs(None) == 1
    jobs = [
        delayed(one.fit)(views, member, seeds)
        for one in networks
        for views, member in shadows
        for seeds in ([None] if together else [[seed] for seed in range(one.trainings)])
    ]
    done = Parallel(return_as="generator_unordered")(jobs)
    for _ in progress.follow(done, "attack networks", "fit", len(jobs)):
        pass
