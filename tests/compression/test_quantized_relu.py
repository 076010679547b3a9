"""Quantised ReLUs, by hand and in the architectures."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mialib import models
from mialib.compression import quantized_relu
from mialib.compression.quantized_relu import QuantizedReLU

# The ReLU


def test_a_quantised_relu_by_hand():
    x = torch.tensor([-1.0, 0.1, 0.4, 0.9, 5.0], requires_grad=True)
    answer = QuantizedReLU(2)(x)
    assert answer.tolist() == pytest.approx([0, 0, 1 / 3, 1, 1])
    answer.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]  # straight through, but not where it is clipped
    relu = QuantizedReLU(2)
    relu.clip.fill_(3.0)
    assert relu(torch.tensor([0.4, 0.9, 2.4, 7.0])).tolist() == pytest.approx([0, 1, 2, 3])


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_at_most_two_to_the_bits_values_at_most_half_a_step_off(bits):
    x = torch.linspace(0, 1, 1001)
    answer = QuantizedReLU(bits)(x)
    assert len(answer.unique()) <= 2**bits
    assert (answer - x).abs().max() <= 0.5 / (2**bits - 1) + 1e-6


@pytest.mark.parametrize(
    "name, scale", [("small_cnn", 1), ("lenet5", 1), ("resnet18", 1), ("mobilenet_v2", 2)]
)
def test_every_relu_is_replaced_and_the_weights_keep_their_names(digits, name, scale):
    larger = replace(digits, x=digits.x.repeat_interleave(scale, 2).repeat_interleave(scale, 3))
    make_model = models.make(name, larger)
    module = quantized_relu.quantized(make_model, 3, last=8)()
    relus = [m for m in module.modules() if isinstance(m, QuantizedReLU)]
    assert not any(isinstance(m, nn.ReLU | nn.ReLU6) for m in module.modules())
    assert [m.bits for m in relus] == [3] * (len(relus) - 1) + [8]
    assert [n for n, _ in module.named_parameters()] == [n for n, _ in make_model().named_parameters()]


@pytest.mark.parametrize("last, expected", [(None, 4), (8, 8), (2, 4)])
def test_the_last_relu_is_never_narrower(digits, last, expected):
    module = quantized_relu.quantized(models.make("small_cnn", digits), 4, last)()
    found = [m.bits for m in module.modules() if isinstance(m, QuantizedReLU)]
    assert found == [4] * (len(found) - 1) + [expected]


def test_32_bits_leave_the_architecture_alone(digits):
    make_model = models.make("small_cnn", digits)
    assert quantized_relu.quantized(make_model, 32) is make_model


@pytest.mark.parametrize("bits", [0, 2.5, 17])
def test_what_is_no_width_is_refused(digits, bits):
    with pytest.raises(ValueError, match="valid are 1 to 16, and 32"):
        quantized_relu.quantized(models.make("small_cnn", digits), bits)


def test_a_model_without_relu_is_refused():
    with pytest.raises(ValueError, match="no ReLU"):
        quantized_relu.quantized(nn.Identity, 4)
