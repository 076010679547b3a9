"""The pair attack on made-up answers of two versions of each model: what is planted is found, and nothing else."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from mialib.asking import with_versions
from mialib.attacks import likelihood, pairs, suites
from mialib.attacks.pairs import PairLiRA, PairOfAll
from mialib.data import splits
from mialib.measures import metrics
from mialib.training import Recipe
from tests.attacks.test_likelihood import views

BOTH, ADDED, OF_ALL = PairLiRA(), PairLiRA(added=True), PairOfAll()
EVERY = {"both": BOTH, "added": ADDED, "one for all": OF_ALL, "added, one for all": PairOfAll(added=True)}
every = pytest.mark.parametrize("attack", EVERY.values(), ids=EVERY)


def of_versions(signal):
    """Views of models whose versions have log-odds of the true class `signal` (m, n, d), the last under attack."""
    *others, first = (views(one) for one in signal.unbind(-1))
    return with_versions(first, others)


def made_up(k, n, shift=(0.0, 0.0), common=1.0, alone=0.5, difficulty=2.0, seed=0):
    """Signals (k, n, d) and membership of random halves: what a model says of a candidate in all versions, and in each."""
    generator = torch.Generator().manual_seed(seed)
    member = splits.random_halves(n, k, seed, reserve_fraction=0.0).member
    drawn = partial(torch.randn, generator=generator, dtype=torch.float64)
    signal = difficulty * drawn(n, 1) + common * drawn(k, n, 1) + alone * drawn(k, n, len(shift))
    return signal + torch.tensor(shift) * member[..., None], member


def attacked(attack, signal, member):
    """Margins of model 0, attacked with all pairs but its own."""
    return attack(of_versions(signal[:1]), of_versions(signal[2:]), member[2:])


def average(signal, member):
    """The mean of LiRA's margins on each version."""
    found = [likelihood.lira_online(views(one[:1]), views(one[2:]), member[2:]) for one in signal.unbind(-1)]
    return torch.stack(found).mean(0)


def auc(member, margins):
    return metrics.auc(member[0], margins).value


# What is there to find


@pytest.mark.parametrize("attack", [BOTH, ADDED, OF_ALL], ids=["both", "added", "one for all"])
def test_a_difference_that_no_version_shows_alone_is_found(attack):
    """Models differ by more than membership does; their versions differ by less."""
    signal, member = made_up(10, 1500, shift=(0.0, 1.0), common=4.0)
    alone = [likelihood.lira_online(views(one[:1]), views(one[2:]), member[2:]) for one in signal.unbind(-1)]
    assert max(auc(member, one) for one in alone) < 0.6 and auc(member, average(signal, member)) < 0.6
    margins = attacked(attack, signal, member)
    assert auc(member, margins) > 0.8
    assert metrics.balanced_accuracy(member[0], margins).value > 0.7  # the zero is a good one


def test_versions_that_differ_by_chance_tell_nothing_beyond_their_average():
    """As two fine-tunings that differ by their seed: against the same attack on the averaged signal, and LiRA's averaged scores."""
    found = []
    for seed in range(3):
        signal, member = made_up(18, 1500, shift=(1.5, 1.5), seed=seed)
        margins = attacked(BOTH, signal, member)
        mean = signal.mean(-1, keepdim=True)
        sides = [pairs._Moments.of(mean[2:], side) for side in (member[2:], ~member[2:])]
        same = BOTH._score(mean[0], sides, BOTH._freedoms(sides))
        rivals = same, average(signal, member)
        found.append(
            [
                metrics.paired_difference(member[0].numpy(), margins.numpy(), one.numpy(), "auc")
                for one in rivals
            ]
        )
        assert auc(member, attacked(ADDED, signal, member)) < auc(member, margins) - 0.1
    same, lira = (torch.tensor(list(one)) for one in zip(*found, strict=True))
    # value, low, high: no gain in any, and on average neither gain nor loss
    assert same[:, 0].abs().max() < 0.002 and same[:, 1].max() < 0
    assert same[:, 1].mean() < 0 < same[:, 2].mean()
    # shrunk means gain a little over LiRA's, of one version too; less the more shadows there are
    assert 0 < lira[:, 0].mean() < 0.015


@every
def test_without_a_leak_there_is_nothing_to_find(attack):
    aucs = [
        auc(member, attacked(attack, signal, member))
        for signal, member in (made_up(8, 1500, seed=seed) for seed in range(3))
    ]
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.03)  # its standard error is .009


