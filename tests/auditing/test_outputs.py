"""One table of answers out of what models return."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mialib.auditing import outputs

TABLE = np.arange(6, dtype=np.float32).reshape(3, 2)
TENSOR = torch.from_numpy(TABLE)


@pytest.mark.parametrize(
    "said",
    [
        TABLE,
        TENSOR,
        TENSOR.clone().requires_grad_(),
        TENSOR.bfloat16(),
        TENSOR.long(),
        TABLE.tolist(),
        list(TENSOR),
        SimpleNamespace(logits=TENSOR, loss=None),
        {"hidden": TENSOR + 1, "logits": TENSOR},
        {"anything": TENSOR},
        (TENSOR, TENSOR + 1),
        (torch.tensor(0.5), TENSOR),
        [TENSOR, None],
        {"logits": TABLE.tolist()},
    ],
    ids=str,
)
def test_the_table_is_found(said):
    found = outputs.rows(said, 3, "net")
    np.testing.assert_array_equal(found, TABLE)
    assert found.dtype in (np.float32, np.float64)


def test_rows_of_a_list_are_not_taken_for_outputs():
    square = torch.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(outputs.rows(list(square), 3, "net"), square.numpy())


def test_a_single_output_is_a_column():
    assert outputs.rows(torch.zeros(3), 3, "net").shape == (3, 1)


@pytest.mark.parametrize(
    "said, told",
    [
        (torch.zeros(3, 2, 1, 1), r"shape \(3, 2, 1, 1\), must be \(3, classes\)"),
        (torch.zeros(3, 0), r"shape \(3, 0\)"),
        (np.arange(3), "whole numbers"),
        ({"a": TENSOR, "b": TENSOR}, "outputs a, b, none of them named logits"),
        ([[1.0], [1.0, 2.0], [1.0]], "no array of numbers"),
        (["cat", "dog", "cat"], "a list of <U3"),
        (None, "a NoneType of object"),
    ],
    ids=str,
)
def test_what_is_no_table(said, told):
    with pytest.raises(ValueError, match=f"^net got .*{told}"):
        outputs.rows(said, 3, "net")
