"""From an arm to tidy rows that need no margins: utility, divergence, calibration, dispersion, distortion, cost, inversion,
the most vulnerable; and, from margins, an audited epsilon. `Study.measure` takes these functions.
"""

from collections.abc import Iterator, Mapping

from torch import Tensor

from mialib import asking, measures
from mialib.asking import posteriors
from mialib.attacks import inversion, signals
from mialib.compression import size
from mialib.data import splits
from mialib.measures import epsilon, vulnerability
from mialib.measures.calibration import calibration_error, calibration_error_by_chance
from mialib.models.decoders import squared_error
from mialib.study.arms import Arm
from mialib.study.rows import tidy_row
from mialib.training import Population


def utility(arm: Arm) -> list[dict]:
    """Rows about each target itself: epochs trained, accuracies, gap (train - test), non-zero weights, bytes."""
    targets, data = arm.networks, arm.roles.data
    split = arm.roles.split[arm.roles.targets]
    train, test, reserve = (
        asking.accuracy(targets, data, mask) for mask in (split.member, split.test, split.reserve)
    )
    sizes = size.sizes(targets.params)
    rows = []
    for i in range(len(targets)):
        measured = {
            "epochs": _epochs(targets.records[i]) if targets.records else None,
            "test_accuracy": test[i],
            "reserve_accuracy": reserve[i],
            "generalization_gap": train[i] - test[i],
            "sparsity": 1 - sizes[i].density,
            "nonzero_parameters": sizes[i].nonzero,
            "sparse_bytes": sizes[i].sparse_bytes,
        }
        rows += _rows(measured, arm.columns, i)
    return rows


def _epochs(record: dict) -> int:
    """Epochs behind a model's weights: up to the best one, or all."""
    return record["best_epoch"] + 1 if "best_epoch" in record else len(record["loss"])


def divergence(arm: Arm) -> list[dict]:
    """Rows of prediction divergence: each target's confidence gap and sensitivity gap, overall and for each class."""
    rows = []
    for i, (target, member) in enumerate(zip(arm.targets(sensitive=True), arm.member, strict=True)):
        gaps = {
            "confidence_gap": signals.confidence_gap(target.log_posteriors[0], target.labels[0], member),
            "sensitivity_gap": signals.sensitivity_gap(target.sensitivity[0], target.labels[0], member),
        }
        for metric, gap in gaps.items():
            rows.append(tidy_row(metric, gap.overall, **arm.columns, target=i))
            rows += [
                tidy_row(metric, value, **arm.columns, target=i, class_=number)
                for number, value in enumerate(gap.per_class)
            ]
    return rows


def calibration(arm: Arm) -> list[dict]:
    """Rows on how far each target's posteriors can be believed, from its observed answers: no new queries.

    calibration_error is taken on the non-members among the candidates; calibration_error_by_chance is its average if
    the same posteriors were true; member_loss and test_loss are the mean cross-entropies in nats of members and of
    non-members, with at most `posteriors.LIMIT` for each example.
    """
    rows = []
    for i, (target, member) in enumerate(zip(arm.targets(), arm.member, strict=True)):
        log_p, labels = target.log_posteriors[0], target.labels[0]
        loss = -posteriors.true_class(log_p, labels).clamp(min=-posteriors.LIMIT)
        measured = {
            "calibration_error": calibration_error(log_p[~member], labels[~member]),
            "calibration_error_by_chance": calibration_error_by_chance(log_p[~member]),
            "member_loss": loss[member].mean(),
            "test_loss": loss[~member].mean(),
        }
        rows += _rows(measured, arm.columns, i)
    return rows


def accuracy(arm: Arm) -> list[dict]:
    """Rows on each target's observed answers: test_accuracy and generalization_gap, without new queries.

    For arms that `utility` cannot ask, such as networks behind an output defence; of equal posteriors the first counts.
    """
    rows = []
    for i, (target, member) in enumerate(zip(arm.targets(), arm.member, strict=True)):
        right = target.log_posteriors[0].argmax(-1) == target.labels[0]
        train, test = (right[side].double().mean() for side in (member, ~member))
        rows += _rows({"test_accuracy": test, "generalization_gap": train - test}, arm.columns, i)
    return rows


def dispersion(arm: Arm) -> list[dict]:
    """Rows on how far each target's answers spread (`measures.spread`), of members (member_entropy, ...) and of others.

    With beyond_the_label, how much an answer says that its predicted class does not.
    """
    rows = []
    for i, side, mask in _sides(arm):
        answers = arm.targets()[i].log_posteriors[0, mask]
        measured = measures.spread(answers)._asdict()
        measured["beyond_the_label"] = measures.beyond_the_label(answers)
        rows += _rows(measured, arm.columns, i, side)
    return rows


def distortion(arm: Arm) -> list[dict]:
    """Rows on how the output defence before an arm changes each target's answers: mean L1 distortion, label loss.

    Raises:
        ValueError: no defence stands before it.
    """
    if arm.before is None:
        raise ValueError(f"{arm} serves its own answers; distortion is that of an output defence")
    rows = []
    for i, side, mask in _sides(arm):
        pair = [one.targets()[i].log_posteriors[0, mask] for one in (arm.before, arm)]
        measured = {"distortion": measures.distortion(*pair), "label_loss": measures.label_loss(*pair)}
        rows += _rows(measured, arm.columns, i, side)
    return rows


