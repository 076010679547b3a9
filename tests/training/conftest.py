"""Fixtures of the tests of training: a small split of the toy data."""

import pytest

from mialib.data import splits


@pytest.fixture
def split():
    return splits.target_shadow(120, 1, 2, seed=0, n_train=20)
