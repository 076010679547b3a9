"""Workers end with the process they work for; `tests/test_running.py` kills whole runs."""

import os
import subprocess
import sys
import time

import pytest

from mialib import REPO_ROOT

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
