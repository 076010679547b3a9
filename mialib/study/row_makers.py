"""From models, and from what is observed of them, to tidy rows that need no attacker: utility, divergence, calibration,
distortion, what an inversion rebuilt; and an attack's rows class by class.
"""

import math
from collections.abc import Iterator, Mapping

from torch import Tensor

from mialib import asking, measures
from mialib.asking import posteriors
from mialib.attacks import inversion, signals
from mialib.compression import size
from mialib.data import Dataset, Splits
from mialib.measures import metrics
from mialib.measures.calibration import calibration_error
from mialib.models.decoders import squared_error
from mialib.study.observations import Observation
from mialib.study.rows import tidy_row
from mialib.training import Population


def utility(population: Population, data: Dataset, split: Splits, n_targets: int, **columns) -> list[dict]:
    """Rows on each target itself: epochs trained, accuracies, gap (train - test), non-zero weights, bytes."""
    targets = population[:n_targets]
    train, test, reserve = (
        asking.accuracy(targets, data, mask[:n_targets]) for mask in (split.member, split.test, split.reserve)
    )
    sizes = size.sizes(targets.params)
    rows = []
    for i in range(n_targets):
        measured = {
            "epochs": _epochs(targets.records[i]) if targets.records else None,
            "test_accuracy": test[i],
            "reserve_accuracy": reserve[i],
            "generalization_gap": train[i] - test[i],
            "sparsity": 1 - sizes[i].density,
            "nonzero_parameters": sizes[i].nonzero,
            "sparse_bytes": sizes[i].sparse_bytes,
        }
        rows += _rows(measured, columns, i)
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
            rows.append(tidy_row(metric, gap.overall, **seen.columns, target=i))
            rows += [
                tidy_row(metric, value, **seen.columns, target=i, class_=number)
                for number, value in enumerate(gap.per_class)
            ]
    return rows


def calibration(seen: Observation) -> list[dict]:
    """Rows on how far each target's posteriors can be believed, from what was observed: no new queries.

    calibration_error is that on the non-members among the candidates; member_loss and test_loss are the mean
    cross-entropies in nats of members and of non-members, an example's being at most `posteriors.LIMIT`.
    """
    rows = []
    for i, (target, member) in enumerate(zip(seen.targets, seen.member, strict=True)):
        log_p, labels = target.log_posteriors[0], target.labels[0]
        loss = -posteriors.true_class(log_p, labels).clamp(min=-posteriors.LIMIT)
        measured = {
            "calibration_error": calibration_error(log_p[~member], labels[~member]),
            "member_loss": loss[member].mean(),
            "test_loss": loss[~member].mean(),
        }
        rows += _rows(measured, seen.columns, i)
    return rows


def accuracy(seen: Observation) -> list[dict]:
    """Rows on each target's answers as they were observed: test_accuracy and generalization_gap, without new queries.

    For what `utility` cannot ask, as networks behind an output defence; of equal posteriors the first class counts.
    """
    rows = []
    for i, (target, member) in enumerate(zip(seen.targets, seen.member, strict=True)):
        right = target.log_posteriors[0].argmax(-1) == target.labels[0]
        train, test = (right[side].double().mean() for side in (member, ~member))
        rows += _rows({"test_accuracy": test, "generalization_gap": train - test}, seen.columns, i)
    return rows


def dispersion(seen: Observation) -> list[dict]:
    """Rows on how far each target's answers spread (`measures.spread`), of members (member_entropy, ...) and of others.

    With beyond_the_label, what an answer says that its predicted class does not.
    """
    rows = []
    for i, side, mask in _sides(seen):
        answers = seen.targets[i].log_posteriors[0][mask]
        measured = measures.spread(answers)._asdict()
        measured["beyond_the_label"] = measures.beyond_the_label(answers)
        rows += _rows(measured, seen.columns, i, side)
    return rows


def distortion(seen: Observation, before: Observation) -> list[dict]:
    """Rows on what an output defence did to each target's answers: mean L1 distortion and label loss, by side.

    Args:
        seen: `before.served(defense)`.
    """
    rows = []
    for i, side, mask in _sides(seen):
        pair = [targets[i].log_posteriors[0][mask] for targets in (before.targets, seen.targets)]
        measured = {"distortion": measures.distortion(*pair), "label_loss": measures.label_loss(*pair)}
        rows += _rows(measured, seen.columns, i, side)
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
    of = {"inversion_error": squared_error(drawn, truth)}
    if data.is_image:
        of |= {"ssim": inversion.ssim(drawn, truth), "psnr": inversion.psnr(drawn, truth)}
    for i, side, mask in _sides(seen):
        measured = {metric: values[i, mask].mean() for metric, values in of.items()}
        labels = seen.targets[i].labels[:, mask]
        measured["named"] = inversion.named(classifier, data, drawn[[i]][:, mask], labels)[0]
        rows += _rows(measured, columns, i, side)
    return rows


def _sides(seen: Observation) -> Iterator[tuple[int, str, Tensor]]:
    """For each target its members, then the others: its number, what their metrics' names begin with, bool (n,)."""
    for i, member in enumerate(seen.member):
        yield i, "member_", member
        yield i, "test_", ~member


def _rows(measured: Mapping, columns: Mapping, target: int, side: str = "") -> list[dict]:
    """A row for each measure of a target, or of one side of its candidates."""
    return [tidy_row(side + metric, value, **columns, target=target) for metric, value in measured.items()]


def leak_by_class(seen: Observation, margins: Tensor, metric: str = "auc", **columns) -> list[dict]:
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
            rows.append(tidy_row(metric, value, **seen.columns, **columns, target=i, class_=number))
    return rows
