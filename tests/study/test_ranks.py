"""Ranks of margins: what an interval needs of them, and nothing else."""

import numpy as np
import pytest

from mialib import study
from mialib.attacks import threshold
from mialib.measures import metrics


@pytest.fixture
def attacked(made):
    plain = made.made("plain")
    served = made.arm("served", plain, behind=lambda log_p: log_p.roll(1, -1), defense="rolled")
    made.attack({name: threshold.ATTACKS[name] for name in ("gap", "confidence")})
    made.attack({"confidence": threshold.confidence}, [served], believing=plain)
    made.attack({"confidence": threshold.confidence}, [served], knowing="half")
    return made


def test_every_measure_of_an_attack_can_be_had_of_ranks(attacked):
    plain = attacked.arms["plain"]
    kept = study.dense_ranks(attacked, [(plain, "gap"), (plain, "confidence")])
    for name in ("gap", "confidence"):
        ranks, zero = kept[f"plain | {name} ranks"], kept[f"plain | {name} zero"]
        member, margins = kept[f"plain | {name} member"], attacked.margins(plain, name).numpy()
        assert ranks.shape == margins.shape and zero.shape == margins.shape[:2]
        for target in range(2):
            mended = ranks[target, 0].astype(float) - zero[target, 0] + 0.5  # above 0 where the margin was
            for measure in (metrics.auc, metrics.balanced_accuracy):
                assert measure(member[target], mended) == measure(member[target], margins[target, 0]), name


def test_names_say_who_attacked(attacked):
    plain, served = attacked.arms.values()
    who = [served, attacked.attacker(served, plain), attacked.attacker(served, knowing="half")]
    kept = study.dense_ranks(attacked, [(one, "confidence") for one in who])
    names = {name.rsplit(" ", 1)[0] for name in kept}
    assert names == {"served | confidence", "served <- plain | confidence", "served | confidence, half"}
    assert kept["served | confidence, half member"].shape == (2, 20)


def test_a_rank_takes_a_byte_where_there_are_few(attacked):
    kept = study.dense_ranks(attacked, [(attacked.arms["plain"], "confidence")])
    assert kept["plain | confidence ranks"].dtype == np.uint8
