"""Controls: what leaks is found, and where there is nothing to find, nothing is found. Real data, few members."""

import pytest
import torch

from mialib import asking, models, study, training
from mialib.attacks import neural, threshold
from mialib.data import splits
from mialib.measures import metrics
from mialib.store import Store
from mialib.training import Recipe

N_TARGETS, N_SHADOWS = 2, 2
ATTACKS = dict(threshold.ATTACKS) | neural.attacks(Recipe(3, 32), trainings=1)


@pytest.fixture(scope="module")
def setting(digits, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("controls"))
    split = splits.target_shadow(len(digits), N_TARGETS, N_SHADOWS, seed=0, n_train=100)

    def observed(epochs):
        recipe = Recipe(epochs, batch_size=32)
        population = training.fit(models.make("small_cnn", digits), digits, split, recipe, cache=store)
        return population, study.observe(population, digits, split, N_TARGETS)

    return digits, split, observed


@pytest.fixture(scope="module")
def overfit(setting):
    return setting[2](epochs=40)


def margins_of(attack, seen):
    return [attack(target, seen.shadows, seen.shadow_member, 0) for target in seen.targets]


def test_an_overfit_model_is_found(setting, overfit):
    digits, split, _ = setting
    population, seen = overfit
    assert (
        float(asking.accuracy(population, digits, split.member).min()) > 0.99
    )  # it has learned its members by heart
    for target, margins in enumerate(margins_of(threshold.confidence_global, seen)):
        estimate = metrics.auc(seen.member[target], margins)
        assert estimate.value > 0.7 and estimate.low > 0.5
    posterior_auc = [
        metrics.auc(m, c).value for m, c in zip(seen.member, seen.true_class("confidence"), strict=True)
    ]
    assert min(posterior_auc) > 0.7
    assert all(row["value"] > 0 for row in study.divergence(seen) if row["class"] is None)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_finds_more_in_an_overfit_model_than_by_guessing(overfit, name):
    _, seen = overfit
    found = [
        metrics.auc(m, s).value for m, s in zip(seen.member, margins_of(ATTACKS[name], seen), strict=True)
    ]
    assert sum(found) / len(found) > 0.5


def test_an_untrained_models_confidence_has_an_interval_around_one_half(setting):
    _, seen = setting[2](epochs=0)
    for member, confidence in zip(seen.member, seen.true_class("confidence"), strict=True):
        _, low, high = metrics.auc(member, confidence)
        assert low < 0.5 < high


@pytest.mark.parametrize("name", ATTACKS)
def test_an_untrained_model_gives_nothing_away(setting, name):
    _, seen = setting[2](epochs=0)
    for target, margins in enumerate(margins_of(ATTACKS[name], seen)):
        value, low, high = metrics.auc(seen.member[target], margins)
        # all attacks, both targets: wider than one 95 % interval, as many are looked at
        assert abs(value - 0.5) < 1.5 * max(value - low, high - value)


@pytest.mark.parametrize("name", ATTACKS)
def test_random_membership_gives_chance_even_on_an_overfit_model(overfit, name):
    _, seen = overfit
    generator = torch.Generator().manual_seed(1)

    def shuffled(member):
        return torch.stack([row[torch.randperm(len(row), generator=generator)] for row in member])

    believed, truth = shuffled(seen.shadow_member), shuffled(seen.member)
    margins = [ATTACKS[name](target, seen.shadows, believed, 0) for target in seen.targets]
    for target, margin in enumerate(margins):
        value, low, high = metrics.auc(truth[target], margin)
        assert abs(value - 0.5) < 1.5 * max(value - low, high - value)
