"""Decoders draw pictures of the right size, alone and many at once, with the filters that they say."""

import pickle

import pytest
import torch
from torch import nn

from mialib import hashing
from mialib.models import decoders
from tests.models.test_classifiers import check_gradients, check_vmap_in_eval_mode

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 64, 64), (17,)]


def fresh(shape, width=0.05):
    torch.manual_seed(1)
    return decoders.make(shape, 5, width)()


def answers(n=4):
    return torch.rand(n, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_decoder_draws_the_shape_it_was_asked_for(shape):
    assert fresh(shape)(answers()).shape == (4, *shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_vmap_equals_one_by_one(shape):
    check_vmap_in_eval_mode(fresh(shape), answers())


@pytest.mark.parametrize("shape", [(1, 8, 8), (17,)])
def test_gradients_under_vmap_equal_autograd(shape):
    check_gradients(nn.Sequential(fresh(shape), nn.Flatten()), answers(16))


@pytest.mark.parametrize(
    "shape, filters",
    [
        ((1, 8, 8), [5, 512, 1]),
        ((1, 28, 28), [5, 512, 256, 128, 1]),
        ((3, 32, 32), [5, 512, 256, 128, 3]),
        ((1, 64, 64), [5, 1024, 512, 256, 128, 1]),
    ],
)
def test_filters_kernels_and_what_stands_between(shape, filters):
    with torch.device("meta"):
        model = decoders.make(shape, 5)()
    convolutions = [layer for layer in model if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.in_channels for layer in convolutions] + [shape[0]] == filters
    assert {layer.kernel_size for layer in convolutions} == {(4, 4)}
    kinds = [type(layer).__name__ for layer in model]
    between = ["ConvTranspose2d", "BatchNorm2d", "Tanh"] * (len(filters) - 2)
    assert kinds == ["Unflatten", *between, "ConvTranspose2d"]  # logits: the sigmoid is the attack's


def test_features_are_drawn_by_an_mlp():
    model = decoders.make((446,), 30)()
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [
        (30, 512),
        (512, 1024),
        (1024, 446),
    ]
    assert sum(isinstance(layer, nn.ReLU) for layer in model) == 2 and len(model) == 5


def test_width_scales_what_is_hidden_and_nothing_else():
    hidden = [
        layer.num_features
        for layer in decoders.make((1, 32, 32), 5, 0.25)()
        if isinstance(layer, nn.BatchNorm2d)
    ]
    assert hidden == [128, 64, 32]
    assert [
        layer.out_features for layer in decoders.make((7,), 5, 0.25)() if isinstance(layer, nn.Linear)
    ] == [128, 256, 7]


def test_the_constructor_pickles_and_has_a_description_of_its_own():
    made = decoders.make((1, 8, 8), 5)
    assert made.keywords == {"channels": 1, "side": 8, "num_classes": 5, "width": 1.0}
    assert pickle.loads(pickle.dumps(made)).keywords == made.keywords
    assert len({hashing.key(made=decoders.make((1, 8, 8), 5, width)) for width in (0.5, 1.0)}) == 2


@pytest.mark.parametrize(
    "arguments, words",
    [
        (((1, 16, 16), 5), r"shape is \(1, 16, 16\).*a side of 8, 28, 32, 64"),
        (((1, 32, 28), 5), r"shape is \(1, 32, 28\)"),
        (((2, 32, 32), 5), r"shape is \(2, 32, 32\); it must be \(1 or 3"),
        (((32, 32), 5), r"shape is \(32, 32\)"),
        (((0,), 5), r"shape is \(0,\)"),
        (((1, 8, 8), 0), "num_classes is 0; it must be 1 or more"),
        (((1, 8, 8), 5, 0.0), "width is 0.0; it must be positive"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        decoders.make(*arguments)
