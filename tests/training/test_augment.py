"""Mirroring and shifting pictures."""

import pytest
import torch

from mialib import models, training
from mialib.data import splits as splits_
from mialib.training import Blurred, FlipAndShift, Recipe


@pytest.fixture
def x():
    return torch.rand(2, 30, 3, 5, 7, generator=torch.Generator().manual_seed(0)) + 1


def all_changes(picture, padding):
    """Every mirrored and shifted version of a picture (c, h, w), by hand."""
    h, w = picture.shape[1:]
    padded = torch.zeros(picture.shape[0], h + 2 * padding, w + 2 * padding)
    padded[:, padding : padding + h, padding : padding + w] = picture
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            cut = padded[:, top : top + h, left : left + w]
            yield from (cut, cut.flip(2))


def test_every_picture_is_one_of_the_possible_changes_and_they_differ(x):
    before = x.clone()
    changed = FlipAndShift(1)(x, torch.Generator().manual_seed(1))
    assert torch.equal(x, before) and changed.shape == x.shape
    found = [
        next(i for i, one in enumerate(all_changes(x[m, n], 1)) if torch.equal(one, changed[m, n]))
        for m in range(2)
        for n in range(30)
    ]
    assert len(set(found)) > 10  # of 18
    assert 0.25 < sum(i % 2 for i in found) / 60 < 0.75  # about half are mirrored


def test_without_padding_pictures_are_only_mirrored(x):
    changed = FlipAndShift(0)(x, torch.Generator().manual_seed(1))
    same, mirrored = ((changed == one).flatten(2).all(2) for one in (x, x.flip(4)))
    assert (same ^ mirrored).all() and same.any() and mirrored.any()


def test_the_generator_decides(x):
    one, two, other = (FlipAndShift()(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_it_changes_training(digits):
    split = splits_.target_shadow(len(digits), 1, 1, 0, 50)
    make_model, recipe = models.make("lenet5", digits), Recipe(2, 16)
    plain = training.fit(make_model, digits, split, recipe)
    augmented = training.fit(make_model, digits, split, recipe, augment=FlipAndShift(1))
    assert augmented.records[0]["loss"] != plain.records[0]["loss"]
    assert augmented.keys != plain.keys


def test_features_and_negative_padding_are_refused():
    with pytest.raises(ValueError, match="padding is -1"):
        FlipAndShift(-1)
    with pytest.raises(ValueError, match="only pictures"):
        FlipAndShift()(torch.zeros(1, 4, 6), torch.Generator())


def test_blurred_pictures_are_means_of_blocks_drawn_smooth_again():
    x = torch.rand(2, 60, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = Blurred((1, 4))(x, torch.Generator().manual_seed(1))
    same = (found == x).flatten(2).all(2)
    assert 40 < int(same.sum()) < 80  # about half are left as they are
    coarse = torch.nn.functional.avg_pool2d(x.flatten(0, 1), 4)
    expected = torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear").view(x.shape)
    assert torch.allclose(found[~same], expected[~same])
    assert torch.equal(Blurred((1, 4))(x, torch.Generator().manual_seed(1)), found)
    flat = Blurred((32,))(x, torch.Generator())  # coarser than the picture: its mean
    assert torch.allclose(flat, x.mean((-1, -2), keepdim=True).expand_as(x), atol=1e-6)


def test_blurring_refuses_features_and_factors_below_1():
    with pytest.raises(ValueError, match="can be blurred"):
        Blurred()(torch.zeros(1, 4, 6), torch.Generator())
    with pytest.raises(ValueError, match=r"factors are \(0, 2\)"):
        Blurred((0, 2))
