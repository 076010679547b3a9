"""Networks quantised after training, fine-tuned, or trained so from scratch."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from mialib import asking, models, training
from mialib.compression import (
    LearnedRounding,
    Quantizer,
    Scheme,
    quantization,
    quantized_relu,
    recalibration,
    schemes,
)
from mialib.data import splits
from mialib.training import Population, Recipe


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
    for way, one in (("fine-tuned", tuned), ("from scratch", scratch)):
        found = quantization.values(one.params, "dorefa", scheme.quantizer.bits)
        assert all(found[name] <= 2**width for name, width in scheme.quantizer.bits.items()), way


def test_training_from_scratch_and_from_full_precision(digits, trained):
    split, full = trained
    quantized = quantized_relu.quantized(full.make_model, 4, last=8)
    recipe = Recipe(4, 32, 2e-3)
    scratch = training.fit(quantized, digits, split, recipe)
    start = recalibration.clips(full, digits, splits.indices(split.reserve), 4, last=8)
    tuned = training.fit(start.make_model, digits, split, recipe, start=start)
    assert torch.equal(tuned.buffers["2.clip"], start.buffers["2.clip"])  # the range stays as measured
    for way, one in (("from scratch", scratch), ("fine-tuned", tuned)):
        assert (asking.accuracy(one, digits, split.member) > 0.6).all(), way
    together = training.fit(quantized, digits, split, Recipe(1, 32, 2e-3), batched=True)
    alone = training.fit(quantized, digits, split, Recipe(1, 32, 2e-3), batched=False)
    assert torch.allclose(together.params["0.weight"], alone.params["0.weight"], atol=1e-2)


@pytest.mark.parametrize("family", schemes.FAMILIES)
def test_a_family_is_made_as_it_says_and_so_is_its_control(digits, trained, family):
    split, full = trained
    recipe, further, index = Recipe(2, 32, 2e-3), Recipe(1, 32, 1e-3), splits.indices(split.reserve)
    way = partial(
        schemes.in_family, full.make_model, digits, split, family, start=full, recipe=recipe, further=further
    )
    two = schemes.of_family(full.make_model, family, 2)
    aware = partial(schemes.aware, full.make_model, digits, split)
    clipped = replace(schemes.scheme(full.make_model, 32), activations=16)
    expected, control = {
        "after training": (
            lambda: schemes.post_training(full, digits, index, two),
            lambda: recalibration.batchnorm(full, digits, index),
        ),
        "fine-tuned": (lambda: aware(further, two, full), lambda: aware(further, unrounded, full)),
        "fine-tuned, activations too": (
            lambda: aware(further, two, full),
            lambda: aware(further, unrounded, full),
        ),
        "from scratch": (lambda: aware(recipe, two), lambda: full),
        "from scratch, activations too": (lambda: aware(recipe, two), lambda: aware(recipe, clipped)),
    }[family]
    unrounded = schemes.scheme(full.make_model, 32)
    for found, wanted in ((way(2), expected()), (way(32), control())):
        assert asking.accuracy(found, digits, split.test).equal(asking.accuracy(wanted, digits, split.test))
        assert all(torch.equal(found.params[name], wanted.params[name]) for name in wanted.params)
    assert quantization.on_grid(way(2).params, two.quantizer)


def test_families_differ_in_method_and_in_what_they_quantise(digits):
    make_model = models.make("small_cnn", digits)
    found = {family: schemes.of_family(make_model, family, 1.58, edge=None) for family in schemes.FAMILIES}
    assert [one.quantizer.method for one in found.values()] == ["affine", *["dorefa"] * 4]
    assert [one.activations for one in found.values()] == [32, 32, 2, 32, 2]
    with pytest.raises(ValueError, match="unknown family 'tuned'; valid are 'after training', 'fine-tuned'"):
        schemes.of_family(make_model, "tuned", 2)


def test_the_overview_has_widths_and_bytes(digits):
    make_model = models.make("small_cnn", digits)
    table = schemes.overview(make_model, [32, 2])
    assert table["first, others, last layer"].tolist() == ["32 / 32 / 32", "8 / 2 / 8"]
    full = sum(tensor.numel() * 4 for tensor in make_model().parameters())
    assert table.loc[32, "bytes"] == full > 3 * table.loc[2, "bytes"]


def test_the_last_layer_may_have_a_width_of_its_own(digits):
    make_model = models.make("small_cnn", digits)
    for last, expected in ((None, [8, 2, 2, 8]), (32, [8, 2, 2, 32]), (4, [8, 2, 2, 4]), (1, [8, 2, 2, 2])):
        one = schemes.of_family(make_model, "after training", 2, last=last)
        assert list(one.quantizer.bits.values()) == expected
    assert list(schemes.scheme(make_model, 4, edge=None, last=8).quantizer.bits.values()) == [4, 4, 4, 8]


def test_a_rounding_is_learned_after_training_only(digits, trained):
    split, full = trained
    options = dict(start=full, recipe=Recipe(1, 32), further=Recipe(1, 32), rounding=LearnedRounding(steps=1))
    with pytest.raises(
        ValueError, match="learned for the family \"after training\" only, found 'fine-tuned'"
    ):
        schemes.in_family(full.make_model, digits, split, "fine-tuned", 4, **options)
    found = schemes.in_family(full.make_model, digits, split, "after training", 4, last=32, **options)
    last = list(quantization.widths(full.make_model, 4))[-1]
    assert torch.equal(found.params[last], full.params[last])


def test_calibration_examples_are_needed_before_any_work(digits, trained):
    split, full = trained
    how = LearnedRounding(steps=10**9)
    with pytest.raises(ValueError, match="at least 2 examples for each of the"):
        schemes.post_training(
            full, digits, splits.indices(split.reserve)[:1, :1], schemes.scheme(full.make_model, 8), how
        )
