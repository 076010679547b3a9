"""The control of quantisation: noise as large as its error."""

import pytest
import torch

from mialib.compression import Quantizer, quantization, weight_noise
from tests.compression.test_quantization import small


def test_noise_has_the_size_of_the_error_and_touches_nothing_else():
    models_ = small(k=3)
    bits = quantization.widths(models_.make_model, 2)
    compressed = Quantizer("affine", bits)(models_.params)
    noisy = weight_noise.like_error(models_, compressed, bits)
    for name, tensor in models_.params.items():
        moved = noisy.params[name] - tensor
        if name not in bits:
            assert not moved.any(), name
            continue
        for i in range(3):
            asked = (compressed[name][i] - tensor[i]).square().mean().sqrt()
            assert moved[i].square().mean().sqrt() == pytest.approx(float(asked), rel=0.25), name
        assert not torch.allclose(moved[0], moved[1]), name
    again = weight_noise.like_error(models_[:2], {n: t[:2] for n, t in compressed.items()}, bits)
    assert all(torch.equal(again.params[n], noisy.params[n][:2]) for n in bits)


def test_where_the_compression_moves_nothing_there_is_no_noise():
    models_ = small(k=2)
    bits = quantization.widths(models_.make_model, 2)
    compressed = Quantizer("affine", bits)(models_.params)
    exact = next(iter(bits))
    noisy = weight_noise.like_error(models_, compressed | {exact: models_.params[exact]}, bits)
    assert torch.equal(noisy.params[exact], models_.params[exact])
    assert all(not torch.equal(noisy.params[name], models_.params[name]) for name in bits if name != exact)


def test_the_models_stay_as_they_are_and_noisy_ones_have_no_key():
    models_ = small(k=2)
    bits = quantization.widths(models_.make_model, 2)
    before = {name: tensor.clone() for name, tensor in models_.params.items()}
    noisy = weight_noise.like_error(models_, Quantizer("affine", bits)(models_.params), bits)
    assert all(torch.equal(models_.params[name], tensor) for name, tensor in before.items())
    assert noisy.keys == [] and noisy.buffers is models_.buffers
