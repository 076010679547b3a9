"""Runs of a notebook of this repository, killed at random moments: nothing is left behind and nothing is lost.

What is killed is the command, the notebook's kernel or one of its workers, by KILL, TERM or INT. Then no process is left
after ten seconds; the run is started again, killed again, and so on until it ends: with the tables of one that nobody
killed, and with no temporary file in the cache or among the results.

    pytest -m slow -s tests/test_kills.py       sixty kills, about half an hour on two cores; -s shows each
"""

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import yaml

from mialib import REPO_ROOT, reporting

# the command, where signals do what they do in a shell's foreground
COMMAND = """
import signal, sys
for name in ("SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from mialib import cli
sys.exit(cli.main())
"""
KILLS = 60
PATIENCE = 10.0  # seconds that what is left of a run may take to end
NOTEBOOK = "yuan2022_pruning"
PARAMETERS = {
    "dataset": "digits", "subset": 300, "n_targets": 2, "n_shadows": 2, "n_train": 20, "batch_size": 10, "epochs": 2, "fine_tune_epochs": 2,
    "pruners": ["l1_unstructured"], "sparsities": [0.5], "sparsity": 0.5, "attack_epochs": 2, "samia_epochs": 1,
    "trainings": 1, "n_jobs": 2,
}  # fmt: skip


def started(folder, name):
    """`mialib run` on the toy file, as a shell in the foreground starts it; with a mark that all its processes inherit."""
    path = folder / NOTEBOOK / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(PARAMETERS))
    mark = uuid.uuid4().hex
    settings = {
        "MIALIB_CACHE": str(folder / f"cache_{name}"),
        "MIALIB_OUTPUTS": str(folder / "outputs"),
        "PYTHONPATH": str(REPO_ROOT),
        "MARK": mark,
        "OMP_NUM_THREADS": "1",
    }
    with open(folder / "said.txt", "w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "run", str(path)],
            env=os.environ | settings,
            stdout=said,
            stderr=said,
        )
    return process, mark


def those_of(mark):
    """Process id -> what it is, of all processes with this mark that are not zombies."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"MARK={mark}".encode() in (path / "environ").read_bytes().split(b"\0"):
                line = (path / "cmdline").read_bytes()
                names = {b"from mialib import cli": "command", b"ipykernel": "kernel", b"loky": "worker"}
                known = [name for part, name in names.items() if part in line]
                found[int(path.name)] = known[0] if known else "helper"
        except OSError:  # it has ended
            continue
    return found


def tables(folder, name):
    content = reporting.load(folder / "outputs" / NOTEBOOK / name / "metrics.json")
    return content["rows"], content["claims"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_tables(tmp_path):
    begun = time.monotonic()
    process, _ = started(tmp_path, "whole")
    assert process.wait() == 0, (tmp_path / "said.txt").read_text()
    length, wanted = time.monotonic() - begun, tables(tmp_path, "whole")
    draw, kills, ends = random.Random(0), 0, 0
    while kills < KILLS:
        process, mark = started(tmp_path, f"killed{ends}")
        time.sleep(draw.uniform(0, length))
        alive = those_of(mark)
        if kinds := sorted(set(alive.values()) - {"helper"}):
            victim, name = draw.choice(kinds), draw.choice(("SIGKILL", "SIGTERM", "SIGINT"))
            try:
                os.kill(
                    draw.choice([one for one, what in alive.items() if what == victim]), getattr(signal, name)
                )
                kills += 1
            except ProcessLookupError:  # it has ended meanwhile
                pass
            killed = time.monotonic()
            if victim == "worker":  # one that had nothing to do is replaced
                process.wait()
                killed = time.monotonic()
            while (left := those_of(mark)) and time.monotonic() < killed + PATIENCE:
                time.sleep(0.1)
            print(
                f"{kills}: {name} to the {victim}; {time.monotonic() - killed:.1f} s later {left or 'nothing'} is left"
            )
            assert not left
        if process.wait() == 0:
            assert tables(tmp_path, f"killed{ends}") == wanted
            assert not list(tmp_path.rglob("*.part"))
            ends += 1
    process, _ = started(tmp_path, f"killed{ends}")
    assert process.wait() == 0 and tables(tmp_path, f"killed{ends}") == wanted
    assert not list(tmp_path.rglob("*.part"))
    print(f"{ends + 1} runs ended with the tables of the one that nobody killed")
