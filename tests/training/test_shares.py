"""Shares: which models are whose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mialib.training import shares
from mialib.training.shares import Share


@given(st.integers(1, 7), st.integers(0, 20))
def test_each_model_is_in_one_share_and_every_share_comes_to_all(of, count):
    models = list(range(count))
    every = [Share(number, of) for number in range(1, of + 1)]
    for i in models:
        assert sum(one.has(i) for one in every) == 1
    for one in every:
        order = one.ordered(models)
        assert sorted(order) == models
        own = [i for i in models if one.has(i)]
        assert order[: len(own)] == own


def test_after_its_own_a_share_helps_the_next_one():
    assert Share(2, 3).ordered(list(range(7))) == [1, 4, 2, 5, 0, 3, 6]
    assert Share(1, 1).ordered([4, 2, 3]) == [2, 3, 4]


def test_the_environment_names_the_share(monkeypatch):
    monkeypatch.delenv(shares.VARIABLE, raising=False)
    assert shares.own() == shares.WHOLE
    monkeypatch.setenv(shares.VARIABLE, "2/4")
    assert shares.own() == Share(2, 4) and str(shares.own()) == "2/4"


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "1/2/3", "-1/4", "1.5/2"])
def test_what_is_no_share_is_named(monkeypatch, text):
    monkeypatch.setenv(shares.VARIABLE, text)
    with pytest.raises(ValueError, match=f"MIALIB_SHARE is '{text}'; give i/n"):
        shares.own()
