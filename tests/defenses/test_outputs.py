"""Defences of the answer alone."""

import math

import pytest
import torch

from mialib.attacks import signals
from mialib.defenses.outputs import Noise, OneHot, Rounding, Temperature, TopK
from mialib.measures import metrics


def test_rounding_by_hand():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.3, 0.3]], dtype=torch.float64)
    # 2 bits: thirds. 0.7 -> 2/3, 0.2 -> 1/3, 0.1 -> 0; 0.4, 0.3, 0.3 -> 1/3 each
    assert torch.allclose(Rounding(2)(p.log()).exp(), torch.tensor([[2 / 3, 1 / 3, 0], [1 / 3] * 3]).double())
    # 1 bit: only what is above a half; where nothing is, the answer is uniform
    assert torch.allclose(Rounding(1)(p.log()).exp(), torch.tensor([[1, 0, 0], [1 / 3] * 3]).double())


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 32])
def test_every_rounded_row_is_a_distribution(bits):
    log_p = torch.randn(50, 30, generator=torch.Generator().manual_seed(0)).double().log_softmax(-1)
    before = log_p.clone()
    answer = Rounding(bits)(log_p)
    assert torch.allclose(answer.exp().sum(-1), torch.ones(50).double())
    assert not answer.isnan().any()
    assert torch.equal(log_p, before)


def test_many_bits_change_next_to_nothing():
    log_p = torch.randn(50, 30, generator=torch.Generator().manual_seed(0)).double().log_softmax(-1)
    assert torch.allclose(Rounding(32)(log_p), log_p, atol=1e-5)


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


# One-hot, temperature, top k, noise

INF = math.inf
ALL = [
    OneHot(),
    Temperature(0.1),
    Temperature(50.0),
    TopK(1),
    TopK(3),
    Noise(0.0),
    Noise(0.3, 1),
    Rounding(3),
]


def answers(*shape, scale=3.0):
    random = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    return (scale * random).log_softmax(-1)


@pytest.mark.parametrize("defense", ALL, ids=str)
def test_every_reply_is_a_distribution_and_the_answer_stays_as_it_is(defense):
    one_hot = (
        torch.full((2, 6), -INF)
        .double()
        .index_put((torch.arange(2), torch.tensor([0, 5])), torch.zeros(2).double())
    )
    odd = [one_hot, torch.zeros(1, 6).double().log_softmax(-1), answers(50, 6, scale=200.0)]
    log_p = torch.cat([answers(50, 6), *odd])
    before = log_p.clone()
    reply = defense(log_p)
    assert reply.dtype == torch.float64 and reply.shape == log_p.shape
    assert not reply.isnan().any()
    assert torch.allclose(reply.exp().sum(-1), torch.ones(len(log_p)).double(), atol=1e-12)
    assert torch.equal(log_p, before)
    # an answer's reply depends on the answer alone, whatever stands beside it
    assert torch.equal(defense(log_p.expand(2, *log_p.shape))[1], reply)
    assert torch.equal(defense(log_p[3:5]), reply[3:5])
    assert torch.equal(defense(log_p[3]), reply[3])


def test_one_hot_says_the_label_and_nothing_else():
    log_p = torch.tensor([[0.1, 0.7, 0.2], [0.4, 0.4, 0.2]]).double().log()
    assert OneHot()(log_p).tolist() == [[-INF, 0.0, -INF], [0.0, -INF, -INF]]


def test_temperature_by_hand():
    log_p = torch.tensor([0.8, 0.2]).double().log()
    # odds 4 become 4^(1/2) = 2 and 4^2 = 16
    assert torch.allclose(Temperature(2)(log_p).exp(), torch.tensor([2 / 3, 1 / 3]).double())
    assert torch.allclose(Temperature(0.5)(log_p).exp(), torch.tensor([16 / 17, 1 / 17]).double())
    assert torch.allclose(Temperature(1)(log_p), log_p)
    assert Temperature(5e-324)(log_p).tolist() == [0.0, -INF]
    assert Temperature(3)(torch.tensor([0.0, -INF]).double()).tolist() == [0.0, -INF]


def test_top_k_by_hand():
    p = torch.tensor([0.1, 0.4, 0.3, 0.2]).double()
    assert torch.allclose(TopK(2)(p.log()).exp(), torch.tensor([0, 4 / 7, 3 / 7, 0]).double())
    assert torch.allclose(TopK(4)(p.log()), p.log())
    assert torch.equal(TopK(1)(answers(40, 6)), OneHot()(answers(40, 6)))


@pytest.mark.parametrize("k", [1, 3, 50])
def test_of_equals_exactly_k_are_kept_the_first(k):
    kept = TopK(k)(torch.zeros(100).double().log_softmax(-1))
    assert torch.equal(kept.isfinite().nonzero()[:, 0], torch.arange(k))
    assert torch.allclose(kept[:k].exp(), torch.full((k,), 1 / k).double())


def test_noise_has_its_strength_and_is_the_same_for_the_same_query():
    even = torch.zeros(4).double().log_softmax(-1)
    replies = torch.stack([Noise(0.02, key)(even) for key in range(2000)]).exp()
    # far from 0 nothing is clipped: e becomes (p + e) / (1 + sum e), for p = 1/4 with sd 0.02 sqrt(1 - 1/4)
    assert torch.allclose(replies.std(0), torch.full((4,), 0.02 * math.sqrt(3 / 4)).double(), rtol=0.07)
    assert torch.allclose(replies.mean(0), even.exp(), atol=0.002)
    assert torch.equal(Noise(0.02, key=7)(even).exp(), replies[7])
    assert torch.equal(Noise(0.02)(even).exp(), replies[0])


def test_noise_clips_at_zero_and_falls_back_to_uniform():
    log_p = answers(2000, 5)
    assert torch.allclose(Noise(0.0)(log_p), log_p)
    p = Noise(10.0)(log_p).exp()
    assert (p == 0).any() and (p >= 0).all()
    everything_clipped = (p == 0.2).all(-1)  # 1 row in 2^5 or so, as five signs are negative
    assert 1 / 64 < float(everything_clipped.double().mean()) < 1 / 16


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Temperature(0.0), "temperature: strength is 0.0; it must be positive and finite"),
        (lambda: Temperature(INF), "strength is inf"),
        (lambda: Temperature(math.nan), "strength is nan"),
        (lambda: TopK(0), "k is 0; it must be a whole number from 1 on"),
        (lambda: TopK(1.5), "k is 1.5"),
        (lambda: TopK(4)(answers(2, 3)), "k is 4; it must be at most the number of classes, 3"),
        (lambda: Noise(-0.1), "noise: strength is -0.1; it must be 0 or more"),
        (lambda: Noise(math.nan), "strength is nan"),
        (lambda: Noise(INF), "strength is inf"),
        (lambda: Noise(0.1, key=-1), "key is -1"),
    ],
)
def test_values_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
