"""Defences of the answer alone."""

import pytest
import torch

from mialib import metrics
from mialib.attacks import signals
from mialib.defenses.outputs import Rounding


def test_rounding_by_hand():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.3, 0.3]], dtype=torch.float64)
    # 2 bits: thirds. 0.7 -> 2/3, 0.2 -> 1/3, 0.1 -> 0; 0.4, 0.3, 0.3 -> 1/3 each
    assert torch.allclose(Rounding(2)(p.log()).exp(), torch.tensor([[2 / 3, 1 / 3, 0], [1 / 3] * 3]).double())
    # 1 bit: only what is above a half; where nothing is, the answer is uniform
    assert torch.allclose(Rounding(1)(p.log()).exp(), torch.tensor([[1, 0, 0], [1 / 3] * 3]).double())


def test_many_bits_change_next_to_nothing_and_every_row_is_a_distribution():
    log_p = torch.randn(50, 30, generator=torch.Generator().manual_seed(0)).double().log_softmax(-1)
    before = log_p.clone()
    assert torch.allclose(Rounding(32)(log_p), log_p, atol=1e-5)
    for bits in (1, 2, 4, 8):
        answer = Rounding(bits)(log_p)
        assert torch.allclose(answer.exp().sum(-1), torch.ones(50).double())
        assert not answer.isnan().any()
    assert torch.equal(log_p, before)


@pytest.mark.parametrize("bits", [0, 33, 2.5])
def test_what_is_no_rounding_is_refused(bits):
    with pytest.raises(ValueError, match="whole number from 1 to 32"):
        Rounding(bits)


def test_ties_of_rounded_answers_count_half():
    p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.3, 0.7]], dtype=torch.float64)
    member = torch.tensor([True, True, False, False])
    labels = torch.zeros(4, dtype=torch.long)
    # at 1 bit the first three say the same: of the four pairs two are won and two tied
    margin = signals.confidence(Rounding(1)(p.log()), labels)
    assert metrics.auc(member, margin).value == 0.75
    assert metrics.auc(member, signals.confidence(p.log(), labels)).value == 1.0
