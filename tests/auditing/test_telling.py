"""Inputs alone: told apart where they differ, at chance where they do not."""

import pytest
import torch
from sklearn.datasets import load_digits

from mialib.auditing import input_checks, telling


def digits():
    return torch.from_numpy(load_digits().images).float()[:, None]


def halves(seed, n):
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(seed))
    return order[:n], order[n : 2 * n]


@pytest.mark.parametrize("shape", [(-1, 1, 8, 8), (-1, 64)])
def test_noise_and_brightness_give_inputs_away(shape):
    x = digits().reshape(shape)
    a, b = halves(0, 200)
    for changed in (
        x[b] + 1,
        x[b] + 0.5 * torch.randn(x[b].shape, generator=torch.Generator().manual_seed(0)),
    ):
        assert telling.apart(x[a], changed).low > input_checks.APART


def test_random_halves_are_rarely_told_apart():
    """12 splits of 100 and 100; with a chance of 5 in 100 each, three false alarms would come in 2 of 100 such tests."""
    x = digits()
    lows = [telling.apart(*(x[half] for half in halves(seed, 100)), seed).low for seed in range(12)]
    assert sum(low > input_checks.APART for low in lows) <= 2


def test_the_seed_fixes_the_answer():
    x = digits()[:120]
    assert telling.apart(x[:60], x[60:], 1) == telling.apart(x[:60], x[60:], 1)


def test_described_by_hand():
    x = torch.tensor([[[[0.0, 0.0], [2.0, 4.0]]]])
    # the picture; mean, spread, ends, shares at the ends; steps down, steps right
    expected = [0, 0, 2, 4, 1.5, 2.75**0.5, 0, 4, 0.5, 0.25, 3, 1]
    assert telling.described(x)[0].tolist() == pytest.approx(expected)
    assert telling.described(x.flatten(1))[0].tolist() == pytest.approx(expected[:10])
