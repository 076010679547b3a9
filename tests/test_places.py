"""Places: `~` and a missing home, and whether a folder can be written to, with nothing left behind."""

import os
from pathlib import Path

import pytest

import mialib
from mialib import places, progress
from mialib.data import download
from mialib.store import Store

PLACES = {
    "MIALIB_CACHE": lambda: Store().root,
    "MIALIB_OUTPUTS": mialib.outputs_root,
    "MIALIB_DATA": download.data_root,
}


@pytest.mark.parametrize("variable", PLACES)
def test_the_home_folder_is_understood_in_every_variable(monkeypatch, tmp_path, variable):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(variable, "~/mine")
    assert PLACES[variable]() == tmp_path / "mine"


def test_the_home_folder_is_understood_in_the_place_of_progress(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MIALIB_PROGRESS", "~/progress")
    with progress.bar(1, "work", "step"):
        pass
    assert (tmp_path / "progress").exists()


@pytest.mark.parametrize("variable", PLACES)
def test_a_home_folder_that_is_nowhere_names_the_variable(monkeypatch, variable):
    monkeypatch.setenv(variable, "~nobody-of-this-name/mine")
    with pytest.raises(ValueError, match=f"~nobody-of-this-name/mine cannot be found.*set {variable} to"):
        PLACES[variable]()


def test_without_a_home_folder_the_cache_needs_its_variable(monkeypatch):
    monkeypatch.delenv("MIALIB_CACHE")
    monkeypatch.setattr(places.pooch, "os_cache", lambda name: Path("~nobody-of-this-name/.cache") / name)
    with pytest.raises(ValueError, match="set MIALIB_CACHE to"):
        Store()


def test_what_can_be_written_to_is_left_as_it_was(tmp_path):
    places.writable(tmp_path / "a" / "b", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("below", ["", "a/b"])
def test_what_cannot_be_written_to_is_named_with_advice(tmp_path, below):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / below, Path("/proc/mialib") / below):
        with pytest.raises(OSError, match=f"^{folder} cannot be written to .*; set IT$") as caught:
            places.writable(folder, "set IT")
        assert caught.value.errno


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="Permission denied"):
        places.writable(tmp_path, "")
