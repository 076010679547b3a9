"""From what attackers observe to a table: every attack on every target, one tidy row a measurement."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from joblib import Parallel, delayed, effective_n_jobs
from torch import Tensor

from mialib import metrics, predict, progress, results, scores
from mialib.attacks import inversion, signals
from mialib.compression import size
from mialib.data import Dataset
from mialib.observation import Observation, known_half, observe, observe_halves, transfers
from mialib.population import Population
from mialib.splits import Splits

__all__ = [
    "Measurements", "Observation", "accuracy", "attack", "calibration", "dispersion", "distortion", "divergence", "known_half", "observe",
    "observe_halves", "per_class", "rebuilt", "transfers", "utility",
]  # fmt: skip


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


def dispersion(seen: Observation) -> list[dict]:
    """Rows on how far each target's answers spread (`scores.dispersion`), of members (member_entropy, ...) and of others.

    With beyond_the_label, what an answer says that its predicted class does not.
    """
    rows = []
    for i, (target, member) in enumerate(zip(seen.targets, seen.member, strict=True)):
        for side, mask in (("member", member), ("test", ~member)):
            answers = target.log_posteriors[0][mask]
            found = scores.dispersion(answers)._asdict()
            found["beyond_the_label"] = scores.beyond_the_label(answers)
            rows += _of_side(side, found, seen.columns, i)
    return rows


def distortion(seen: Observation, before: Observation) -> list[dict]:
    """Rows on what an output defence did to each target's answers: mean L1 distortion and label loss, by side.

    Args:
        seen: `before.served(defense)`.
    """
    rows = []
    for i, (target, raw, member) in enumerate(zip(seen.targets, before.targets, seen.member, strict=True)):
        for side, mask in (("member", member), ("test", ~member)):
            pair = raw.log_posteriors[0][mask], target.log_posteriors[0][mask]
            found = {"distortion": scores.distortion(*pair), "label_loss": scores.label_loss(*pair)}
            rows += _of_side(side, found, seen.columns, i)
    return rows


def rebuilt(
    seen: Observation,
    drawn: Tensor,
    truth: Tensor,
    columns: Mapping,
    classifier: Population,
    data: Dataset,
) -> list[dict]:
    """Rows on what an inversion attack drew: mean error per pixel, share named, and of pictures similarity and PSNR.

    Of members (member_inversion_error, ...) and of others (test_inversion_error, ...), each target by itself.

    Args:
        drawn, truth: (targets, n, ...) in [0, 1], in the order of each target's candidates in `seen`.
        columns: the setting; `seen` gives who is a member and the labels.
        classifier, data: the independent one that names what was drawn, see `inversion.named`.
    """
    rows = []
    of = {"inversion_error": inversion.squared_error(drawn, truth)}
    if data.is_image:
        of |= {"ssim": inversion.ssim(drawn, truth), "psnr": inversion.psnr(drawn, truth)}
    for i, member in enumerate(seen.member):
        labels = seen.targets[i].labels[0]
        for side, mask in (("member", member), ("test", ~member)):
            found = {metric: values[i, mask].mean() for metric, values in of.items()}
            found["named"] = inversion.named(classifier, data, drawn[[i]][:, mask], labels[None, mask])[0]
            rows += _of_side(side, found, columns, i)
    return rows


def _of_side(side: str, found: Mapping, columns: Mapping, target: int) -> list[dict]:
    """A row for each measure of one side of a target's candidates, named member_... or test_..."""
    return [
        results.row(f"{side}_{metric}", value, **columns, target=target) for metric, value in found.items()
    ]


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
            shadow_member, seeds) and judge(fitted, targets) -> (targets, trainings, n), as `NeuralAttack`. One that
            has learn(shadows, shadow_member, seed) -> margins(target) asks the shadows once for all targets.
        measures: name in the table -> measure(member, margin) -> Estimate; `decisions` has more. The caller
            names one with a parameter: {"precision_at_recall_0.5": partial(precision_at_recall, recall=0.5)}.
    """
    rows, margins, learned = [], {}, {}
    with progress.bar(2, "attacks", "half") as shown:  # the networks learn, then all judge
        _train_networks(list(observations.values()), suite)
        shown.update()
        for setting, seen in progress.follow(observations.items(), "settings", "setting"):
            margins[setting] = {name: _margins(seen, name, one, learned) for name, one in suite.items()}
            rows += _rows(seen, margins[setting], measures)
    return Measurements(rows, margins, {setting: seen.member for setting, seen in observations.items()})


def _rows(seen: Observation, margins: Mapping[str, Tensor], measures: Mapping[str, Callable]) -> list[dict]:
    """A row for each attack, target, training and measure of one setting."""
    return [
        row
        for name, of_targets in margins.items()
        for target, trainings in enumerate(of_targets)
        for training, margin in enumerate(trainings)
        for row in results.attack_rows(
            seen.member[target].numpy(),
            margin.numpy(),
            measures,
            **seen.columns,
            attack=name,
            target=target,
            seed=training,
            n_shadows=seen.n_shadows(target),
        )
    ]


def _margins(seen: Observation, name: str, one, learned: dict) -> Tensor:
    """(targets, trainings, n); what is learned from shadows is learned once for all targets and settings they serve."""
    found = []
    for targets, shadows, member in seen.attackers():
        if hasattr(one, "fit"):
            found.append(one.judge(one.fit(shadows, member), predict.together(targets)))
        elif hasattr(one, "learn"):
            known = name, id(shadows)  # kept along below, so that no other views come to have its id
            if known not in learned:
                learned[known] = one.learn(shadows, member, 0), shadows
            found += [learned[known][0](target)[None, None] for target in targets]
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
        delayed(one.fit)(views.answers(), member, seeds)
        for one in networks
        for views, member in shadows
        for seeds in ([None] if together else [[seed] for seed in range(one.trainings)])
    ]
    done = Parallel(return_as="generator_unordered")(jobs)
    for _ in progress.follow(done, "attack networks", "fit", len(jobs)):
        pass
