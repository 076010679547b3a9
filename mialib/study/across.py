"""Across the arms of a study: fair rivals, how far two arms are apart, which quantities go together over all networks."""

from collections.abc import Callable, Hashable, Iterable, Mapping

import numpy as np
import pandas as pd

from mialib.measures import Estimate
from mialib.study.arms import Arm
from mialib.study.attackers import Attacker
from mialib.study.study import Study


def near(study: Study, arm: Arm, others: Iterable[Arm], slack: float) -> list[Arm]:
    """The others that are about as accurate as an arm: whoever claims to be better must beat every one of them.

    slack: how far mean test accuracies may lie apart, a share.
    """
    own = study.values(arm, "test_accuracy").mean()
    return [one for one in others if abs(study.values(one, "test_accuracy").mean() - own) <= slack]


def rival(
    study: Study, arm: Arm, others: Iterable[Arm], leak: Mapping[Arm, np.ndarray], slack: float
) -> Arm | None:
    """The one of the others `near` an arm that leaks least; None if there is none.

    It is chosen by the quantity it is compared by: a description, no ground for a verdict.

    Args:
        leak: of each of the others, (targets,).
        slack: how far mean test accuracies may lie apart, a share.
    """
    return min(near(study, arm, others, slack), key=lambda one: leak[one].mean(), default=None)


def share_lost(
    study: Study, before: Arm, after: Arm, metric: str, attack: str, chance: float = 0.5
) -> np.ndarray:
    """The share of what an attack finds above chance before that is gone after, (targets,).

    1 where all is gone, below 0 where it finds more than before, infinite or nan if there was nothing to lose.
    """
    had, kept = (study.values(arm, metric, attack) - chance for arm in (before, after))
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - kept / had


def accuracies_apart(study: Study, a: Arm, b: Arm) -> dict[str, float]:
    """Accuracy of a minus that of b, mean over targets: "test" and "training"."""
    test, gap = (
        study.difference(a, b, metric, pair="target").value
        for metric in ("test_accuracy", "generalization_gap")
    )
    return {"test": test, "training": test + gap}


def rank_correlations(
    of: Mapping[Hashable, np.ndarray], **others: Mapping[Hashable, np.ndarray]
) -> dict[str, np.ndarray]:
    """Spearman's correlation of one quantity with each of the others over arms, target by target: name -> (targets,).

    Arms that agree in all these quantities are one network under two names, and count once.

    Args:
        of, others: of each arm (targets,). Arms are those of `of`.
    """
    found: dict[str, list[float]] = {name: [] for name in others}
    for target in range(len(next(iter(of.values())))):
        frame = pd.DataFrame(
            {"of": {arm: values[target] for arm, values in of.items()}}
            | {name: {arm: other[arm][target] for arm in of} for name, other in others.items()}
        )
        correlation = frame.drop_duplicates().corr(method="spearman")["of"]
        for name in others:
            found[name].append(correlation[name])
    return {name: np.array(values) for name, values in found.items()}


def judged(
    study: Study, who: Arm | Attacker, attack: str, measure: Callable[..., Estimate], **attacker
) -> np.ndarray:
    """A measure of an attack that is not in the rows, (targets,) float64: the mean over its trainings.

    Args:
        measure: measure(member, margin) -> Estimate, like those of `measures.decisions`.
        attacker: believing, knowing, as in `Study.attack`.
    """
    who = study.attacker(who, **attacker)
    targets = zip(who.member.numpy(), study.margins(who, attack).numpy(), strict=True)
    return np.array(
        [np.mean([measure(member, margin).value for margin in margins]) for member, margins in targets]
    )
