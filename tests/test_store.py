"""The cache: whole entries or none, and nothing that is damaged is loaded."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from mialib import REPO_ROOT, models, places, store, training
from mialib.data import splits
from mialib.store import Store

BUSY = "import sys; print('ready', flush=True); sys.stdin.read()"
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


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(store, "PAUSE", 0.0)


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
        ("json", lambda path: path.write_text("[" * 200_000 + "]" * 200_000)),
        ("json", lambda path: rewrite(path, record=None)),
        ("json", lambda path: rewrite(path, record=[1])),
        ("json", lambda path: rewrite(path, record=RECORD | {"best_epoch": 2})),
        ("json", lambda path: rewrite(path, sha256=None)),
    ],
    ids=[
        *("bit", "cut", "empty", "json cut", "json empty", "json list", "json bytes", "json deep"),
        *("record null", "record list", "record altered", "no checksum"),
    ],
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


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"w": (2, 3), "b": (3,)}, "tensor b is missing"),
        ({"w": (3, 2)}, r"tensor w has shape \(2, 3\), not \(3, 2\)"),
    ],
)
def test_an_entry_of_other_tensors_than_are_needed_is_corrupt(cache, shapes, words):
    cache.put("abc", TENSORS, RECORD)
    assert cache.get("abc", {"w": (2, 3), "n": ()}) is not None
    with pytest.warns(UserWarning, match=f"is corrupt.*{words}"):
        assert cache.get("abc", shapes) is None
    assert files(cache) == ["abc.json.corrupt", "abc.safetensors.corrupt"]


def test_entries_whose_record_has_no_checksum_are_read(cache):
    cache.put("abc", TENSORS, RECORD)
    path = next(cache.root.rglob("*.json"))
    meta = json.loads(path.read_text())
    assert meta.pop("record_sha256") == hashlib.sha256(json.dumps(RECORD).encode()).hexdigest()
    path.write_text(json.dumps(meta))
    assert cache.get("abc")[1] == RECORD


def refuse(monkeypatch, code, times=10**9):
    """`Path.read_bytes` fails so many times; the list grows by one each time that it is asked."""
    real, asked = Path.read_bytes, []

    def read(path):
        asked.append(path)
        if len(asked) <= times:
            raise OSError(code, os.strerror(code), str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    return asked


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.EACCES])
def test_an_entry_that_cannot_be_read_is_named_and_left_as_it_is(cache, monkeypatch, code):
    cache.put("abc", TENSORS, RECORD)
    with monkeypatch.context() as patch:
        asked = refuse(patch, code)
        with pytest.raises(
            OSError, match=r"abc\.safetensors is there and cannot be read.*MIALIB_CACHE"
        ) as caught:
            cache.get("abc")
        assert caught.value.errno == code and len(asked) == store.TRIES
    assert cache.get("abc")[1] == RECORD and files(cache) == ["abc.json", "abc.safetensors"]


def test_a_disk_that_answers_at_the_third_try_is_believed(cache, monkeypatch):
    cache.put("abc", TENSORS, RECORD)
    refuse(monkeypatch, errno.ESTALE, times=2)
    assert cache.get("abc")[1] == RECORD


def test_what_another_process_writes_anew_meanwhile_is_not_corrupt(cache, monkeypatch):
    cache.put("abc", TENSORS, RECORD)
    old = next(cache.root.rglob("*.json")).read_bytes()
    cache.put("abc", TENSORS, RECORD | {"best_epoch": 7})
    new = next(cache.root.rglob("*.json")).read_bytes()
    meta = json.loads(old) | {"sha256": "of other tensors"}
    answers = [json.dumps(meta).encode(), new]
    real = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: answers.pop(0) if path.suffix == ".json" else real(path)
    )
    assert cache.get("abc")[1]["best_epoch"] == 7 and not answers


def read_only(monkeypatch):
    """No file can be made or renamed, as on a disk that is mounted read-only."""

    def fail(*args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "replace", fail)
    for name in ("mkstemp", "TemporaryFile"):
        monkeypatch.setattr(store.tempfile, name, fail)


def test_a_corrupt_entry_of_a_read_only_cache_is_named_and_counts_as_none(cache, monkeypatch):
    cache.put("abc", TENSORS, RECORD)
    alter(next(cache.root.rglob("*.safetensors")))
    read_only(monkeypatch)
    with pytest.warns(UserWarning, match=r"is corrupt .* cannot be set aside \(Read-only file system\)"):
        assert cache.get("abc") is None
    assert files(cache) == ["abc.json", "abc.safetensors"]


def test_what_cannot_be_kept_is_said_before_work_and_after(cache, monkeypatch):
    cache.put("abc", TENSORS, RECORD)
    assert cache.ready()
    read_only(monkeypatch)
    with pytest.warns(
        UserWarning, match=r"is not kept: the cache .*\(Read-only file system\); set .*MIALIB_CACHE"
    ):
        assert not cache.ready()
    with pytest.warns(UserWarning, match=r"is not kept.*MIALIB_CACHE"):
        cache.put("abd", TENSORS, RECORD)
    assert cache.get("abc")[1] == RECORD and cache.get("abd") is None


def test_where_no_folder_can_be_made_nothing_is_begun(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/mialib")):
        cache = Store(place)
        assert cache.get("abc") is None
        with pytest.raises(OSError, match=f"{place} cannot be written to .*MIALIB_CACHE"):
            cache.ready()


def test_what_a_killed_write_left_is_gone_at_the_next_start_and_what_is_under_way_stays(cache):
    cache.put("abc", TENSORS, RECORD)
    folder = next(cache.root.glob("*"))
    code = (
        "import os, signal, sys, pathlib; from mialib import store\n"
        "store.os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "store.write(pathlib.Path(sys.argv[1]), b'half')"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(folder / "abe.json")])
    assert killed.returncode == -signal.SIGKILL and len(files(cache)) == 3
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        writing = folder / f".abf.json.{store._HOST}-{other.pid}-12345678.part"
        elsewhere, ages_ago = folder / ".abf.json.other-1-12345678.part", folder / ".abf.json.other-1-x.part"
        once = folder / f".{'0' * 40}.json.12345678"
        for path in (writing, elsewhere, ages_ago, once, folder / ".mine"):
            path.touch()
        for path in (ages_ago, once, folder / ".mine"):
            os.utime(path, (time.time() - 7200,) * 2)
        assert cache.ready()
        assert {path for path in folder.glob(".*")} == {writing, elsewhere, folder / ".mine"}
    store.sweep(cache.root)  # the other process is gone now
    assert {path for path in folder.glob(".*")} == {elsewhere, folder / ".mine"}
    assert cache.get("abc")[1] == RECORD


def test_entries_tell_what_was_written_and_written_again(cache):
    assert cache.entries() == {}
    cache.put("abc", TENSORS, RECORD)
    before = cache.entries()
    cache.put("bcd", TENSORS, RECORD)
    os.utime(next(cache.root.rglob("abc.json")), ns=(1, 1))
    assert before.keys() == {"abc"} and cache.entries().items() - before.items() == {
        ("abc", 1),
        ("bcd", cache.entries()["bcd"]),
    }


def test_an_entry_says_what_made_it_and_what_does_not_say_it_is_of_older_versions(cache):
    cache.put("abc", TENSORS, RECORD, kind="networks", words='ü "quoted": ' + "ü" * 400)
    kind, words = cache.made("abc")
    assert (
        kind == "networks" and words == 'ü "quoted": ' + "ü" * 285 + "..." and cache.get("abc")[1] == RECORD
    )
    assert cache.made("abd") == (store.OLDER, "")
    path = next(cache.root.rglob("*.json"))
    for text in ("{}", '{"made": ', '{"made": 3}', '{"made": [1, 2, 3]}', "[" * 5000, "\xff"):
        path.write_bytes(text.encode("latin1"))
        assert cache.made("abc") == (store.OLDER, ""), text


def test_the_last_use_is_noted_on_loading_and_the_time_of_writing_stays(cache):
    cache.put("abc", TENSORS, RECORD)
    for path in cache.root.rglob("abc.*"):
        os.utime(path, ns=(10**9, 10**9))
    (before,) = cache.scan()
    assert before.used == before.written == 10**9
    cache.get("abd")
    assert list(cache.scan()) == [before]
    began = time.time_ns() - 10**8  # file systems have coarser clocks
    cache.get("abc")
    (after,) = cache.scan()
    assert after.used > began and after.written == cache.since("abc") == 10**9


def test_a_store_that_can_only_be_read_is_read_without_noting_the_use(cache, monkeypatch):
    cache.put("abc", TENSORS, RECORD)
    (before,) = cache.scan()

    def refuse(*args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(store.os, "utime", refuse)
    assert cache.get("abc")[1] == RECORD and list(cache.scan()) == [before]


def test_while_a_run_is_only_planned_no_use_is_noted(cache):
    cache.put("abc", TENSORS, RECORD)
    (before,) = cache.scan()
    token = places.LEFT_ALONE.set(True)
    assert cache.get("abc")[1] == RECORD and cache.remove([before]) == []
    places.LEFT_ALONE.reset(token)
    assert list(cache.scan()) == [before]


def test_a_scan_tells_whole_entries_halves_and_what_was_set_aside(cache):
    assert list(cache.scan()) == []
    for key in ("abc", "abd", "bcd"):
        cache.put(key, TENSORS, RECORD)
    next(cache.root.rglob("abd.json")).unlink()
    alter(next(cache.root.rglob("bcd.safetensors")))
    with pytest.warns(UserWarning, match="is corrupt"):
        cache.get("bcd")
    found = {one.key: one for one in cache.scan()}
    assert {key: one.state for key, one in found.items()} == {"abc": "whole", "abd": "half", "bcd": "corrupt"}
    assert found["abc"].bytes == sum(path.stat().st_size for path in cache.root.rglob("abc.*"))
    assert {one.key for one in cache.remove(found.values())} == found.keys() and files(cache) == []


def test_what_was_written_or_loaded_since_the_scan_stays(cache):
    for key in ("abc", "abd", "abe"):
        cache.put(key, TENSORS, RECORD)
    entries = list(cache.scan())
    time.sleep(0.02)  # longer than a tick of the file system's clock
    cache.put("abd", TENSORS, RECORD)
    cache.get("abe")
    assert [one.key for one in cache.remove(entries)] == ["abc"]
    assert cache.entries().keys() == {"abd", "abe"}


def test_what_a_running_process_writes_is_not_removed(cache):
    cache.put("abc", TENSORS, RECORD)
    folder = next(cache.root.glob("*"))
    entries = list(cache.scan())
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        writing = folder / f".abc.json.{store._HOST}-{other.pid}-12345678.part"
        writing.touch()
        assert cache.remove(entries) == [] and cache.get("abc")[1] == RECORD
    assert cache.remove(entries) == []  # it was loaded
    assert len(cache.remove(cache.scan())) == 1 and files(cache) == [writing.name]


BOTH = """
import sys, warnings, torch
from mialib.store import Store
warnings.simplefilter("error")
cache, mine = Store(sys.argv[1]), float(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
met = set()
for n in range(60):
    cache.put("abc", {"w": torch.full((1000,), mine)}, {"of": mine, "n": n})
    for _ in range(5):
        tensors, record = cache.get("abc")
        assert tensors["w"].unique().tolist() == [record["of"]], record
        met.add(record["of"])
print(*sorted(met))
"""


def test_two_processes_that_write_and_read_one_key_meet_whole_entries_only(cache):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", BOTH, str(cache.root), mine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for mine in "12"
    ]
    assert [one.stdout.readline() for one in started] == ["ready\n"] * 2
    for one in started:
        one.stdin.write("go\n")
        one.stdin.flush()
    said = [one.communicate() for one in started]
    assert [one.returncode for one in started] == [0, 0], said
    assert "1.0 2.0" in said[0][0] + said[1][0]  # they did meet
    tensors, record = cache.get("abc")
    assert tensors["w"].unique().tolist() == [record["of"]] and record["n"] == 59
    assert files(cache) == ["abc.json", "abc.safetensors"]


def test_both_files_of_an_entry_are_renamed_before_another_writer_renames_any(cache, monkeypatch):
    real, order = os.replace, []

    def slowly(source, target):
        order.append(threading.get_ident())
        time.sleep(0.1)
        real(source, target)

    monkeypatch.setattr(store.os, "replace", slowly)
    writers = [threading.Thread(target=cache.put, args=("abc", TENSORS, {"of": n})) for n in range(3)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert len(order) == 6 and order[::2] == order[1::2]
    assert cache.get("abc") is not None


def test_a_store_that_is_copied_is_found_by_a_process_elsewhere(cache, tmp_path, digits):
    split = splits.target_shadow(len(digits), 1, 1, 0, 20)
    trained = training.fit(
        models.make("small_cnn", digits), digits, split, training.Recipe(1, 20), cache=cache
    )
    copied, home = tmp_path / "another root", tmp_path / "home"
    shutil.copytree(cache.root, copied)
    shutil.rmtree(cache.root)
    home.mkdir()
    code = (
        "import sys, torch\nfrom mialib import data, models, training\nfrom mialib.data import splits\n"
        "from mialib.training import loop, tally\nfrom mialib.store import Store\n"
        "torch.set_num_threads(3)\ntraining.use_processes(2)\n"
        "digits = data.load('digits')\nsplit = splits.target_shadow(len(digits), 1, 1, 0, 20)\n"
        "make_model, recipe = models.make('small_cnn', digits), training.Recipe(1, 20)\n"
        "made = training.fit(make_model, digits, split, recipe, cache=Store(sys.argv[1]))\n"
        "assert tally.so_far().trained == 0, tally.so_far()\nprint(*made.keys)"
    )
    environment = os.environ | {"HOME": str(home), "MIALIB_CACHE": str(home), "PYTHONPATH": str(REPO_ROOT)}
    environment |= {"MIALIB_DATA": str(home), "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(copied)], env=environment, cwd=home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == trained.keys
