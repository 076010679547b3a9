"""What models answer: the sensitivity against its equation in float64, and what an attacker sees and does not."""

from dataclasses import dataclass
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from torch import nn

from mialib import asking, training
from mialib.asking import Door, Views, answers
from mialib.attacks import blindmi, neural, threshold
from mialib.data import Dataset, Splits, splits
from mialib.models import classifiers
from mialib.training import Recipe, population

CNN = partial(classifiers.small_cnn, in_channels=1, num_classes=10, image_size=8, width=4)
EVERY_ATTACK = dict(threshold.ATTACKS) | {"blindmi": blindmi.BlindMIDiff()} | neural.attacks(
    Recipe(1, 16), trainings=2
)  # fmt: skip


def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


def scaled():
    """Steep, so that the sensitivity is far from 0."""
    module = mlp()
    module[0].weight.data *= 3
    module[2].weight.data *= 3
    return module


@pytest.fixture
def steep():
    return population.initial(scaled, [0, 1])


def reference_sensitivity(module, x, queries, epsilon, seed):
    """s_c(x) = 1 / (m eps) sum_j |f_c(x + eps u_j) - f_c(x)| of the two-layer network, by numpy in float64."""
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in module.parameters())

    def f(x):
        z = np.tanh(x @ w1.T + b1) @ w2.T + b2
        e = np.exp(z - z.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    # the noise is float32 and drawn in blocks of rows, as the models see it
    generator = torch.Generator().manual_seed(seed)
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
        assert np.abs(found[i].numpy() - expected).max() < tolerance


def test_every_model_gets_the_same_noise(toy, steep):
    same = population.stack(scaled, [steep[0], steep[0]])
    found = asking.sensitivity(same, toy, torch.arange(30))
    assert torch.equal(found[0], found[1])
    alone = asking.sensitivity(steep[1:], toy, torch.arange(30))
    assert torch.equal(asking.sensitivity(steep, toy, torch.arange(30))[1], alone[0])
    assert not torch.equal(asking.sensitivity(steep[1:], toy, torch.arange(30), seed=1), alone)


def test_an_examples_noise_does_not_depend_on_what_follows(toy, steep):
    long = torch.arange(200) % 120  # several blocks
    first = asking.sensitivity(steep, toy, long)
    for n in (1, 50, 51, 52, 120):
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
            assert torch.allclose(found[i], module(digits.inputs(index[i])), atol=1e-5)
    posteriors = asking.log_posteriors(pop, digits, index).exp()
    assert posteriors.dtype == torch.float64 and torch.allclose(
        posteriors.sum(-1), torch.ones(2, 600).double()
    )
    assert torch.equal(
        asking.logits(pop, digits, index[0])[1], asking.logits(pop, digits, index[:1].expand(2, -1))[1]
    )


def test_queries_leave_the_models_as_they_are(digits):
    pop = population.initial(CNN, [0])
    before = {name: tensor.clone() for name, tensor in (pop.params | pop.buffers).items()}
    asking.ask(pop, digits, torch.arange(40)[None], probes=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in (pop.params | pop.buffers).items())


def test_precision_switches_are_put_back(toy, steep):
    cudnn, matmul = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    try:
        for switch in (True, False):
            torch.backends.cudnn.allow_tf32 = switch
            torch.set_float32_matmul_precision("high" if switch else "highest")
            with answers.full_precision():
                assert (
                    not torch.backends.cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "highest"
                )
            asking.sensitivity(steep, toy, torch.arange(5))
            with pytest.raises(ValueError), answers.full_precision():
                raise ValueError
            assert torch.backends.cudnn.allow_tf32 is switch
            assert torch.get_float32_matmul_precision() == ("high" if switch else "highest")
    finally:
        torch.backends.cudnn.allow_tf32 = cudnn
        torch.set_float32_matmul_precision(matmul)


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


# What an attacker sees


def test_candidates_are_the_members_and_test_examples_shuffled():
    split = splits.target_shadow(200, 1, 1, seed=0)
    index, member = splits.candidates(split, seed=0)
    assert index.shape == member.shape == (2, 90)
    for i in range(2):
        assert sorted(index[i].tolist()) == (split.member | split.test)[i].nonzero()[:, 0].tolist()
        assert torch.equal(member[i], split.member[i][index[i]])
        assert index[i].tolist() != sorted(index[i].tolist())
    assert not torch.equal(splits.candidates(split, seed=1)[0], index)


def test_views_hold_what_was_asked_for(toy, steep):
    index = torch.arange(10).view(2, 5)
    plain = asking.ask(steep, toy, index, sensitive=False)
    assert plain.sensitivity is None and plain.x is None and plain.query is None
    assert torch.equal(plain.labels, toy.y[index])
    full = asking.ask(steep[:1], toy, index[:1], probes=True)
    assert torch.equal(full.sensitivity, asking.sensitivity(steep[:1], toy, index[:1]))
    assert full.x.shape == toy.inputs(index[:1]).shape
    assert torch.equal(full.x[0], toy.inputs(index[0]))
    assert torch.allclose(full.query(full.x[0][None]), full.log_posteriors)
    both = asking.ask(steep, toy, index, probes=True)
    assert len(both) == 2 and torch.equal(both[1:].log_posteriors, both.log_posteriors[1:])


def test_serving_changes_the_answers_and_hides_the_sensitivity(toy, steep):
    seen = asking.ask(steep[:1], toy, torch.arange(5)[None], probes=True)
    served = asking.serve(seen, lambda log_p: log_p / 2)
    assert torch.equal(served.log_posteriors, seen.log_posteriors / 2) and served.sensitivity is None
    x = seen.x[0][None]
    assert torch.equal(served.query(x), seen.query(x) / 2)


def inputs_of(seen):
    return torch.stack([seen.x[i] for i in range(len(seen))])


def test_each_model_is_asked_its_own_inputs(toy, steep):
    seen = asking.ask(steep, toy, torch.arange(10).view(2, 5), sensitive=False, probes=True)
    x = inputs_of(seen)
    assert torch.allclose(seen.query(x), seen.log_posteriors)
    assert not torch.allclose(seen.query(x.flip(0)), seen.log_posteriors, atol=1e-2)
    with pytest.raises(ValueError):
        seen.query(x[:1])  # two models, one batch


@pytest.mark.parametrize("part", [[1], slice(1, 2), [1, 0], slice(None)])
def test_a_part_of_the_views_has_its_own_inputs_and_doors(toy, steep, part):
    seen = asking.ask(steep, toy, torch.arange(10).view(2, 5), probes=True)
    some = seen[part]
    assert torch.equal(inputs_of(some), inputs_of(seen)[part]) and torch.equal(some.labels, seen.labels[part])
    assert torch.equal(some.sensitivity, seen.sensitivity[part])
    assert torch.allclose(some.query(inputs_of(some)), seen.log_posteriors[part])


def test_a_part_of_the_views_asks_plain_functions_as_they_are():
    log_p = torch.zeros(3, 4, 2).log_softmax(-1).double()
    seen = Views(log_p, torch.zeros(3, 4).long(), x=torch.zeros(3, 4, 6), query=torch.exp)
    assert seen[[2]].query is torch.exp and seen[[2]].x.shape == (1, 4, 6)
    assert Views(log_p, seen.labels)[1:].query is None


@dataclass(frozen=True)
class Divided:
    """An output defence with one number a model."""

    by: torch.Tensor

    def __getitem__(self, models):
        return Divided(self.by[models])

    def __call__(self, log_p):
        return log_p / self.by[:, None, None]


def test_a_defence_with_one_state_a_model_is_sliced_with_the_views(toy, steep):
    seen = asking.ask(steep, toy, torch.arange(10).view(2, 5), sensitive=False, probes=True)
    served = asking.serve(seen, Divided(torch.tensor([2.0, 3.0]).double()))
    assert torch.equal(served.log_posteriors[1], seen.log_posteriors[1] / 3)
    for part in ([1], slice(0, 1), [1, 0]):
        some = served[part]
        assert torch.allclose(some.query(inputs_of(some)), served.log_posteriors[part])


def test_answers_are_the_views_without_inputs_and_door(toy, steep):
    seen = asking.ask(steep, toy, torch.arange(10).view(2, 5), probes=True)
    plain = seen.answers()
    assert plain.x is None and plain.query is None
    assert plain.log_posteriors is seen.log_posteriors and plain.sensitivity is seen.sensitivity


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"log_posteriors": torch.zeros(1, 4, 3)}, "must be float64"),
        ({"labels": torch.zeros(4)}, r"labels must be \(1, 4\)"),
    ],
)
def test_views_refuse_what_does_not_fit(changes, words):
    common = {"log_posteriors": torch.zeros(1, 4, 3).double(), "labels": torch.zeros(1, 4, dtype=torch.int64)}
    with pytest.raises(ValueError, match=words):
        Views(**common | changes)


