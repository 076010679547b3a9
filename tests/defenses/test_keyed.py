"""Noise that is a function of the answer and a key."""

import math

import pytest
import torch
from scipy import stats

from mialib.defenses import keyed


def answers(*shape, seed=0, scale=3.0):
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()).log_softmax(
        -1
    )


MANY = answers(20_000, 10)


def test_the_numbers_are_uniform_and_normal():
    one_each = keyed.uniform(MANY, 0, 1)[:, 0]
    # equal fingerprints give equal numbers, which the test of Kolmogorov and Smirnov does not expect
    assert stats.kstest(one_each.unique(), "uniform").pvalue > 0.01
    many_of_one = keyed.uniform(MANY[:1], 0, 20_000)[0]
    assert stats.kstest(many_of_one, "uniform").pvalue > 0.01
    assert stats.kstest(keyed.normal(MANY[:1], 0, 20_000)[0], "norm").pvalue > 0.01
    by_key = torch.cat([keyed.uniform(MANY[:1], key, 1).flatten() for key in range(2000)])
    assert stats.kstest(by_key, "uniform").pvalue > 0.01


@pytest.mark.parametrize("bits", [0, -1], ids=["all bits clear", "all bits set"])
def test_the_interval_is_open(monkeypatch, bits):
    monkeypatch.setattr(keyed, "_absorb", lambda state, value: (state + value) * 0 + bits)
    assert 0 < float(keyed.uniform(MANY[:1], 0, 1)) < 1
    assert keyed.normal(MANY[:1], 0, 1).isfinite().all()


def test_counters_keys_and_neighbouring_answers_are_independent():
    different = torch.stack([torch.arange(-5, 5, 0.01).double(), torch.zeros(1000).double()], -1).log_softmax(
        -1
    )
    # log-odds in steps of 0.01: neighbouring fingerprints, of two classes
    columns = [
        *keyed.uniform(different, 0, 3).T,
        *keyed.uniform(different, 1, 3).T,
        keyed.uniform(different, 0, 1)[:, 0].roll(1),
        keyed.uniform(different.flip(-1), 0, 1)[:, 0],
    ]
    correlation = torch.corrcoef(torch.stack(columns)) - torch.eye(len(columns))
    assert float(correlation.abs().max()) < 4 / math.sqrt(1000)


def test_the_same_answer_gets_the_same_numbers_in_any_company():
    alone = keyed.uniform(MANY[7], 3, 4)
    assert alone.shape == (4,)
    assert torch.equal(keyed.uniform(MANY, 3, 4)[7], alone)
    stacked = MANY.view(4, 5000, 10)
    assert torch.equal(keyed.uniform(stacked, 3, 4), keyed.uniform(MANY, 3, 4).view(4, 5000, 4))
    assert torch.equal(
        keyed.uniform(MANY, 3, 2), keyed.uniform(MANY, 3, 4)[:, :2]
    )  # more extend, none changes


def test_the_last_bits_do_not_count_but_the_answer_does():
    generator = torch.Generator().manual_seed(1)
    near = MANY * (1 + 1e-6 * torch.randn(MANY.shape, generator=generator).double())
    same = keyed.uniform(near.log_softmax(-1), 0, 1) == keyed.uniform(MANY, 0, 1)
    assert float(same.double().mean()) > 0.99
    far = keyed.uniform((MANY + 0.1 * torch.randn(MANY.shape, generator=generator)).log_softmax(-1), 0, 1)
    assert float((far == keyed.uniform(MANY, 0, 1)).double().mean()) < 0.1


def test_the_fingerprint_by_hand():
    inf = math.inf
    log_p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.4, 0.4, 0.2]]).double().log()
    sure = torch.tensor([[-inf, -inf, 0.0], [-inf, -1e-60, -130.0]]).double()
    predicted, odds = keyed.fingerprint(torch.cat([log_p, sure]))
    assert predicted.tolist() == [0, 1, 0, 2, 1]  # of equals the first
    # log(7/3) = 0.847, log 4 = 1.386, log(2/3) = -0.405; what is surer than 100 counts as 100
    assert odds.tolist() == [85, 139, -41, 10_000, 10_000]
    assert keyed.normal(sure, 0, 3).isfinite().all()


def test_the_answer_stays_as_it_is():
    before = MANY.clone()
    keyed.normal(MANY, 5, 2)
    assert torch.equal(MANY, before)


@pytest.mark.parametrize("key", [-1, 2**63, 0.5, None])
def test_keys_out_of_range_are_refused(key):
    with pytest.raises(ValueError, match="whole number from 0 to 2\\^63 - 1"):
        keyed.uniform(MANY[:1], key, 1)


def test_the_largest_key_and_no_number_at_all():
    assert keyed.uniform(MANY[:2], 2**63 - 1, 0).shape == (2, 0)
    with pytest.raises(ValueError, match="count is -1"):
        keyed.uniform(MANY[:1], 0, -1)


@pytest.mark.cuda
def test_cuda_draws_as_the_cpu_does(accelerator):
    # the fingerprint of an answer may fall on the other side of a step where the logarithm's last bit differs
    same = keyed.uniform(MANY.to(accelerator), 0, 2).cpu() == keyed.uniform(MANY, 0, 2)
    assert float(same.double().mean()) > 0.9999
