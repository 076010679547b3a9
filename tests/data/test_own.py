"""Data sets and networks of one's own, by address."""

import importlib.util
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mialib import data, models, training
from mialib.data import own, splits
from mialib.training import Recipe

MODULE = """
import numpy as np
from torch import nn
from mialib import data
import torch


def blobs():
    y = np.arange(90) % 3
    return (np.random.default_rng(0).normal(size=(90, 4)) + np.eye(3, 4)[y]).astype("float32"), y


def pictures():
    return np.full((4, 3, 8, 8), 255, "uint8"), np.array([0, 1, 0, 1])


def whole():
    return data.Dataset.of_features("named otherwise", torch.zeros(3, 2), torch.tensor([0, 1, 1]), 5)


def wrong():
    return "nothing"


def net(shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), num_classes))


def stubborn(shape, num_classes):
    return nn.Linear(4, 7)


def no_network(shape, num_classes):
    return 3


VALUE = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of one's own beside a YAML file."""
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with own.beside(tmp_path):
        yield tmp_path
    sys.modules.pop("mine", None)


def test_a_pair_of_features_is_used_as_it_is(mine):
    made = data.load("mine:blobs")
    assert made.name == "mine:blobs" and made.num_classes == 3
    index = torch.arange(90)
    assert torch.equal(made.inputs(index), made.x) and made.x.dtype == torch.float32
    assert len(data.load("mine:blobs", subset=30)) == 30


def test_a_pair_of_pictures_is_taken_to_the_unit_interval(mine):
    made = data.load("mine:pictures", side=4)
    assert made.x.shape == (4, 3, 4, 4)
    assert torch.equal(made.inputs(torch.arange(4)), torch.ones(4, 3, 4, 4))


def test_a_data_set_keeps_its_classes_and_gets_the_address_for_its_name(mine):
    made = data.load("mine:whole")
    assert (made.name, made.num_classes) == ("mine:whole", 5)


def test_a_folder_of_pictures_is_found_beside_the_file_and_below_the_data_root(mine, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    for place in (mine / "near", root / "far"):
        for number, name in enumerate(("cats", "dogs")):
            (place / name).mkdir(parents=True)
            Image.fromarray(np.full((20, 20, 3), 100 * number, "uint8")).save(place / name / "1.png")
    for name in ("folder:near", "folder:far", f"folder:{mine / 'near'}"):
        made = data.load(name, root, side=8)
        assert (made.name, made.x.shape, made.num_classes) == (name, (2, 3, 8, 8), 2), name
    with pytest.raises(ValueError, match="folder:nowhere: no folder .*nowhere or .*nowhere"):
        data.load("folder:nowhere", root)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("absent:blobs", "no module absent; it is looked for in .*, then on Python's path"),
        ("mine:blob", "mine.py has no function blob; it has .*blobs"),
        ("mine:VALUE", "has no function VALUE"),
        ("mine:wrong", "gives a str; it must give a data.Dataset or a pair"),
        ("mine:two:three", "an address is module:function"),
        ("../mine:blobs", "an address is module:function"),
    ],
)
def test_what_is_no_data_set_is_refused(mine, address, words):
    with pytest.raises(ValueError, match=words):
        data.load(address)


def test_a_network_of_ones_own_is_made_for_the_data_set(mine, digits):
    made = models.make("mine:net", digits)()
    assert made(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("mine:stubborn", r"answers two inputs \(4,\) with \(2, 7\); 'mine:blobs' has 3 classes"),
        ("mine:no_network", "gives a int, not an nn.Module"),
        ("mine:absent", "has no function absent"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_before_any_training(mine, address, words):
    with pytest.raises(ValueError, match=words):
        models.make(address, data.load("mine:blobs"))


def test_looking_at_a_network_moves_no_random_stream(mine, digits):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    models.make("mine:net", digits)
    assert torch.equal(torch.rand(3), expected)


def test_the_source_of_ones_own_module_is_part_of_the_key(mine):
    def trained():
        sys.modules.pop("mine", None)
        pool = data.load("mine:blobs")
        split = splits.target_shadow(len(pool), 1, 1, seed=0)
        return training.fit(models.make("mine:net", pool), pool, split, Recipe(1, 16)).keys

    before = trained()
    assert trained() == before
    (mine / "mine.py").write_text(
        MODULE.replace("nn.Flatten(), nn.Linear", "nn.Flatten(), nn.ReLU(), nn.Linear")
    )
    assert not set(trained()) & set(before)
    (mine / "mine.py").write_text(MODULE + "\n# a comment\n")
    assert trained() == before


def test_beside_returns_to_what_was_before(tmp_path, monkeypatch):
    monkeypatch.setenv(own.BESIDE, "/somewhere")
    with own.beside(tmp_path):
        assert os.environ[own.BESIDE] == str(tmp_path.resolve())
    assert os.environ[own.BESIDE] == "/somewhere"


def test_a_module_that_a_finder_of_its_own_finds_is_there(monkeypatch, tmp_path):
    """As an editable installation does, whose folder is not on the path."""

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            return (
                importlib.util.spec_from_file_location(name, tmp_path / "f.py")
                if name == "found_by_finder"
                else None
            )

    (tmp_path / "f.py").write_text("def load():\n    return 3\n")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    own.check("found_by_finder:load")
    assert own.function("found_by_finder:load")() == 3
    sys.modules.pop("found_by_finder")
