"""Who attacks the audited networks, and what they find: with half of the members known, or with imitations of the networks."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mialib.attacks import pairs, suites, threshold
from mialib.auditing import judging
from mialib.auditing.imitating import Imitations
from mialib.auditing.judging import Judged, OnCanaries
from mialib.study import accuracy, outside

BY_HALF = (
    "The attacker knows half of the members and of the others, sees the scores, and uses thresholds on them. Attackers who train "
    "shadow models can find more, and for them the difference may be another one."
)
BY_SHADOWS = (
    "The attacker has {s} imitations of each network, trained by the same recipe on other members drawn from the same examples. "
    "They see the scores and judge each example by what imitations say that have learned it or have not. With more imitations "
    "they can find more."
)
KNOWN = "They know {known:,} members, which all imitations have learned; nobody is judged on these."


@dataclass(frozen=True)
class Attacked:
    """What was found.

    Args:
        alone: what the strongest attack finds in each network.
        together: for each network but the baseline, what an attacker with imitations finds who holds the baseline too: with
            both, or with the one of them that is expected to give more away.
        canaries: what the recipes leak of canaries; empty where none were planted.
        rows: the study's tidy rows; those of imitations, as if they were attacked, have "trained anew" in their variant.
        assumed: sentences about the attacker.
        imitations: how many of each network there are.
    """

    alone: Mapping[str, Judged]
    together: Mapping[str, Judged]
    rows: list[dict]
    assumed: tuple[str, ...]
    imitations: int = 0
    canaries: Mapping[str, OnCanaries] = field(default_factory=dict)


def by_half(answers: Mapping[str, Tensor], labels: Tensor, member: Tensor, seed: int = 0) -> Attacked:
    """By attackers who know half of the members and use thresholds; nothing is trained.

    Args:
        answers: name -> log-posteriors, float64 (n, classes).
        labels, member: int64 (n,) and bool (n,).
    """
    study = outside.of_answers(answers, labels, member, seed=seed)
    study.measure(accuracy)
    alone = judging.by_half(study, dict.fromkeys(answers, threshold.ATTACKS))
    return Attacked(alone, {}, study.rows, (BY_HALF,))


def by_imitations(
    answers: Mapping[str, Tensor],
    labels: Tensor,
    member: Tensor,
    baseline: str,
    imitations: Imitations,
    seed: int = 0,
) -> Attacked:
    """By attackers who have imitations of the networks; arguments as of `by_half`, `baseline` among the names."""
    rows, s = imitations.candidates, len(imitations.sizes)
    everyone = {name: _first(answers[name][rows], imitations.answers[name]) for name in answers}
    learned = _first(member[rows], imitations.member)
    study = outside.of_imitated(everyone, labels[rows], learned, beside=baseline, seed=seed)
    study.measure(accuracy, [study.arms[name] for name in answers])
    suite = suites.yardstick(s - 2)  # an imitation that plays the target does without itself and its mirror
    pair = {"pair": pairs.pair} if s - 2 >= pairs.PairLiRA.fewest else {}
    alone = judging.by_imitations(study, dict.fromkeys(answers, suite))
    both = judging.by_imitations(
        study, _of_both(answers, baseline, pair | {"pair_of_all": pairs.pair_of_all})
    )
    alone, both = (
        {key: replace(one, example=rows.numpy()[one.example]) for key, one in found.items()}
        for found in (alone, both)
    )
    assumed = (BY_SHADOWS.format(s=s), *([KNOWN.format(known=imitations.known)] if imitations.known else []))
    found, planted = {}, imitations.planted
    if planted is not None:
        of = outside.of_canaries(planted.answers, planted.labels, planted.member, seed=seed)
        found = judging.on_canaries(of, alone)
    return Attacked(alone, _together(alone, both, baseline), _told_apart(study.rows), assumed, s, found)


def _told_apart(rows: list[dict]) -> list[dict]:
    """The rows of `outside.of_imitated`, where those of imitations are no rows of the network."""
    anew = ({"variant": f"{row['variant']}, trained anew", "target": row["target"] - 1} for row in rows)
    return [row | other if row["target"] else row for row, other in zip(rows, anew, strict=True)]


def _of_both(answers: Mapping[str, Tensor], baseline: str, suite: Mapping) -> dict[str, Mapping]:
    return {outside.both_key(name, baseline): suite for name in answers if name != baseline}


def _together(alone: Mapping[str, Judged], both: Mapping[str, Judged], baseline: str) -> dict[str, Judged]:
    return {
        name: judging.surest((both[outside.both_key(name, baseline)], one, alone[baseline]))
        for name, one in alone.items()
        if name != baseline
    }


def _first(own: Tensor, others: Tensor) -> Tensor:
    """(n, ...) before (s, n, ...): (1 + s, n, ...)."""
    return torch.cat([own[None], others])