@pytest.fixture(scope="module")
def trained(digits):
    split = splits.target_shadow(len(digits), 1, 2, seed=0, n_train=40)
    return split, training.fit(CNN, digits, split, Recipe(3, 16))


@pytest.fixture(scope="module")
def exchanged(digits, trained):
    """What attacks see of the target as it is, and with its members and test examples exchanged in the split."""
    split, pop = trained
    swapped = Splits(
        torch.cat([split.test[:1], split.member[1:]]),
        torch.cat([split.member[:1], split.test[1:]]),
        split.reserve,
        split.seeds,
    )
    seen = []
    for one in (split, swapped):
        index, member = splits.candidates(one, seed=0)
        target = asking.ask(pop[:1], digits, index[:1], probes=True)
        seen.append((index, member, target, asking.ask(pop[1:], digits, index[1:])))
    return seen


def test_exchanging_members_and_nonmembers_leaves_the_candidates_order(exchanged):
    (index, member, *_), (other_index, other_member, *_) = exchanged
    assert torch.equal(index, other_index)
    assert torch.equal(member[0], ~other_member[0]) and torch.equal(member[1:], other_member[1:])


@pytest.mark.parametrize("name", EVERY_ATTACK)
def test_no_attack_can_tell_when_the_targets_members_are_exchanged(exchanged, name):
    margins = [EVERY_ATTACK[name](target, shadows, member[1:], 0) for _, member, target, shadows in exchanged]
    assert torch.equal(*margins)
    assert len(set(margins[0].tolist())) > 1  # and they are not all the same anyway


