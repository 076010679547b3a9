"""Controls: what leaks is found, and where there is nothing to find, nothing is found. Real data, few members."""

import pytest
import torch

from mialib import asking, models, study, training
from mialib.attacks import neural, threshold
from mialib.data import splits
from mialib.measures import metrics
from mialib.store import Store
from mialib.study import Given, Study
from mialib.training import Recipe
from tests import null_control

N_TARGETS, N_SHADOWS = 2, 2
ATTACKS = dict(threshold.ATTACKS) | neural.attacks(Recipe(3, 32), trainings=1)


@pytest.fixture(scope="module")
def setting(digits, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("controls"))
    split = splits.target_shadow(len(digits), N_TARGETS, N_SHADOWS, seed=0, n_train=100)

    def arm(epochs):
        recipe = Recipe(epochs, batch_size=32)
        population = training.fit(models.make("small_cnn", digits), digits, split, recipe, cache=store)
        made = Study(digits, split, N_TARGETS)
        return made, made.arm("attacked", population)

    return digits, split, arm


@pytest.fixture(scope="module")
def overfit(setting):
    return setting[2](epochs=40)[1]


@pytest.fixture(scope="module")
def study_of_overfit(setting):
    return setting[2](epochs=40)


def margins_of(attack, arm, shadow_member):
    return [attack(target, arm.shadows(True), shadow_member, 0) for target in arm.targets(True)]


def truth_of(arm):
    return arm.roles.member[arm.roles.shadows]


def test_an_overfit_model_is_found(setting, overfit):
    digits, split, _ = setting
    accuracy = asking.accuracy(overfit.networks, digits, split.member[:N_TARGETS])
    assert float(accuracy.min()) > 0.99  # it has learned its members by heart
    for target, margins in enumerate(margins_of(threshold.confidence_global, overfit, truth_of(overfit))):
        estimate = metrics.auc(overfit.member[target], margins)
        assert estimate.value > 0.7 and estimate.low > 0.5
    pairs = zip(overfit.member, overfit.signal("confidence"), strict=True)
    assert min(metrics.auc(member, confidence).value for member, confidence in pairs) > 0.7
    assert all(row["value"] > 0 for row in study.divergence(overfit) if row["class"] is None)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_finds_more_in_an_overfit_model_than_by_guessing(study_of_overfit, name):
    made, overfit = study_of_overfit
    made.attack({name: ATTACKS[name]})
    assert made.values(overfit, "auc", name).mean() > 0.5


def test_an_untrained_models_confidence_has_an_interval_around_one_half(setting):
    _, untrained = setting[2](epochs=0)
    for member, confidence in zip(untrained.member, untrained.signal("confidence"), strict=True):
        _, low, high = metrics.auc(member, confidence)
        assert low < 0.5 < high


@pytest.mark.parametrize("name", ATTACKS)
def test_an_untrained_model_gives_nothing_away(setting, name):
    _, untrained = setting[2](epochs=0)
    for target, margins in enumerate(margins_of(ATTACKS[name], untrained, truth_of(untrained))):
        value, low, high = metrics.auc(untrained.member[target], margins)
        # all attacks, both targets: wider than one 95 % interval, as many are looked at
        assert abs(value - 0.5) < 1.5 * max(value - low, high - value)


@pytest.mark.parametrize("name", ATTACKS)
def test_random_membership_gives_chance_even_on_an_overfit_model(overfit, name):
    generator = torch.Generator().manual_seed(1)

    def shuffled(member):
        return torch.stack([row[torch.randperm(len(row), generator=generator)] for row in member])

    believed, truth = shuffled(truth_of(overfit)), shuffled(overfit.member)
    for target, margins in enumerate(margins_of(ATTACKS[name], overfit, believed)):
        value, low, high = metrics.auc(truth[target], margins)
        assert abs(value - 0.5) < 1.5 * max(value - low, high - value)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_study_judges_by_the_membership_that_it_is_given(study_of_overfit, name):
    """A null control: the same margins to the last bit, and nothing to be found in them."""
    (real, overfit), generator = study_of_overfit, torch.Generator().manual_seed(2)
    redrawn = torch.stack([row[torch.randperm(len(row), generator=generator)] for row in real.member])
    null = Study(real.roles.data, real.roles.split, N_TARGETS, member=redrawn)
    arm = null.arm("attacked", Given(overfit.targets(True), overfit.shadows(True)))
    for one in (real, null):
        one.attack({name: ATTACKS[name]})
    assert torch.equal(null.margins(arm, name), real.margins(overfit, name))
    for row in null.select(metric="auc", attack=name):
        assert abs(row["value"] - 0.5) < 1.5 * max(row["value"] - row["low"], row["high"] - row["value"])


def test_a_redraw_of_the_membership_is_one_draw_for_all_studies_of_its_targets(digits):
    split = splits.target_shadow(len(digits), N_TARGETS, N_SHADOWS, seed=0, n_train=100)
    real, found = Study(digits, split, N_TARGETS).member, []
    for number in (0, 0, 1):
        with null_control.scored_by(number):
            found.append(Study(digits, split, N_TARGETS))
    first, again, other = (one.member for one in found)
    assert torch.equal(first, again) and not torch.equal(first, other)
    for one in (first, other):
        assert torch.equal(one.sum(1), real.sum(1))  # as many, drawn among all candidates
        assert 0.4 < (one & real).sum() / real.sum() < 0.6
        assert not torch.equal(one[0], one[1])
    assert torch.equal(
        found[0].roles.member, Study(digits, split, N_TARGETS).roles.member
    )  # what shadows learn from stays
    assert torch.equal(Study(digits, split, N_TARGETS).member, real)  # over when it is over
    assert torch.equal(_in_a_null_control(digits, split, real), real)  # a membership that is given stays


def _in_a_null_control(digits, split, member):
    with null_control.scored_by(0):
        return Study(digits, split, N_TARGETS, member=member).member
