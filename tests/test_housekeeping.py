"""What the store holds and what of it can go: what may be needed stays."""

import json
import os
import time

import pytest
import torch

from mialib import housekeeping, uses
from mialib.housekeeping import DAY
from mialib.store import OLDER, Store

NOW = time.time()


@pytest.fixture
def cache():
    return Store()


def put(cache, key, days=0.0, kind="networks", words="original: small_cnn on digits"):
    """An entry that was last used some days ago."""
    cache.put(key, {"w": torch.ones(100)}, {}, kind=kind, words=words)
    for path in cache.root.glob(f"*/{key}.*"):
        os.utime(path, (NOW - days * DAY,) * 2)


def note(cache, name, used, before=(), days=0.0, place=None):
    """A note of a run that finished some days ago."""
    notebook, run = name.split("/")
    content = {"notebook": notebook, "run": run, "place": place or uses.here()}
    content |= {"finished": int((NOW - days * DAY) * 1e9), "used": list(used), "before": list(before)}
    folder = cache.root / uses.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{notebook}_{run}_{place}.json").write_text(json.dumps(content))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """params/ of runs a and b of a notebook."""
    folder = tmp_path / "params" / "small"
    folder.mkdir(parents=True)
    for name in "ab":
        (folder / f"{name}.yaml").touch()
    monkeypatch.setattr(uses, "REPO_ROOT", tmp_path)
    return folder


def keys(cache, **conditions):
    return {one.key for one in housekeeping.chosen(cache, now=NOW, **conditions).entries}


def test_sizes_are_by_kind_and_by_the_last_use(cache):
    put(cache, "aa1", 0)
    put(cache, "ab1", 3)
    put(cache, "ac1", 100, kind="decoders")
    os.rename(next(cache.root.rglob("ab1.json")), cache.root / "ab" / "ab1.json.corrupt")
    lines = housekeeping.sizes(housekeeping.described(cache, cache.scan()), NOW).splitlines()
    found = {line[:24].strip(): line[24:].split()[0] for line in lines[1:]}
    assert found == {
        "networks": "1",
        "decoders": "1",
        "set aside as corrupt": "1",
        "halves of entries": "1",
        "all": "4",
    }
    total = sum(path.stat().st_size for path in cache.root.rglob("*") if path.is_file())
    assert housekeeping.sized(total) in lines[-1] and max(map(len, lines)) <= 100
    assert lines[0].split("  ")[-1].strip() == "before" and lines[-1].split("  ")[-1].strip() != ""


def test_an_empty_store_is_said_to_be_empty(cache):
    assert housekeeping.sizes([]) == "it is empty" and keys(cache) == set()


def test_the_list_has_aligned_columns_of_100_and_the_last_used_first(cache):
    put(cache, "a" * 40, 40)
    put(
        cache,
        "b" * 40,
        2 / 24,
        kind="attack networks",
        words="attack networks samia: " + "samia_network " * 30,
    )
    kept = housekeeping.described(cache, cache.scan())
    head, *lines = housekeeping.listed(kept, NOW).splitlines()
    assert [line[:12] for line in lines] == ["b" * 12, "a" * 12] and max(map(len, lines)) <= 100
    at = head.index("kind")
    assert lines[0][at:].startswith("attack networks  ") and lines[1][at:].startswith("networks  ")
    assert lines[0].endswith("...") and lines[1].endswith("original: small_cnn on digits")
    assert " 2 h  " in lines[0] and " 40 d  " in lines[1]


def test_as_json_the_list_has_whole_keys_and_words(cache):
    words = "original: " + "x" * 400
    put(cache, "a" * 40, 1, words=words)
    (one,) = json.loads(housekeeping.as_json(housekeeping.described(cache, cache.scan())))
    assert one["key"] == "a" * 40 and one["kind"] == "networks" and one["state"] == "whole"
    assert words.startswith(one["words"].removesuffix("...")) and len(one["words"]) == 300
    assert one["used"] == pytest.approx(NOW - DAY, abs=1e-3)


def test_entries_that_do_not_say_what_they_are_are_listed(cache):
    put(cache, "aa1")
    path = next(cache.root.rglob("*.json"))
    meta = json.loads(path.read_text())
    del meta["made"]
    path.write_text(json.dumps(meta))
    assert cache.get("aa1") is not None
    assert housekeeping.described(cache, cache.scan())[0][1:] == (OLDER, "")


def test_what_was_used_lately_is_not_old(cache):
    put(cache, "aa1", 40)
    put(cache, "ab1", 40)
    put(cache, "ac1", 20)
    assert keys(cache, older_than=30 * DAY) == {"aa1", "ab1"}
    cache.get("ab1")
    assert keys(cache, older_than=30 * DAY) == {"aa1"}


def test_of_a_run_goes_what_no_other_run_uses(cache, files):
    for key in ("aa1", "ab1", "ac1"):
        put(cache, key, 3)
    note(cache, "small/a", ["aa1", "ab1"])
    note(cache, "small/b", ["ab1", "ac1"])
    assert housekeeping.of_runs(cache, [("small", "a")]) == {"aa1", "ab1"}
    choice = housekeeping.chosen(cache, runs=[("small", "a")])
    assert [one.key for one in choice.entries] == ["aa1"]
    assert choice.remarks == ["entries that stay because other runs use them too: 1"]
    assert keys(cache, runs=[("small", "a"), ("small", "b")]) == {"aa1", "ab1", "ac1"}
    assert keys(cache, runs=[("small", "a")], older_than=4 * DAY) == set()


def test_unused_is_what_runs_used_once_and_no_run_needs_now(cache, files):
    for key in ("aa1", "ab1", "ac1", "ad1", "ae1"):
        put(cache, key, 3)
    note(cache, "small/a", ["aa1"], before=["ab1"], days=2)
    note(cache, "small/gone", ["aa1", "ac1"], days=2)
    note(cache, "small/gone", ["ad1"], days=2, place="elsewhere")
    choice = housekeeping.chosen(cache, unused=True, now=NOW)
    assert {one.key for one in choice.entries} == {"ab1", "ac1"}
    assert choice.remarks == [
        "runs of other folders or machines, which count as if they will run again: 1",
        "entries that stay because no run has noted them (--older-than finds them): 1",
    ]
    cache.get("ab1")  # as a run that is under way, or was stopped, would
    assert keys(cache, unused=True) == {"ac1"}


def test_unused_by_given_runs(cache, files):
    for key in ("aa1", "ab1"):
        put(cache, key, 3)
    note(cache, "small/a", ["aa1"])
    note(cache, "small/b", ["ab1"])
    assert keys(cache, unused=True) == set()
    choice = housekeeping.chosen(cache, unused=True, only=[("small", "a")])
    assert [one.key for one in choice.entries] == ["ab1"] and choice.remarks == [
        "runs that do not count: small/b"
    ]
    with pytest.raises(ValueError, match="run small/c has no note"):
        housekeeping.chosen(cache, unused=True, only=[("small", "c")])


def test_with_a_note_that_cannot_be_understood_nothing_is_unused(cache, files):
    put(cache, "aa1", 3)
    note(cache, "small/gone", ["aa1"])
    assert keys(cache, unused=True) == {"aa1"}
    (cache.root / uses.FOLDER / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="other.json is no note of a run"):
        housekeeping.chosen(cache, unused=True)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "2 KB"), (12_300_000, "12 MB"), (3.2e12, "3200.0 GB")],
)
def test_bytes_as_people_read_them(count, text):
    assert housekeeping.sized(count) == text
