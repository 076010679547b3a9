"""The cache: whole entries or none, and nothing that is damaged is loaded."""

import json
from pathlib import Path

import pytest
import torch

from mialib import store
from mialib.store import Store

TENSORS = {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(3), "flag": torch.tensor([True, False])}
RECORD = {"loss": [0.5, 0.25], "best_epoch": 1}


@pytest.fixture
def cache(tmp_path):
    return Store(tmp_path / "deep" / "folder")


def files(cache):
    return sorted(path.name for path in cache.root.rglob("*") if path.is_file())


def test_what_is_put_comes_back_bit_for_bit(cache):
    cache.put("abc", TENSORS, RECORD)
    tensors, record = cache.get("abc")
    assert record == RECORD and tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor), name
    assert files(cache) == ["abc.json", "abc.safetensors"]  # no temporary file is left


def test_a_missing_entry_is_none(cache):
    assert cache.get("abc") is None
    cache.put("abc", TENSORS, RECORD)
    assert cache.get("abd") is None


def test_a_half_that_was_never_finished_counts_as_none(cache):
    cache.put("abc", TENSORS, RECORD)
    next(cache.root.rglob("*.json")).unlink()  # the JSON is written last
    assert cache.get("abc") is None


def test_tensors_that_are_views_are_stored_as_they_look(cache):
    base = torch.arange(12.0).view(3, 4)
    cache.put("abc", {"t": base.T, "row": base[1]}, {})
    assert torch.equal(cache.get("abc")[0]["t"], base.T) and torch.equal(cache.get("abc")[0]["row"], base[1])


def alter(path):
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        ("safetensors", alter),
        ("safetensors", lambda path: path.write_bytes(path.read_bytes()[:-3])),
        ("safetensors", lambda path: path.write_bytes(b"")),
        ("json", lambda path: path.write_text(path.read_text()[:-5])),
        ("json", lambda path: path.write_text("{}")),
        ("json", lambda path: path.write_text("[]")),
        ("json", lambda path: path.write_bytes(b"\xff\xfe")),
    ],
    ids=["bit", "cut", "empty", "json cut", "json empty", "json list", "json bytes"],
)
def test_a_damaged_entry_is_named_set_aside_and_never_loaded(cache, suffix, damage):
    cache.put("abc", TENSORS, RECORD)
    damage(next(cache.root.rglob(f"*.{suffix}")))
    with pytest.warns(UserWarning, match=r"abc\.safetensors is corrupt"):
        assert cache.get("abc") is None
    assert files(cache) == ["abc.json.corrupt", "abc.safetensors.corrupt"]
    cache.put("abc", TENSORS, RECORD)
    assert cache.get("abc")[1] == RECORD


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file"
    store.write(path, b"old")
    monkeypatch.setattr(store.os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        store.write(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_records_hold_no_nan(cache):
    with pytest.raises(ValueError):
        cache.put("abc", TENSORS, {"loss": float("nan")})
    assert cache.get("abc") is None


def test_the_place_is_the_argument_else_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MIALIB_CACHE", str(tmp_path / "environment"))
    assert Store().root == tmp_path / "environment" and Store(tmp_path / "own").root == tmp_path / "own"
    monkeypatch.delenv("MIALIB_CACHE")
    assert Store().root.name == "models"
    assert Store("~/x").root == Path.home() / "x"


def test_nothing_is_pickled(cache):
    cache.put("abc", TENSORS, RECORD)
    json.loads(next(cache.root.rglob("*.json")).read_text())
    assert b"\x80\x04" not in next(cache.root.rglob("*.safetensors")).read_bytes()[:64]
