"""Stages of training: each starts where the last ended, under the masks made there."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from mialib import training
from mialib.compression import Stage, cardinality, pruning, stages
from tests.compression.test_admm import RECIPE, mlp


def test_stages_start_where_the_last_ended_and_share_what_they_have_in_common(toy, split, monkeypatch):
    first, more = Stage(RECIPE), Stage(replace(RECIPE, epochs=1))
    one = stages.fit(mlp, toy, split, [first], "one")
    two = stages.fit(mlp, toy, split, [first, more], "two")
    assert one[0].keys == two[0].keys
    by_hand = training.fit(mlp, toy, split, more.recipe, start=one[0])
    assert by_hand.keys == two[1].keys


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_pruned_weights_stay_exactly_zero_in_retraining(toy, split, optimizer):
    recipe = replace(RECIPE, optimizer=optimizer)
    project = cardinality.everywhere(mlp, 4)
    dense, pruned = stages.fit(mlp, toy, split, [Stage(recipe), Stage(recipe, prune=project)], "arm")
    masks = project(dense.params)
    for name, kept in masks.kept.items():
        assert not pruned.params[name][~kept].any(), name
        # the others have learned
        assert bool((pruned.params[name][kept] != dense.params[name][kept]).any()), name
    achieved = pruning.achieved_sparsity({name: pruned.params[name] for name in masks.kept})
    assert float(1 / (1 - achieved.overall[0])) == pytest.approx(float(cardinality.compression(masks)[0]))


def test_no_epochs_only_prune(toy, split):
    project = cardinality.everywhere(mlp, 2)
    dense, cut = stages.fit(
        mlp, toy, split, [Stage(RECIPE), Stage(replace(RECIPE, epochs=0), prune=project)], "cut"
    )
    pruned = project(dense.params)(dense.params)
    assert all(torch.equal(cut.params[name], pruned[name]) for name in pruned)


@pytest.mark.parametrize("chain", [[], [Stage(RECIPE, prune=partial(cardinality.everywhere, mlp, 2))]])
def test_a_first_stage_must_train(toy, split, chain):
    with pytest.raises(ValueError, match="arm: the first stage must train"):
        stages.fit(mlp, toy, split, chain, "arm")


def test_options_reach_the_training_of_their_stage_only(toy, split):
    chain = [Stage(RECIPE), Stage(RECIPE, options={"watch": ("member",)})]
    first, second = stages.fit(mlp, toy, split, chain, "arm")
    assert "member_accuracy" not in first.records[0] and "member_accuracy" in second.records[0]


def test_masks_are_made_from_the_weights_that_a_stage_starts_with(toy, split):
    seen = []

    def project(params):
        seen.append(params)
        return cardinality.everywhere(mlp, 2)(params)

    dense, _ = stages.fit(mlp, toy, split, [Stage(RECIPE), Stage(RECIPE, prune=project)], "arm")
    assert len(seen) == 1 and all(torch.equal(seen[0][name], dense.params[name]) for name in dense.params)
