"""Recorded steps, played back: what a graph would freeze or refuse is found without a GPU."""

import pytest
import torch

from tests.replay import Tape, on_tape


def test_what_is_played_back_is_done_again_on_the_same_tensors():
    weight, x = torch.ones(3, requires_grad=True), torch.tensor([1.0, 2.0, 3.0])
    optimiser = torch.optim.SGD([weight], lr=0.5, fused=True)
    losses = []

    def step():
        optimiser.zero_grad(set_to_none=True)
        loss = (weight * x).sum()
        loss.backward()
        optimiser.step()
        losses[:] = [loss.detach()]

    play = on_tape(step, [])
    play()  # what was done while recording
    assert weight.tolist() == [0.5, 0.0, -0.5] and losses[0].item() == 6
    x.copy_(torch.tensor([1.0, 0.0, 0.0]))
    play()
    assert weight.tolist() == [0.0, 0.0, -0.5] and losses[0].item() == 0.5


@pytest.mark.parametrize(
    "planted",
    [
        lambda x: float(x.sum()),
        lambda x: x[x > 0],
        lambda x: (x > 0).nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: x.index_put_((x > 0,), torch.zeros(())),
        lambda x: bool(x.any()),
    ],
    ids=["float", "mask", "nonzero", "masked_select", "write by mask", "bool"],
)
def test_what_the_host_would_have_to_know_is_refused(planted):
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"), Tape():
        planted(torch.tensor([1.0, -1.0]))


def test_pythons_numbers_are_those_of_the_recording():
    x, strength = torch.zeros(1), [1.0]
    play = on_tape(lambda: x.add_(strength[0]), [])
    play()
    strength[0] = 10.0
    play()
    assert x.tolist() == [2.0]
