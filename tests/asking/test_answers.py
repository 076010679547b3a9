"""What models answer: logits as of each module alone, and the sensitivity against its equation in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from mialib import asking, streams
from mialib.asking import answers, noise
from mialib.data import Dataset
from mialib.training import population
from tests.models.test_classifiers import CNN


def reference_sensitivity(module, data, index, queries, epsilon, seed):
    """s_c(x) = 1 / (m eps) sum_j |f_c(x + eps u_j) - f_c(x)| of the two-layer network, by numpy in float64."""
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in module.parameters())

    def f(x):
        z = np.tanh(x @ w1.T + b1) @ w2.T + b2
        e = np.exp(z - z.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    own = (
        noise.normal(streams.seed(seed, "sensitivity"), index, queries, (6,)).transpose(0, 1).double().numpy()
    )
    x = data.inputs(index).double().numpy()
    return np.abs(f(x + epsilon * own) - f(x)).sum(0) / (queries * epsilon)


@pytest.mark.parametrize(("queries", "epsilon", "tolerance"), [(10, 1e-3, 1e-3), (4, 1e-2, 1e-4)])
def test_sensitivity_is_the_equation_in_float64(toy, steep, queries, epsilon, tolerance):
    index = torch.stack([torch.arange(100), torch.arange(20, 120)])
    found = asking.sensitivity(steep, toy, index, queries=queries, epsilon=epsilon, seed=7)
    assert found.shape == (2, 100, 3) and found.dtype == torch.float64 and bool((found >= 0).all())
    assert float(found.mean()) > 0.1
    for i, module in enumerate(steep):
        expected = reference_sensitivity(module, toy, index[i], queries, epsilon, 7)
        # float32 posteriors are exact to 6e-8 each, the difference is divided by epsilon
        assert np.abs(found[i].numpy() - expected).max() < tolerance, i


def test_every_model_gets_the_same_noise(toy, steep):
    same = population.stack(steep.make_model, [steep[0], steep[0]])
    found = asking.sensitivity(same, toy, torch.arange(30))
    assert torch.equal(found[0], found[1])
    alone = asking.sensitivity(steep[1:], toy, torch.arange(30))
    assert torch.equal(asking.sensitivity(steep, toy, torch.arange(30))[1], alone[0])
    assert not torch.equal(asking.sensitivity(steep[1:], toy, torch.arange(30), seed=1), alone)


@pytest.mark.parametrize("examples", [1, 7, 20, 10**6])
@pytest.mark.parametrize("together", [1, 2, 8])
def test_neither_blocks_nor_other_models_change_anything(digits, monkeypatch, examples, together):
    """To the last bit: what is asked at once are a model's own next examples."""
    three = population.initial(CNN, [0, 1, 2])
    index = torch.stack([torch.arange(50), torch.arange(30, 80), torch.arange(0, 100, 2).flip(0)])
    alone = torch.cat([asking.sensitivity(three[i : i + 1], digits, index[i]) for i in range(3)])
    monkeypatch.setattr(answers, "TOGETHER", together)
    monkeypatch.setitem(answers._NOISE, "cpu", examples * 10 * 64)
    assert torch.equal(asking.sensitivity(three, digits, index), alone)


@pytest.mark.parametrize("examples", [1, 7, 10**6])
def test_as_many_are_asked_at_once_whatever_the_blocks(digits, monkeypatch, examples):
    """64 pictures at once at most, so 6 examples of 10 queries."""
    asked, ask = [], answers.in_batches
    monkeypatch.setattr(answers, "in_batches", lambda module, x: asked.append(len(x)) or ask(module, x))
    monkeypatch.setitem(answers._NOISE, "cpu", examples * 10 * 64)
    asking.sensitivity(
        population.initial(CNN, [0]), digits, torch.arange(50), clean=torch.zeros(1, 50, 10).double()
    )
    assert asked == [60] * 8 + [20]


