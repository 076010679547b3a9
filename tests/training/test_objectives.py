"""The plain loss: cross-entropy by hand, the mean over examples of each model's own."""

import math

import pytest
import torch
import torch.nn.functional as F

from mialib.training import Batch, cross_entropy, mean_cross_entropy


def test_cross_entropy_by_hand():
    # posteriors of the true class: 1/2, 1/2 for one model, 1/4 and 3/4 for the other
    logits = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[0.0, math.log(3)], [0.0, math.log(3)]]])
    y = torch.tensor([[0, 1], [0, 1]])
    expected = [math.log(2), (math.log(4) + math.log(4 / 3)) / 2]
    assert mean_cross_entropy(logits, y).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_each_models_loss_and_gradient_are_torchs_of_it_alone(dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 10, 4, generator=generator, dtype=dtype, requires_grad=True)
    y = torch.randint(4, (3, 10), generator=generator)
    losses = mean_cross_entropy(logits, y)
    assert losses.shape == (3,) and losses.dtype == dtype
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    for i in range(3):
        alone = logits[i].detach().requires_grad_()
        loss = F.cross_entropy(alone, y[i])
        torch.testing.assert_close(losses[i], loss, msg=f"model {i}")
        torch.testing.assert_close(gradient[i], *torch.autograd.grad(loss, alone), msg=f"model {i}")


def test_logits_beyond_the_largest_exponential_give_finite_losses():
    logits = torch.tensor([[[1e4, 0.0, -1e4]]])
    assert mean_cross_entropy(logits, torch.tensor([[2]])).tolist() == [2e4]


def test_the_objective_asks_the_batch_once_and_compares_with_its_labels():
    params, asked = {"w": torch.ones(2, 3)}, []
    batch = Batch(torch.rand(2, 5, 4), torch.randint(3, (2, 5)), torch.arange(10).view(2, 5))
    logits = torch.randn(2, 5, 3)

    def forward(*question):
        asked.append(question)
        return logits

    found = cross_entropy(forward, params, batch, 7)
    assert torch.equal(found, mean_cross_entropy(logits, batch.y))
    assert len(asked) == 1 and asked[0][0] is params and asked[0][1] is batch.x
