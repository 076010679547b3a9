"""Deployed networks where populations stand: the same questions, the same candidates, nearly the same answers."""

import pytest
import torch

from mialib import asking, models, training
from mialib.compression import int8_networks
from mialib.data import splits
from mialib.study import Study
from mialib.training import Recipe


@pytest.fixture(scope="module")
def networks(digits):
    split = splits.target_shadow(len(digits), 2, 1, 0, 100)
    trained = training.fit(models.make("small_cnn", digits), digits, split, Recipe(6, 32, 2e-3))
    return trained, split, int8_networks.to_int8(trained, digits, splits.indices(split.reserve))


def test_an_audit_asks_them_like_a_population(digits, networks):
    trained, split, integers = networks
    found = Study(digits, split, 2)
    plain, real = (found.arm(key, one) for key, one in (("plain", trained), ("int8", integers)))
    pairs = zip([*plain.targets(), plain.shadows()], [*real.targets(), real.shadows()], strict=True)
    for i, (a, b) in enumerate(pairs):
        assert torch.equal(a.labels, b.labels), i
        difference = (a.log_posteriors.exp() - b.log_posteriors.exp()).abs()
        assert 0 < difference.mean() < 0.02, i  # not the same network, and not another


def test_accuracy_and_parts(digits, networks):
    trained, split, integers = networks
    accuracies = [asking.accuracy(one, digits, split.test) for one in (trained, integers)]
    assert (accuracies[0] - accuracies[1]).abs().max() <= 0.05
    assert len(integers) == 3 and len(integers[1:]) == 2
    assert integers[1:].models == integers.models[1:]
    assert integers[[2, 0]].models == [integers.models[2], integers.models[0]]
    x = digits.inputs(torch.arange(5))
    assert torch.equal(integers[1](x), integers.models[1].logits(x))
    door = asking.ask(integers[:1], digits, torch.arange(5)[None], sensitive=False, probes=True).query
    assert torch.equal(door(x[None])[0], integers.models[0](x))


def test_each_model_is_calibrated_on_its_own_examples(digits, networks):
    trained, split, integers = networks
    other = int8_networks.to_int8(trained[1:2], digits, splits.indices(split.reserve)[:1])
    assert other.models[0].model != integers.models[1].model
    again = int8_networks.to_int8(trained[1:2], digits, splits.indices(split.reserve)[1:2])
    assert again.models[0].model == integers.models[1].model
