"""What cannot be done to a network is said before it is trained."""

from functools import partial

import pytest
import torch
from torch import nn

from mialib.models import classifiers
from mialib.params import networks


def plain(**_):
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


class Bessel(nn.Module):
    """ONNX knows no Bessel functions."""

    def forward(self, x):
        return torch.special.bessel_j0(x)


def unknown(**_):
    return nn.Sequential(nn.Linear(6, 3), Bessel())


RESNET = partial(classifiers.resnet8, in_channels=1, num_classes=10)
TABLE = partial(classifiers.columnfc, in_features=6, num_classes=3)


def said(values, make_model, shape=(6,), classes=3, own=False):
    return dict(networks.problems(values, make_model, shape, classes, own))


@pytest.mark.parametrize(
    "values",
    [
        {"pruners": ["l1_unstructured", "l1_filter", "slimming"], "sparsities": [0.5, 0.9]},
        {"pruner": "l1_global", "sparsity": 0.0},
        {"densities": None, "channel_density": 0.5},
        {"bits": [8, 2]},
        {"dp_noises": [1.0]},
        {"decoder_width": 0.1},
        {},
    ],
    ids=str,
)
def test_what_can_be_done_passes(values):
    assert said(values, RESNET, (1, 8, 8), 10) == {}


@pytest.mark.parametrize(
    ("values", "name", "words"),
    [
        (
            {"pruners": ["l1_unstructured", "l2_filter"], "sparsities": [0.5]},
            "pruners",
            "l2_filter removes filters",
        ),
        ({"pruner": "slimming", "sparsity": 0.5}, "pruner", "slimming ranks BatchNorm scales"),
        ({"densities": [0.5]}, "densities", "1 given, the model has"),
        ({"decoder_width": 0.1, "image_side": 9}, "image_side", "image_side is 9: shape is (1, 9, 9)"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_named(values, name, words):
    shape = (1, 9, 9) if name == "image_side" else (6,)
    found = said(values, TABLE, shape)
    assert found.keys() == {name} and words in found[name]


def test_the_most_pruned_is_what_counts():
    values = {"pruners": ["slimming"], "sparsities": [0.999, 0.1]}
    assert "leave one of the" in said(values, RESNET, (1, 8, 8), 10)["pruners"]
    assert said(values | {"sparsities": [0.1]}, RESNET, (1, 8, 8), 10) == {}


def test_slimming_needs_batch_norm_which_private_training_does_not_have():
    values = {"pruner": "slimming", "sparsity": 0.5}
    assert said(values, RESNET, (1, 8, 8), 10) == {}
    found = said(
        values | {"dp_noises": []}, RESNET, (1, 8, 8), 10
    )  # the notebook prunes the private form all the same
    assert found.keys() == {"pruner"} and "the model has no BatchNorm" in found["pruner"]


def test_activations_are_quantised_where_there_are_relus():
    assert "has no ReLU to quantise" in said({"bits": [8, 2]}, plain, own=True)["model"]
    assert said({"bits": [8, 2]}, TABLE) == {}


def test_a_network_without_weights_that_count_is_not_compressed():
    assert said({"compressions": [2.0]}, lambda: nn.Flatten()).keys() == {"model"}
    assert said({"compressions": [2.0]}, TABLE) == {}


def test_channels_must_be_there_to_be_cut():
    assert (
        "no channels that can be removed"
        in said({"channel_density": 0.5}, lambda: nn.Linear(6, 3))["channel_density"]
    )


def test_a_network_of_ones_own_is_exported_before_it_is_trained():
    before = torch.random.get_rng_state()
    found = said({"deploy": True}, unknown, own=True)
    assert found.keys() == {"deploy"} and found["deploy"].startswith(
        "deploy is True: int8: layer Bessel has no form"
    )
    assert said({"deploy": True}, TABLE, own=True) == said({"deploy": False}, unknown, own=True) == {}
    assert torch.equal(before, torch.random.get_rng_state())
