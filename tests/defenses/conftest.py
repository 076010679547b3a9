"""Fixtures of several test files of this room."""

import pytest

from mialib import defenses, models, training
from mialib.data import splits
from mialib.training import Recipe


@pytest.fixture(scope="module")
def known(digits):
    split = splits.d1_d2_d3(len(digits), 60, 200, 60, seed=0, n_models=2)
    networks = training.fit(models.make("small_cnn", digits), digits, split, Recipe(20, 16, 2e-3))
    return networks, split, defenses.defender(networks, digits, split)
