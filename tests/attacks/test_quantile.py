"""Quantile regression: planted examples that are easy for everybody, the promised rate, and nothing but what is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mialib import models, training
from mialib.asking import Views
from mialib.attacks.quantile import QuantileRegression
from mialib.data import splits
from mialib.measures import metrics
from mialib.study import Study
from mialib.training import Recipe

BOTH = [QuantileRegression(0.1), QuantileRegression(0.1, gaussian=False)]
NAMES = ["gaussian", "quantile"]


def answers(phi, x):
    """Views of one model that says log-odds phi (n,) of the true class, one of two, on x (n, ...)."""
    labels = torch.arange(len(phi)) % 2
    logits = torch.zeros(1, len(phi), 2, dtype=torch.float64)
    logits[0, torch.arange(len(phi)), labels] = phi
    return Views(logits.log_softmax(-1), labels[None], x=x[None])


def toy(n, r, leak=1.0, seed=0, shape=(3,)):
    """A target and who is a member of it: both the mean and the spread of phi follow the first feature.

    Members are surer by `leak` spreads. r others are public.
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(count, member):
        x = torch.rand(count, *shape, generator=generator)
        first = x.flatten(1)[:, 0].double()
        spread = 0.2 + 2 * first
        noise = torch.randn(count, generator=generator, dtype=torch.float64) + leak * member
        return answers(8 * first + spread * noise, x)

    member = torch.arange(n) % 2 == 0
    return replace(drawn(n, member), public=drawn(r, torch.zeros(r))), member.numpy()


def auc(member, margins):
    return metrics.auc(member, margins.numpy()).value


@pytest.mark.parametrize("attack", BOTH, ids=NAMES)
def test_it_finds_what_one_threshold_for_all_cannot(attack):
    target, member = toy(2000, 2000, leak=2.0)
    phi = target.log_posteriors[0].gather(1, target.labels[0, :, None])[:, 0].numpy()
    margins = attack(target)
    assert margins.shape == (2000,) and margins.dtype == torch.float64
    known = metrics.auc(member, phi).value
    assert known < 0.72
    # no attack that sees the same does better than 0.921, 2 / sqrt(2) standard deviations
    assert auc(member, margins) > known + 0.1
    if attack.gaussian:
        assert 0.88 < auc(member, margins) < 0.94
    assert float((margins[member] > 0).double().mean()) > 0.6  # of 0.76 that are to be had at that rate


@pytest.mark.parametrize("attack", BOTH, ids=NAMES)
@pytest.mark.parametrize("r", [60, 400])
def test_the_promised_share_of_other_non_members_is_taken_for_members(attack, r):
    rates = [float((attack(toy(1000, r, 0.0, seed)[0]) > 0).double().mean()) for seed in range(8)]
    # a set of r, drawn anew, gives a rate around 0.1 with a standard deviation of sqrt(0.1 * 0.9 / r)
    assert abs(np.mean(rates) - 0.1) < 3 * (0.09 / r / 8) ** 0.5 + 0.015


@pytest.mark.parametrize("attack", BOTH, ids=NAMES)
def test_nothing_is_found_where_nothing_leaks(attack):
    target, member = toy(1200, 300, leak=0.0)
    assert abs(auc(member, attack(target)) - 0.5) < 3 / (12 * 300) ** 0.5


@pytest.mark.parametrize("attack", BOTH, ids=NAMES)
def test_surer_is_a_larger_margin_by_as_much(attack):
    target, _ = toy(50, 200)
    one = attack(target)
    bolder = answers(torch.full((50,), 30.0, dtype=torch.float64), target.x[0])
    assert (attack(replace(bolder, public=target.public)) > one).all()


@pytest.mark.parametrize("attack", BOTH, ids=NAMES)
def test_each_candidate_is_judged_by_itself_and_the_shadows_are_ignored(attack):
    target, _ = toy(80, 200)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    margins = attack(target, None, None, 3)
    assert torch.equal(attack(target.rows(order[None]), "anything", "at all", 3), margins[order])
    assert torch.equal(attack(target.rows(torch.arange(5)[None]), seed=3), margins[:5])
    assert not torch.equal(attack(target, seed=4), margins)


def test_pictures_are_seen_by_principal_components_or_by_features_of_ones_own():
    target, member = toy(1000, 1000, leak=2.0, shape=(1, 2, 2))
    pixels = QuantileRegression()(target)
    told = QuantileRegression(features=lambda x: x.flatten(1)[:, :1])(target)
    assert auc(member, told) > auc(member, pixels) > 0.8
    blind = QuantileRegression(features=lambda x: torch.zeros(len(x), 1))(target)
    assert auc(member, blind) < auc(member, pixels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"public": None}, "target.public is needed, found None"),
        ({"x": None}, "target.x is needed, found None"),
    ],
)
def test_a_target_that_lacks_something_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        QuantileRegression()(replace(toy(20, 30)[0], **change))


def test_too_few_public_examples_and_bad_rates_are_named():
    with pytest.raises(ValueError, match="target.public has 98 examples; fpr = 0.01 needs 99"):
        QuantileRegression(0.01)(toy(20, 98)[0])
    assert QuantileRegression(0.01)(toy(20, 99)[0]).isfinite().all()
    for rate in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="fpr must be between 0 and 1"):
            QuantileRegression(rate)
    two = toy(20, 30)[0]
    with pytest.raises(ValueError, match="one model.*found 2"):
        QuantileRegression()(two[[0, 0]])


def test_an_overfit_network_is_asked_about_the_public_examples_once(digits):
    split = splits.target_shadow(len(digits), 1, 1, seed=0, n_train=100)
    networks = training.fit(models.make("small_cnn", digits), digits, split, Recipe(25, batch_size=32))
    study = Study(digits, split, 1)
    arm = study.arm("overfit", networks)
    study.attack(
        {"quantile_regression": QuantileRegression(), "quantile": QuantileRegression(gaussian=False)}, arm
    )
    assert study.values(arm, "auc", attack="quantile_regression")[0] > 0.7
    known = arm.targets(public=True)[0].public
    assert known is arm.targets(public=True)[0].public
    assert known.labels.shape == (1, len(digits) - 200)
    again = Study(digits, split, 1, member=~study.member)
    other = again.arm("overfit", networks)
    again.attack({"quantile_regression": QuantileRegression()}, other)
    assert torch.equal(again.margins(other, "quantile_regression"), study.margins(arm, "quantile_regression"))
