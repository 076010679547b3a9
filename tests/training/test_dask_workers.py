"""Dask's own engine, started here: the same models as in one process, whoever dies meanwhile."""

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import joblib
import pytest
import torch

from mialib import REPO_ROOT, training
from mialib.attacks import neural
from mialib.store import Store
from mialib.study import Attacker, attackers
from mialib.training import dask_workers, tasks
from mialib.training.dask_workers import DaskWorkers
from tests.study.conftest import Made
from tests.training import far
from tests.training.test_population import Double, assert_same, largest_difference, mlp
from tests.training.test_recipe import RECIPE

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def two():
    """Two workers, processes of this machine."""
    runner = DaskWorkers(None, 2)
    runner.connect()
    yield runner
    cluster = runner._client.cluster
    runner._client.close()
    cluster.close()


@pytest.fixture
def away(two):
    """Large calls go to the two workers."""
    tasks.send_to(two)
    yield two
    tasks.send_to(None)


@pytest.fixture
def inside(monkeypatch):
    """A cluster whose only worker is a thread of this process; it can be closed at any moment."""
    for name in ("MIALIB_CACHE", "MIALIB_PROGRESS"):  # calls set them
        monkeypatch.setenv(name, os.environ.get(name, ""))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=None
    ) as cluster:
        yield cluster
    tasks.send_to(None)


def store(name):
    return Store(f"{os.environ['MIALIB_CACHE']}/{name}")


def contents(cache):
    """What a store holds: for each key the sums of the tensors."""
    return {
        key: {name: float(t.double().sum()) for name, t in cache.get(key)[0].items()}
        for key in cache.entries()
    }


def test_a_population_is_the_one_of_one_process(toy, split, away):
    found = training.fit(mlp, toy, split, RECIPE, cache=store("away"), batched=False)
    tasks.send_to(None)
    here = training.fit(mlp, toy, split, RECIPE, cache=store("here"), batched=False)
    assert contents(store("away")) == contents(store("here")) and len(contents(store("here"))) == len(split)
    assert_same(found, here)


def test_models_that_train_as_one_are_cut_into_a_part_for_each_worker(toy, split, away):
    found = training.fit(Double, toy, split, RECIPE, cache=store("away"), batched=True)
    seconds = {record["seconds"] for record in found.records}
    tasks.send_to(None)
    here = training.fit(Double, toy, split, RECIPE, cache=store("here"), batched=True)
    assert store("away").entries().keys() == store("here").entries().keys() == {*here.keys}
    assert largest_difference(found, here) < 1e-9
    assert len(seconds) == 2  # of the share of one part each


def test_a_single_model_is_trained_there_too(toy, split, away, trained_seeds):
    training.fit(mlp, toy, split[:1], RECIPE, cache=store("away"))
    assert trained_seeds == []
    tasks.send_to(None)
    training.fit(mlp, toy, split[:1], RECIPE, cache=store("here"))
    assert len(trained_seeds) == 1


def test_attack_networks_are_those_of_one_process(away, monkeypatch):
    suite = {"nn": neural.attacks(training.Recipe(1, 16), trainings=2)["nn"]}
    root = os.environ["MIALIB_CACHE"]
    kept = {}
    for name, runner in (("away", away), ("here", None)):
        monkeypatch.setenv("MIALIB_CACHE", f"{root}/{name}")
        tasks.send_to(runner)
        arm = Made().made("a")
        learned = attackers.train([Attacker(arm, arm)], suite)
        assert (learned == {"nn": {}}) == (runner is not None)
        kept[name] = contents(Store())
    assert kept["away"] == kept["here"] and len(kept["here"]) == 2


def test_a_worker_that_is_killed_loses_nothing(two, tmp_path):
    calls = [tasks.Call(i, far.double, (i, 0.05)) for i in range(6)]
    calls.insert(1, tasks.Call("killer", far.killed_once, (str(tmp_path / "mark"), 7)))
    assert dict(two(calls)) == {i: 2 * i for i in range(6)} | {"killer": 7}
    assert (tmp_path / "mark").exists()


def test_a_population_is_the_same_although_a_worker_is_killed(toy, split, away, tmp_path):
    make_model = partial(far.fragile, os.getpid(), str(tmp_path / "mark"))
    found = training.fit(make_model, toy, split, RECIPE, cache=store("away"), batched=False)
    assert (tmp_path / "mark").exists()
    tasks.send_to(None)
    assert_same(found, training.fit(make_model, toy, split, RECIPE, cache=store("here"), batched=False))


@pytest.mark.slow
def test_a_call_that_always_kills_its_worker_ends_in_an_error(two):
    with pytest.raises(RuntimeError, match="workers were killed 4 times.*MIALIB_WORKERS"):
        list(two([tasks.Call(0, far.killed_always)]))


def test_what_a_call_raises_is_raised_here_and_the_rest_is_dropped(two):
    with pytest.raises(FloatingPointError, match="call 3 went wrong"):
        list(
            two([tasks.Call(0, far.wrong, (3,)), *(tasks.Call(i, far.double, (i, 5.0)) for i in range(1, 9))])
        )
    before = time.monotonic()
    assert dict(two([tasks.Call(0, far.double, (1,))])) == {0: 2}
    assert time.monotonic() - before < 30  # nine calls of five seconds do not wait before it


