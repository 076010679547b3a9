"""What answers look like before and after a defence, against definitions and hand-made answers."""

import math

import pytest
import torch

from mialib import measures


def answers(n=200, c=5, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(2, n, c, generator=generator, dtype=torch.float64)).log_softmax(-1)


def one_hot(log_p):
    return torch.full_like(log_p, -math.inf).scatter(-1, log_p.argmax(-1, keepdim=True), 0.0)


def test_dispersion_is_what_a_plain_loop_finds():
    log_p = answers()
    found = measures.spread(log_p)
    for model, p in enumerate(log_p.exp()):
        entropy = torch.tensor([-(row * row.log()).sum() / math.log(5) for row in p], dtype=torch.float64)
        assert float(found.entropy[model]) == pytest.approx(float(entropy.mean())), model
        assert float(found.entropy_sd[model]) == pytest.approx(float(entropy.std())), model
        assert float(found.top_sd[model]) == pytest.approx(float(p.max(1).values.std())), model
        traces = 0.0
        for label in range(5):
            own = p[p.argmax(1) == label]
            traces += len(own) * float(torch.cov(own.T, correction=0).trace())
        assert float(found.class_spread[model]) == pytest.approx(traces / len(p)), model


def test_certain_answers_have_no_spread_within_a_label_and_no_entropy():
    found = measures.spread(one_hot(answers()))
    for name, value in found._asdict().items():
        assert torch.equal(value, torch.zeros(2).double()), name
    assert torch.equal(measures.beyond_the_label(one_hot(answers())), torch.zeros(2).double())


def test_beyond_the_label_tells_a_table_from_answers():
    log_p = answers()
    table = torch.randn(5, 5, dtype=torch.float64).log_softmax(-1)
    table[range(5), range(5)] += 10
    looked_up = table.log_softmax(-1)[log_p.argmax(-1)]
    assert float(measures.beyond_the_label(looked_up).max()) < 1e-9
    assert float(measures.beyond_the_label(log_p).min()) > 0.1


def test_beyond_the_label_by_hand():
    # three answers of the first label, whose mean is [0.8, 0.2, 0]; one of the second; none of the third
    p = torch.tensor(
        [[0.7, 0.3, 0.0], [0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.2, 0.7, 0.1]], dtype=torch.float64
    )
    assert float(measures.beyond_the_label(p.log())) == pytest.approx((0.2 + 0.2 + 0.0 + 0.0) / 4)
    assert float(measures.spread(p.log()).class_spread) == pytest.approx((0.02 + 0.02 + 0.0 + 0.0) / 4)


def test_leading_dimensions_are_kept():
    before, after = (answers(seed=seed).reshape(2, 5, 40, 5) for seed in (0, 1))

    def figures(before, after):
        changes = measures.distortion(before, after), measures.label_loss(before, after)
        return torch.stack([*measures.spread(before), measures.beyond_the_label(before), *changes])

    found = figures(before, after)
    assert found.shape == (7, 2, 5) and measures.normalised_entropy(before).shape == (2, 5, 40)
    for i, j in torch.cartesian_prod(torch.arange(2), torch.arange(5)):
        torch.testing.assert_close(found[:, i, j], figures(before[i, j], after[i, j]))


def test_equal_answers_have_the_entropy_of_guessing():
    uniform = torch.zeros(1, 3, 4, dtype=torch.float64).log_softmax(-1)
    assert torch.allclose(measures.normalised_entropy(uniform), torch.ones(1, 3).double())


def test_distortion_and_label_loss_of_a_swap():
    same = [[0.5, 0.4, 0.1], [0.1, 0.1, 0.8], [0.3, 0.6, 0.1]]
    before = torch.tensor([[[0.7, 0.2, 0.1], *same]], dtype=torch.float64).log()
    after = torch.tensor([[[0.2, 0.7, 0.1], *same]], dtype=torch.float64).log()
    assert float(measures.distortion(before, after)[0]) == pytest.approx(1.0 / 4)
    assert float(measures.label_loss(before, after)[0]) == 1 / 4
    opposite = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64).log()
    assert float(measures.distortion(opposite, opposite.flip(-1))[0]) == 2.0
