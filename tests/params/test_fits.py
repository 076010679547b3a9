"""What does not fit data, network or machine is said before any work, and what fits passes."""

import numpy as np
import pytest
import torch

from mialib.data import loaders, own
from mialib.params import fits, machine


@pytest.fixture(autouse=True)
def _a_machine(monkeypatch):
    """Four cores, 16 GiB, no CUDA device."""
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr(machine, "memory", lambda device: 16 * 2**30)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture(autouse=True)
def _data(monkeypatch):
    def made(n, shape, classes):
        return lambda root: loaders.Raw(np.zeros((n, *shape), np.uint8), np.arange(n) % classes, classes)

    for name, *of in (
        ("two classes", 400, (6,), 2),
        ("features", 400, (6,), 4),
        ("three hundred classes", 6000, (6,), 300),
        ("many classes", 4000, (6,), 2000),
        ("pictures", 20_000, (3, 32, 32), 10),
    ):
        monkeypatch.setitem(loaders.LOADERS, name, made(*of))


DIGITS = {"dataset": "digits", "model": "small_cnn", "n_train": 100, "n_targets": 5, "n_shadows": 2}
PRIVATE = DIGITS | {"private_classes": 7, "n_reserve": 300, "attack_epochs": 1}
HALVES = {
    "dataset": "digits",
    "model": "small_cnn",
    "subset": 100,
    "n_models": 6,
    "n_canaries": 20,
    "reserve_share": 0.2,
}
OFFICIAL = {"dataset": "digits", "model": "lenet5", "n_train": 1200, "n_models": 3}
FEATURES = {"dataset": "features", "model": "columnfc", "n_train": 20, "n_targets": 1, "n_shadows": 1}


def problems(values, without=(), **others):
    values = values | others
    found = fits.problems({name: value for name, value in values.items() if name not in without}, set(values))
    assert all("\n" not in problem for of_one in found.values() for problem in of_one)
    return found


def said(*args, **others):
    return "; ".join(problem for of_one in problems(*args, **others).values() for problem in of_one)


@pytest.mark.parametrize("values", [DIGITS, PRIVATE, OFFICIAL, FEATURES, {"epochs": 3}, {}], ids=str)
def test_what_fits_passes(values):
    assert said(values) == ""


@pytest.mark.parametrize("values", [DIGITS, DIGITS | {"pruners": ["l1_unstructured"], "bits": [2]}], ids=str)
def test_a_notebook_draws_the_same_whether_it_was_checked_or_not(values):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    said(values)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (DIGITS | {"n_train": 2000}, "n_train is 2000: digits has 1797 examples to take"),
        (DIGITS | {"n_train": None, "subset": 30}, "n_train is None: of 30 examples 45 % of a half are"),
        (DIGITS | {"n_train": None, "subset": 2}, "n_train is None"),
        (
            DIGITS | {"n_train": None, "subset": 100, "batch_size": 32},
            "batch_size holds 32, and a network has",
        ),
        (DIGITS | {"subset": 5000}, "dataset is 'digits': subset is 5000, must be an integer in 1..1797"),
        (
            DIGITS | {"n_targets": 100_000},
            "n_targets is 100000: more networks (100002) than digits has examples",
        ),
        (DIGITS | {"n_shadows": 1_000_000}, "n_shadows is 1000000: 1000005 networks with"),
        (DIGITS | {"lira_models": 5000}, "lira_models is 5000: more networks"),
        (PRIVATE | {"n_reserve": 1200}, "n_train is 100: digits has 1797 examples to take"),
        (PRIVATE | {"private_classes": None, "n_train": 700}, "D1 + D2 + D3 need 1700"),
        (
            PRIVATE | {"private_classes": 10},
            "private_classes is 10: digits has 10 classes, so 3 to 9 can be private",
        ),
        (OFFICIAL | {"n_train": 1797}, "n_train is 1797"),
        (HALVES | {"n_canaries": 90}, "n_canaries is 90: digits has 100 examples, and"),
        (HALVES | {"batch_size": 64}, "batch_size holds 64, and a network has"),
        (
            OFFICIAL | {"densities": [0.5, 0.5]},
            "densities is [0.5, 0.5]: densities: 2 given, the model has 4 layers",
        ),
        (
            FEATURES | {"dataset": "two classes", "attack_epochs": 1},
            "dataset is 'two classes': it has 2 classes",
        ),
        (FEATURES | {"image_side": 16}, "dataset is 'features': side is 16, but features holds features"),
        (
            FEATURES | {"augment": True},
            "augment is True: features holds features, and only pictures are mirrored",
        ),
        (FEATURES | {"model": "lenet5"}, "model is 'lenet5': model: lenet5 takes images"),
        (
            FEATURES | {"pruner": "l1_filter", "sparsity": 0.5},
            "pruner is 'l1_filter': method: l1_filter removes filters",
        ),
        (
            FEATURES | {"pruners": ["slimming"], "sparsities": [0.5]},
            "pruners is ['slimming']: method: slimming ranks",
        ),
        (DIGITS | {"model": "resnet18", "pruner": "slimming", "sparsity": 0.9999}, "leave one of the"),
        (DIGITS | {"model": "columnfc"}, "model is 'columnfc': model: columnfc takes features"),
        (
            DIGITS | {"model": "vgg16_bn"},
            "model is 'vgg16_bn': model: vgg16_bn needs images of at least 32 x 32",
        ),
        (DIGITS | {"dataset": "pictures", "image_side": 4096}, "image_side is 4096: 20000 examples of shape"),
        (
            FEATURES | {"dataset": "many classes", "samia_epochs": 5, "n_jobs": 2, "trainings": 2},
            "SAMIA, which compares",
        ),
        (DIGITS | {"device": "cuda"}, "device is 'cuda', but PyTorch sees no CUDA device"),
        (DIGITS | {"n_jobs": 100_000}, "n_jobs is 100000: this machine has 4 cores; take at most 16"),
    ],
    ids=lambda one: one[:40] if isinstance(one, str) else "",
)
def test_what_does_not_fit_is_named(values, words):
    assert words in said(values)


