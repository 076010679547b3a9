"""Quantisers: the error bound, the grid, the gradient by hand, and what goes through untouched."""

import math

import pytest
import torch

from mialib import asking, data, models, training
from mialib.compression import Quantizer, pruning, quantization
from mialib.data import splits
from mialib.training import Recipe, population

BITS = (1, 2, 3, 4, 8)


@pytest.fixture
def w():
    """Weights of two models' convolution (2, 5, 3, 3, 3); the second model's are ten times the first's."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 3, 3, 3, generator=generator) * torch.tensor([0.1, 1.0]).view(2, 1, 1, 1, 1)


def small(seed=0, k=2):
    make_model = models.make("small_cnn", data.load("digits", subset=100))
    return population.initial(make_model, list(range(seed, seed + k)))


# The error, and the grid


@pytest.mark.parametrize("bits", BITS)
def test_dorefa_errs_by_at_most_half_a_step_in_u(w, bits):
    m = w.tanh().abs().amax((1, 2, 3, 4), keepdim=True)
    u, u_hat = (w.tanh() / m + 1) / 2, (quantization.dorefa(w, bits) / m + 1) / 2
    assert (u - u_hat).abs().max() <= 0.5 / (2**bits - 1) + 1e-6


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shift", [0.0, 3.0])  # with all weights of one sign the zero point lies off the grid
@pytest.mark.parametrize("per_channel", [True, False])
def test_affine_errs_by_at_most_half_a_step(w, bits, per_channel, shift):
    w = w + shift
    axes = (2, 3, 4) if per_channel else (1, 2, 3, 4)
    step = (w.amax(axes, keepdim=True) - w.amin(axes, keepdim=True)) / (2**bits - 1)
    error = (w - quantization.affine(w, bits, per_channel)).abs()
    assert (error <= step / 2 * (1 + 1e-4) + 1e-6).all()


@pytest.mark.parametrize("bits", (*BITS, 1.58))
@pytest.mark.parametrize("method", quantization.METHODS)
def test_at_most_two_to_the_bits_values(w, method, bits):
    quantized = {"w": quantization.quantize(w, method, bits)}
    found = quantization.values(quantized, method, {"w": bits})["w"]
    assert 2 <= found <= (3 if bits == 1.58 else 2**bits)
    assert quantization.values({"w": w}, method, {"w": bits})["w"] > 20  # the count would see more
    rows = quantized["w"].flatten(2 if method == "affine" and bits != 1.58 else 1).flatten(0, -2)
    assert max(len(row.unique()) for row in rows) == found


@pytest.mark.parametrize("method", quantization.METHODS)
def test_more_bits_err_less(w, method):
    errors = [(quantization.quantize(w, method, bits) - w).square().mean() for bits in BITS]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(
    "method, bits, tolerance",
    [
        *((method, bits, {"rtol": 1e-5}) for method in quantization.METHODS for bits in (1, 1.58)),
        # but for DoReFa, whose tanh shrinks what it is applied to a second time
        *(
            (method, bits, {"atol": 1e-6})
            for method in quantization.METHODS
            if method != "dorefa"
            for bits in (2, 4)
        ),
    ],
)
def test_quantising_again_changes_nothing(w, method, bits, tolerance):
    once = quantization.quantize(w, method, bits)
    assert torch.allclose(quantization.quantize(once, method, bits), once, **tolerance)


def test_by_hand():
    w = torch.tensor([[[-0.3, 0.1, 0.2]]])  # one model, one channel
    assert quantization.binary(w).tolist() == [[pytest.approx([-0.2, 0.2, 0.2])]]
    assert quantization.ternary(w).tolist() == [
        [pytest.approx([-0.25, 0.0, 0.25])]
    ]  # t = 0.14, a = (0.3 + 0.2) / 2
    # s = 0.5 / 3, z = round(1.8) = 2: integers 0, 3 (0.6 rounds to 1), 3 (1.2 rounds to 1)
    assert quantization.affine(w, 2).flatten().tolist() == pytest.approx([-2 * 0.5 / 3, 0.5 / 3, 0.5 / 3])
    m = math.tanh(0.3)
    u = [0, (math.tanh(0.1) / m + 1) / 2, (math.tanh(0.2) / m + 1) / 2]
    assert quantization.dorefa(w, 2).flatten().tolist() == pytest.approx(
        [m * (2 * round(3 * v) / 3 - 1) for v in u]
    )


def test_what_lies_on_a_border():
    """The sign of 0 is +; t itself is not above t; where both ends round away from 0 the upper one is clipped."""
    assert quantization.binary(torch.tensor([[0.0, -4.0]])).tolist() == [[2.0, -2.0]]
    assert quantization.ternary(torch.tensor([[0.7, 1.3]])).tolist() == [[0.0, pytest.approx(1.3)]]
    w = torch.tensor([[[-1.5, -1.0, 0.0, 1.0, 1.5]]])  # the step is 1, and -1.5 to 1.5 would be 0 to 4
    assert quantization.affine(w, 2).tolist() == [[[-2.0, -1.0, 0.0, 1.0, 1.0]]]


def test_binary_weights_have_one_size_a_layer_or_one_a_channel():
    w = torch.tensor([[[1.0, -3.0], [5.0, 7.0]]])
    assert quantization.binary(w).tolist() == [[[4.0, -4.0], [4.0, 4.0]]]
    assert quantization.binary(w, per_channel=True).tolist() == [[[2.0, -2.0], [6.0, 6.0]]]


@pytest.mark.parametrize("weights", ["normal", "uniform"])
def test_no_threshold_of_ternary_weights_errs_much_less(weights):
    """Li & Liu's 0.7 lies between what is best for normal weights (0.77) and for uniform ones (0.67)."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(1, 20_000, generator=generator, dtype=torch.float64)
    w = torch.erf(w / 2**0.5) if weights == "uniform" else w
    size = w[0].abs().sort(descending=True).values
    # the error of keeping the n largest, each at their mean, for every n
    errors = size.square().sum() - size.cumsum(0).square() / torch.arange(1, len(size) + 1)
    assert float((quantization.ternary(w) - w).square().sum() / errors.min()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_dorefa_at_many_bits_is_tanh_and_not_the_weights(bits):
    w = 0.5 * torch.randn(1, 1000, generator=torch.Generator().manual_seed(0))
    largest = w.abs().argmax()
    w = w * 1.46 / w[0, largest]  # the largest of some 300 N(0, 0.5) weights
    there = quantization.dorefa(w, bits)
    assert float(there[0, largest] / w[0, largest]) == pytest.approx(0.61, abs=0.01)  # at all three widths
    squashed = quantization.Squashed(("w",))({"w": w, "b": w})
    assert torch.equal(squashed["w"], w.tanh()) and squashed["b"] is w
    step = 2 * float(w.tanh().abs().max()) / (2**bits - 1)
    assert (there - squashed["w"]).abs().max() <= step / 2 + 1e-6
    # while affine comes back to the weights
    assert (quantization.affine(w[:, None], 16) - w).abs().max() < 1e-4
    with pytest.raises(ValueError, match="names is empty"):
        quantization.Squashed(())


def test_a_model_trained_with_the_transform_has_the_gradient_of_dorefa_at_many_bits(w):
    weight = torch.linspace(-1, 1, w.numel()).view(w.shape)
    found, _ = gradient(lambda w: quantization.Squashed(("w",))({"w": w})["w"], w)
    assert torch.allclose(found, weight * (1 - w.tanh() ** 2), atol=1e-6)
    assert torch.allclose(found, gradient(lambda w: quantization.dorefa(w, 16), w)[0], atol=1e-6)


@pytest.mark.parametrize("method", quantization.METHODS)
def test_each_model_has_its_own_grid(w, method):
    together = quantization.quantize(w, method, 3)
    alone = torch.cat([quantization.quantize(w[i : i + 1], method, 3) for i in range(2)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("bits", [1, 3])
def test_each_channel_has_its_own_grid(w, bits):
    channels = [quantization.quantize(w[:, i : i + 1], "affine", bits) for i in range(5)]
    together = quantization.quantize(w, "affine", bits)
    assert torch.equal(together, torch.cat(channels, dim=1))
    assert not torch.equal(together, quantization.quantize(w, "affine_tensor", bits))


def test_zero_rows_and_equal_rows_come_back_as_they_are(w):
    pruned = w.clone()
    pruned[:, 2], pruned[:, 3] = 0.0, 0.7
    assert torch.equal(quantization.affine(pruned, 4)[:, 2:4], pruned[:, 2:4])


@pytest.mark.parametrize("bits", (*BITS, 1.58))
@pytest.mark.parametrize("method", quantization.METHODS)
def test_nothing_comes_back_as_nothing(w, method, bits):
    nothing = torch.zeros_like(w)
    assert torch.equal(quantization.quantize(nothing, method, bits), nothing)


@pytest.mark.parametrize("bits", (*BITS, 1.58, 32))
@pytest.mark.parametrize("method", quantization.METHODS)
def test_inputs_are_left_alone(w, method, bits):
    before = w.clone()
    quantization.quantize(w, method, bits)
    assert torch.equal(w, before)


@pytest.mark.parametrize("method", quantization.METHODS)
def test_32_bits_are_no_quantisation_exactly(w, method):
    assert quantization.quantize(w, method, 32) is w
    models_ = small()
    full = Quantizer(method, quantization.widths(models_.make_model, 32, first=8, last=8))(models_.params)
    assert all(full[name] is tensor for name, tensor in models_.params.items())


@pytest.mark.cuda
@pytest.mark.parametrize("method", quantization.METHODS)
def test_cuda_gives_the_same_grids(w, method, accelerator):
    for bits in (*BITS, 1.58):
        there = quantization.quantize(w.to(accelerator), method, bits).cpu()
        assert torch.allclose(there, quantization.quantize(w, method, bits), atol=1e-6), bits


# The gradient


def gradient(quantize, w):
    """Of a weighted sum of the quantised weights, and the weights of that sum, which pass straight through."""
    w = w.clone().requires_grad_()
    weight = torch.linspace(-1, 1, w.numel()).view(w.shape)
    (found,) = torch.autograd.grad((quantize(w) * weight).sum(), w)
    return found, weight


def test_straight_through_is_the_second_forward_and_the_first_backward():
    values = torch.tensor([0.1, -2.0], requires_grad=True)
    result = quantization.straight_through(values, 3 * values)
    assert torch.equal(result, 3 * values)
    result.sum().backward()
    assert values.grad.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bits", (*BITS, 1.58))
@pytest.mark.parametrize("method", quantization.METHODS)
def test_the_gradient_passes_through_a_layer_of_zeros(w, method, bits):
    found, weight = gradient(lambda w: quantization.quantize(w, method, bits), torch.zeros_like(w))
    assert torch.equal(found, weight)


@pytest.mark.parametrize("bits", BITS)
def test_the_gradient_of_dorefa_by_hand(w, bits):
    found, weight = gradient(lambda w: quantization.dorefa(w, bits), w)
    # d w^ / dw = m * 2 * (1 - tanh^2 w) / 2m
    assert torch.allclose(found, weight * (1 - w.tanh() ** 2), atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("per_channel", [True, False])
def test_the_gradient_passes_straight_through_affine(w, bits, per_channel):
    found, weight = gradient(lambda w: quantization.affine(w, bits, per_channel), w)
    assert torch.allclose(found, weight)


@pytest.mark.parametrize(
    "quantize",
    [quantization.binary, lambda w: quantization.binary(w, True), quantization.ternary],
    ids=["binary", "binary of channels", "ternary"],
)
def test_the_gradient_passes_straight_through_signs(w, quantize):
    found, weight = gradient(quantize, w)
    assert torch.equal(found, weight)


# Quantizers in training


def test_a_trained_quantised_model_lies_on_its_grid(digits):
    split = splits.target_shadow(len(digits), 1, 1, 0, 100)
    make_model = models.make("small_cnn", digits)
    bits = quantization.widths(make_model, 2, first=8, last=8)
    assert list(bits.values()) == [8, 2, 2, 8]
    recipe = Recipe(2, 32, 2e-3)
    trained = training.fit(make_model, digits, split, recipe, compress=Quantizer("dorefa", bits))
    found = quantization.values(trained.params, "dorefa", bits)
    assert all(found[name] <= 2**width for name, width in bits.items())
    full = training.fit(make_model, digits, split, recipe)
    control = training.fit(
        make_model, digits, split, recipe, compress=Quantizer("dorefa", quantization.widths(make_model, 32))
    )
    assert all(torch.equal(full.params[n], control.params[n]) for n in full.params)


def test_one_by_one_equals_together(digits):
    split = splits.target_shadow(len(digits), 1, 1, 0, 60)
    make_model = models.make("lenet5", digits)
    options = dict(compress=Quantizer("affine", quantization.widths(make_model, 4)))
    recipe = Recipe(1, 32, 1e-3)
    together = training.fit(make_model, digits, split, recipe, batched=True, **options)
    alone = [
        training.fit(make_model, digits, split[i : i + 1], recipe, batched=False, **options) for i in range(2)
    ]
    for i in range(2):
        left = asking.logits(together[i : i + 1], digits, torch.arange(50))
        assert torch.allclose(left, asking.logits(alone[i], digits, torch.arange(50)), atol=1e-2), i


def test_what_is_pruned_before_is_zero_after():
    """Zero is on no DoReFa grid: pruned weights stay zero only if the mask comes after the quantiser."""
    models_ = small()
    masks = pruning.mask(models_, "l1_unstructured", 0.5)
    quantizer = Quantizer("dorefa", quantization.widths(models_.make_model, 2))
    both = masks(quantizer(models_.params))
    for name, kept in masks.kept.items():
        assert (both[name][~kept] == 0).all() and (both[name][kept] != 0).all(), name
        assert len(both[name][0].unique()) <= 2**2 + 1, name


# Widths and sizes


def test_widths_of_the_first_and_last_layer():
    make_model = small().make_model
    assert list(quantization.widths(make_model, 4).values()) == [4, 4, 4, 4]
    assert list(quantization.widths(make_model, 4, first=8, last=32).values()) == [8, 4, 4, 32]
    assert list(quantization.widths(make_model, 8, first=4, last=4).values()) == [
        8,
        8,
        8,
        8,
    ]  # never narrower
    assert list(quantization.widths(make_model, 32, first=8, last=8).values()) == [32, 32, 32, 32]


def test_bytes_by_hand():
    params = {"w": torch.zeros(1, 10, 8), "b": torch.zeros(1, 10)}
    assert quantization.stored_bytes(params, "dorefa", {"w": 32}) == 360
    assert quantization.stored_bytes(params, "dorefa", {"w": 4}) == 40 + 4 + 40
    assert quantization.stored_bytes(params, "affine", {"w": 4}) == 40 + 50 + 40


# Errors


@pytest.mark.parametrize(
    ("method", "bits", "words"),
    [
        ("dorefas", 4, "unknown method 'dorefas'"),
        ("dorefa", 0, "0 bits; valid are 1 to 16"),
        ("dorefa", 2.5, "2.5 bits"),
        ("affine", 17, "17 bits"),
        ("affine", -1, "-1 bits"),
    ],
)
def test_what_is_no_quantiser_is_refused(method, bits, words):
    with pytest.raises(ValueError, match=words):
        Quantizer(method, {"w": bits})
    with pytest.raises(ValueError, match=words):
        quantization.quantize(torch.ones(1, 1, 2), method, bits)


def test_nothing_to_quantise_is_refused():
    with pytest.raises(ValueError, match="bits is empty"):
        Quantizer("dorefa", {})
    with pytest.raises(ValueError, match="the model has none"):
        quantization.widths(torch.nn.Identity, 4)


def test_weights_are_on_their_grid_only_once_they_are_rounded(w):
    widths = {"w": 2, "v": quantization.TERNARY, "u": quantization.FULL}
    quantizer = Quantizer("dorefa", widths)
    params = dict.fromkeys(widths, w)
    assert not quantization.on_grid(params, quantizer)
    assert quantization.on_grid(quantizer(params), quantizer)
    half = quantizer(params) | {"v": w}
    assert not quantization.on_grid(half, quantizer)


@pytest.mark.parametrize("bits, most", [(1, 2), (2, 4), (3, 8), (quantization.TERNARY, 3)])
def test_one_value_more_than_the_width_allows_is_off_the_grid(bits, most):
    quantizer = Quantizer("affine_tensor", {"w": bits})
    assert quantization.on_grid({"w": torch.arange(most).view(1, 1, -1)}, quantizer)
    assert not quantization.on_grid({"w": torch.arange(most + 1).view(1, 1, -1)}, quantizer)


def test_ternary_values_are_a_layers_and_affine_ones_a_channels():
    params = {"w": torch.tensor([[[-1.0, 0.0], [0.0, 1.0]]])}
    assert quantization.values(params, "affine", {"w": quantization.TERNARY}) == {"w": 3}
    assert quantization.values(params, "affine", {"w": 2}) == {"w": 2}


def test_the_mean_width_counts_every_weight_alike():
    params = {"a": torch.zeros(1, 3, 4), "b": torch.zeros(1, 4), "c": torch.zeros(1, 100)}
    assert quantization.mean_width(params, {"a": 2, "b": 8}) == (12 * 2 + 4 * 8) / 16
