from functools import partial

import pytest
import torch
from torch import nn

from mialib.compression import pruning, size
from mialib.training.population import initial

PARAMS = {
    "weight": torch.tensor(
        [[1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0], [1.0] * 10]
    ),  # 10 weights a model
    "bias": torch.tensor([[0.5, 0.5], [0.0, 0.5]]),
}


def test_sizes_by_hand():
    first, second = size.sizes(PARAMS)
    assert (first.parameters, first.nonzero, first.dense_bytes) == (12, 5, 48)
    assert (
        first.sparse_bytes == (2 + 3 * 4) + 8
    )  # a two-byte bitmask and three values; the full bias stays dense
    assert (second.nonzero, second.sparse_bytes) == (11, 40 + (1 + 4))
    assert first.density == pytest.approx(5 / 12) and first.compression_ratio == pytest.approx(48 / 22)


def test_a_tensor_with_hardly_a_zero_stays_dense():
    (only,) = size.sizes({"w": torch.tensor([[0.0] + [1.0] * 99])})
    assert only.sparse_bytes == only.dense_bytes == 400  # bitmask 13 + values 396 would be larger


def test_narrower_values():
    first, _ = size.sizes(PARAMS, bytes_per_value=1)
    assert first.dense_bytes == 12 and first.sparse_bytes == 2 + 3 + 2


def test_table_applies_the_masks():
    population = initial(partial(nn.Linear, 20, 10), [0, 1])
    masks = pruning.mask(population, "l1_unstructured", 0.7)
    table = size.table(population, masks)
    assert table["model"].tolist() == [0, 1]
    assert table["parameters"].tolist() == [210, 210]
    assert table["nonzero"].tolist() == [60 + 10, 60 + 10]
    assert table["sparse_bytes"].tolist() == [25 + 240 + 40] * 2
    assert size.table(population)["density"].tolist() == [1.0, 1.0]


def test_no_parameters_is_an_error():
    with pytest.raises(ValueError, match="params: empty"):
        size.sizes({})
