"""Which weights a layer may keep: exact counts, the largest, each model for itself."""

from functools import partial

import pytest
import torch

from mialib.compression import cardinality, pruning
from mialib.compression.cardinality import LargestWeights
from mialib.models import classifiers
from mialib.training import population

LENET = partial(classifiers.lenet5, in_channels=1, num_classes=10, image_size=28)


@pytest.mark.parametrize("density, kept", [(1.0, 40), (0.5, 20), (0.26, 10), (0.1, 4), (0.001, 1)])
def test_the_projection_keeps_exactly_the_l_largest(density, kept):
    weight = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(0))
    masks = LargestWeights({"w": density})({"w": weight, "b": torch.ones(3, 8)})
    assert masks.kept.keys() == {"w"}
    for i, (own, mask) in enumerate(zip(weight.abs(), masks.kept["w"], strict=True)):
        assert int(mask.sum()) == kept, i
        assert not bool((~mask).any()) or own[mask].min() > own[~mask].max(), i


def test_it_is_the_nearest_point_of_all_that_satisfy_the_constraint():
    weight = torch.tensor([[0.5, -2.0, 1.0, 0.1]])
    nearest = LargestWeights({"w": 0.5})({"w": weight})({"w": weight})["w"]
    assert nearest.tolist() == [[0.0, -2.0, 1.0, 0.0]]


def test_equal_magnitudes_go_by_their_index():
    masks = LargestWeights({"w": 0.5})({"w": torch.tensor([[1.0, -1.0, 1.0, 1.0]])})
    assert masks.kept["w"].tolist() == [[False, False, True, True]]


def test_a_uniform_projection_is_layerwise_magnitude_pruning():
    fresh = population.initial(LENET, [0, 1])
    ours = cardinality.everywhere(LENET, 8)(fresh.params)
    theirs = pruning.mask(fresh, "l1_unstructured", 1 - 1 / 8)
    assert ours.kept.keys() == theirs.kept.keys()
    assert all(torch.equal(ours.kept[name], theirs.kept[name]) for name in ours.kept)


def test_compression_by_hand():
    fresh = population.initial(LENET, [0])
    assert list(cardinality.layers(LENET).values()) == [500, 25_000, 400_000, 5_000]
    masks = cardinality.by_layer(LENET, [0.2, 0.08, 0.009, 0.07])(fresh.params)
    # 100 + 2,000 + 3,600 + 350 of 430,500: the 71.2 times of Zhang et al. 2018
    assert [int(kept.sum()) for kept in masks.kept.values()] == [100, 2_000, 3_600, 350]
    assert float(cardinality.compression(masks)[0]) == pytest.approx(430_500 / 6_050)
    assert round(float(cardinality.compression(masks)[0]), 1) == 71.2


@pytest.mark.parametrize("times", [1, 1.5])
def test_little_compression_and_none(times):
    masks = cardinality.everywhere(LENET, times)(population.initial(LENET, [0, 1]).params)
    found = cardinality.compression(masks)
    assert found.dtype == torch.float64 and found.tolist() == pytest.approx([times] * 2, rel=1e-3)


def test_a_part_of_the_way():
    projection = LargestWeights({"a": 0.1, "b": 1.0})
    assert projection.partly(0).densities == {"a": 1, "b": 1}
    assert projection.partly(1).densities == pytest.approx({"a": 0.1, "b": 1.0})
    assert projection.partly(0.5).densities == pytest.approx({"a": 0.55, "b": 1.0})


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: LargestWeights({}), "densities: empty"),
        (lambda: LargestWeights({"w": 0.0}), r"0.0 for w is outside \(0, 1\]"),
        (lambda: LargestWeights({"w": 1.5}), "1.5 for w is outside"),
        (lambda: cardinality.everywhere(LENET, 0.5), "compression: 0.5 is below 1"),
        (lambda: cardinality.by_layer(LENET, [0.5]), "1 given, the model has 4 layers: 0.weight"),
    ],
)
def test_what_is_out_of_range_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
