"""Trained now or before: what a run's provenance tells of it."""

import time

import pytest

from mialib import data, models, training
from mialib.data import splits
from mialib.reporting import provenance
from mialib.store import Store
from mialib.training import Recipe, tally

RECIPE = Recipe(epochs=1, batch_size=16, lr=1e-3)


@pytest.fixture(autouse=True)
def anew():
    tally.forget()
    yield
    tally.forget()


def train(cache, n_models=2):
    digits = data.load("digits", subset=200, seed=0)
    split = splits.random_halves(len(digits), n_models, seed=0, reserve_fraction=0.0)
    return training.fit(models.make("small_cnn", digits), digits, split, RECIPE, cache=Store(cache))


def test_what_is_trained_and_what_was_there_before(tmp_path, monkeypatch):
    first = train(tmp_path)
    spent = sum(record["seconds"] for record in first.records)
    assert tally.so_far() == tally.Tally(2, 0, pytest.approx(spent), ("float32",))
    tally.forget()
    monkeypatch.setattr(tally, "BEGAN", time.time_ns())  # as in another process
    train(tmp_path)
    assert tally.so_far() == tally.Tally(0, 2, pytest.approx(spent), ("float32",))
    train(tmp_path, 4)
    assert (tally.so_far().trained, tally.so_far().found) == (2, 2)


def test_asked_for_twice_is_trained_once(tmp_path):
    train(tmp_path)
    train(tmp_path)
    assert (tally.so_far().trained, tally.so_far().found) == (2, 0)


def test_what_a_worker_of_this_run_has_trained_was_not_there_before():
    tally.note(["a", "b"], [{"seconds": 1.0}, {}], [tally.BEGAN + 1, tally.BEGAN - 1], "tf32")
    assert tally.so_far() == tally.Tally(1, 1, 1.0, ("tf32",))


def test_provenance_tells_it():
    tally.note(["a", "b"], [{"seconds": 2.26}, {"seconds": 1.0}], [None, tally.BEGAN - 1], "float32")
    about = provenance(1.0, "cpu")
    assert [about[name] for name in ("trained", "found", "training_seconds", "precision")] == [
        1,
        1,
        3.3,
        "float32",
    ]
