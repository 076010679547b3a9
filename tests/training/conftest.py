"""Fixtures of the tests of training: a small split of the toy data, and who was trained."""

import pytest

from mialib.data import splits
from mialib.training import loop


@pytest.fixture
def split():
    return splits.target_shadow(120, 1, 2, seed=0, n_train=20)


@pytest.fixture
def trained_seeds(monkeypatch):
    """The seeds of the models that the loop was asked to train, call by call."""
    real, calls = loop.train, []

    def spy(*args, split, **options):
        calls.append(split.seeds.tolist())
        return real(*args, split=split, **options)

    monkeypatch.setattr(loop, "train", spy)
    return calls