def test_an_example_is_moved_alike_in_any_order_and_company(toy, steep):
    whole = asking.sensitivity(steep, toy, torch.arange(120))
    orders = torch.stack(
        [torch.randperm(120, generator=torch.Generator().manual_seed(i))[:70] for i in range(2)]
    )
    repeated = torch.cat([orders, orders[:, :9]], 1)  # some examples twice
    # the tolerance is for rounding: a matrix product of another size may sum in another order
    for index in (orders, orders[:, 5:6], repeated):
        found = asking.sensitivity(steep, toy, index)
        assert all(torch.allclose(found[i], whole[i, index[i]], atol=1e-3) for i in range(2))
    assert asking.sensitivity(steep, toy, orders[:, :0]).shape == (2, 0, 3)


def test_noise_is_made_once_for_all_models(toy, steep, monkeypatch):
    made, normal = [], noise.normal
    monkeypatch.setattr(
        noise, "normal", lambda key, examples, *shape: made.append(examples) or normal(key, examples, *shape)
    )
    monkeypatch.setitem(answers._NOISE, "cpu", 20 * 10 * 6)
    asking.sensitivity(steep, toy, torch.stack([torch.arange(60), torch.arange(30, 90)]))
    assert torch.equal(torch.cat(made), torch.arange(90)) and max(map(len, made)) == 20


def test_clean_answers_that_are_known_are_not_asked_for_again(toy, steep, monkeypatch):
    index = torch.stack([torch.arange(30), torch.arange(20, 50)])
    clean = asking.log_posteriors(steep, toy, index)
    asked = []
    ask = answers.in_batches
    monkeypatch.setattr(answers, "in_batches", lambda module, x: asked.append(len(x)) or ask(module, x))
    known = asking.sensitivity(steep, toy, index, clean=clean)
    assert sum(asked) == 2 * 30 * 10
    assert torch.equal(asking.sensitivity(steep, toy, index), known) and sum(asked) == 2 * 30 * (10 + 11)
    wrong = asking.sensitivity(steep, toy, index, clean=clean.flip(0))
    assert bool((wrong > known + 1).any())  # it is read
    with pytest.raises(ValueError, match=r"clean is \(1, 30, 3\), must be \(2, 30, 'c'\)"):
        asking.sensitivity(steep, toy, index, clean=clean[:1])


def test_noise_of_its_variance_moves_the_answers(toy, steep):
    """Of a linear layer's many classes: |w u| of normal u has the mean |w| sqrt(2 / pi)."""
    found = asking.sensitivity(steep[:1], toy, torch.arange(120), queries=300, epsilon=1e-3)[0].numpy()
    x = toy.inputs(torch.arange(120)).double().requires_grad_()
    posteriors = steep[0].double()(x).softmax(1)
    norms = [
        torch.autograd.grad(posteriors[:, c].sum(), x, retain_graph=True)[0].norm(dim=1) for c in range(3)
    ]
    expected = torch.stack(norms, 1).numpy() * np.sqrt(2 / np.pi)
    large = expected > 0.05
    # the standard error of 300 |normal| is 4.4 % of their mean; of the many, only their mean is near
    assert np.abs(found / expected - 1)[large].max() < 0.25
    assert abs((found / expected)[large].mean() - 1) < 0.02


def test_more_queries_than_a_block_has_numbers_work(toy, steep, monkeypatch):
    many = asking.sensitivity(steep[:1], toy, torch.arange(2), queries=600)
    monkeypatch.setitem(answers._NOISE, "cpu", 100)
    assert torch.allclose(asking.sensitivity(steep[:1], toy, torch.arange(2), queries=600), many, atol=1e-3)


@pytest.mark.cuda
def test_a_device_answers_as_the_cpu_does(toy, steep, accelerator):
    index = torch.stack([torch.arange(100), torch.arange(20, 120)])
    here, there = ((steep.to(one), toy.to(one)) for one in ("cpu", accelerator))
    assert torch.allclose(asking.logits(*there, index), asking.logits(*here, index), atol=1e-5)
    # float32 answers differ by some 1e-6, which is divided by epsilon
    found, expected = (asking.sensitivity(*one, index, epsilon=1e-2) for one in (there, here))
    assert found.device.type == "cpu" and torch.allclose(found, expected, atol=1e-3)


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
def test_asking_puts_precision_switches_back(toy, steep, precision, switch, name):
    torch.backends.cudnn.allow_tf32 = switch
    torch.set_float32_matmul_precision(name)
    asking.sensitivity(steep, toy, torch.arange(5))
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
