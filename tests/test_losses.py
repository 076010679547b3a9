"""PPB against the paper's equation, written out with numpy."""

import numpy as np
import pytest
import torch

from mialib.defenses.losses import PPB, pair_divergence
from mialib.loop import Batch, cross_entropy

LOGITS = [[2.0, 0.0, -1.0], [0.5, 1.5, 0.0], [0.0, 1.0, 4.0], [0.2, 0.1, 0.0]]
LABELS = [0, 1, 2, 1]


def batch(labels):
    y = torch.tensor(labels)
    return Batch(torch.zeros(*y.shape, 1), y, torch.zeros_like(y))


def answer(params, x):
    return params["logits"]


def penalty(logits):
    """2/b * sum over pairs of KL(p_(i + b/2) || p_i) of the posteriors ranked in descending order."""
    ranked = -np.sort(-np.asarray(logits), axis=1)
    p = np.exp(ranked) / np.exp(ranked).sum(1, keepdims=True)
    half = len(p) // 2
    first, second = p[:half], p[half : 2 * half]
    return (second * np.log(second / first)).sum(1).mean()


def cross_entropy_by_hand(logits, labels):
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -np.log(p[np.arange(len(labels)), labels]).mean()


def test_ppb_by_hand():
    params = {"logits": torch.tensor([LOGITS])}
    expected = cross_entropy_by_hand(LOGITS, LABELS) + 4 * penalty(LOGITS)
    assert penalty(LOGITS) > 0.05
    assert PPB(4.0)(answer, params, batch([LABELS]), 0).tolist() == pytest.approx([expected], abs=1e-6)


def test_each_model_is_penalised_for_its_own_answers():
    logits = torch.tensor([LOGITS, LOGITS[::-1]])
    found = pair_divergence(logits)
    assert found.tolist() == pytest.approx([penalty(LOGITS), penalty(LOGITS[::-1])], abs=1e-6)
    assert abs(float(found[0] - found[1])) > 1e-3  # KL has a direction: second half against first


def test_an_odd_last_example_is_left_out_of_the_penalty():
    odd = torch.tensor([[*LOGITS, [9.0, -9.0, 0.0]]])
    assert torch.equal(pair_divergence(odd), pair_divergence(odd[:, :4]))
    loss = PPB(4.0)(answer, {"logits": odd}, batch([[*LABELS, 1]]), 0)
    expected = cross_entropy_by_hand(odd[0].numpy(), [*LABELS, 1]) + 4 * penalty(LOGITS)
    assert loss.tolist() == pytest.approx([expected], abs=1e-5)  # but not of the cross-entropy


def test_the_class_is_forgotten():
    permuted = torch.tensor([[LOGITS[0], LOGITS[1], LOGITS[0][::-1], [1.5, 0.0, 0.5]]])
    assert pair_divergence(permuted).tolist() == pytest.approx([0.0], abs=1e-7)


def test_the_gradient_flows_through_both_sides():
    logits = torch.tensor([LOGITS], requires_grad=True)
    pair_divergence(logits).sum().backward()
    assert bool((logits.grad[0].abs().sum(1) > 1e-3).all())


def test_the_gradient_is_that_of_the_equation():
    logits = torch.tensor([LOGITS], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pair_divergence, logits)


def test_certain_answers_stay_finite():
    logits = torch.tensor([[[200.0, -200.0, 0.0], [0.0, 0.1, 0.2]]], requires_grad=True)
    value = pair_divergence(logits)
    value.sum().backward()
    assert bool(value.isfinite().all()) and bool(logits.grad.isfinite().all())


def test_strength_zero_is_cross_entropy():
    params, one = {"logits": torch.tensor([LOGITS])}, batch([LABELS])
    assert torch.equal(PPB(0.0)(answer, params, one, 0), cross_entropy(answer, params, one, 0))


@pytest.mark.parametrize("strength", [-1.0, float("nan")])
def test_a_negative_strength_is_refused(strength):
    with pytest.raises(ValueError, match="strength is .*; it must be 0 or more"):
        PPB(strength)
