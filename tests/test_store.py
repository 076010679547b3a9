"""The cache: whole entries or none, keys that tell everything apart, nothing that is damaged is loaded."""

import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mialib import store
from mialib.defenses import adversarial, differential_privacy
from mialib.models import classifiers
from mialib.store import Store, describe, key, sources

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


# Keys


@dataclass(frozen=True)
class Point:
    x: float
    y: float = 0.0


@dataclass(frozen=True)
class Dot:
    x: float
    y: float = 0.0


def plain():
    pass


def test_equal_things_share_a_key_whatever_their_order():
    assert key(a=1, b=torch.ones(2)) == key(b=torch.ones(2), a=1)
    assert key(t=torch.arange(4).view(2, 2).T) == key(
        t=torch.tensor([[0, 2], [1, 3]])
    )  # layout in memory does not count
    assert len(key(a=1)) == 40


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, 1.0),
        (1, "1"),
        (None, "None"),
        (torch.zeros(2), torch.zeros(3)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.tensor(0.0), torch.tensor(-0.0)),
        (Point(1.0), Point(2.0)),
        (Point(1.0), Dot(1.0)),
        (plain, test_equal_things_share_a_key_whatever_their_order),
        (functools.partial(plain, 1), functools.partial(plain, 2)),
        (functools.partial(plain, a=1), functools.partial(plain, b=1)),
        (functools.partial(plain), plain),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"b": 1}),
    ],
    ids=[
        "number",
        "int and float",
        "number and text",
        "none and text",
        "shape",
        "dtype",
        "layout of as many values",
        "sign of zero",
        "field",
        "class",
        "function",
        "argument",
        "name of an argument",
        "partial and function",
        "order",
        "name",
    ],
)
def test_different_things_have_different_keys(one, other):
    assert key(thing=one) != key(thing=other)


def test_descriptions_are_json():
    thing = {"a": [Point(1.0), functools.partial(plain, torch.ones(1))], "b": (1, None, True)}
    json.dumps(describe(thing))


@pytest.mark.parametrize(
    "thing",
    [lambda: 0, functools.partial(lambda: 0), object(), {1, 2}],
    ids=["lambda", "partial of a lambda", "object", "set"],
)
def test_what_has_no_stable_description_is_refused(thing):
    with pytest.raises(TypeError, match="no stable description"):
        key(thing=thing)


def module(tmp_path, monkeypatch, name, source):
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    __import__(name)
    return sys.modules[name]


def test_code_counts_comments_and_layout_do_not(tmp_path, monkeypatch):
    hashes = [
        sources(module(tmp_path, monkeypatch, f"code_{number}", text))
        for number, text in enumerate(
            [
                "def f(x):\n    return x + 1\n",
                '"""A docstring."""\n\n\ndef f(x):\n    """Another."""\n    return (x + 1)  # more\n',
                "def f(x):\n    return x + 2\n",
            ]
        )
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_source_of_partials_and_objects_is_that_of_their_functions_and_classes():
    assert (
        sources(plain)
        == sources(functools.partial(plain, 1))
        == sources(Point(1.0))
        == sources(sys.modules[__name__])
    )
    assert sources(plain, None) == sources(plain) != sources(store)


@pytest.mark.parametrize(
    ("things", "modules"),
    [
        (
            [
                functools.partial(
                    differential_privacy._with_group_norm,
                    functools.partial(classifiers.small_cnn, 1, 10, image_size=8),
                )
            ],
            ["mialib.defenses.differential_privacy", "mialib.models.classifiers"],
        ),
        (
            [adversarial.AdversarialRegularization(1.0, 10), None],
            ["mialib.defenses.adversarial", "mialib.models.attack_networks"],
        ),
    ],
    ids=["a partial of a partial", "a dataclass with a function"],
)
def test_the_sources_of_the_parts_count(monkeypatch, things, modules):
    read = []
    monkeypatch.setattr(store, "_tree", lambda module: read.append(module) or module)
    store.sources(*things)
    assert sorted(read) == modules