def test_results_come_as_they_finish_and_calls_are_taken_a_few_ahead(two):
    taken = []

    def calls():
        for i in range(20):
            taken.append(i)
            yield tasks.Call(i, far.double, (i, 2.0 if i == 0 else 0.0))

    found = two(calls())
    first, _ = next(found)
    assert first != 0 and len(taken) <= 5
    assert {first, *(name for name, _ in found)} == {*range(20)}


def test_data_are_sent_once_and_unpacked_once_a_worker(two, monkeypatch):
    n = 5_000
    data = training_data(n)
    sent, submit = [], two.connect().submit

    def spy(function, *args, **options):
        sent.append(function)
        return submit(function, *args, **options)

    monkeypatch.setattr(two.connect(), "submit", spy)
    found = [result for _, result in two([tasks.Call(i, far.seen, (data,)) for i in range(8)])]
    assert sent.count(dask_workers._itself) == 1 and sent.count(dask_workers._made) == 8
    assert {fingerprint for *_, fingerprint in found} == {data.fingerprint}
    assert len({one[:2] for one in found}) == len({process for process, *_ in found})


def training_data(n):
    from mialib.data import Dataset

    return Dataset.of_features("wide", torch.randn(n, 60), torch.arange(n) % 3, 3)


def test_a_worker_has_one_thread(two):
    assert dict(two([tasks.Call(0, torch.get_num_threads)])) == {0: 1}


# Faults


def test_without_its_scheduler_a_run_ends_at_once_and_goes_on_from_the_store(
    toy, split, inside, monkeypatch, trained_seeds
):
    tasks.send_to(DaskWorkers(inside.scheduler_address))
    put = Store.put

    def put_and_close(cache, *args, **options):
        put(cache, *args, **options)
        inside.close()

    monkeypatch.setattr(Store, "put", put_and_close)
    before = time.monotonic()
    with pytest.raises(RuntimeError, match="scheduler at tcp://.* is gone.*in the store"):
        training.fit(mlp, toy, split, RECIPE, cache=store("a"), batched=False)
    assert time.monotonic() - before < 60
    monkeypatch.setattr(Store, "put", put)
    tasks.send_to(None)
    done = len(store("a").entries())
    assert 1 <= done < len(split)
    trained_seeds.clear()
    found = training.fit(mlp, toy, split, RECIPE, cache=store("a"), batched=False)
    assert len(trained_seeds) == len(split) - done
    assert_same(found, training.fit(mlp, toy, split, RECIPE, cache=store("b"), batched=False))


def test_without_any_worker_a_run_ends_after_a_while(inside, monkeypatch):
    monkeypatch.setattr(dask_workers, "PATIENCE", 1.0)
    inside.scale(0)
    runner = DaskWorkers(inside.scheduler_address)
    with pytest.raises(RuntimeError, match="has had no worker for 1 s.*dask worker"):
        list(runner([tasks.Call(0, far.double, (1,))]))


def test_where_nobody_answers_the_address_is_named(monkeypatch):
    monkeypatch.setattr(dask_workers, "CONNECT", 0.5)
    monkeypatch.setenv("MIALIB_BACKEND", "dask")
    monkeypatch.setenv("MIALIB_ADDRESS", "tcp://127.0.0.1:9")
    with pytest.raises(ConnectionError, match="no Dask scheduler answers at tcp://127.0.0.1:9 within"):
        training.use_processes(2)
    assert tasks.runner() is None and joblib.effective_n_jobs(None) == 1  # nothing has changed


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="a path that each process sees differently")
def test_workers_that_do_not_see_the_store_are_named(two, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIALIB_CACHE", "/proc/self/cwd/store")
    with pytest.raises(OSError, match=r"2 of 2 Dask workers do not see the store.*tcp://.*one MIALIB_CACHE"):
        list(two([tasks.Call(0, far.double, (1,))]))
    assert [*(tmp_path / "store").iterdir()] == []


def test_how_many_workers_must_be_known_where_they_are_started():
    with pytest.raises(ValueError, match="workers is None"):
        DaskWorkers(None)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_workers_of_this_machine_end_with_a_process_that_is_killed():
    code = (
        "import os, sys, time\n"
        "from mialib.training.dask_workers import DaskWorkers\n"
        "if __name__ == '__main__':\n"
        "    client = DaskWorkers(None, 1).connect()\n"
        "    print(*client.run(os.getpid).values(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    # workers write to the pipe that we read: it is at its end when nobody holds it any more
    started = subprocess.Popen([sys.executable, "-c", code], cwd=REPO_ROOT, stdout=subprocess.PIPE, text=True)
    worker = int(re.fullmatch(r"(\d+)\n", started.stdout.readline())[1])
    os.kill(worker, 0)
    started.send_signal(signal.SIGKILL)
    started.communicate(timeout=50)