def test_ranges_are_measured_on_equally_many_of_each_reserve():
    quantised = DIGITS | {"bits": [8, 2], "n_train": 20}
    uneven = [n for n in range(201, 260, 2) if "reserves of" in said(quantised, subset=n)]
    assert uneven and "subset is " in said(quantised, subset=uneven[0])
    assert said(quantised, subset=uneven[0] - 1) == said(DIGITS, subset=uneven[0], n_train=20) == ""


def test_samia_takes_three_hundred_classes_where_there_is_room():
    values = FEATURES | {"dataset": "three hundred classes", "samia_epochs": 5, "n_jobs": 2}
    assert said(values) == ""


def test_what_is_kept_on_a_cuda_device_needs_its_memory(monkeypatch):
    many = FEATURES | {
        "dataset": "many classes",
        "samia_epochs": 5,
        "n_jobs": 2,
        "trainings": 2,
        "device": "cuda",
    }
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert "and its CUDA device has 16" in said(many)
    monkeypatch.setattr(machine, "memory", lambda device: {"cpu": 2**30, "cuda": 2**40}[device])
    assert said(many) == ""


def test_two_classes_are_enough_where_nobody_attacks():
    assert said(OFFICIAL, dataset="two classes", model="columnfc", n_train=200) == ""


def test_all_that_does_not_fit_is_said_at_once():
    found = problems(DIGITS, n_train=2000, model="columnfc", device="cuda", n_jobs=10**6)
    assert found.keys() == {"n_train", "model", "device", "n_jobs"}


def test_sizes_that_are_not_sound_are_not_compared():
    assert said(PRIVATE | {"n_train": 2000}, without=["private_classes"]) == ""
    assert said(PRIVATE | {"n_jobs": 10**6}, without=["private_classes"]) != ""


def test_data_that_are_not_at_hand_are_not_looked_at(tmp_path):
    assert said(DIGITS, dataset="location", data_root=str(tmp_path), n_train=10**6) == ""


def test_where_the_memory_is_not_known_nothing_is_said_of_it(monkeypatch):
    many = DIGITS | {"n_targets": 1700, "dataset": "pictures", "model": "resnet18", "image_side": 4096}
    assert "n_targets is 1700: 1702 networks with 11173962 weights each" in said(many)
    monkeypatch.setattr(machine, "memory", lambda device: None)
    assert said(many) == ""


# Code of one's own


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*__import__("sys").path])

    def write(source, folder="a"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "fitted.py").write_text("import torch\nfrom torch import nn\n" + source)
        return own.beside(tmp_path / folder)

    yield write
    __import__("sys").modules.pop("fitted", None)


TWO = "def made(): return torch.zeros(90, 4), torch.arange(90) % 2\n"
THREE = "def made(): return torch.zeros(90, 4), torch.arange(90) % 3\n"
OWN = FEATURES | {"dataset": "fitted:made", "attack_epochs": 1, "n_train": 15}


def test_data_and_networks_of_ones_own_are_made(mine):
    with mine(THREE + "def net(shape, num_classes): return nn.Linear(shape[0], num_classes + 1)\n"):
        found = fits.problems(OWN | {"model": "fitted:net"}, OWN)
    assert found.keys() == {"model"} and "answers two inputs (4,) with (2, 4)" in found["model"][0]


@pytest.mark.parametrize(
    "source",
    [
        "def made(): return 1 / 0\n",
        "def made(): return None\n",
        "1 / 0\n",
        "raise SystemExit\n",
        "def other(): 0\n",
    ],
)
def test_any_error_in_code_of_ones_own_is_an_answer(mine, source):
    with mine(source):
        found = fits.problems(OWN, OWN)
    assert found.keys() == {"dataset"} and "dataset is 'fitted:made': " in found["dataset"][0]


def test_code_that_ends_python_is_an_answer_too(mine):
    with mine("def made():\n    import os\n    os._exit(1)\n"):
        assert "the code of fitted:made ends Python itself" in fits.apart(OWN, OWN)["dataset"][0]


def test_two_files_may_name_two_modules_alike(mine):
    with mine(TWO, "a"):
        assert "it has 2 classes" in fits.apart(OWN, OWN)["dataset"][0]
    with mine(THREE, "b"):
        assert fits.apart(OWN, OWN) == {}
    assert "fitted" not in __import__("sys").modules
    assert fits.apart(DIGITS, DIGITS) == {}
