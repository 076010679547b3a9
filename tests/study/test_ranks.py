"""Ranks of margins: what an interval needs of them, and nothing else."""

import zlib

import numpy as np
import pytest

from mialib import study
from mialib.attacks import threshold
from mialib.measures import metrics
from mialib.study import ranks


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


def test_a_margin_of_zero_is_no_member():
    found, zero = ranks._dense(np.array([2.0, 0.0, -1.0, 0.0]))
    assert found.tolist() == [2, 1, 0, 1] and (found >= zero).tolist() == [True, False, False, False]


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


def test_what_does_not_fit_is_named(attacked, monkeypatch):
    plain = attacked.arms["plain"]
    whole = study.dense_ranks(attacked, [(plain, "confidence"), (plain, "gap")])
    size = sum(len(zlib.compress(array.tobytes())) for name, array in whole.items() if "confidence" in name)
    monkeypatch.setattr(ranks, "LARGEST", size)
    kept = study.dense_ranks(attacked, [(plain, "confidence"), (plain, "gap")])
    assert kept.keys() == {name for name in whole if "confidence" in name} | {"left out"}
    assert kept["left out"].tolist() == ["plain | gap"]
