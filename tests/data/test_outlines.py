"""An outline is the data set without its examples, and nothing is downloaded for it."""

import numpy as np
import pytest
import torch
from PIL import Image

from mialib import data
from mialib.data import download, loaders, outlines, own


@pytest.fixture
def pictures(tmp_path):
    """Three folders of 2, 3 and 4 pictures of 40 x 30 pixels."""
    for i, name in enumerate(("ant", "bee", "cow")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for j in range(2 + i):
            Image.new("RGB", (40, 30)).save(tmp_path / "pictures" / name / f"{j}.png")
    return tmp_path


@pytest.mark.parametrize(
    "options", [{}, {"subset": 300, "seed": 3}, {"side": 12}, {"subset": 40, "side": 9}], ids=str
)
def test_it_has_the_shape_and_the_labels_of_the_data_set(options):
    whole, found = data.load("digits", **options), outlines.of("digits", **options)
    assert found.x.shape == whole.x.shape and torch.equal(found.y, whole.y)
    assert (found.name, found.num_classes, found.is_image) == ("digits", 10, True)


def test_its_examples_take_no_memory():
    assert outlines.of("digits").x.untyped_storage().nbytes() == 1


def test_pictures_in_folders_are_counted_and_one_is_decoded(pictures, monkeypatch):
    decoded = []
    real = loaders.pictures.decode_images
    monkeypatch.setattr(
        loaders.pictures,
        "decode_images",
        lambda files, *a, **k: decoded.append(len(files)) or real(files, *a, **k),
    )
    with own.beside(pictures):
        found = outlines.of("folder:pictures", side=16)
        assert (len(found), found.num_classes, tuple(found.x.shape)) == (9, 3, (9, 3, 16, 16))
        assert outlines.of("folder:pictures").x.shape == (9, 3, 224, 224)
        assert found.y.tolist() == data.load("folder:pictures", side=16).y.tolist()
    assert decoded[:2] == [1, 1]


def test_a_function_of_ones_own_is_called(tmp_path, monkeypatch):
    (tmp_path / "outlined.py").write_text(
        "import numpy as np\ndef made(): return np.zeros((9, 4)), np.arange(9) % 2\n"
    )
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    with own.beside(tmp_path):
        found = outlines.of("outlined:made", subset=6)
    assert (len(found), found.num_classes, tuple(found.x.shape)) == (6, 2, (6, 4))


def test_nothing_is_downloaded_and_what_is_not_at_hand_has_no_outline(tmp_path, monkeypatch):
    def no(*args, **options):
        raise AssertionError("it downloads")

    monkeypatch.setattr(download.pooch, "retrieve", no)
    for name in loaders.LOADERS.keys() - {"digits"}:
        assert outlines.of(name, tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_afterwards_it_may_be_downloaded_again(tmp_path, monkeypatch):
    monkeypatch.setattr(download.pooch, "retrieve", lambda *a, **k: 1 / 0)
    assert outlines.of("location", tmp_path) is None
    with pytest.raises(ZeroDivisionError):
        data.load("location", tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("digits", {"subset": 5000}, "subset is 5000, must be an integer in 1..1797"),
        ("features", {"side": 8}, "side is 8, but features holds features"),
        ("digitz", {}, "unknown data set 'digitz', the nearest is 'digits'"),
        ("folder:nowhere", {}, "folder:nowhere: no folder"),
    ],
)
def test_it_refuses_what_load_refuses(monkeypatch, tmp_path, name, options, words):
    made = loaders.Raw(np.zeros((4, 3), np.uint8), np.arange(4) % 2, 2)
    monkeypatch.setitem(loaders.LOADERS, "features", lambda root: made)
    for get in (outlines.of, data.load):
        with pytest.raises(ValueError, match=words):
            get(name, tmp_path, **options)
