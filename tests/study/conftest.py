"""Fixtures of several test files of this room."""

import pytest
import torch

from mialib import models, study
from mialib.data import Splits, splits
from mialib.training import population
from tests.study.test_observations import eye, linear


@pytest.fixture
def known(toy):
    """Two models that answer with the largest of three features, and with the smallest; their data."""
    x = torch.eye(3).repeat(4, 1)
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 1, 2, 0])  # the last three are wrong
    dataset = type(toy).of_features("known", x, y, 3)
    member = torch.zeros(2, 12, dtype=torch.bool)
    member[0, :6] = member[1, 6:] = True
    split = Splits(member, ~member, torch.zeros_like(member), torch.tensor([0, 1]))
    return population.stack(linear, [eye(9.0), eye(-9.0)]), dataset, split


@pytest.fixture(scope="module")
def setting(digits):
    split = splits.d1_d2_d3(len(digits), 30, 20, 30, seed=0, n_models=4)
    networks = population.initial(models.make("small_cnn", digits), split.seeds.tolist())
    return networks, split, study.observe(networks, digits, split, 2, sensitive=False, defense="none")