@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize("freedom", [None, math.inf, 3.0])
def test_without_a_leak_the_zero_rests_on_scores_that_tell_nothing(freedom, halves):
    signal, member = made_up(6, 1500)
    if not halves:
        member = torch.rand(member.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    scores, truth = PairLiRA(freedom=freedom).played(signal, member)
    assert metrics.auc(truth, scores).value == pytest.approx(0.5, abs=0.02)  # standard error .006


def test_a_version_that_knows_more_adds_and_one_that_is_a_copy_does_not():
    signal, member = made_up(10, 1000, shift=(1.5, 1.5), common=0.0)
    copied = signal[..., [0, 0]]
    assert auc(member, attacked(ADDED, signal, member)) > 0.7
    for alike in (copied, copied + 1e-5 * torch.randn_like(copied)):
        assert len(attacked(ADDED, alike, member).unique()) == 1  # not even an order
        assert auc(member, attacked(BOTH, alike, member)) > 0.6


@every
def test_more_confidence_in_all_versions_is_a_larger_margin(attack):
    signal, member = made_up(10, 500, shift=(2.0, 2.0), difficulty=0.0)
    louder = signal.clone()
    louder[0, 0] += 1.0
    quiet, loud = (attacked(attack, one, member) for one in (signal, louder))
    assert loud[0] > quiet[0] and torch.allclose(loud[1:], quiet[1:])


# By hand


def test_one_for_all_equals_scipys_normals():
    signal, member = made_up(6, 60, shift=(1.0, 2.0))
    shadows, theirs = signal[2:].flatten(0, 1), member[2:].flatten()
    expected = []
    for side in (theirs, ~theirs):
        normal = multivariate_normal(shadows[side].mean(0), np.cov(shadows[side].T) + 1e-6 * np.eye(2))
        given = multivariate_normal(normal.mean[0], normal.cov[0, 0])
        expected.append((normal.logpdf(signal[0]), normal.logpdf(signal[0]) - given.logpdf(signal[0][:, 0])))
    for added in (False, True):
        score = torch.from_numpy(expected[0][added] - expected[1][added])
        margins = attacked(PairOfAll(added), signal, member)
        torch.testing.assert_close(margins - margins[0], score - score[0], rtol=1e-5, atol=1e-5)


def test_each_candidates_own_moments_are_those_of_its_shadows_and_lose_who_leaves():
    signal, member = made_up(8, 6)
    whole = pairs._Moments.of(signal, member)
    rest = whole.without(pairs._Moments.of(signal[:2], member[:2], whole.centre))
    for found, first in ((whole, 0), (rest, 2)):
        pooled, free = 0, 0
        for i in range(6):
            own = signal[first:, i][member[first:, i]]
            assert int(found.count[i]) == len(own)
            torch.testing.assert_close(found.mean[i], own.mean(0))
            pooled, free = pooled + (own - own.mean(0)).T @ (own - own.mean(0)), free + len(own) - 1
        of_all = pooled / free + 1e-6 * torch.eye(2)
        torch.testing.assert_close(found.covariance(math.inf), of_all[None])
        own = signal[first:, 0][member[first:, 0]]
        squares = (own - own.mean(0)).T @ (own - own.mean(0))
        torch.testing.assert_close(found.covariance(3.0)[0], (squares + 3 * of_all) / (len(own) - 1 + 3))


@pytest.mark.parametrize("shape", [3.0, 6.0, math.inf])
def test_the_strength_of_the_prior_is_found(shape):
    """Variances are drawn from an inverse gamma distribution of that shape, 1 + nu / 2; from 4 of its draws a candidate."""
    generator, n = np.random.default_rng(0), 20_000
    gamma = generator.gamma(shape, size=n) / (shape - 1) if shape < math.inf else np.ones(n)
    drawn = torch.from_numpy(generator.normal(size=(5, n, 2)) / np.sqrt(gamma)[:, None])
    found = pairs._Moments.of(drawn, torch.ones(5, n, dtype=torch.bool)).freedom()
    if shape == math.inf:
        assert found > 100
    elif shape == 6.0:
        assert found == pytest.approx(10, rel=0.2)
    else:
        assert 3 < found < 7  # 4, but for a fourth moment that is all but infinite


def test_golden_values():
    signal, member = made_up(8, 6, shift=(1.0, 2.0), seed=3)
    found = {name: attacked(attack, signal, member) for name, attack in EVERY.items()}
    assert set(found) == set(GOLDEN)
    for name, values in GOLDEN.items():
        assert found[name].tolist() == pytest.approx(values, abs=1e-6), name


GOLDEN = {
    "both": [1.243102, 3.3682456, 1.6604987, -6.7493106, 6.5936631, 3.6336903],
    "added": [-0.4728052, 0.0844385, -0.6941644, -3.9054061, 4.4394672, 1.203765],
    "one for all": [1.5240878, 1.7146655, 0.0848354, -4.9779708, 1.7382094, -1.3426372],
    "added, one for all": [0.6403846, 1.1114762, -0.0527456, -2.8904821, 1.4233736, -0.5282413],
}


# How it is asked


@every
def test_the_order_of_shadows_candidates_and_of_the_other_versions_does_not_matter(attack):
    signal, member = made_up(8, 40, shift=(0.5, 1.0, 2.0))
    margins = attacked(attack, signal, member)
    shadows = torch.tensor([0, 1, 7, 4, 2, 6, 3, 5])
    torch.testing.assert_close(attacked(attack, signal[shadows], member[shadows]), margins)
    torch.testing.assert_close(attacked(attack, signal[..., [1, 0, 2]], member), margins)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attacked(attack, signal[:, order], member[:, order]), margins[order])


