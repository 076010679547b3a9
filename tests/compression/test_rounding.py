"""Rounding that is learned: up or down and nothing else, and never worse for a layer than rounding to the nearest."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mialib import asking
from mialib.compression import LearnedRounding, Quantizer, quantization, rounding, schemes
from mialib.data import splits
from mialib.store import Store

QUICK = LearnedRounding(steps=100, batch_size=32, lr=0.05, examples=48)
SHORT = replace(QUICK, steps=15)  # learns little, where that is enough


def widths(models, bits):
    return quantization.widths(models.make_model, bits)


def layers(models, digits, index, params):
    """Of each layer: its own module, path, name, inputs in the full networks and behind the rounded layers before it."""
    behind = models
    for name in widths(models, 8):
        path = name.rpartition(".")[0]
        yield (
            models[0].get_submodule(path),
            name,
            *(rounding.seen_by(one, digits, index, path) for one in (models, behind)),
        )
        behind = replace(behind, params=behind.params | {name: params[name]}, keys=[])


@pytest.fixture(scope="module")
def learned(trained, digits):
    """Networks, calibration examples, and their parameters at 2 and 3 bits."""
    split, full = trained[0][:2], trained[1][:2]
    index = splits.indices(split.reserve)[:, :48]
    found = {bits: QUICK(full, digits, index, Quantizer("affine", widths(full, bits))) for bits in (2, 3)}
    return full, index, found


@pytest.mark.parametrize("bits", [2, 3])
def test_every_weight_is_rounded_up_or_down(learned, bits):
    full, _, found = learned
    quantizer = Quantizer("affine", widths(full, bits))
    assert quantization.on_grid(found[bits], quantizer)
    for name in quantizer.bits:
        lower, upper = rounding.neighbours(full.params[name], "affine", bits)
        rounded = found[bits][name]
        assert ((rounded == lower) | (rounded == upper)).all(), name
        nearest = quantization.quantize(full.params[name], "affine", bits)
        assert ((nearest == lower) | (nearest == upper)).all() and (rounded != nearest).any(), name
    others = found[bits].keys() - quantizer.bits.keys()
    assert others and all(found[bits][name] is full.params[name] for name in others)


@pytest.mark.parametrize("bits", [2, 3])
def test_no_layer_errs_more_than_rounded_to_the_nearest_and_most_err_less(learned, digits, bits):
    full, index, found = learned
    ratios = []
    for layer, name, plain, seen in layers(full, digits, index, found[bits]):
        wanted = rounding._output(layer, full.params[name], plain)
        nearest = quantization.quantize(full.params[name], "affine", bits)
        ours, theirs = (rounding.errors(layer, w, seen, wanted) for w in (found[bits][name], nearest))
        assert (ours <= theirs).all(), name
        ratios.append(ours / theirs)
    assert torch.stack(ratios).median() < 0.9


def test_two_bits_hurt_less_than_rounded_to_the_nearest(learned, trained, digits):
    full, _, found = learned
    split = trained[0][:2]
    scheme = schemes.scheme(full.make_model, 2, method="affine", edge=None)
    index = splits.indices(split.reserve)
    near, ours = (
        asking.accuracy(schemes.post_training(full, digits, index, scheme, how), digits, split.test).mean()
        for how in (None, lambda *_: found[2])
    )
    assert ours > near + 0.05


def test_8_bits_are_next_to_nothing_either_way(trained, digits):
    split, full = trained[0][:2], trained[1][:2]
    scheme = schemes.scheme(full.make_model, 8, method="affine")
    index = splits.indices(split.reserve)
    near, ours, before = (
        asking.log_posteriors(one, digits, index).exp()
        for one in (
            schemes.post_training(full, digits, index, scheme),
            schemes.post_training(full, digits, index, scheme, SHORT),
            full,
        )
    )
    assert (near - ours).abs().mean() < 0.002 and (before - ours).abs().mean() < 0.05
    wide = SHORT(full, digits, index, Quantizer("affine", widths(full, quantization.FULL)))
    assert all(wide[name] is full.params[name] for name in full.params)


def test_a_model_learns_the_same_alone_and_again(trained, digits, tmp_path):
    full, index = trained[1][:2], splits.indices(trained[0].reserve)[:2, :48]
    quantizer = Quantizer("affine", widths(full, 2))
    first, again = (SHORT(full, digits, index, quantizer, Store(tmp_path / name)) for name in "ab")
    alone = SHORT(full[1:2], digits, index[1:2], quantizer, Store(tmp_path / "c"))
    other = SHORT(full[:1], digits, index[1:2], quantizer, Store(tmp_path / "d"))
    for name in quantizer.bits:
        assert torch.equal(again[name], first[name]), name
        assert (alone[name][0] == first[name][1]).double().mean() > 0.98, name  # sums in another order
        assert not torch.equal(other[name][0], first[name][0]), name  # each learns on its own examples


def test_what_was_learned_is_kept(trained, digits, tmp_path, monkeypatch):
    split, full = trained
    index, store = splits.indices(split.reserve)[:, :8], Store(tmp_path)
    quick = replace(QUICK, steps=3, batch_size=4)
    quantizer = Quantizer("affine_tensor", widths(full, 3))
    first = quick(full, digits, index, quantizer, store)
    assert len(store.entries()) == 1
    monkeypatch.setattr(rounding, "_learn", None)
    again = quick(full, digits, index, quantizer, store)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for how, width, examples in (
        (replace(quick, seed=1), 3, index),
        (quick, 2, index),
        (quick, 3, index[:, 1:]),
    ):
        with pytest.raises(TypeError):  # is not there yet
            how(full, digits, examples, Quantizer("affine_tensor", widths(full, width)), store)


# By hand


def test_neighbours_by_hand():
    w = torch.tensor([[[-1.0, -0.4, 0.1, 2.0]]])  # 2 bits: the step is 1, the grid -1, 0, 1, 2
    lower, upper = rounding.neighbours(w, "affine", 2)
    assert lower.tolist() == [[[-1.0, -1.0, 0.0, 2.0]]] and upper.tolist() == [[[0.0, 0.0, 1.0, 2.0]]]
    lower, upper = rounding.neighbours(w, "affine", 1)  # the mean magnitude
    assert lower.flatten().tolist() == [-0.875] * 4 and upper.flatten().tolist() == [0.875] * 4
    lower, upper = rounding.neighbours(w, "affine", quantization.TERNARY)  # t = .6125, a = 1.5
    assert lower.tolist() == [[[-1.5, -1.5, 0.0, 0.0]]] and upper.tolist() == [[[0.0, 0.0, 1.5, 1.5]]]
    flat = torch.full((1, 1, 3), 0.7)
    assert all(torch.equal(end, flat) for end in rounding.neighbours(flat, "affine", 4))
    with pytest.raises(ValueError, match=r"dorefa rounds tanh\(w\), not w"):
        rounding.neighbours(w, "dorefa", 4)
    with pytest.raises(ValueError, match="2.5 bits"):
        rounding.neighbours(w, "affine", 2.5)


def test_weights_whose_errors_cancel_are_rounded_apart():
    """Three weights on equal inputs, .25, .4 and .49 of a step up: the nearest are all below, by 1.14 steps together."""
    layer = nn.Linear(5, 1, bias=False)
    w = torch.tensor([[[0.0, 3.0, 0.25, 0.4, 0.49]]])  # the first two set the grid, 0, 1, 2, 3
    x = torch.randn(1, 64, 1, generator=torch.Generator().manual_seed(0)).expand(1, 64, 5)
    wanted = rounding._output(layer, w, x)
    nearest = quantization.affine(w, 2)
    assert nearest.flatten().tolist() == [0.0, 3.0, 0.0, 0.0, 0.0]
    found = rounding._learn(
        LearnedRounding(steps=600), layer, w, rounding.neighbours(w, "affine", 2), nearest, x, wanted
    )
    assert float(found.sum()) == pytest.approx(4.0)
    assert float(rounding.errors(layer, found, x, wanted) / rounding.errors(layer, nearest, x, wanted)) < 0.05


@pytest.mark.parametrize("bits", [1, quantization.TERNARY])
def test_two_and_three_values_too(trained, digits, bits):
    split, full = trained
    quantizer = Quantizer("affine", widths(full[:1], bits))
    found = SHORT(full[:1], digits, splits.indices(split.reserve)[:1, :32], quantizer)
    assert quantization.on_grid(found, quantizer)
    nearest = quantizer(full[:1].params)
    assert all((found[name] != nearest[name]).any() for name in quantizer.bits)


@pytest.mark.parametrize("name", ["steps", "batch_size", "lr", "strength", "examples"])
def test_settings_that_are_none_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0; it must be above 0"):
        LearnedRounding(**{name: 0})
