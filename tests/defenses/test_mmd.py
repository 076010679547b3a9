"""The MMD penalty, by hand and in training."""

import math

import pytest
import torch

from mialib import asking, models, training
from mialib.data import splits
from mialib.defenses import mmd
from mialib.defenses.mmd import MMD
from mialib.training import Batch, Recipe


def test_squared_mmd_by_hand():
    a, b = torch.tensor([[[0.0], [1.0]]]), torch.tensor([[[0.0], [0.0]]])
    near = math.exp(-1 / 2)  # of two points one width apart
    # means of k: within a (2 + 2 near) / 4, within b 1, between (2 + 2 near) / 4
    assert float(mmd.squared_mmd(a, b, (1.0,))) == pytest.approx((1 + near) / 2 + 1 - (1 + near))
    both = [math.exp(-1 / (2 * s**2)) for s in (1.0, 0.5)]
    expected = sum((1 + n) / 2 + 1 - (1 + n) for n in both) / 2
    assert float(mmd.squared_mmd(a, b, (1.0, 0.5))) == pytest.approx(expected)


def test_it_is_zero_for_equal_samples_positive_else_and_each_models_own():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(3, 8, 4, generator=generator)
    b = torch.rand(3, 6, 4, generator=generator)
    assert torch.allclose(mmd.squared_mmd(a, a, (0.2,)), torch.zeros(3), atol=1e-6)
    found = mmd.squared_mmd(a, b, (0.2, 0.8))
    assert (found > 0).all()
    assert torch.allclose(found[1:2], mmd.squared_mmd(a[1:2], b[1:2], (0.2, 0.8)))


def test_its_gradient_is_finite_where_examples_coincide():
    a = torch.zeros(1, 4, 3, requires_grad=True)
    mmd.squared_mmd(a, torch.zeros(1, 4, 3), (0.2,)).sum().backward()
    assert a.grad.isfinite().all()


def test_the_order_of_the_classes_does_not_count():
    logits = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(1))
    answers = {"members": logits, "others": logits.flip(-1)}
    batch, reference = (Batch(name, None, None) for name in answers)
    play = MMD(2.0).begin([0], torch.device("cpu"))
    assert float(play(lambda _, x: answers[x], {}, batch, reference, 0)) == pytest.approx(0, abs=1e-6)


def test_in_training_members_and_others_come_closer(digits):
    split = splits.target_shadow(len(digits), 2, 1, 0, 60)
    make_model = models.make("lenet5", digits)

    def apart(strength):
        opponent = MMD(strength) if strength else None
        trained = training.fit(make_model, digits, split, Recipe(15, 20, 2e-3), opponent=opponent)
        sides = [
            asking.log_posteriors(trained, digits, splits.indices(mask))
            .exp()
            .sort(-1, descending=True)
            .values
            for mask in (split.member, split.test)
        ]
        return float(mmd.squared_mmd(*sides, (0.05, 0.2, 0.8)).mean())

    assert apart(20.0) < 0.8 * apart(None)


@pytest.mark.parametrize(
    ("options", "words"),
    [((-1.0,), "strength is -1.0"), ((1.0, (0.0,)), "all positive"), ((1.0, ()), "at least one")],
)
def test_what_is_no_penalty_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        MMD(*options)
