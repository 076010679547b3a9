"""What models answer: logits as of each module alone, and the sensitivity against its equation in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from mialib import asking, streams
from mialib.asking import answers
from mialib.data import Dataset
from mialib.training import population
from tests.models.test_classifiers import CNN


def reference_sensitivity(module, x, queries, epsilon, seed):
    """s_c(x) = 1 / (m eps) sum_j |f_c(x + eps u_j) - f_c(x)| of the two-layer network, by numpy in float64."""
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in module.parameters())

    def f(x):
        z = np.tanh(x @ w1.T + b1) @ w2.T + b2
        e = np.exp(z - z.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    # the noise is float32 and drawn in blocks of rows, as the models see it
    generator = streams.generator(seed, "sensitivity")
    rows = answers.ROWS // queries
    blocks = [torch.randn((queries, rows, *x.shape[1:]), generator=generator) for _ in x.split(rows)]
    noise = torch.cat(blocks, 1)[:, : len(x)].double().numpy()
    x = x.double().numpy()
    return np.abs(f(x + epsilon * noise) - f(x)).sum(0) / (queries * epsilon)


@pytest.mark.parametrize(("queries", "epsilon", "tolerance"), [(10, 1e-3, 1e-3), (4, 1e-2, 1e-4)])
def test_sensitivity_is_the_equation_in_float64(toy, steep, queries, epsilon, tolerance):
    index = torch.stack([torch.arange(100), torch.arange(20, 120)])
    found = asking.sensitivity(steep, toy, index, queries=queries, epsilon=epsilon, seed=7)
    assert found.shape == (2, 100, 3) and found.dtype == torch.float64 and bool((found >= 0).all())
    assert float(found.mean()) > 0.1
    for i, module in enumerate(steep):
        expected = reference_sensitivity(module, toy.inputs(index[i]), queries, epsilon, 7)
        # float32 posteriors are exact to 6e-8 each, the difference is divided by epsilon
        assert np.abs(found[i].numpy() - expected).max() < tolerance, i


def test_every_model_gets_the_same_noise(toy, steep):
    same = population.stack(steep.make_model, [steep[0], steep[0]])
    found = asking.sensitivity(same, toy, torch.arange(30))
    assert torch.equal(found[0], found[1])
    alone = asking.sensitivity(steep[1:], toy, torch.arange(30))
    assert torch.equal(asking.sensitivity(steep, toy, torch.arange(30))[1], alone[0])
    assert not torch.equal(asking.sensitivity(steep[1:], toy, torch.arange(30), seed=1), alone)


@pytest.mark.parametrize("n", [1, 50, 51, 52, 120])
def test_an_examples_noise_does_not_depend_on_what_follows(toy, steep, n):
    long = torch.arange(200) % 120  # several blocks
    first = asking.sensitivity(steep, toy, long)
    # the tolerance is for rounding: a matrix product of another size may sum in another order
    assert torch.allclose(asking.sensitivity(steep, toy, long[:n]), first[:, :n], atol=1e-3)


def test_more_queries_than_a_block_has_rows_work(toy, steep):
    found = asking.sensitivity(steep[:1], toy, torch.arange(2), queries=600)
    assert torch.allclose(found, asking.sensitivity(steep[:1], toy, torch.arange(2), queries=500), rtol=0.2)


def test_logits_are_those_of_each_plain_module(digits):
    pop = population.initial(CNN, [0, 1])
    index = torch.stack([torch.arange(600), torch.arange(600).flip(0)])  # more than one block of rows
    found = asking.logits(pop, digits, index)
    with torch.no_grad():
        for i, module in enumerate(pop):
            assert torch.allclose(found[i], module(digits.inputs(index[i])), atol=1e-5), i
    posteriors = asking.log_posteriors(pop, digits, index).exp()
    assert posteriors.dtype == torch.float64 and torch.allclose(
        posteriors.sum(-1), torch.ones(2, 600).double()
    )
    assert torch.equal(
        asking.logits(pop, digits, index[0])[1], asking.logits(pop, digits, index[:1].expand(2, -1))[1]
    )


@pytest.fixture
def precision():
    """The switches of this process, put back after the test."""
    cudnn, matmul = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    yield
    torch.backends.cudnn.allow_tf32 = cudnn
    torch.set_float32_matmul_precision(matmul)


@pytest.mark.parametrize(("switch", "name"), [(True, "high"), (False, "highest")], ids=["high", "highest"])
def test_precision_switches_are_put_back(toy, steep, precision, switch, name):
    torch.backends.cudnn.allow_tf32 = switch
    torch.set_float32_matmul_precision(name)
    with answers.full_precision():
        assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "highest"
    asking.sensitivity(steep, toy, torch.arange(5))
    with pytest.raises(ValueError), answers.full_precision():
        raise ValueError
    assert torch.backends.cudnn.allow_tf32 is switch
    assert torch.get_float32_matmul_precision() == name


def identity():
    layer = nn.Linear(3, 3, bias=False)
    layer.weight.data = torch.eye(3)
    return layer


def test_accuracy_by_hand():
    dataset = Dataset.of_features("hand", torch.eye(3)[[0, 1, 2, 0]], torch.tensor([0, 1, 1, 2]), 3)
    two = population.stack(identity, [identity(), identity()])
    mask = torch.tensor([[True, True, True, True], [False, True, True, False]])
    assert asking.accuracy(two, dataset, mask).tolist() == [0.5, 0.5]
    assert asking.accuracy(
        two[:1], dataset, torch.tensor([[True, True, True, False]])
    ).tolist() == pytest.approx([2 / 3])
