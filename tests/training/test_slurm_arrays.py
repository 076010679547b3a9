"""Submitit's own engine, its jobs started here as processes; and SLURM's arrays, with commands that stand in for SLURM's."""

import os
import stat
import sys
import time
from pathlib import Path

import pytest
import torch

from mialib import places, training
from mialib.attacks import neural
from mialib.store import Store
from mialib.study import Attacker, attackers
from mialib.training import slurm_arrays, tasks
from mialib.training.slurm_arrays import SlurmArrays
from tests.study.conftest import Made
from tests.training import far
from tests.training.test_dask_workers import contents, store
from tests.training.test_population import assert_same, mlp
from tests.training.test_recipe import RECIPE

pytest.importorskip("submitit")


@pytest.fixture
def away():
    """Large calls become jobs, two at a time."""
    tasks.send_to(SlurmArrays(2, "local"))
    yield
    tasks.send_to(None)


def folders():
    root = places.cache_root() / slurm_arrays.FOLDER
    return sorted(root.iterdir()) if root.exists() else []


def test_a_population_is_the_one_of_one_process_and_jobs_keep_it_themselves(toy, split, away, monkeypatch):
    cache, put = store("away"), []
    with monkeypatch.context() as patch:  # this process keeps nothing
        patch.setattr(Store, "put", lambda cache, key, *_, **__: put.append(key))
        found = training.fit(mlp, toy, split[:2], RECIPE, cache=cache, batched=False)
    assert sorted(put) == sorted(found.keys) == sorted(cache.entries())
    assert cache.made(found.keys[0])[0] == "networks" and "toy" in cache.made(found.keys[0])[1]
    tasks.send_to(None)
    here = training.fit(mlp, toy, split[:2], RECIPE, cache=store("here"), batched=False)
    assert_same(found, here)
    assert contents(store("here")) == contents(cache)


def test_a_job_that_is_killed_is_submitted_again_and_nothing_is_left(tmp_path):
    runner = SlurmArrays(2, "local")
    calls = [
        tasks.Call("killer", far.killed_once, (str(tmp_path / "mark"), 7)),
        tasks.Call("other", far.double, (4,)),
    ]
    with pytest.warns(UserWarning, match="jobs were killed; 1 calls are made again"):
        assert dict(runner(calls)) == {"killer": 7, "other": 8}
    assert (tmp_path / "mark").exists() and folders() == []


@pytest.mark.slow
def test_a_call_that_always_kills_its_job_ends_in_an_error():
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="killed 3 times.*slurm:mem_gb"):
        list(SlurmArrays(1, "local")([tasks.Call(0, far.killed_always)]))
    assert folders() == []


def test_what_a_call_raises_is_raised_here_and_the_other_jobs_are_cancelled():
    calls = [tasks.Call(0, far.wrong, (3,)), tasks.Call(1, far.double, (1, 300.0))]
    before = time.monotonic()
    with pytest.raises(FloatingPointError, match="call 3 went wrong"):
        list(SlurmArrays(2, "local")(calls))
    assert time.monotonic() - before < 250 and folders() == []


@pytest.mark.slow
def test_attack_networks_are_those_of_one_process(away, monkeypatch):
    suite = {"nn": neural.attacks(training.Recipe(1, 16), trainings=2)["nn"]}
    root, kept = os.environ["MIALIB_CACHE"], {}
    for name in ("away", "here"):
        monkeypatch.setenv("MIALIB_CACHE", f"{root}/{name}")
        arm = Made().made("a")
        attackers.train([Attacker(arm, arm)], suite)
        kept[name] = contents(Store())
        tasks.send_to(None)
    assert kept["away"] == kept["here"] and len(kept["here"]) == 2


def test_what_a_lost_process_left_goes_after_a_week_and_not_before():
    root = places.cache_root() / slurm_arrays.FOLDER
    for name, age in (("old", 8), ("young", 6)):
        (root / name / "parts").mkdir(parents=True)
        then = time.time() - age * 24 * 3600
        os.utime(root / name, (then, then))
    slurm_arrays._sweep(root)
    assert [folder.name for folder in folders()] == ["young"]
    assert [*Store().scan()] == []  # the store's commands do not see it


def test_nothing_is_submitted_where_nothing_is_to_be_done():
    assert list(SlurmArrays(1, "slurm")([])) == [] and folders() == []


def test_where_there_is_no_slurm_that_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="srun"):
        list(SlurmArrays(1, "slurm")([tasks.Call(0, far.double, (1,))]))
    assert folders() == []


# SLURM's own commands, as far as submitit calls them. sbatch starts the jobs of an array one after the other.
COMMANDS = {
    "sbatch": """
import os, re, subprocess, sys
text = open(sys.argv[1]).read()
last, most = re.search(r"--array=0-(\\d+)%(\\d+)", text).groups()
open(os.environ["ASKED"], "a").write(f"{last} {most} {re.search('partition=(.*)', text)[1]}\\n")
script = "\\n".join(
    f"SLURM_ARRAY_TASK_ID={i} SLURM_ARRAY_JOB_ID=77 SLURM_JOB_ID={78 + i} SLURM_PROCID=0 bash {sys.argv[1]}"
    for i in range(int(last) + 1)
)
subprocess.Popen(["bash", "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("Submitted batch job 77")
""",
    "srun": """
import os, sys
words = sys.argv[1:]
while words[0].startswith("--"):
    words = words[1 if words[0] == "--unbuffered" else 2:]
os.execvp(words[0], words)
""",
    "sacct": """print("JobID|State|NodeList")""",
    "scancel": "",
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands of those names; gives the file in which sbatch notes what it is asked."""
    for name, code in COMMANDS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{sys.executable}\n{code}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    return tmp_path / "asked"


@pytest.mark.skipif(os.name != "posix", reason="scripts")
def test_calls_become_one_array_that_runs_so_many_at_a_time(slurm):
    runner = SlurmArrays(3, "slurm", {"slurm_partition": "gpu"})
    masks = torch.ones(200_000)
    calls = [tasks.Call(i, torch.Tensor.sum, (masks,), {"dim": 0}) for i in range(2)]
    assert dict(runner(calls)) == {0: 200_000.0, 1: 200_000.0}
    assert Path(slurm).read_text() == "1 2 gpu\n"
    assert folders() == []
