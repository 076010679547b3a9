"""Fixtures of several test files of this room."""

import pytest

from mialib import models, training
from mialib.data import splits
from mialib.training import Recipe


@pytest.fixture
def split():
    return splits.target_shadow(120, 1, 2, seed=0, n_train=20)


@pytest.fixture(scope="module")
def trained(digits):
    split = splits.target_shadow(len(digits), 2, 1, 0, 200)
    return split, training.fit(models.make("small_cnn", digits), digits, split, Recipe(8, 32, 2e-3))
