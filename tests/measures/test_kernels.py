"""Sums of Gaussian kernels, by hand and against scikit-learn."""

import math

import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel

from mialib.measures.kernels import gaussian


def sample(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_two_variances_by_hand():
    a, b = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]])  # 5 apart, and the same
    found = gaussian(a, b, (1.0, 25.0))
    assert found.tolist() == [[pytest.approx(math.exp(-12.5) + math.exp(-0.5)), 2.0]]


@pytest.mark.parametrize("variance", [0.1, 1.0, 7.0])
def test_one_variance_is_scikit_learns(variance):
    a, b = sample(5, 3), sample(4, 3, seed=1)
    expected = rbf_kernel(a, b, gamma=1 / (2 * variance))
    torch.testing.assert_close(gaussian(a, b, [variance]), torch.from_numpy(expected))


def test_each_pair_of_samples_by_itself():
    a, b = sample(2, 3, 5, 4), sample(2, 3, 6, 4, seed=1)
    found = gaussian(a, b, (0.5, 2.0))
    assert found.shape == (2, 3, 5, 6)
    torch.testing.assert_close(found[1, 2], gaussian(a[1, 2], b[1, 2], (0.5, 2.0)))


def test_the_gradient_is_zero_and_not_nan_where_points_coincide():
    a = torch.zeros(3, 2, requires_grad=True)
    gaussian(a, a.detach(), (1.0,)).sum().backward()
    assert not a.grad.any()
