"""Fixtures of several test files of this room."""

import pytest
import torch
from torch import nn

from mialib import models, study
from mialib.asking import Inputs, Views
from mialib.data import Dataset, Splits, splits
from mialib.study import Study
from mialib.training import population


def linear():
    return nn.Linear(3, 3, bias=False)


def eye(value):
    layer = linear()
    layer.weight.data = value * torch.eye(3)
    return layer


@pytest.fixture
def known():
    """Two models that answer with the largest of three features, and with the smallest; their data."""
    x = torch.eye(3).repeat(4, 1)
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 1, 2, 0])  # the last three are wrong
    dataset = Dataset.of_features("known", x, y, 3)
    member = torch.zeros(2, 12, dtype=torch.bool)
    member[0, :6] = member[1, 6:] = True
    split = Splits(member, ~member, torch.zeros_like(member), torch.tensor([0, 1]))
    return population.stack(linear, [eye(9.0), eye(-9.0)]), dataset, split


@pytest.fixture(scope="module")
def setting(digits):
    """Two targets and two shadows, untrained; their split, a study and its arm."""
    split = splits.d1_d2_d3(len(digits), 30, 20, 30, seed=0, n_models=4)
    networks = population.initial(models.make("small_cnn", digits), split.seeds.tolist())
    found = Study(digits, split, 2, protocol="d1_d2_d3")
    return networks, split, found, found.arm("none", networks)


@pytest.fixture
def made():
    """A study of two targets and three shadows that answer as they are told: `made.made(key, seed, leak)`."""
    return Made()


class Made(Study):
    """A study whose arms are made up: more certain of their members, by `leak`. 40 examples of 6 features, 4 classes."""

    def __init__(self, n_targets=2, n_shadows=3, **columns):
        generator = torch.Generator().manual_seed(0)
        x, y = torch.randn(40, 6, generator=generator), torch.randint(4, (40,), generator=generator)
        k = n_targets + n_shadows
        member = torch.stack([torch.randperm(40, generator=generator) < 20 for _ in range(k)])
        split = Splits(member, ~member, torch.zeros_like(member), torch.arange(k))
        super().__init__(
            Dataset.of_features("made", x, y, 4), split, n_targets, **{"protocol": "own"} | columns
        )

    def made(self, key, seed=0, leak=1.0, sensitive=True, probes=True, **columns):
        views = self.answers(seed, leak, sensitive, probes)
        targets = [views[[i]] for i in self.roles.targets]
        return self.arm(key, study.Given(targets, views[self.roles.shadows]), **columns)

    def answers(self, seed, leak=1.0, sensitive=True, probes=True):
        generator = torch.Generator().manual_seed(seed)
        index, member = self.roles.index, self.roles.member
        labels = self.roles.data.y[index]
        logits = torch.randn(*index.shape, 4, generator=generator, dtype=torch.float64)
        logits += nn.functional.one_hot(labels, 4) * (1 + leak * member[..., None])
        noise = torch.rand(*index.shape, 4, generator=generator, dtype=torch.float64)
        sensitivity = noise * (2 - member[..., None].double()) if sensitive else None
        x, query = (Inputs(self.roles.data, index), answer) if probes else (None, None)
        return Views(logits.log_softmax(-1), labels, sensitivity, x, query)


def answer(x):
    """A model that is asked with probes: (m, b, d) -> log-posteriors (m, b, 4)."""
    return x[..., :4].double().log_softmax(-1)
