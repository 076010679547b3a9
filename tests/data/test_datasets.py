"""Data sets as tensors: what they refuse, the inputs they give, subsets, sizes, and sets that share nothing."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
import torchvision

from mialib import data
from mialib.data import Dataset, datasets, load, load_image_folder, loaders
from mialib.data.loaders import Raw


def tiny(**changes) -> Dataset:
    """Six one-channel 2x2 images of three classes; pixel values 0..23."""
    fields = dict(
        name="tiny",
        x=torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2),
        y=torch.tensor([0, 1, 2, 0, 1, 2]),
        num_classes=3,
        mean=torch.tensor([0.5]),
        std=torch.tensor([0.25]),
    )
    return Dataset(**fields | changes)


def test_inputs_by_hand():
    x = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    images = tiny(x=x, y=torch.tensor([0, 1, 2]))
    got = images.inputs(torch.tensor([[2, 0], [1, 1]]))
    assert got.shape == (2, 2, 1, 1, 1) and got.dtype == torch.float32
    torch.testing.assert_close(got.flatten(), torch.tensor([2.0, -2.0, -1.2, -1.2]))

    x = torch.tensor([[1.0, 2.0], [3.0, 8.0], [0.0, 0.0]])
    features = tiny(
        x=x, y=torch.tensor([0, 1, 2]), mean=torch.tensor([1.0, 2.0]), std=torch.tensor([2.0, 3.0])
    )
    torch.testing.assert_close(features.inputs(torch.tensor([1])), torch.tensor([[1.0, 2.0]]))


def test_inputs_are_bit_equal_to_torchvision():
    x = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values) for values in loaders.CIFAR)
    images = tiny(x=x, y=torch.zeros(5, dtype=torch.int64), mean=mean, std=std)
    expected = torchvision.transforms.functional.normalize(x.float().div(255), mean.tolist(), std.tolist())
    assert torch.equal(images.inputs(torch.arange(5)), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_inputs_never_share_memory_with_the_data(dtype):
    x = torch.ones(4, 3, dtype=dtype)
    raw = tiny(x=x, y=torch.zeros(4, dtype=torch.int64), mean=torch.zeros(1), std=torch.ones(1))
    batch = raw.inputs(torch.arange(4))
    assert batch.dtype == torch.float32 and torch.equal(batch, torch.ones(4, 3))
    batch.zero_()
    assert bool((raw.x == 1).all())


def test_inputs_refuse_a_mask():
    with pytest.raises(ValueError, match=r"index is torch.bool, must be torch.int64"):
        tiny().inputs(torch.ones(6, dtype=torch.bool))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": torch.tensor([0, 1, 3, 0, 1, 2])}, r"'tiny': labels 0..3, must be in 0..2"),
        ({"y": torch.tensor([0, 1, -1, 0, 1, 2])}, r"labels -1..2"),
        ({"y": torch.tensor([0, 1])}, r"y has shape \(2,\), x has 6 examples"),
        ({"y": torch.zeros(6)}, r"y is torch.float32, must be torch.int64"),
        ({"groups": torch.zeros(5, dtype=torch.int64)}, r"groups has shape \(5,\)"),
        ({"x": torch.zeros(6, 1, 2, 2)}, r"x is torch.float32"),
        ({"x": torch.zeros(6, 2, 2, dtype=torch.uint8)}, r"x has shape \(6, 2, 2\)"),
        ({"x": torch.zeros(6, 4, dtype=torch.float64)}, r"x is torch.float64"),
        ({"x": torch.full((6, 4), torch.nan)}, r"x holds values that are not finite"),
        ({"mean": torch.zeros(3)}, r"mean has shape \(3,\)"),
        ({"std": torch.zeros(1)}, r"std must be greater than 0"),
        ({"mean": torch.tensor([torch.nan])}, r"mean is not finite"),
        ({"mean": torch.zeros(1, dtype=torch.float64)}, r"mean is torch.float64"),
        ({"x": torch.zeros(0, 4), "y": torch.zeros(0, dtype=torch.int64)}, r"there are no examples"),
    ],
)
def test_bad_fields_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_replace_validates_again():
    with pytest.raises(ValueError, match="labels"):
        replace(tiny(), num_classes=2)


def test_dataset_is_frozen():
    with pytest.raises(FrozenInstanceError):
        tiny().num_classes = 4
    assert len(tiny()) == 6


def test_fingerprint_changes_with_anything_learned_from():
    base = tiny()
    pixel = base.x.clone()
    pixel[5, 0, 1, 1] += 1
    variants = [
        base,
        tiny(x=pixel),
        tiny(y=base.y.flip(0)),
        tiny(mean=torch.tensor([0.4])),
        tiny(std=torch.tensor([0.2])),
        tiny(name="other"),
        tiny(num_classes=4),
        tiny(x=base.x.view(6, 1, 4, 1)),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert tiny().fingerprint == base.fingerprint and len(base.fingerprint) == 64


def test_to_keeps_values_and_fingerprint():
    base = tiny(groups=torch.arange(6))
    expected = base.fingerprint
    moved = base.to("cpu")
    assert (
        moved.fingerprint == expected
        and torch.equal(moved.x, base.x)
        and torch.equal(moved.groups, base.groups)
    )


@pytest.mark.cuda
def test_inputs_on_cuda(accelerator):
    base = tiny()
    moved = base.to(accelerator)
    assert moved.fingerprint == base.fingerprint
    assert moved.inputs(torch.arange(6)).device.type == accelerator  # an index from the CPU is brought over
    torch.testing.assert_close(moved.inputs(torch.arange(6)).cpu(), base.inputs(torch.arange(6)))


# Loading by name


def raw(**changes) -> Raw:
    """Six features of width 2, three classes, as a loader leaves them."""
    x = np.arange(12, dtype=np.uint8).reshape(6, 2)
    return Raw(x, np.array([0, 1, 2, 0, 1, 2]), 3, groups=np.arange(6))._replace(**changes)


@pytest.fixture
def loaded(monkeypatch):
    """loaded(raw, ...): what `load` makes of what a loader leaves."""

    def loaded(raw, **options):
        monkeypatch.setitem(datasets.LOADERS, "made", lambda root: raw)
        return load("made", **options)

    return loaded


def test_features_are_kept_as_float32_unless_they_are_large(loaded, monkeypatch):
    small = loaded(raw())
    assert small.x.dtype == torch.float32 and torch.equal(small.x, torch.arange(12.0).view(6, 2))
    assert small.y.dtype == small.groups.dtype == torch.int64
    monkeypatch.setattr(datasets, "FLOAT_FEATURES_LIMIT", 4 * 12)
    large = loaded(raw())
    assert large.x.dtype == torch.uint8
    assert torch.equal(large.inputs(torch.arange(6)), small.inputs(torch.arange(6)))


def test_a_subset_decodes_and_keeps_its_own_rows_only(loaded):
    asked = []

    def rows(index):
        asked.append(index.tolist())
        return raw().x[index]

    part = loaded(raw(x=rows), subset=3, seed=1)
    index = datasets.stratified_index(torch.tensor([0, 1, 2, 0, 1, 2]), 3, 3, seed=1)
    assert asked == [index.tolist()] and torch.equal(part.groups, index)
    assert torch.equal(part.x, loaded(raw(), subset=3, seed=1).x)
    assert part.y.tolist() == [int(i) % 3 for i in index]


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "8"], ids=repr)
def test_picture_folders_need_a_size_of_whole_pixels(tmp_path, size):
    with pytest.raises(ValueError, match=f"size is {size!r}, must be an integer of at least 1 pixel"):
        load_image_folder(tmp_path, size)


def test_picture_folders_are_named_after_the_folder_and_may_be_parts(picture_root):
    whole = load_image_folder(picture_root / "imagenette-224", 8)
    part = load_image_folder(picture_root / "imagenette-224", 8, subset=4, seed=1)
    assert whole.name == part.name == "imagenette-224"
    assert torch.equal(part.x, whole.x[datasets.stratified_index(whole.y, 2, 4, 1)])
    grey = load_image_folder(picture_root / "imagenette-224", 8, grey=True)
    assert grey.x.shape == (8, 1, 8, 8) and grey.mean.tolist() == [0.0] and grey.std.tolist() == [1.0]


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"'cifar-10', the nearest is 'cifar10'; there are digits, mnist"):
        load("cifar-10")


def test_subset_is_stratified_and_deterministic():
    whole, part = load("digits"), load("digits", subset=500, seed=3)
    assert len(part) == 500 and part.name == "digits"
    exact = whole.y.bincount() * 500 / 1797
    assert bool((part.y.bincount() - exact).abs().max() < 1)
    assert load("digits", subset=500, seed=3).fingerprint == part.fingerprint
    assert load("digits", subset=500, seed=4).fingerprint != part.fingerprint
    assert load("digits", subset=1797, seed=4).fingerprint == whole.fingerprint


def test_pictures_of_another_size():
    whole, half = data.load("digits", subset=50), data.load("digits", subset=50, side=4)
    assert half.x.shape == (50, 1, 4, 4) and half.x.dtype == torch.uint8
    assert torch.equal(whole.y, half.y) and half.fingerprint != whole.fingerprint
    brightness = [one.x.float().mean((1, 2, 3)) for one in (whole, half)]
    assert float((brightness[0] - brightness[1]).abs().max()) < 12  # of 255; the filter weighs the rim less
    with pytest.raises(ValueError, match="side is 4, but toy holds features"):
        datasets.resized(Dataset("toy", torch.zeros(3, 2), torch.zeros(3).long(), 1, *[torch.ones(1)] * 2), 4)


def test_stratified_index_by_hand():
    y = torch.tensor([0] * 6 + [1] * 3 + [2])  # 5 of 10: 3, 1.5 and 0.5, so one left, ties to the lower class
    index = datasets.stratified_index(y, 3, 5, seed=0)
    assert y[index].tolist() == [0, 0, 0, 1, 1] and index.tolist() == sorted(set(index.tolist()))
    drawn = {tuple(datasets.stratified_index(y, 3, 5, seed).tolist()) for seed in range(50)}
    assert {i for index in drawn for i in index} == set(
        range(9)
    )  # every example of a kept class has its chance


@pytest.mark.parametrize("subset", [0, -1, 1798, 2.0, True])
def test_subset_out_of_range(subset):
    with pytest.raises(ValueError, match=r"subset is .*, must be an integer in 1..1797"):
        load("digits", subset=subset)


# Private and auxiliary


def test_apart_by_class_shares_no_class_and_numbers_both_from_0(digits):
    private, auxiliary = data.apart(digits, 7)
    assert private.num_classes == 7 and auxiliary.num_classes == 3
    assert len(private) + len(auxiliary) == len(digits)
    assert torch.equal(private.x, digits.x[digits.y < 7]) and torch.equal(private.y, digits.y[digits.y < 7])
    assert torch.equal(auxiliary.x, digits.x[digits.y >= 7])
    assert torch.equal(auxiliary.y, digits.y[digits.y >= 7] - 7)
    assert private.name == "digits, private" and private.fingerprint != digits.fingerprint


def test_apart_at_random_keeps_equal_examples_on_one_side(toy):
    twice = Dataset("twice", toy.x.repeat(2, 1), toy.y.repeat(2), 3, toy.mean, toy.std)
    first, second = data.apart(twice, share=0.25, seed=1, names=("a", "b"))
    assert len(second) == 60 and len(first) == 180 and first.num_classes == 3
    rows = [set(map(tuple, part.x.tolist())) for part in (first, second)]
    assert len(rows[0]) == 90 and len(rows[1]) == 30 and not rows[0] & rows[1]
    assert not torch.equal(data.apart(twice, share=0.25, seed=2)[1].x, second.x)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": 0}, "classes is 0; digits has 10, of which 1 to 9"),
        ({"classes": 10}, "classes is 10; digits has 10, of which 1 to 9"),
        ({"share": 1.0}, "share is 1"),
        ({"share": 0.0}, "share is 0"),
    ],
    ids=str,
)
def test_apart_refuses_what_leaves_a_side_empty(digits, options, words):
    with pytest.raises(ValueError, match=words):
        data.apart(digits, **options)


def test_one_of_each_class_comes_before_further_ones():
    labels = torch.tensor([2, 2, 0, 0, 1])
    assert data.one_of_each(labels, 2).tolist() == [0, 2]
    assert data.one_of_each(labels, 4).tolist() == [0, 2, 4, 1]
    assert data.one_of_each(labels, 9).tolist() == [0, 2, 4, 1, 3]
