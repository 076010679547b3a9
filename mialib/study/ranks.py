"""Margins as dense ranks with the rank of zero: enough for every interval, in a byte or two for each candidate.

AUC, ROC, rates at a threshold and balanced accuracy depend only on the order of the margins and on which are above
zero. So an interval that is corrected later can be computed for stored runs without training.
"""

import zlib
from collections.abc import Iterable

import numpy as np

from mialib.study.arms import Arm
from mialib.study.attackers import Attacker
from mialib.study.study import Study

LARGEST = 150_000  # bytes of a run, compressed


def _dense(margins: np.ndarray) -> tuple[np.ndarray, int]:
    """Ranks of margins (n,), from 0, equal for equal ones; and the rank of zero: a margin is above 0 if its rank >= that."""
    values, ranks = np.unique(margins, return_inverse=True)
    return ranks.astype(np.min_scalar_type(len(values))), int((values <= 0).sum())


def dense_ranks(study: Study, attacked: Iterable[tuple[Arm | Attacker, str]]) -> dict[str, np.ndarray]:
    """Ranks of the margins of some attackers' attacks, with the membership they are judged by: name -> array.

    Names begin with "pruned | samia" (key of the arm, name of the attack) or "pruned <- original | samia, half" (the
    attacker believes in another arm; knows half). They end in "... ranks" (targets, trainings, n), "... zero" (targets,
    trainings) and "... member" bool (targets, n).

    Args:
        attacked: the most wanted first. Whatever exceeds `LARGEST` bytes is left out and named in "left out".
    """
    kept, left_out, size = {}, [], 0
    for who, attack in attacked:
        who = study.attacker(who)
        believed = "" if who.believed == who.arm else f" <- {who.believed.key}"
        name = f"{who.arm.key}{believed} | {attack}" + ", half" * (who.knowing == "half")
        margins = study.margins(who, attack).numpy()
        found = [[_dense(training) for training in target] for target in margins]
        arrays = {
            f"{name} ranks": np.array([[ranked for ranked, _ in target] for target in found]),
            f"{name} zero": np.array([[zero for _, zero in target] for target in found]),
            f"{name} member": who.member.numpy(),
        }
        own = sum(len(zlib.compress(array.tobytes())) for array in arrays.values())
        if size + own > LARGEST:
            left_out.append(name)
            continue
        kept, size = kept | arrays, size + own
    return kept | ({"left out": np.array(left_out)} if left_out else {})
