"""Fixtures of the tests of asking: two steep networks on the toy data."""

import pytest
from torch import nn

from mialib.training import population


def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


def scaled():
    """Steep, so that the sensitivity is far from 0."""
    module = mlp()
    module[0].weight.data *= 3
    module[2].weight.data *= 3
    return module


@pytest.fixture
def steep():
    return population.initial(scaled, [0, 1])
