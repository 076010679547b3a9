"""What is measured on calibration data, and networks quantised after training or in it."""

import pytest
import torch

from mialib import asking, models, training
from mialib.compression import Quantizer, Scheme, calibration, quantization, quantized_relu, schemes
from mialib.data import splits
from mialib.training import Population, Recipe, population


@pytest.fixture(scope="module")
def trained(digits):
    split = splits.target_shadow(len(digits), 2, 1, 0, 200)
    return split, training.fit(models.make("small_cnn", digits), digits, split, Recipe(8, 32, 2e-3))


def test_8_bits_after_training_change_next_to_nothing(digits, trained):
    split, full = trained
    index = splits.indices(split.reserve)
    scheme = schemes.scheme(full.make_model, 8, method="affine", activations=8)
    integers = schemes.post_training(full, digits, index, scheme)
    before, after = (asking.accuracy(one, digits, split.test) for one in (full, integers))
    assert (before - after).abs().max() < 0.03
    found = quantization.values(integers.params, "affine", scheme.quantizer.bits)
    assert max(found.values()) <= 256
    assert integers.keys == []  # made by hand: its hash is that of its tensors


def test_two_bits_after_training_hurt_less_with_batchnorm_measured_anew(digits, trained):
    split, full = trained
    index = splits.indices(split.reserve)
    scheme = schemes.scheme(full.make_model, 2)
    again = schemes.post_training(full, digits, index, scheme)
    as_it_was = Population(full.make_model, scheme.quantizer(full.params), full.buffers)
    old, new = (asking.accuracy(one, digits, split.test).mean() for one in (as_it_was, again))
    assert new > old


def test_batchnorm_statistics_are_those_of_the_calibration_data(digits, trained):
    split, full = trained
    index = splits.indices(split.reserve)[:, :64]
    measured = calibration.batchnorm(full, digits, index)
    with torch.no_grad():
        first = full[1][0](digits.inputs(index[1]))  # the layer before the first BatchNorm
    assert torch.allclose(measured.buffers["1.running_mean"][1], first.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(measured.buffers["1.running_var"][1], first.var((0, 2, 3)), rtol=1e-3)
    assert not torch.equal(measured.buffers["1.running_mean"], full.buffers["1.running_mean"])
    assert all(measured.params[n] is full.params[n] for n in full.params)


def test_without_batchnorm_nothing_is_measured(digits):
    fresh = population.initial(models.make("lenet5", digits), [0, 1])
    assert calibration.batchnorm(fresh, digits, torch.arange(20).expand(2, -1)) is fresh


def test_ranges_shrink_with_the_bits_and_stay_within_what_is_seen(digits, trained):
    split, full = trained
    index = splits.indices(split.reserve)
    ranges = {b: calibration.clips(full, digits, index, b).buffers["2.clip"] for b in (2, 8)}
    with torch.no_grad():
        largest = [float(full[i][:3](digits.inputs(index[i])).max()) for i in range(len(full))]
    assert (ranges[2] < ranges[8]).all()
    assert (ranges[8] <= torch.tensor(largest) + 1e-5).all()


@pytest.mark.parametrize("index", [torch.zeros(3, 0, dtype=torch.long), torch.zeros(1, 9, dtype=torch.long)])
def test_empty_or_foreign_calibration_sets_are_refused(digits, trained, index):
    _, full = trained
    scheme = schemes.scheme(full.make_model, 8)
    for call in (
        lambda: schemes.post_training(full, digits, index, scheme),
        lambda: calibration.batchnorm(full, digits, index),
        lambda: calibration.clips(full, digits, index, 4),
    ):
        with pytest.raises(
            ValueError, match="calibration: index is .*at least 2 examples for each of the 3 models"
        ):
            call()


# Schemes


def test_a_scheme_has_one_width_but_for_the_edges(digits):
    make_model = models.make("small_cnn", digits)
    one = schemes.scheme(make_model, 2, activations=3)
    assert one == Scheme(Quantizer("dorefa", quantization.widths(make_model, 2, first=8, last=8)), 3, 8)
    assert set(schemes.scheme(make_model, 2, edge=None).quantizer.bits.values()) == {2}


def test_32_bits_are_the_plain_training(digits, trained):
    split, full = trained
    recipe = Recipe(2, 32, 1e-3)
    control = schemes.aware(full.make_model, digits, split, recipe, schemes.scheme(full.make_model, 32), full)
    plain = training.fit(full.make_model, digits, split, recipe, start=full)
    assert all(torch.equal(control.params[name], plain.params[name]) for name in plain.params)


def test_fine_tuned_ranges_are_measured_and_those_from_scratch_are_one(digits, trained):
    split, full = trained
    scheme = schemes.scheme(full.make_model, 4, activations=4)
    recipe = Recipe(1, 32, 1e-3)
    tuned = schemes.aware(full.make_model, digits, split, recipe, scheme, full)
    scratch = schemes.aware(full.make_model, digits, split, recipe, scheme)
    assert (scratch.buffers["2.clip"] == 1).all() and not (tuned.buffers["2.clip"] == 1).any()
    for one in (tuned, scratch):
        found = quantization.values(one.params, "dorefa", scheme.quantizer.bits)
        assert all(found[name] <= 2**width for name, width in scheme.quantizer.bits.items())


def test_training_from_scratch_and_from_full_precision(digits, trained):
    split, full = trained
    quantized = quantized_relu.quantized(full.make_model, 4, last=8)
    recipe = Recipe(4, 32, 2e-3)
    scratch = training.fit(quantized, digits, split, recipe)
    start = calibration.clips(full, digits, splits.indices(split.reserve), 4, last=8)
    tuned = training.fit(start.make_model, digits, split, recipe, start=start)
    assert torch.equal(tuned.buffers["2.clip"], start.buffers["2.clip"])  # the range stays as measured
    for population_ in (scratch, tuned):
        assert (asking.accuracy(population_, digits, split.member) > 0.6).all()
    together = training.fit(quantized, digits, split, Recipe(1, 32, 2e-3), batched=True)
    alone = training.fit(quantized, digits, split, Recipe(1, 32, 2e-3), batched=False)
    assert torch.allclose(together.params["0.weight"], alone.params["0.weight"], atol=1e-2)
