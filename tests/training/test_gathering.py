"""Processes that want the same models of one store: each is trained once, and those of a dead process are taken over."""

import os
import subprocess
import sys

import pytest
import torch

from mialib import REPO_ROOT, training
from mialib.data import Dataset, splits
from mialib.store import Store
from mialib.training import Recipe, shares
from mialib.training.gathering import Gathering
from tests.training.test_population import assert_same

pytestmark = pytest.mark.skipif(os.name != "posix", reason="turns are known there only")
COUNT = 6


def fitted(cache=None, watch=()):
    """Six small networks."""
    pool = Dataset.of_features("toy", torch.linspace(0, 1, 240).view(60, 4), torch.arange(60) % 3, 3)
    split = splits.target_shadow(60, 1, COUNT - 1, seed=0, n_train=10)
    return training.fit(network, pool, split, Recipe(epochs=2, batch_size=5), cache=cache, watch=watch)


def network():
    return torch.nn.Linear(4, 3)


# A process that trains them. It says the number of each model before it is trained, and waits for a line before the first.
TRAINER = """
import sys
from mialib import turns
from mialib.training import loop
from tests.training import test_gathering
if "blind" in sys.argv:
    turns.are_seen = lambda cache: False
    turns.take = lambda cache, key: True
real, begun = loop.train, []
def told(*args, split, **options):
    print(*split.seeds.tolist(), flush=True)
    if not begun or "slow" in sys.argv:
        sys.stdin.readline()
    begun.append(split)
    return real(*args, split=split, **options)
loop.train = told
test_gathering.fitted()
print("done", flush=True)
"""


class Trainer:
    """One of them."""

    def __init__(self, *words, share=None):
        environment = os.environ | ({} if share is None else {shares.VARIABLE: share})
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", TRAINER, *words]
        self.process = subprocess.Popen(command, cwd=REPO_ROOT, env=environment, **pipes)

    def says(self):
        return self.process.stdout.readline().strip()

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def rest(self):
        """What it says until it is done, without that."""
        said = self.process.communicate(timeout=120)[0].split("\n")
        assert self.process.returncode == 0 and said[-2:] == ["done", ""]
        return said[:-2]


@pytest.fixture
def seeds():
    return [str(seed) for seed in splits.target_shadow(60, 1, COUNT - 1, seed=0, n_train=10).seeds.tolist()]


def test_two_processes_share_the_models_and_both_have_all(seeds, tmp_path):
    one, two = Trainer(), Trainer()
    first = [one.says(), two.says()]  # both have begun, and not with the same one
    one.go(), two.go()
    told = first + one.rest() + two.rest()
    assert sorted(told) == sorted(seeds)
    assert_same(fitted(), fitted(Store(tmp_path / "another")))


def test_the_model_of_a_killed_process_is_taken_over(seeds):
    one = Trainer()
    lost = one.says()
    two = Trainer()
    told = [two.says()]
    two.go()
    while len(told) < COUNT - 1:
        told.append(two.says())
    assert sorted([lost, *told]) == sorted(seeds)  # two waits for the one that the first has begun with
    one.process.kill()
    assert two.rest() == [lost]
    one.process.communicate()


def test_a_share_begins_with_its_own_and_helps_with_the_others(seeds):
    alone = Trainer(share="2/3")
    told = [alone.says()]
    alone.go()
    assert told + alone.rest() == [seeds[i] for i in (1, 4, 2, 5, 0, 3)]


def test_where_turns_are_not_seen_each_trains_its_own_share_and_waits(seeds):
    one, two = Trainer("blind", share="1/2"), Trainer("blind", share="2/2")
    told = [[one.says()], [two.says()]]
    one.go(), two.go()
    told = [told[0] + one.rest(), told[1] + two.rest()]
    assert told == [seeds[::2], seeds[1::2]]


def test_a_share_needs_a_store_that_can_be_written_to(monkeypatch, tmp_path):
    monkeypatch.setenv(shares.VARIABLE, "1/2")
    monkeypatch.setattr(Store, "ready", lambda self: False)
    with pytest.raises(OSError, match="share 1/2 of the work .* cannot be written to; set MIALIB_CACHE"):
        fitted(Store(tmp_path))


def test_turns_are_given_back_after_an_error():
    cache, keys = Store(), [40 * letter for letter in "abc"]
    models = Gathering(cache, keys, lambda key: None)
    with pytest.raises(KeyError):
        for shards in models.rounds(True, lambda count: None):
            assert list(shards) == [[0, 1, 2]]
            raise KeyError
    del models
    code = "import sys; from mialib import turns; from mialib.store import Store\nprint([turns.take(Store(), key) for key in sys.argv[1:]])"
    asked = subprocess.run([sys.executable, "-c", code, *keys], cwd=REPO_ROOT, capture_output=True, text=True)
    assert asked.stdout.strip() == "[True, True, True]"


def test_an_entry_without_what_is_asked_is_trained_again():
    one = fitted()
    again = fitted(watch=("test",))
    assert_same(one, again)
    assert all(len(record["test_accuracy"]) == 2 for record in again.records)
