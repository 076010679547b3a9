"""What made a run's results."""

import json
import tomllib
from importlib import metadata

import mialib
from mialib import REPO_ROOT, reporting
from mialib.reporting.origin import Provenance


def test_provenance_can_be_saved():
    about = reporting.provenance(12.345, "cpu")
    machine = {"torch", "mialib", "python", "device", "backend", "precision", "commit"}
    assert about.keys() == machine | {"seconds", "trained", "found", "training_seconds"}
    assert about["seconds"] == 12.3 and about["device"].startswith("cpu")
    assert json.dumps(about, allow_nan=False)
    assert about["commit"] is None or len(about["commit"].removesuffix("-dirty")) == 40


def test_a_checkout_that_is_not_installed_names_its_own_version(tmp_path, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    named = tomllib.loads((REPO_ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert reporting.provenance(1, "cpu")["mialib"] == named
    monkeypatch.setattr(mialib, "REPO_ROOT", tmp_path)
    assert reporting.provenance(1, "cpu")["mialib"] is None


def test_the_backend_is_told(monkeypatch):
    monkeypatch.setenv("MIALIB_BACKEND", "dask")
    about = reporting.provenance(0, "cpu")
    assert about["backend"] == "dask" and ", trained by dask" in repr(about)
    monkeypatch.delenv("MIALIB_BACKEND")
    assert "trained by" not in repr(reporting.provenance(0, "cpu"))


def test_notebooks_show_one_line():
    about = reporting.provenance(0, "cpu")
    about |= {
        "torch": "2.14",
        "mialib": "0.1",
        "python": "3.11",
        "device": "cpu",
        "commit": "0123456789" * 4 + "-dirty",
    }
    start = "torch 2.14, mialib 0.1, Python 3.11; cpu; commit 0123456 with changes"
    assert repr(about) == start
    assert (
        repr(Provenance(about, seconds=90.0, trained=4, found=6))
        == start + "; 90 s, 4 networks trained and 6 found"
    )
    assert repr(Provenance(about, commit=None)).endswith("cpu; no commit")
