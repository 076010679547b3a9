"""Workers end with the process they work for; `tests/test_running.py` kills whole runs."""

import os
import subprocess
import sys
import time

import pytest

from mialib import REPO_ROOT
from mialib.training import workers

pytestmark = pytest.mark.skipif(os.name != "posix", reason="orphans keep their parent there")
WORKER = (
    "import os, sys, time; from mialib.training import workers; workers.end_with({parent});"
    "print(os.getpid(), flush=True); time.sleep(60)"
)


def test_a_worker_whose_parent_is_gone_ends_at_once():
    """As one does whose parent was killed while the worker started."""
    worker = [sys.executable, "-c", WORKER.format(parent=-1)]
    assert subprocess.run(worker, cwd=REPO_ROOT, timeout=120, stdout=subprocess.DEVNULL).returncode == 1


def test_a_worker_ends_after_its_parent_was_killed_and_not_before():
    # the worker writes to the pipe that we read: it is at its end when nobody holds it any more
    parent = (
        "import os, subprocess, sys, time;"
        f"subprocess.Popen([sys.executable, '-c', {WORKER!r}.format(parent=os.getpid())]); time.sleep(60)"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", parent], cwd=REPO_ROOT, stdout=subprocess.PIPE, text=True
    )
    worker = int(started.stdout.readline())
    time.sleep(2.5)
    os.kill(worker, 0)  # raises if it has ended
    started.kill()
    before = time.monotonic()
    started.communicate(timeout=50)
    assert time.monotonic() - before < 30  # a second, and what a busy machine adds; it sleeps for a minute


def test_workers_are_spread_over_the_gpus_that_are_seen():
    assert [workers.seen_gpu(None, 2, slot) for slot in range(4)] == ["0", "1", "0", "1"]
    assert [workers.seen_gpu("2, 5,7", 3, slot) for slot in range(4)] == ["2", "5", "7", "2"]
    assert workers.seen_gpu("GPU-a,GPU-b", 2, 1) == "GPU-b"


SLOT = "import time; from mialib.training import workers; print(workers.free_slot({path!r}), flush=True); time.sleep(60)"


def test_a_worker_that_follows_a_dead_one_has_its_slot(tmp_path):
    code = SLOT.format(path=str(tmp_path / "slots"))

    def started():
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=REPO_ROOT, stdout=subprocess.PIPE, text=True
        )
        return process, int(process.stdout.readline())

    processes = [started() for _ in range(3)]
    assert [slot for _, slot in processes] == [0, 1, 2]
    killed, _ = processes[1]
    killed.kill()
    killed.wait()
    processes.append(started())
    assert processes[-1][1] == 1
    for process, _ in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("gpus", "seen"), [(0, None), (1, None), (2, "1")])
def test_of_several_gpus_a_worker_sees_one(gpus, seen, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is put back
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(workers, "end_with", lambda parent: None)
    monkeypatch.setattr(workers, "free_slot", lambda: 3)
    options = workers.tied(gpus)
    options["initializer"](*options["initargs"])
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == seen
