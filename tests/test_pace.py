"""What is measured is work of this process, once for each kind."""

import math

import torch

from mialib import models, training
from mialib.data import splits
from mialib.pace import Pace, clock, share_of
from mialib.training import Recipe, fitting, population


def orders(digits, *recipes):
    """What `fit` is asked for with each of the recipes."""
    split = splits.target_shadow(len(digits), 2, 1, 0, 40)
    found = []
    token = fitting.INSTEAD.set(lambda order, *_: found.append(order))
    for recipe in recipes:
        training.fit(models.make("small_cnn", digits), digits, split, recipe)
    fitting.INSTEAD.reset(token)
    return found


def test_seconds_are_those_of_a_training_and_each_kind_is_measured_once(digits):
    short, long, other = orders(digits, Recipe(2, 16), Recipe(40, 16), Recipe(2, 8))
    pace = Pace()
    of_two = pace.training(short, [0], ())
    measured = pace.measuring
    of_forty = pace.training(long, [1], ())
    assert 0 < of_two < of_forty < 21 * of_two and pace.measuring == measured > 0
    began = clock(torch.device("cpu"))
    fitting.loop.train(long.make_model, digits, long.recipe, split=long.split[[0]], hooks=long.hooks[[0]])
    real = clock(torch.device("cpu")) - began
    assert real / 5 < of_forty < real * 5
    pace.training(other, [0], ())
    assert pace.measuring > measured


def test_an_answer_has_the_shape_of_a_real_one(digits):
    networks, pace = population.initial(models.make("small_cnn", digits), [0]), Pace()
    answer = pace.answer(networks, digits.inputs(torch.arange(2)))
    assert answer.shape == (digits.num_classes,) and 0 < answer.seconds < 0.1
    assert pace.answer(networks, digits.inputs(torch.arange(1))) is answer


def test_a_share_of_a_split_has_it_of_each_set(digits):
    split = splits.target_shadow(len(digits), 2, 1, 0, 40)
    half = share_of(split, 0.5)
    for name in ("member", "test", "reserve"):
        whole, part = getattr(split, name), getattr(half, name)
        assert (part.sum(1) == (whole.sum(1) / 2).ceil()).all() and not (part & ~whole).any()
    assert not math.isclose(float(half.member.float().mean()), float(split.member.float().mean()))