@pytest.mark.parametrize("name", EVERY_ATTACK)
def test_every_attack_gives_one_finite_margin_a_candidate_and_the_same_again(exchanged, name):
    _, member, target, shadows = exchanged[0]
    margins, again = (EVERY_ATTACK[name](target, shadows, member[1:], 0) for _ in range(2))
    assert margins.shape == (80,) and margins.dtype == torch.float64 and bool(margins.isfinite().all())
    assert torch.equal(margins, again)


@pytest.mark.slow
def test_processes_give_the_same_answers(digits, trained):
    split, pop = trained
    index, _ = splits.candidates(split, seed=0)
    alone = asking.ask(pop, digits, index)
    with joblib.parallel_config(backend="loky", n_jobs=2, inner_max_num_threads=1):
        shared = asking.ask(pop, digits, index)
    assert torch.equal(alone.log_posteriors, shared.log_posteriors) and torch.equal(
        alone.sensitivity, shared.sensitivity
    )


def test_a_door_that_remembers_asks_each_model_once(monkeypatch, toy):
    models = population.initial(_linear, [0, 1])
    index = torch.arange(5).expand(2, -1)
    seen = asking.ask(models, toy, index, sensitive=False, probes=True, remember=True)
    x = torch.randn(2, 4, 6)
    asked = []
    monkeypatch.setattr(Door, "_ask", lambda door, module, x: asked.append(x.shape) or module(x).detach())
    first = seen.query(x)
    served = asking.serve(seen, lambda log_p: log_p / 2)
    assert torch.equal(served.query(x), first / 2) and torch.equal(seen[[1]].query(x[1:]), first[1:])
    assert len(asked) == 2  # each of the two models about its four inputs
    assert not torch.equal(seen[[0]].query(x[1:]), first[1:]) and len(asked) == 3  # another model's answer
    seen.query(x + 1)
    assert len(asked) == 5


def _linear():
    return torch.nn.Linear(6, 3)
