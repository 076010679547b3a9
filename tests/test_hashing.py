"""Keys tell everything apart that makes a difference, the code that is reached included, and nothing else."""

import functools
import json
import sys
from dataclasses import dataclass

import pytest
import torch

from mialib import hashing, store
from mialib.hashing import describe, key, sources


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


def test_code_counts_comments_layout_docstrings_and_annotations_do_not(tmp_path, monkeypatch):
    code = module(tmp_path, monkeypatch, "written", "")
    hashes = []
    for text in (
        "def f(x):\n    return x + 1\n",
        '"""A docstring."""\n\n\ndef f(x: int) -> int:\n    """Another."""\n    return (x + 1)  # more\n',
        "def f(x):\n    return x + 2\n",
    ):
        (tmp_path / "written.py").write_text(text)
        hashes.append(sources(code))
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_source_of_partials_and_objects_is_that_of_their_functions_and_classes():
    assert (
        sources(plain)
        == sources(functools.partial(plain, 1))
        == sources(Point(1.0))
        == sources(sys.modules[__name__])
    )
    assert sources(plain, None) == sources(plain) != sources(store)


def test_local_functions_are_told_apart_by_their_text_and_by_what_they_close_over():
    def made(n, twice=False):
        if twice:
            return lambda x: 2 * (x + n)

        def add(x):
            return x + n

        return add

    assert sources(made(1)) == sources(made(1))
    assert len({sources(made(1)), sources(made(2)), sources(made(1, twice=True))}) == 3


def test_torchs_version_is_in_the_key_up_to_the_minor_one(monkeypatch):
    keys = []
    for version in ("2.11.0+cpu", "2.11.3", "2.12.0"):
        monkeypatch.setattr(hashing.torch, "__version__", version)
        keys.append(key(a=1))
    assert keys[0] == keys[1] != keys[2]
