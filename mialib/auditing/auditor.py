"""Audit your own networks: from saved answers, or from the networks themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mialib.auditing import answers as forms
from mialib.auditing import checks, exposed, imitating, input_checks, models, shadow_checks, yardsticks
from mialib.auditing.attacked import Attacked, by_half, by_imitations
from mialib.auditing.examples import examples_of, same_shape
from mialib.auditing.findings import NOTE, REFUSED, Finding
from mialib.auditing.imitating import Imitations
from mialib.auditing.report import Network, Report
from mialib.auditing.shadows import SavedShadows, Shadows
from mialib.auditing.verdicts import TOLERANCE
from mialib.data.tensors import kind_of
from mialib.measures import Estimate, metrics

ASSUMED = (
    "Intervals are over these examples, for these very networks. Networks trained anew would differ by more.",
    "Each interval, taken alone, misses the truth in about one audit of twenty.",
)
NOT_TRAINED = (
    "No shadow model was trained or looked at, since no verdict can be given on these examples and networks."
)


def audit(
    networks: Mapping[str, object],
    members: object,
    nonmembers: object,
    *,
    baseline: str | None = None,
    control: object = None,
    accuracy: float | None = None,
    shadows: Shadows | SavedShadows | None = None,
    tolerance: float = TOLERANCE,
    columns: Mapping[str, Mapping[str, object]] | None = None,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Report:
    """Did compressing a network change what it leaks? From the networks and their data.

    >>> import torch
    >>> from mialib import audit
    >>> _ = torch.manual_seed(0)
    >>> x, y = torch.randn(600, 20), torch.randint(0, 2, (600,))
    >>> network = torch.nn.Sequential(torch.nn.Linear(20, 256), torch.nn.ReLU(), torch.nn.Linear(256, 2))
    >>> adam = torch.optim.Adam(network.parameters(), 1e-2)
    >>> for step in range(100):  # it learns the first 300 by heart
    ...     adam.zero_grad()
    ...     torch.nn.functional.cross_entropy(network(x[:300]), y[:300]).backward()
    ...     adam.step()
    >>> halved = lambda x: network(x) / 2
    >>> report = audit({"original": network, "halved": halved}, members=(x[:300], y[:300]), nonmembers=(x[300:], y[300:]))
    >>> report.networks["original"].judged.auc.low > 0.7
    True

    Args:
        networks: name -> a torch module, the path of an ONNX, TorchScript or exported file, a `models.Checkpoint`, or any
            callable x -> logits or posteriors, such as a request to a server; it gets CPU tensors (batch, ...) and may return
            arrays. They are asked, and not changed.
        members, nonmembers: what the networks were trained on, and other examples of the same origin and preprocessing: a
            torch Dataset or DataLoader, a pair (x, y), a `data.Dataset`, an .npz file, or a folder of pictures.
        baseline: the name that the others are compared with; default: "original", else the first.
        control: a network that was changed as long as the compressed ones, but not compressed, or its name; or {name: its own
            control}, where they were changed for other times, with None where it was not changed further, only rounded.
            Controls are not compared.
        accuracy: what the networks should reach on examples that they were not trained on, 0..1, as you know it; far less is
            reported.
        shadows: your recipe, for an attacker who imitates the networks (`Shadows`), or what imitations say that you trained
            (`Shadows.from_answers`). Default: none, and the attacker uses thresholds. A recipe is run `n` times, which may
            take long; where the examples allow no verdict it is not run.
        tolerance, columns, seed: as of `audit_answers`.
        batch_size, device: how the networks are asked.

    Raises:
        ValueError: networks or examples that cannot be read or do not fit together; unknown names.
    """
    if not isinstance(networks, Mapping) or not networks:
        raise ValueError(
            f"networks must be a mapping from names to networks, found {type(networks).__name__}"
        )
    networks = {str(name): one for name, one in networks.items()}
    networks, control = yardsticks.with_controls(networks, control)
    # before any work
    wanted = _wanted(networks, baseline, control, accuracy, shadows, tolerance, columns, seed)
    # a file that is missing is told before the data are read
    ready = {name: models.opened(one, name=name, device=device) for name, one in networks.items()}
    inside, others = examples_of(members, "members"), examples_of(nonmembers, "nonmembers")
    same_shape(inside, others)
    said = input_checks.of_inputs(inside.x, inside.y, others.x, others.y, seed=seed)
    x, labels = torch.cat([inside.x, others.x]), torch.cat([inside.y, others.y])
    for name, one in ready.items():
        said += [Finding("note", "form", f"{name}: {note}") for note in one.notes]
        if not models.is_steady(one, x, name=name, batch_size=batch_size):
            text = f"{name} answers differently when it is asked twice; dropout may be on, or noise is added. Each was asked once."
            said.append(Finding("warning", "unsteady", text))
    how = {"batch_size": batch_size, "device": device}
    answers = {name: models.answers(one, x, name=name, **how) for name, one in ready.items()}
    member = torch.arange(len(labels)) < len(inside)
    found = _audited(answers, labels, member, said, wanted, x, **how)
    return replace(found, pictures=exposed.pictures([one.judged for one in found.networks.values()], x))


def audit_answers(
    answers: Mapping[str, object],
    labels: object,
    member: object,
    *,
    baseline: str | None = None,
    control: str | Mapping[str, str | None] | None = None,
    accuracy: float | None = None,
    shadows: SavedShadows | None = None,
    tolerance: float = TOLERANCE,
    columns: Mapping[str, Mapping[str, object]] | None = None,
    seed: int = 0,
) -> Report:
    """Did compressing a network change what it leaks? From saved answers alone.

    >>> import numpy as np
    >>> from mialib import audit_answers
    >>> rng = np.random.default_rng(0)
    >>> labels, member = rng.integers(0, 10, 2000), np.arange(2000) < 1000
    >>> def logits(leak):
    ...     right = np.eye(10)[labels] * (2 + leak * member[:, None])
    ...     return right + rng.normal(size=(2000, 10))
    >>> report = audit_answers({"original": logits(0.5), "pruned": logits(2.0)}, labels, member)
    >>> report.verdict("pruned")
    'leaks more'

    Args:
        answers: name -> logits, posteriors or log-posteriors (n, classes), arrays, lists or tensors; one network a name, all
            about the same n examples in the same order. (n,) of a network with a single output.
        labels: the true classes, int (n,), or one-hot (n, classes).
        member: (n,) 1 or True where the networks were trained on the example.
        baseline: the name that the others are compared with; default: "original", else the first.
        control: the name of a network that was changed as long as the compressed ones, but not compressed; or {name: the name
            of its own}, where they were changed for other times. Controls are not compared.
        accuracy: what the networks should reach on examples that they were not trained on, 0..1, as you know it; far less is
            reported.
        shadows: `Shadows.from_answers`, what imitations of the networks say about the same examples; default: none.
        tolerance: a rise of the AUC that does not matter.
        columns: name -> {title: value}, your own, for the table.
        seed: of the half that the attacker is given, or of what the shadow models learn.

    Returns:
        The report: verdict, table, `worst`, `check`, `to_html`, `to_json`.

    Raises:
        ValueError: answers, labels or membership that do not fit together; unknown names.
    """
    if not isinstance(answers, Mapping) or not answers:
        raise ValueError(f"answers must be a mapping from names to answers, found {type(answers).__name__}")
    answers = {str(name): one for name, one in answers.items()}
    if isinstance(shadows, Shadows):
        raise ValueError(
            "shadows are to be trained, and their inputs are not given; call mialib.audit, or pass Shadows.from_answers(...)"
        )
    wanted = _wanted(answers, baseline, control, accuracy, shadows, tolerance, columns, seed)
    return _audited(answers, labels, member, [], wanted)


@dataclass(frozen=True)
class _Wanted:
    """The options of an audit, checked."""

    baseline: str
    control: str | Mapping[str, str | None] | None
    accuracy: float | None
    shadows: Shadows | SavedShadows | None
    tolerance: float
    columns: Mapping[str, Mapping]
    seed: int


def _wanted(names, baseline, control, accuracy, shadows, tolerance, columns, seed) -> _Wanted:
    for what, share in (("accuracy", accuracy), ("tolerance", tolerance)):
        if share is not None and not 0 <= share <= 1:
            raise ValueError(f"{what} is {share!r}; it must be a share from 0 to 1")
    baseline, control = yardsticks.resolved(names, baseline, control)
    columns = dict(columns or {})
    for name in columns:
        yardsticks.named("columns", name, names)
    if shadows is not None and not isinstance(shadows, Shadows | SavedShadows):
        raise ValueError(
            f"shadows is a {kind_of(shadows)}; it must be mialib.Shadows(train, compress) or mialib.Shadows.from_answers(...)"
        )
    return _Wanted(baseline, control, accuracy, shadows, tolerance, columns, seed)


def _audited(
    answers: Mapping[str, object],
    labels,
    member,
    said: list[Finding],
    wanted: _Wanted,
    x: Tensor | None = None,
    **how,
) -> Report:
    """The report on answers of any form.

    Args:
        said: what was found before.
        x, how: inputs, and how networks are asked, for shadow models that are yet to be trained.
    """
    found = {name: forms.recognised(one, f"answers[{name!r}]") for name, one in answers.items()}
    shapes = {name: tuple(one.log_posteriors.shape) for name, one in found.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"all networks must answer for the same examples and classes, found {shapes}")
    n, classes = next(iter(shapes.values()))
    labels, member = forms.labels_of(labels, n, classes), forms.membership(member, n)
    said = said + _seen(found, labels, member, wanted.accuracy)
    posteriors = {name: one.log_posteriors for name, one in found.items()}
    shadows, given = wanted.shadows, (labels, member)
    if shadows is not None and any(one.kind == REFUSED for one in said):
        shadows, said = None, [*said, Finding(NOTE, "shadows", NOT_TRAINED)]
    if shadows is None:
        said += checks.of_size(*(int(side.sum()) - int(side.sum()) // 2 for side in (member, ~member)))
        attacked = by_half(posteriors, *given, wanted.seed)
    else:
        names = [wanted.baseline, *(name for name in found if name != wanted.baseline)]
        if isinstance(shadows, SavedShadows):
            imitations = imitating.given(shadows, n, classes, names)
        else:
            imitations = imitating.trained(shadows, x, labels, member, names, classes, wanted.seed, **how)
        said += _seen_of_imitations(imitations, posteriors, labels, member)
        attacked = by_imitations(posteriors, *given, wanted.baseline, imitations, wanted.seed)
    return _report(found, labels, member, said, wanted, attacked)


def _report(
    found, labels: Tensor, member: Tensor, said: list[Finding], wanted: _Wanted, attacked: Attacked
) -> Report:
    networks = {
        name: Network(
            one.kind,
            _accuracy(one.log_posteriors, labels, member),
            attacked.alone[name],
            wanted.columns.get(name, {}),
        )
        for name, one in found.items()
    }
    said = said + checks.of_results(
        {name: one.accuracy[1] for name, one in networks.items()},
        {name: one.judged.auc for name, one in networks.items()},
        wanted.baseline,
    )
    assumed = attacked.assumed + ASSUMED
    return Report(networks, wanted.baseline, wanted.control, said, assumed, wanted.tolerance, attacked)


def _seen(found, labels: Tensor, member: Tensor, accuracy: float | None) -> list[Finding]:
    """What is looked at before any number."""
    classes = next(iter(found.values())).log_posteriors.shape[1]
    said = checks.of_labels(labels[member], labels[~member], classes)
    for name, one in found.items():
        said += checks.of_answers(one.log_posteriors, labels, member, name, accuracy)
        said += [Finding("warning", "rounded", f"{name}: {one.note}", name)] if one.note else []
    kinds = ", ".join(f"{name}: {one.kind}" for name, one in found.items())
    return [*said, Finding(NOTE, "kinds", f"The answers were taken for: {kinds}.")]


def _seen_of_imitations(imitations: Imitations, posteriors, labels: Tensor, member: Tensor) -> list[Finding]:
    """Are there enough candidates, and are the imitations like the networks?"""
    rows = imitations.candidates
    side = member[rows]
    said = checks.of_size(int(side.sum()), int((~side).sum())) + shadow_checks.of_sizes(
        imitations.sizes, int(member.sum())
    )
    for name, one in posteriors.items():
        right = one[rows].argmax(1) == labels[rows]
        theirs = imitations.answers[name].argmax(2) == labels[rows]
        said += shadow_checks.of_accuracies(name, right, side, theirs, imitations.member)
    return said


def _accuracy(log_posteriors: Tensor, labels: Tensor, member: Tensor) -> tuple[Estimate, Estimate]:
    right = log_posteriors.argmax(1) == labels
    return tuple(metrics.share(int(right[side].sum()), int(side.sum())) for side in (member, ~member))
