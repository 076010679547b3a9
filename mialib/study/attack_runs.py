"""Every attack on every target: from what attackers observe to margins and rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from joblib import Parallel, delayed, effective_n_jobs
from torch import Tensor

from mialib import asking, progress
from mialib.asking import Views
from mialib.measures import metrics
from mialib.study.observations import Observation
from mialib.study.rows import attack_rows, tidy_row
from mialib.training.hooks import Attack, LearningAttack, NetworkAttack


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
            tidy_row(
                f"{metric}_difference",
                metrics.paired_difference(
                    self.member[b][target].numpy(), before.numpy(), after.numpy(), metric
                ),
                **columns | {"variant": variant},
                attack=name,
                target=target,
                seed=training,
            )
            for name, margins in self.margins[b].items()
            for target, pair in enumerate(zip(self.margins[a][name], margins, strict=True))
            for training, (before, after) in enumerate(zip(*pair, strict=True))
        ]


def attack(
    observations: Mapping[str, Observation],
    suite: Mapping[str, Attack[Views]],
    measures: Mapping[str, Callable] = metrics.STANDARD,
) -> Measurements:
    """Every attack of the suite on every target of every observation.

    Attack networks are trained first, over as many processes as `joblib.parallel_config(n_jobs=...)` allows, and
    cached one by one: an interrupted run goes on with the first one that is missing.

    Args:
        suite: name -> attack. A `training.hooks.NetworkAttack` (as `NeuralAttack`) learns first; a `LearningAttack`
            there asks the shadows once for all targets.
        measures: name in the table -> measure(member, margin) -> Estimate; `measures.decisions` has more. The caller
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
        for row in attack_rows(
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


def _margins(seen: Observation, name: str, one: Attack[Views], learned: dict) -> Tensor:
    """(targets, trainings, n); what is learned from shadows is learned once for all targets and settings they serve."""
    margins = []
    for targets, shadows, member in seen.attackers():
        if isinstance(one, NetworkAttack):
            margins.append(one.judge(one.fit(shadows, member), asking.together(targets)))
        elif isinstance(one, LearningAttack):
            known = name, id(shadows)  # kept along below, so that no other views come to have its id
            if known not in learned:
                learned[known] = one.learn(shadows, member, 0), shadows
            margins += [learned[known][0](target)[None, None] for target in targets]
        else:
            margins += [one(target, shadows, member, 0)[None, None] for target in targets]
    return torch.cat(margins)


def _train_networks(observations: list[Observation], suite: Mapping[str, Attack[Views]]) -> None:
    networks = [one for one in suite.values() if isinstance(one, NetworkAttack)]
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
