"""Fixtures of all tests: no test touches the user's cache or the repository's outputs, and none uses threads."""

import os
import shutil

import pytest
import torch

from mialib import data
from mialib.data import Dataset
from mialib.training import fitting, loop
from tests import standin

torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption(
        "--standin", action="store_true", help="tests marked cuda run on a stand-in device (tests/standin.py)"
    )


def pytest_configure(config):
    if config.getoption("standin"):
        standin.enable()


@pytest.fixture(scope="session")
def accelerator(request):
    """The device of a test that is marked `cuda`: CUDA, or the stand-in for it with --standin."""
    if request.config.getoption("standin"):
        return standin.NAME
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device; tests/test_standin.py runs this test on a stand-in")
    return "cuda"


@pytest.fixture(scope="session", autouse=True)
def _no_user_cache(tmp_path_factory):
    # for fixtures that outlive a test; every test then gets folders of its own
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIALIB_CACHE", str(tmp_path_factory.mktemp("session_cache")))
        patch.setenv("MIALIB_OUTPUTS", str(tmp_path_factory.mktemp("session_outputs")))
        yield


@pytest.fixture(autouse=True)
def _own_folders(_no_user_cache, tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MIALIB_CACHE", str(cache))
    monkeypatch.setenv("MIALIB_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
    monkeypatch.delenv("MIALIB_PROGRESS", raising=False)
    yield
    shutil.rmtree(cache, ignore_errors=True)  # large networks leave gigabytes, and pytest keeps its folders


@pytest.fixture
def cache_root():
    """The folder of this test's default store."""
    return os.environ["MIALIB_CACHE"]


@pytest.fixture(scope="session")
def toy():
    """120 examples of 6 features in 3 classes, whose centres are a standard deviation apart."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 3
    x = torch.randn(120, 6, generator=generator) + torch.eye(3, 6)[y]
    return Dataset.of_features("toy", x, y, 3)


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


@pytest.fixture
def trained_seeds(monkeypatch):
    """The seeds of the models that the loop was asked to train, call by call."""
    real, calls = loop.train, []
    assert fitting.fit  # reads the loop's code, before it is another

    def spy(*args, split, **options):
        calls.append(split.seeds.tolist())
        return real(*args, split=split, **options)

    monkeypatch.setattr(loop, "train", spy)
    return calls