def cost(arm: Arm) -> list[dict]:
    """Rows on what strangers are served: all examples that are neither members nor in the reserve of a target.

    rest_accuracy; behind an output defence also rest_label_loss and rest_distortion (mean L1).
    """
    data, roles = arm.roles.data, arm.roles
    split = roles.split[roles.targets]
    rest = splits.indices(~(split.member | split.reserve))
    answers = arm.answer(data, rest)
    measured = {"rest_accuracy": (answers.argmax(-1) == data.y.cpu()[rest]).double().mean(1)}
    if arm.before is not None:
        plain = arm.before.answer(data, rest)
        measured["rest_label_loss"] = measures.label_loss(plain, answers)
        measured["rest_distortion"] = measures.distortion(plain, answers)
    of_targets = [{name: values[i] for name, values in measured.items()} for i in range(len(answers))]
    return [row for i, one in enumerate(of_targets) for row in _rows(one, arm.columns, i)]


def rebuilt(arm: Arm, drawn: Tensor, truth: Tensor, classifier: Population) -> list[dict]:
    """Rows on the pictures of an inversion attack: mean error per pixel, share recognised; for pictures similarity and PSNR.

    Of members (member_inversion_error, ...) and of others (test_inversion_error, ...), for each target on its own.

    Args:
        drawn, truth: (targets, n, ...) in [0, 1], in the order of each target's candidates.
        classifier: the independent one that recognises the pictures, see `inversion.named`.
    """
    rows, data = [], arm.roles.data
    of = {"inversion_error": squared_error(drawn, truth)}
    if data.is_image:
        of |= {"ssim": inversion.ssim(drawn, truth), "psnr": inversion.psnr(drawn, truth)}
    for i, side, mask in _sides(arm):
        measured = {metric: values[i, mask].mean() for metric, values in of.items()}
        labels = arm.targets()[i].labels[:, mask]
        measured["named"] = inversion.named(classifier, data, drawn[[i]][:, mask], labels)[0]
        rows += _rows(measured, arm.columns, i, side)
    return rows


def epsilon_lower(arm: Arm, margins: Tensor, delta: float = 0.0, level: float = epsilon.LEVEL) -> list[dict]:
    """Rows on the least epsilon that each target's training can have, from guesses about its canaries: epsilon_lower.

    They stand beside the accountant's, which `Study.note` notes as epsilon. From `measures.epsilon.of_one_run` for each
    target; the trainings of an attack network count as one attack, by their mean margins. Name the attack:

        study.measure(partial(epsilon_lower, margins=study.margins(arm, "lira_online")), arm, attack="lira_online")

    Args:
        margins: (targets, trainings, n), `Study.margins` of the arm.
        delta: of the accountant's (epsilon, delta).
        level: how often a bound may be wrong.

    Raises:
        ValueError: candidates that are not canaries, members by independent coins; what `of_one_run` refuses.
    """
    _check_canaries(arm)
    bounds = [
        epsilon.of_one_run(member, margin, delta=delta, level=level)
        for member, margin in zip(arm.member, margins.mean(1), strict=True)
    ]
    return [row for i, bound in enumerate(bounds) for row in _rows({"epsilon_lower": bound}, arm.columns, i)]


def epsilon_lower_of_many(arm: Arm, delta: float = 0.0, level: float = epsilon.LEVEL) -> list[dict]:
    """Rows on the same from one canary in many models, targets and shadows: epsilon_lower_of_many, about the recipe.

    From `measures.epsilon.of_many_models` of the log-odds. It is about the way in which all of them are trained, so every
    target has the same row.

    Raises:
        ValueError: as in `epsilon_lower`.
    """
    _check_canaries(arm)
    bound = epsilon.of_many_models(*population_signal(arm), delta=delta, level=level).bound
    return [
        row for i in range(len(arm.member)) for row in _rows({"epsilon_lower_of_many": bound}, arm.columns, i)
    ]


def vulnerable(arm: Arm, share: float = 0.01) -> list[dict]:
    """Rows on the examples that the average hides: leak_of_worst_0.01, the share of all leak that the worst 1 % carry.

    From `measures.vulnerability.worst_share` of the log-odds of all models, targets and shadows; every target has the
    same row.

    Raises:
        ValueError: models that were not asked about the same candidates; what `worst_share` refuses.
    """
    worst = vulnerability.worst_share(*population_signal(arm), share=share)
    return [
        row
        for i in range(len(arm.member))
        for row in _rows({f"leak_of_worst_{share:g}": worst}, arm.columns, i)
    ]


def population_signal(arm: Arm) -> tuple[Tensor, Tensor]:
    """The signal of all models of a study on its candidates, and their members: the arguments of `measures.vulnerability`.

    Returns:
        The log-odds of the true class, float64 (k, n), and bool (k, n).

    Raises:
        ValueError: models that were not asked about the same candidates.
    """
    if not arm.roles.same_candidates:
        raise ValueError(
            f"the models of {arm} were asked about candidates of their own; take a study of splits.random_halves or of "
            "canaries.mislabelled"
        )
    shadows = arm.shadows()
    return signals.confidence(shadows.log_posteriors, shadows.labels), arm.roles.member[arm.roles.shadows]


def _check_canaries(arm: Arm) -> None:
    if arm.columns["protocol"] != "canaries":
        raise ValueError(
            "an audit counts guesses about canaries, each a member by a coin of its own, and the protocol of "
            f'{arm} is {arm.columns["protocol"]!r}: take Study(..., candidates=chosen, protocol="canaries")'
        )


def _sides(arm: Arm) -> Iterator[tuple[int, str, Tensor]]:
    """For each target its members, then the others: its number, the start of their metrics' names, bool (n,)."""
    for i, member in enumerate(arm.member):
        yield i, "member_", member
        yield i, "test_", ~member


def _rows(measured: Mapping, columns: Mapping, target: int, side: str = "") -> list[dict]:
    """A row for each measure of a target, or of one side of its candidates."""
    return [tidy_row(side + metric, value, **columns, target=target) for metric, value in measured.items()]
