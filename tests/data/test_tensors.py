"""What is no tensor, or of another type, is named, with what to pass instead; and that then works."""

import numpy as np
import pytest
import torch

from mialib.data import Dataset, Splits, load, splits
from mialib.data.tensors import must_be_tensor


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (
            np.zeros(2, np.int64),
            torch.int64,
            "y is a numpy.ndarray of int64, must be a torch.Tensor of torch.int64",
        ),
        (
            np.zeros(2),
            None,
            "y is a numpy.ndarray of float64, must be a torch.Tensor; pass torch.as_tensor(y)",
        ),
        ([0, 1], torch.int64, "y is a list, must be a torch.Tensor of torch.int64"),
        (None, None, "y is a NoneType, must be a torch.Tensor"),
        (torch.zeros(2), torch.int64, "y is torch.float32, must be torch.int64; pass y.long()"),
        (torch.zeros(2).double(), torch.float32, "y is torch.float64, must be torch.float32; pass y.float()"),
        (torch.zeros(2), torch.uint8, "y is torch.float32, must be torch.uint8"),
    ],
    ids=str,
)
def test_what_was_found_is_said(value, dtype, words):
    with pytest.raises(ValueError) as error:
        must_be_tensor("y", value, dtype, where="here: ")
    assert str(error.value).startswith(f"here: {words}")


@pytest.mark.parametrize("dtype", [torch.int64, None])
@pytest.mark.parametrize(
    "value", [np.array([1, 2]), [1, 2], torch.tensor([1, 2])], ids=["numpy", "list", "tensor"]
)
def test_what_is_said_works(value, dtype):
    try:
        must_be_tensor("value", value, dtype)
    except ValueError as error:
        value = eval(str(error).split("; pass ")[1], {"torch": torch, "value": value})
    must_be_tensor("value", value, dtype)
    assert value.tolist() == [1, 2]


FIELDS = dict(
    x=torch.zeros(3, 2),
    y=torch.tensor([0, 1, 0]),
    num_classes=2,
    mean=torch.zeros(1),
    std=torch.ones(1),
    name="own",
)


@pytest.mark.parametrize("field", ["x", "y", "mean", "std", "groups"])
def test_a_data_set_of_arrays_says_which_field_and_how_to_turn_it(field):
    value = (FIELDS | {"groups": torch.arange(3)})[field].numpy()
    with pytest.raises(
        ValueError,
        match=rf"'own': {field} is a numpy.ndarray of \w+, must be .*pass torch.as_tensor\({field}",
    ):
        Dataset(**FIELDS | {field: value})


def test_pictures_and_features_of_other_types_say_how_to_turn_them():
    with pytest.raises(ValueError, match=r"x is torch.float64.*pass x.float\(\)"):
        Dataset(**FIELDS | {"x": torch.zeros(3, 2).double()})
    with pytest.raises(
        ValueError, match=r"x is torch.float32.*pass \(x \* 255\).round\(\).to\(torch.uint8\)"
    ):
        Dataset(**FIELDS | {"x": torch.zeros(3, 1, 2, 2)})


def test_an_index_and_masks_of_arrays():
    with pytest.raises(ValueError, match="index is a numpy.ndarray of int64, must be a torch.Tensor"):
        Dataset(**FIELDS).inputs(np.arange(2))
    mask = np.eye(2, dtype=bool)
    with pytest.raises(ValueError, match="splits.member is a numpy.ndarray of bool"):
        Splits(mask, ~mask, ~mask, torch.zeros(2))
    with pytest.raises(ValueError, match="mask is a numpy.ndarray of bool.*dtype=torch.bool"):
        splits.indices(mask)


@pytest.mark.parametrize("count", [np.int64(2), torch.tensor(2), 2.0, True], ids=repr)
def test_a_number_of_classes_that_is_no_int(count):
    """numpy's integers are written otherwise, so that the fingerprint would be another one."""
    kind = f"{type(count).__module__}.{type(count).__name__}".removeprefix("builtins.")
    with pytest.raises(
        ValueError, match=rf"'own': num_classes is a {kind}, must be an int; pass int\(num_classes\)"
    ):
        Dataset(**FIELDS | {"num_classes": count})
    assert Dataset(**FIELDS | {"num_classes": 1 + int(FIELDS["y"].numpy().max())}).num_classes == 2


def test_integers_of_numpy_are_integers():
    part = load("digits", subset=np.int64(50), side=np.int32(4))
    assert part.fingerprint == load("digits", subset=50, side=4).fingerprint
