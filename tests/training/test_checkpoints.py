"""The best epoch on reserve data is kept, and patience stops each model for itself."""

import os
from dataclasses import replace

import pytest
import torch

from mialib import asking, training
from mialib.store import Store
from mialib.training import Recipe
from mialib.training.checkpoints import Checkpoints
from tests.training.test_population import Double, largest_difference, mlp

RESTLESS = Recipe(epochs=12, batch_size=8, lr=0.05, select_best=True)


@pytest.mark.parametrize("batched", [False, True])
def test_the_best_epoch_is_kept(toy, split, batched):
    best = training.fit(Double, toy, split, RESTLESS, batched=batched)
    reserve = asking.accuracy(best, toy, split.reserve)
    curves = [record["reserve_accuracy"] for record in best.records]
    # the last epoch is not the best: there is a choice
    assert any(curve[-1] < max(curve) for curve in curves)
    for i, (record, curve) in enumerate(zip(best.records, curves, strict=True)):
        assert len(curve) == 12, i
        assert record["best_epoch"] == curve.index(max(curve)), i  # the first of equals
        assert float(reserve[i]) == pytest.approx(max(curve), abs=1e-6), i
        plain = Recipe(epochs=record["best_epoch"] + 1, batch_size=8, lr=0.05)
        stopped = training.fit(Double, toy, split[[i]], plain)
        assert largest_difference(best[[i]], stopped) < 1e-9, i


@pytest.mark.parametrize("patience", [0, 2, 5])
def test_patience_stops_after_more_than_so_many_epochs_without_a_better_one(toy, split, patience):
    recipe = replace(RESTLESS, epochs=40)
    full = training.fit(mlp, toy, split, recipe, batched=False)
    patient = training.fit(mlp, toy, split, replace(recipe, patience=patience), batched=False)
    for i, (free, stopped) in enumerate(zip(full.records, patient.records, strict=True)):
        expected, best, waited = [], -1.0, 0
        for accuracy in free["reserve_accuracy"]:  # epoch by epoch, as the paper's code counts
            expected.append(accuracy)
            best, waited = (accuracy, 0) if accuracy > best else (best, waited + 1)
            if waited > patience:
                break
        assert stopped["reserve_accuracy"] == expected, i
        assert len(expected) < 40 and len(stopped["loss"]) == len(expected), i


def test_patience_stops_each_model_for_itself_when_trained_together(toy, split):
    recipe = replace(RESTLESS, epochs=40, patience=1)
    alone = training.fit(
        Double, toy, split, recipe, batched=False, cache=Store(f"{os.environ['MIALIB_CACHE']}/a")
    )
    together = training.fit(
        Double, toy, split, recipe, batched=True, cache=Store(f"{os.environ['MIALIB_CACHE']}/b")
    )
    # they stop at different epochs
    assert len({len(record["reserve_accuracy"]) for record in alone.records}) > 1
    for i, (a, b) in enumerate(zip(alone.records, together.records, strict=True)):
        assert a["best_epoch"] == b["best_epoch"], i
        # together, the record goes on until the last model stops
        assert b["reserve_accuracy"][: len(a["reserve_accuracy"])] == a["reserve_accuracy"], i
    assert largest_difference(alone, together) < 1e-9


# By hand


def weights(*values):
    """One weight a model, and a buffer of ten times its size."""
    w = torch.tensor(values)
    return {"w": w}, {"b": 10 * w}


def followed(recipe, curves):
    """Checkpoints of as many models as there are columns, epoch by epoch; in epoch e all weights are e + 1."""
    k = len(curves[0])
    best = Checkpoints(k, recipe, *weights(*[0.0] * k))
    for epoch, accuracies in enumerate(curves):
        best.update(epoch, torch.tensor(accuracies), *weights(*[epoch + 1.0] * k))
    return best


# reserve accuracies of three models: best in the middle, best first (and met again), never better than nothing
CURVES = [[0.5, 0.7, 0.0], [0.8, 0.6, 0.0], [0.6, 0.7, 0.0]]


def test_each_models_first_best_epoch_is_kept():
    best = followed(RESTLESS, CURVES)
    params, buffers = best.weights(*weights(9.0, 9.0, 9.0))
    assert params["w"].tolist() == [2.0, 1.0, 1.0] and buffers["b"].tolist() == [20.0, 10.0, 10.0]
    assert best.records() == [
        {"best_epoch": epoch, "reserve_accuracy": pytest.approx([row[i] for row in CURVES])}
        for i, epoch in enumerate((1, 0, 0))
    ]


def test_without_selection_the_last_weights_stay_and_nothing_is_noted():
    params, buffers = weights(9.0, 9.0)
    best = Checkpoints(2, replace(RESTLESS, select_best=False), *weights(0.0, 0.0))
    found = best.weights(params, buffers)
    assert found[0] is params and found[1] is buffers
    assert best.records() == [{}, {}] and best.stopped.tolist() == [False, False]


def test_what_is_kept_is_a_copy():
    params, buffers = weights(1.0)
    best = Checkpoints(1, RESTLESS, params, buffers)
    best.update(0, torch.tensor([0.5]), params, buffers)
    params["w"].add_(1)
    buffers["b"].add_(1)
    kept = best.weights(params, buffers)
    assert kept[0]["w"].tolist() == [1.0] and kept[1]["b"].tolist() == [10.0]


@pytest.mark.parametrize(
    ("patience", "stopped"),
    [
        (None, [[False, False], [False, False], [False, False], [False, False]]),
        (0, [[False, False], [True, False], [True, True], [True, True]]),
        (1, [[False, False], [False, False], [True, False], [True, True]]),
    ],
)
def test_patience_counts_epochs_in_a_row_for_each_model(patience, stopped):
    recipe, curves = replace(RESTLESS, patience=patience), [[0.5, 0.5], [0.4, 0.6], [0.4, 0.6], [0.4, 0.6]]
    for epochs in range(1, 5):
        best = followed(recipe, curves[:epochs])
        assert best.stopped.tolist() == stopped[epochs - 1], epochs


def test_a_better_epoch_after_the_stop_comes_too_late():
    best = followed(replace(RESTLESS, patience=0), [[0.5, 0.5], [0.4, 0.6], [0.9, 0.9]])
    assert best.epoch.tolist() == [0, 2] and best.weights({}, {})[0]["w"].tolist() == [1.0, 3.0]
