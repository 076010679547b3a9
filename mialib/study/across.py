"""Across the arms of a study: fair rivals, how far two arms are apart, which quantities go together over all networks."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mialib.measures import Estimate, WithTest, extremes
from mialib.study.arms import Arm
from mialib.study.attackers import Attacker
from mialib.study.study import Study


class Rivalry(NamedTuple):
    """An arm against its rivals, of `at_equal_accuracy`.

    difference: the leak of the rivals minus that of the arm: above 0 if the arm is the better one, below 0 if a rival is.
    settled: whether the difference says so. It does not where nobody is as accurate and nobody better on both sides.
    closest: the rival to name beside it. Of those at least as accurate, else of all, the one that leaks least.
    apart: its accuracy on the reserve minus the arm's.
    """

    difference: WithTest
    settled: bool
    closest: Arm
    apart: float


def at_equal_accuracy(
    study: Study,
    arm: Arm,
    rivals: Iterable[Arm],
    tried: Mapping[Arm, Sequence[np.ndarray]],
    slack: float,
) -> Rivalry:
    """Whether an arm leaks less than its rivals at no loss of accuracy, or one of them leaks less than it.

    Accuracy is that on the reserve (metric `reserve_accuracy`), mean over targets: no candidate of an attack has a say in
    who meets whom. Who is more accurate and leaks less is better on both sides. Who is more accurate and leaks more has
    made another choice, which settles nothing. So:

    - every rival at least as accurate must leak more than the arm: one that leaks less has beaten it;
    - one rival at most as accurate must leak more: else the arm has beaten nobody. Where a rival is as accurate, this
      follows from the first.

    Both are about extremes of several, and take their intervals from `measures.extremes`.

    Args:
        tried: of the arm and each rival the values of every attack, each (targets,), as of `Study.tried`.
        slack: how far accuracies may lie apart and count as equal, a share.

    Raises:
        ValueError: no rival, or an accuracy on the reserve that was not measured.
    """
    rivals = list(rivals)
    if not rivals:
        raise ValueError(f"rivals is empty; {arm.key!r} needs at least one to be compared with")
    own = study.values(arm, "reserve_accuracy").mean()
    apart = {one: float(study.values(one, "reserve_accuracy").mean() - own) for one in rivals}
    # accuracies are shares, slack a round number
    at_least = [one for one in rivals if apart[one] >= -slack - 1e-9]
    at_most = [one for one in rivals if apart[one] <= slack + 1e-9]
    closest = min(at_least or rivals, key=lambda one: max(values.mean() for values in tried[one]))
    found = []
    if at_least:
        found.append(extremes.weakest_against_best([tried[one] for one in at_least], tried[arm]))
    if len(at_least) + len(at_most) > len(rivals):  # some are as accurate
        return Rivalry(found[0], True, closest, apart[closest])
    if at_most:
        found.append(extremes.best_against_best([one for each in at_most for one in tried[each]], tried[arm]))
    worst = min(found, key=lambda one: one.low)
    beaten = bool(at_least) and found[0].high < 0
    settled = beaten or bool(at_most) and worst.low > 0
    return Rivalry(found[0] if beaten else worst, settled, closest, apart[closest])


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
