"""Calls in other processes: results as they finish, workers that die, and calls that kill them."""

import os
import signal
import time

import joblib
import pytest

from mialib.training import tasks
from mialib.training.tasks import Call


@pytest.fixture(params=["here", "processes"])
def workers(request):
    """Both ways of making calls."""
    if request.param == "here":
        yield
    else:
        with joblib.parallel_config(backend="loky", n_jobs=2, inner_max_num_threads=1):
            yield


@pytest.fixture
def processes():
    with joblib.parallel_config(backend="loky", n_jobs=2, inner_max_num_threads=1):
        yield


def doubled(number, *, plus=0):
    time.sleep(0.02 * (5 - number))  # the first ones take longest
    return 2 * number + plus


def test_every_call_is_made_once_and_named(workers):
    calls = (Call(("call", i), doubled, (i,), {"plus": 1}) for i in range(5))
    assert sorted(tasks.as_finished(calls)) == [(("call", i), 2 * i + 1) for i in range(5)]


def test_results_come_in_order_where_that_is_asked(workers):
    assert list(tasks.in_order(Call(i, doubled, (i,)) for i in range(5))) == [0, 2, 4, 6, 8]


def test_calls_are_taken_a_few_ahead_only(processes):
    taken = []

    def calls():
        for i in range(40):
            taken.append(i)
            yield Call(i, doubled, (4,))

    results = tasks.as_finished(calls())
    next(results)
    assert len(taken) < 20
    assert len(list(results)) == 39


def refused(number):
    raise KeyError(number)


def test_what_a_call_raises_is_raised(workers):
    with pytest.raises(KeyError, match="3"):
        list(tasks.as_finished([Call("one", refused, (3,))]))


def fragile(number, mark):
    """Kills its worker the first time that number 2 is asked for; leaves a mark for each time that it was made."""
    with open(mark / str(number), "a") as file:
        file.write("x")
    if number == 2 and (mark / "2").read_text() == "x":
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.skipif(os.name != "posix", reason="no such signal there")
def test_a_killed_worker_loses_its_calls_only(processes, tmp_path):
    with pytest.warns(UserWarning, match="a worker was killed"):
        found = dict(tasks.as_finished(Call(i, fragile, (i, tmp_path)) for i in range(8)))
    assert found == {i: i for i in range(8)}
    made = [len((tmp_path / str(i)).read_text()) for i in range(8)]
    assert made[2] == 2 and made[0] == made[7] == 1


def fatal():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(os.name != "posix", reason="no such signal there")
@pytest.mark.filterwarnings("ignore:a worker was killed")
def test_a_call_that_kills_every_worker_ends_in_an_error(processes):
    with pytest.raises(RuntimeError, match="killed 3 times in a row with 1 calls begun"):
        list(tasks.as_finished([Call("good", doubled, (5,)), Call("bad", fatal)]))
