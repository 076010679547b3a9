"""Populations: rows are plain modules, slices keep the model axis, fresh weights depend on the own seed alone."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from mialib import training
from mialib.training import pick, population
from tests.models.test_classifiers import CNN


def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def nn_linear():
    return nn.Linear(6, 3)


class Double(nn.Module):
    """`mlp` in float64; `fit` hands it float32 inputs."""

    def __init__(self):
        super().__init__()
        self.net = mlp().double()

    def forward(self, x):
        return self.net(x.double())


def largest_difference(a, b):
    assert a.params.keys() == b.params.keys() and a.buffers.keys() == b.buffers.keys()
    pairs = [(getattr(a, kind)[n], t) for kind in ("params", "buffers") for n, t in getattr(b, kind).items()]
    return max(float((x.double() - y.double()).abs().max()) for x, y in pairs)


def assert_same(a, b):
    """Bit for bit."""
    for kind in ("params", "buffers"):
        for name, tensor in getattr(a, kind).items():
            assert torch.equal(tensor, getattr(b, kind)[name]), name


def test_population_rows_are_plain_modules_with_the_same_logits(digits):
    pop = population.initial(CNN, [3, 4])
    x = digits.inputs(torch.arange(10).view(2, 5))
    together = population.forward(population.skeleton(CNN).eval(), pop.params, pop.buffers, x)
    for i, module in enumerate(pop):
        assert type(module) is nn.Sequential and not module.training, i
        assert torch.allclose(module(x[i]), together[i], atol=1e-6), i


def test_a_row_is_a_copy():
    pop = population.initial(mlp, [0])
    before = pop.params["0.weight"].clone()
    pop[0][0].weight.data.zero_()
    assert torch.equal(pop.params["0.weight"], before)


def test_initial_weights_depend_on_the_own_seed_only():
    state = torch.get_rng_state()
    pop = population.initial(mlp, [5, 6, 7])
    assert torch.equal(
        torch.get_rng_state(), state
    )  # the caller's random numbers go on as if nothing had happened
    assert_same(pop[1:2], population.initial(mlp, [6]))
    assert not torch.equal(pop.params["0.weight"][0], pop.params["0.weight"][1])


def test_slices_and_lists_keep_the_model_axis_and_the_records():
    pop = replace(
        population.initial(mlp, [0, 1, 2]), records=[{"i": i} for i in range(3)], keys=["a", "b", "c"]
    )
    assert len(pop[1:]) == 2 and pop[1:].keys == ["b", "c"]
    assert pop[[2, 0]].records == [{"i": 2}, {"i": 0}]
    assert torch.equal(pop[[2, 0]].params["3.bias"], pop.params["3.bias"][[2, 0]])


def test_stack_is_the_inverse_of_indexing():
    pop = population.initial(mlp, [0, 1])
    assert_same(pop, population.stack(mlp, list(pop)))
    with pytest.raises(ValueError, match="model 1 has another architecture"):
        population.stack(mlp, [mlp(), nn.Linear(6, 3)])


def test_pick_indexes_what_is_per_model_and_nothing_else():
    assert pick({"w": torch.arange(3)}, [2])["w"].tolist() == [2]
    assert pick(None, [0]) is None and pick(training.cross_entropy, [0]) is training.cross_entropy


@dataclass(frozen=True)
class State:
    """Something with one number a model."""

    numbers: tuple

    def __getitem__(self, models):
        return State(pick(self.numbers, models))


@pytest.mark.parametrize("models", [[2, 0], [1], slice(1, None)], ids=str)
@pytest.mark.parametrize("kind", [list, tuple, State], ids=lambda kind: kind.__name__)
def test_pick_keeps_the_kind_of_what_has_one_thing_a_model(kind, models):
    expected = torch.arange(3)[models].tolist()
    whole = State((0, 1, 2)) if kind is State else kind(range(3))
    assert pick(whole, models) == (State(tuple(expected)) if kind is State else kind(expected))


def test_a_population_needs_a_model():
    with pytest.raises(ValueError, match="a population needs at least one model"):
        population.stack(mlp, [])


def test_moving_keeps_everything_else():
    pop = replace(population.initial(mlp, [0, 1]), records=[{"i": 0}, {"i": 1}], keys=["a", "b"])
    moved = pop.to("meta")
    assert moved.device.type == "meta" and pop.device.type == "cpu"
    assert {t.device.type for t in (moved.params | moved.buffers).values()} == {"meta"}
    assert moved.records == pop.records and moved.keys == pop.keys and moved.make_model is mlp


def test_a_skeleton_has_the_architecture_and_no_memory():
    skeleton = population.skeleton(mlp)
    assert [type(layer) for layer in skeleton] == [type(layer) for layer in mlp()]
    assert all(tensor.is_meta for tensor in skeleton.state_dict().values())


@pytest.mark.parametrize("k", [1, 3])
def test_forward_updates_the_running_statistics_in_train_mode_only(toy, k):
    pop = population.initial(mlp, range(k))
    x, before = toy.x.expand(k, -1, -1), pop.buffers["1.running_mean"].clone()
    population.forward(population.skeleton(mlp).eval(), pop.params, pop.buffers, x)
    assert torch.equal(pop.buffers["1.running_mean"], before)
    population.forward(population.skeleton(mlp).train(), pop.params, pop.buffers, x)
    hidden = toy.x @ pop.params["0.weight"].transpose(1, 2) + pop.params["0.bias"][:, None]
    assert torch.allclose(pop.buffers["1.running_mean"], 0.1 * hidden.mean(1), atol=1e-5)
    assert pop.buffers["1.num_batches_tracked"].tolist() == [1] * k


# Asking one module about many inputs


def test_channels_come_last_in_memory_and_nothing_else_changes():
    x = torch.rand(2, 3, 4, 5)
    found = population.channels_last(x)
    assert torch.equal(found, x) and found.is_contiguous(memory_format=torch.channels_last)
    assert not x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(7, 6), (1, 3, 4, 5)], ids=["features", "one picture"])
def test_features_and_single_pictures_stay_as_they_are(shape):
    x = torch.rand(shape)
    assert population.channels_last(x) is x


@pytest.mark.parametrize("n", [1, 64, 65, 200])
def test_batches_give_the_answers_in_order(n):
    asked = []

    def module(x):
        asked.append(len(x))
        return x.flatten(1).sum(1)

    x = torch.arange(n * 12.0).view(n, 3, 2, 2)
    assert torch.equal(population.in_batches(module, x), x.flatten(1).sum(1))
    assert max(asked) <= population.at_once(x) == 64 and sum(asked) == n
