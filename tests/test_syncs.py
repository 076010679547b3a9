"""How often the host would wait for a device: not within a step, once an epoch."""

import collections
from dataclasses import replace

import pytest
import torch

from tests.syncs import Waits
from tests.training.cases import CASES, Case


@pytest.mark.parametrize(
    "planted",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.sum()),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.unique(),
    ],
)
def test_what_the_host_waits_for_is_counted_once(planted):
    with Waits() as waits:
        planted(torch.tensor([1.0, -1.0]))
    assert waits.reads.total() == 1 and not waits.moves


def test_what_stays_on_the_device_is_not_counted():
    x = torch.tensor([1.0, -1.0])
    with Waits() as waits:
        torch.where(x > 0, x, 0.0).to(torch.float64).sum()
        x[torch.tensor([0])]
        assert not waits.reads and not waits.moves and waits.calls["where"] == 1
        x.to("cpu")
    assert waits.moves.total() == 1


def of_an_epoch(case):
    """What a second epoch of three steps adds to the first."""
    counts = []
    case.train(epochs=1)  # what is asked of the data once is not counted
    for epochs in (1, 2):
        with Waits() as waits:
            case.train(epochs=epochs)
        counts.append(waits)
    one, two = counts
    for kind in ("reads", "moves", "calls"):
        getattr(two, kind).subtract(getattr(one, kind))
    return two


def reads(case):
    """How often the host waits in an epoch."""
    found = of_an_epoch(case).reads
    # who is in a batch of DP-SGD is drawn on the host, from tensors of its own
    return sum(times for (_, line), times in found.items() if "differential_privacy" not in line)


@pytest.mark.parametrize("name", CASES)
def test_no_step_waits_and_an_epoch_once(name):
    assert reads(CASES[name]) == 1


@pytest.mark.parametrize("name", ["cross_entropy", "MMD", "DPSGD"])
@pytest.mark.parametrize("patience", [None, 5])
def test_the_choice_of_the_best_epoch_adds_no_wait(name, patience):
    case = CASES[name]
    assert reads(replace(case, recipe=replace(case.recipe, select_best=True, patience=patience))) == 1


@pytest.mark.parametrize("name", ["cross_entropy", "AdversarialRegularization", "DPSGD", "ADMM", "PPB"])
def test_batches_move_to_the_device_once_an_epoch(name):
    lines = collections.Counter()
    for (_, line), times in of_an_epoch(CASES[name]).moves.items():
        lines[line.partition(":")[0]] += times
    # an index is moved to the data that it was made for, and a mask to the weights that it belongs to: no move
    del lines["data/datasets.py"], lines["compression/pruning.py"]
    assert lines.pop("training/loop.py", 0) == (name == "AdversarialRegularization")  # the reference batches
    assert lines.total() == 1  # the order


def test_a_hook_that_looks_at_a_value_is_found():
    def looking(forward, params, batch, step):
        losses = forward(params, batch.x).square().mean((1, 2))
        return losses * float(losses.detach().sum())

    assert reads(Case(hooks={"objective": looking})) == 1 + 3  # a step each
