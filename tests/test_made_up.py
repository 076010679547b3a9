"""What stands in for networks and answers has their shapes, and is the same again."""

from functools import partial

import pytest
import torch

from mialib import made_up, models
from mialib.compression import pruning, size
from mialib.training import Recipe, population


@pytest.fixture
def make_model(digits):
    return models.make("small_cnn", digits)


def three(make_model, expanded):
    one = population.initial(make_model, [0])
    parts = (one.params, one.buffers)
    if expanded:
        return population.Population(make_model, *(made_up.of_all(part, 3) for part in parts))
    return population.Population(
        make_model, *({n: torch.cat([t] * 3) for n, t in part.items()} for part in parts)
    )


def test_networks_of_one_memory_are_so_in_every_part(make_model):
    networks = three(make_model, True)
    for some in (networks[[2, 0]], networks[1:]):
        for name, tensor in some.params.items():
            assert tensor.shape == (2, *networks.params[name].shape[1:])
            if tensor.ndim > 1:
                assert tensor.data_ptr() == networks.params[name].data_ptr()


def test_once_gives_what_all_networks_give(make_model):
    networks, real = three(make_model, True), three(make_model, False)
    calls = []

    def counted(function, given, *options):
        calls.append(len(next(iter(getattr(given, "params", given).values()))))
        return function(given, *options)

    mask = made_up.once(partial(counted, pruning.mask), lambda one: one.params)
    kept, wanted = (m(n, "l1_unstructured", 0.5) for m, n in ((mask, networks), (pruning.mask, real)))
    assert all(torch.equal(kept.kept[name], tensor) for name, tensor in wanted.kept.items())
    sizes = made_up.once(partial(counted, size.sizes))
    assert sizes(networks.params) == size.sizes(real.params)
    assert calls == [1, 1]
    sizes(real.params)
    assert calls == [1, 1, 3]


@pytest.mark.parametrize("select_best", [False, True])
def test_curves_get_no_better_than_any_accuracy_and_end_with_the_last_epoch(select_best):
    record = made_up.curves(Recipe(5, 8, select_best=select_best), ("member",), ("distance",))
    assert max(record["member_accuracy"]) < 0 and len(record["loss"]) == len(record["distance"]) == 5
    assert record.get("best_epoch") == (4 if select_best else None)


def test_places_do_not_depend_on_the_batch(digits):
    whole = made_up.places(digits)
    assert whole is made_up.places(digits) and len(whole) == len(digits)
    assert torch.allclose(made_up.place(digits.inputs(torch.arange(3, 7))), whole[3:7], atol=1e-5)
