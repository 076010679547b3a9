"""Turns: one process at a time has an entry's, and they end with the process."""

import os
import subprocess
import sys

import pytest

from mialib import REPO_ROOT, places, turns
from mialib.store import Store

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks on bytes of a file are known there only")
KEYS = [40 * "a", 40 * "b"]
OTHER = """
import sys
from mialib import turns
from mialib.store import Store
cache = Store(sys.argv[1])
print(*[turns.take(cache, key) for key in sys.argv[2:]], flush=True)
sys.stdin.readline()
"""


class Another:
    """Another process, which has asked for turns; `answers` says which it got."""

    def __init__(self, cache, *keys):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", OTHER, str(cache.root), *keys]
        self.process = subprocess.Popen(command, cwd=REPO_ROOT, **pipes)
        self.answers = [word == "True" for word in self.process.stdout.readline().split()]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def cache():
    return Store()


def test_one_process_has_a_turn_until_it_gives_it_back(cache):
    assert turns.are_seen(cache)
    assert turns.take(cache, KEYS[0]) and turns.take(cache, KEYS[0])
    with Another(cache, *KEYS) as other:
        assert other.answers == [False, True]
        assert not turns.take(cache, KEYS[1])
    turns.give(cache, KEYS[0])
    with Another(cache, KEYS[0]) as other:
        assert other.answers == [True]


def test_a_killed_process_has_no_turn(cache):
    with Another(cache, KEYS[1]):
        assert not turns.take(cache, KEYS[1])
    assert turns.take(cache, KEYS[1])
    turns.give(cache, *KEYS)


def test_what_another_process_makes_is_waited_for_and_found(cache, monkeypatch):
    made = []
    with Another(cache, KEYS[0]) as other:

        def ended(pause):  # meanwhile the other one ends
            made.append("by another")
            other.process.kill()
            other.process.wait()

        monkeypatch.setattr(turns.time, "sleep", ended)
        found = turns.once(cache, KEYS[0], lambda: made[0] if made else None, lambda: made.append("here"))
    assert found == "by another" and made == ["by another"]


def test_what_nobody_makes_is_made_here_and_the_turn_given_back_even_after_an_error(cache):
    def fail():
        raise KeyError

    with pytest.raises(KeyError):
        turns.once(cache, KEYS[0], lambda: None, fail)
    with Another(cache, KEYS[0]) as other:
        assert other.answers == [True]
    assert turns.once(cache, KEYS[0], lambda: None, lambda: 3) == 3


def test_where_no_lock_can_be_held_every_turn_is_given(cache, monkeypatch):
    import fcntl

    def unknown(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(turns, "_handles", {})
    monkeypatch.setattr(fcntl, "lockf", unknown)
    assert not turns.are_seen(cache) and turns.take(cache, KEYS[0])
    turns.give(cache, KEYS[0])


def test_a_store_that_is_left_alone_gets_no_file(cache, monkeypatch):
    monkeypatch.setattr(turns, "_handles", {})
    token = places.LEFT_ALONE.set(True)
    try:
        assert turns.take(cache, KEYS[0]) and not turns.are_seen(cache)
    finally:
        places.LEFT_ALONE.reset(token)
    assert not (cache.root / turns.FILE).exists()


def test_entries_are_told_from_the_file_of_turns(cache):
    turns.take(cache, KEYS[0])
    turns.give(cache, KEYS[0])
    assert (cache.root / turns.FILE).stat().st_size == 0 and list(cache.scan()) == []