@every
def test_the_zero_does_not_depend_on_the_target_and_nothing_is_random(attack):
    signal, member = made_up(8, 40, shift=(1.0, 1.0))
    shifted = signal.clone()
    shifted[0, 1::2] += 1.0
    one, other = (attacked(attack, own, member) for own in (signal, shifted))
    torch.testing.assert_close(one[::2], other[::2])
    assert bool((one[1::2] != other[1::2]).all())
    target, shadows = of_versions(signal[:1]), of_versions(signal[2:])
    assert torch.equal(attack(target, shadows, member[2:], 1), one)


@every
def test_saturated_answers_and_shadows_that_agree_give_finite_margins_and_inputs_stay(attack):
    signal, member = made_up(8, 30)
    signal = torch.where(torch.arange(30)[:, None] % 3 == 0, 2000.0, signal.round())
    target, shadows = of_versions(signal[:1]), of_versions(signal[2:])
    before = [part.clone() for part in (target.beside, shadows.beside, shadows.log_posteriors)]
    assert attack(target, shadows, member[2:]).isfinite().all()
    after = target.beside, shadows.beside, shadows.log_posteriors
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_shadows_of_other_candidates_serve_one_for_all():
    signal, member = made_up(8, 600, shift=(1.0, 2.0), difficulty=0.5)
    target, shadows = of_versions(signal[:1]), of_versions(signal[2:, :400])
    assert auc(member, OF_ALL(target, shadows, member[2:, :400])) > 0.75
    known = of_versions(signal[:1, :300])  # half of the target's own, as for who knows members
    assert auc(member[:, 300:], OF_ALL(of_versions(signal[:1, 300:]), known, member[:1, :300])) > 0.75


def test_bad_input_is_named():
    signal, member = made_up(8, 10)
    target, shadows, member = of_versions(signal[:1]), of_versions(signal[2:]), member[2:]
    for attack in (BOTH, OF_ALL):
        with pytest.raises(ValueError, match="these views hold none; take study.arm"):
            attack(views(signal[:1, :, 0]), views(signal[2:, :, 0]), member)
        with pytest.raises(ValueError, match="same number of versions, found 3 and 2"):
            attack(of_versions(signal[:1, :, [0, 0, 1]]), shadows, member)
        with pytest.raises(ValueError, match="shadow_member must have the shape"):
            attack(target, shadows, member[:4])
    with pytest.raises(ValueError, match="freedom must be above 0.*found 0"):
        PairLiRA(freedom=0)
    some = member.clone()
    some[:, :2], some[:, 2] = False, True
    with pytest.raises(ValueError, match="3 of 10 candidates are members of none or of all of the 6 shadows"):
        BOTH(target, shadows, some)
    with pytest.raises(ValueError, match="0 members and 60 others; a covariance of 2 versions needs more"):
        OF_ALL(target, shadows, torch.zeros_like(member))


# The network


def test_the_network_reads_how_far_the_versions_are_apart():
    signal = torch.tensor([[[1.0, 3.0]]])
    seen = of_versions(signal)
    found = pairs.all_log_posteriors_and_label(seen)
    first, other = seen.log_posteriors[0, 0], seen.beside[0, 0, 0]
    expected = torch.cat([other - first, first / 10, torch.tensor([1.0, 0.0])])
    torch.testing.assert_close(found[0, 0], expected.float())
    with pytest.raises(ValueError, match="these views hold none"):
        pairs.all_log_posteriors_and_label(views(signal[..., 0]))
    far = of_versions(torch.tensor([[[-900.0, 900.0]]]))
    assert pairs.all_log_posteriors_and_label(far).abs().max() == 5.0


def test_the_network_learns_what_no_version_shows_alone():
    signal, member = made_up(6, 200, shift=(0.0, 2.0), common=3.0, alone=0.3, difficulty=0.0)
    suite = suites.pairs(Recipe(30, 64, 5e-3, optimizer="adam"), same_candidates=False, trainings=1)
    assert set(suite) == {"pair_of_all", "pair_nn"}
    margins = attacked(suite["pair_nn"], signal, member)
    assert auc(member, margins) > 0.8 > auc(member, signal[0, :, 1])
