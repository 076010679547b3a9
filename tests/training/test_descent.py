"""Shuffled batches: every member once an epoch, in an order of each model's own, and gradients that do not mix."""

from dataclasses import replace

import pytest
import torch

from mialib import training
from mialib.data import splits
from mialib.training import Batch, population
from mialib.training.descent import Shuffling
from tests.training.test_population import mlp
from tests.training.test_recipe import RECIPE


def test_a_last_batch_of_one_example_is_left_out(toy):
    split = splits.target_shadow(120, 1, 1, seed=0, n_train=17)  # 8 + 8 + 1, and BatchNorm needs two
    fitted = training.fit(mlp, toy, split, replace(RECIPE, epochs=1))
    assert fitted.buffers["1.num_batches_tracked"].tolist() == [2, 2]


def epochs(members, batch_size, seeds, count=1):
    """The index tensors of so many epochs, an epoch after another."""
    batches, _ = Shuffling().begin(members, batch_size, seeds)
    return [list(batches()) for _ in range(count)]


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 4]), (8, 4, [4, 4]), (3, 4, [3]), (1, 4, [1])],
    ids=["rest of two", "rest of one", "no rest", "less than a batch", "one member"],
)
def test_an_epoch_is_cut_into_batches(n, batch_size, sizes):
    (epoch,) = epochs(torch.arange(n)[None], batch_size, [0])
    assert [index.shape[1] for index in epoch] == sizes


def test_each_epoch_shuffles_every_models_own_members():
    members = torch.tensor([[3, 5, 7, 9, 11, 13], [2, 4, 6, 8, 10, 12]])
    first, second = (torch.cat(epoch, 1) for epoch in epochs(members, 4, [0, 1], count=2))
    assert first.dtype == torch.int64
    assert torch.equal(first.sort(1).values, members) and torch.equal(second.sort(1).values, members)
    assert not torch.equal(first, second)
    assert not torch.equal((first[0] - 3) // 2, (first[1] - 2) // 2)  # nor do two models share an order


def test_a_models_order_depends_on_its_own_seed_only():
    members = torch.arange(20).expand(2, -1)
    (both,), (alone,) = epochs(members, 8, [0, 1]), epochs(members[1:], 8, [1])
    assert torch.equal(torch.cat(both, 1)[1:], torch.cat(alone, 1))


def test_gradients_are_each_models_own(toy):
    pop = population.initial(mlp, [0, 1])
    learning = population.skeleton(mlp).eval()

    def run(models):
        params = {name: t[models].clone().requires_grad_() for name, t in pop.params.items()}
        buffers = {name: t[models] for name, t in pop.buffers.items()}
        index = torch.arange(20).view(2, 10)[models]

        def losses(params, batch):
            return training.cross_entropy(
                lambda p, x: population.forward(learning, p, buffers, x), params, batch, 0
            )

        _, backward = Shuffling().begin(index, 10, [0, 1][models])
        return backward(losses, params, Batch(toy.x[index], toy.y[index], index)), params

    losses, params = run(slice(None))
    assert losses.shape == (2,)
    for i in range(2):
        alone, own = run(slice(i, i + 1))
        assert torch.allclose(losses[i : i + 1], alone), i
        for name, parameter in own.items():
            assert torch.allclose(params[name].grad[i : i + 1], parameter.grad, atol=1e-6), (i, name)
