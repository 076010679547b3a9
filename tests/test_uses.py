"""Notes of runs: what a run used is noted when it ends, and only then."""

import json

import pytest
import torch

from mialib import places, uses
from mialib.store import Store


@pytest.fixture
def cache():
    return Store()


def use(cache, *keys):
    for key in keys:
        if cache.get(key) is None:
            cache.put(key, {"w": torch.ones(2)}, {})


@pytest.fixture
def process(monkeypatch):
    """Call it to begin a new process, which has used nothing."""

    def begin():
        monkeypatch.setattr("mialib.store._used", {})

    begin()
    return begin


def test_a_run_notes_what_it_loaded_and_wrote_and_what_it_no_longer_uses(cache, process):
    use(cache, "aa1", "ab2")
    uses.note("yuan2022_pruning", "digits")
    (first,) = uses.notes(cache)
    assert (first.name, first.used, first.before) == ("yuan2022_pruning/digits", {"aa1", "ab2"}, frozenset())
    process()
    use(cache, "ab2", "ac3")
    uses.note("yuan2022_pruning", "digits")
    (second,) = uses.notes(cache)
    assert (second.used, second.before) == ({"ab2", "ac3"}, {"aa1"}) and second.finished > first.finished
    process()
    cache.remove([one for one in cache.scan() if one.key == "aa1"])
    use(cache, "ac3")
    uses.note("yuan2022_pruning", "digits")
    assert uses.notes(cache)[0].before == {"ab2"}  # what is gone need not be remembered
    assert cache.entries().keys() == {"ab2", "ac3"}  # notes are no entries


def test_a_process_that_used_nothing_or_only_plans_leaves_no_note(cache, process):
    uses.note("yuan2022_pruning", "digits")
    use(cache, "aa1")
    token = places.LEFT_ALONE.set(True)
    uses.note("yuan2022_pruning", "digits")
    places.LEFT_ALONE.reset(token)
    assert uses.notes(cache) == []


def test_a_store_that_cannot_be_written_to_gets_no_note(cache, process, monkeypatch):
    use(cache, "aa1")

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("mialib.store.write", refuse)
    uses.note("yuan2022_pruning", "digits")
    assert uses.notes(cache) == []


def test_a_run_is_gone_only_where_its_parameter_file_was_here(cache, process, monkeypatch, tmp_path):
    monkeypatch.setattr(uses, "REPO_ROOT", tmp_path)
    use(cache, "aa1")
    uses.note("small", "first")
    (note,) = uses.notes(cache)
    assert note.is_gone and not note._replace(place="elsewhere").is_gone
    (tmp_path / "params" / "small").mkdir(parents=True)
    (tmp_path / "params" / "small" / "first.yaml").touch()
    assert not note.is_gone
    monkeypatch.setattr(uses, "REPO_ROOT", tmp_path / "moved")
    assert note.place != uses.here() and str(tmp_path) not in json.dumps(note.place)


def test_the_notes_of_a_run_are_those_of_this_folder_else_of_all_others(cache, process):
    use(cache, "aa1")
    uses.note("small", "first")
    (mine,) = uses.notes(cache)
    theirs = mine._replace(place="elsewhere", used=frozenset({"ab2"}))
    assert uses.of_run([mine, theirs], "small", "first") == [mine]
    assert uses.of_run([theirs], "small", "first") == [theirs]
    with pytest.raises(
        ValueError, match="run small/second has no note in this store.*mialib run params/small/second.yaml"
    ):
        uses.of_run([mine, theirs], "small", "second")


@pytest.mark.parametrize("text", ["", "[]", '{"notebook": "small"}', "[" * 100_000])
def test_a_note_that_is_none_is_named(cache, process, text):
    use(cache, "aa1")
    uses.note("small", "first")
    (path,) = (cache.root / uses.FOLDER).glob("*.json")
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{path} is no note of a run"):
        uses.notes(cache)
    uses.note("small", "first")  # the next execution mends it
    assert len(uses.notes(cache)) == 1
