"""BaVarIA: its predictive against scipy and by integration, its prior on data with a known one, its limits."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mialib.attacks import bayesian
from mialib.attacks.bayesian import BaVarIA, Belief, Prior
from mialib.attacks.calibrating import Side
from mialib.attacks.likelihood import LiRA
from mialib.measures import metrics
from tests.attacks.test_likelihood import attacked, made_up, views

BOTH = pytest.mark.parametrize("student", [True, False])


def drawn(n, candidates, shape=6.0, weight=2.0, variance=1.5, mean=3.0, seed=0):
    """Signals (n, candidates) whose means and variances are drawn from the prior."""
    rng = np.random.default_rng(seed)
    each = variance * (shape - 1) / rng.gamma(shape, size=candidates)
    means = mean + np.sqrt(each / weight) * rng.standard_normal(candidates)
    return torch.from_numpy(means + np.sqrt(each) * rng.standard_normal((n, candidates)))


def whole(signal):
    return Side.of(signal, torch.ones_like(signal, dtype=torch.bool))


@pytest.mark.parametrize("n", [4, 16])
def test_the_prior_is_recovered(n):
    prior = Prior.of(whole(drawn(n, 400_000)))
    assert prior.shape == pytest.approx(6.0, rel=0.08)
    assert prior.mean == pytest.approx(3.0, abs=0.01)
    assert prior.variance == pytest.approx(1.5, rel=0.01)
    assert prior.weight == pytest.approx(2.0, rel=0.03)


def test_uncorrected_moments_would_have_said_that_four_shadows_vary_twice_as_much():
    each = drawn(4, 400_000).var(0)
    assert 2 + float(each.mean() ** 2 / each.var()) == pytest.approx(2.9, abs=0.15)


def test_candidates_that_do_not_differ_have_infinite_priors():
    generator = torch.Generator().manual_seed(0)
    same = torch.randn(6, 1, generator=generator, dtype=torch.float64).expand(6, 30)
    prior = Prior.of(whole(same))
    assert math.isinf(prior.shape) and math.isinf(prior.weight)
    assert prior.variance == pytest.approx(float(same[:, 0].var()))


def test_one_shadow_a_candidate_takes_the_variance_that_is_given():
    prior = Prior.of(whole(drawn(1, 1000)), 0.7)
    assert prior.variance == 0.7 and math.isinf(prior.shape)


def test_one_pair_tells_the_variance_from_the_difference_of_its_answers():
    signal, member = made_up(2, 200_000, leak=1.0, spread=3.0, noise=0.8)
    sides = Side.of(signal, member), Side.of(signal, ~member)
    assert bayesian._unexplained(*sides) == pytest.approx(0.64, rel=0.02)


PRIORS = [Prior(1.0, 2.0, 4.0, 1.5), Prior(1.0, math.inf, 4.0, 1.5), Prior(1.0, 0.0, 3.0, 1.5)]
INFINITE = [
    Prior(1.0, 2.0, math.inf, 1.5),
    Prior(1.0, 0.0, math.inf, 1.5),
    Prior(1.0, math.inf, math.inf, 1.5),
]


def posterior(x, prior):
    """kappa, mu, alpha, beta of one candidate's answers x, as in the module's first lines."""
    n, m, q = len(x), np.mean(x), np.sum((x - np.mean(x)) ** 2)
    weight = min(prior.weight, 1e12)
    kappa = weight + n
    mu = (weight * prior.mean + n * m) / kappa
    beta = prior.variance * (prior.shape - 1) + q / 2 + weight * n * (m - prior.mean) ** 2 / (2 * kappa)
    return kappa, mu, prior.shape + n / 2, beta


@BOTH
@pytest.mark.parametrize("prior", PRIORS)
def test_the_predictive_is_scipys(prior, student):
    signal = drawn(5, 7)
    belief = Belief.of(whole(signal), prior, student)
    asked = torch.linspace(-4, 9, 7, dtype=torch.float64)
    shared = math.log(2 * math.pi) / 2  # the constant that is left out
    for i, phi in enumerate(asked):
        kappa, mu, alpha, beta = posterior(signal[:, i].numpy(), prior)
        if student:
            expected = stats.t(2 * alpha, mu, math.sqrt(beta * (kappa + 1) / (alpha * kappa)))
        else:
            expected = stats.norm(mu, math.sqrt(beta / (alpha - 1)))
        found = float(belief.log_density(phi.expand(7))[i])
        assert found - shared == pytest.approx(expected.logpdf(float(phi)), rel=1e-6)


def test_students_t_is_the_integral_over_the_posterior():
    """Means and variances drawn from the posterior, and the mean of their normal densities."""
    x, prior, phi = np.array([2.0, 2.5, 4.0]), Prior(1.0, 2.0, 4.0, 1.5), 3.7
    kappa, mu, alpha, beta = posterior(x, prior)
    rng = np.random.default_rng(0)
    variance = beta / rng.gamma(alpha, size=400_000)
    means = mu + np.sqrt(variance / kappa) * rng.standard_normal(400_000)
    density = np.mean(stats.norm(means, np.sqrt(variance)).pdf(phi))
    side = whole(torch.from_numpy(x)[:, None])
    found = Belief.of(side, prior, True).log_density(torch.tensor([phi], dtype=torch.float64))
    assert float(found) - math.log(2 * math.pi) / 2 == pytest.approx(math.log(density), abs=0.005)


@BOTH
@pytest.mark.parametrize("prior", INFINITE)
def test_an_infinite_shape_is_the_limit_of_large_ones(prior, student):
    signal = drawn(5, 20)
    asked = torch.linspace(-4, 9, 20, dtype=torch.float64)
    limit = Belief.of(whole(signal), prior, student)
    near = Belief.of(whole(signal), prior._replace(shape=1e7), student)
    torch.testing.assert_close(limit.log_density(asked), near.log_density(asked), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(limit.deviate(asked), near.deviate(asked), rtol=1e-4, atol=1e-4)


@BOTH
def test_without_a_prior_mean_and_with_one_variance_it_is_lira(student):
    """-n is LiRA with one variance for all; -t has each variance times (n + 1) / n."""
    signal, member = made_up(10, 200, spread=1.0)
    own, signal, member = signal[0], signal[2:], member[2:]
    sides = Side.of(signal, member), Side.of(signal, ~member)
    n, found, expected = 4, 0.0, 0.0
    for side, sign in zip(sides, (1, -1), strict=True):
        prior = Prior(0.0, 0.0, math.inf, float(side.variance(True)))
        found = found + sign * Belief.of(side, prior, student).log_density(own)
        variance = side.variance(True) * ((n + 1) / n if student else 1)
        normal = stats.norm(side.mean.numpy(), math.sqrt(float(variance)))
        expected = expected + sign * normal.logpdf(own.numpy())
    torch.testing.assert_close(found, torch.from_numpy(expected))
    if not student:
        torch.testing.assert_close(found, LiRA(True, True).score(own, *sides))


@BOTH
@pytest.mark.parametrize("online", [True, False])
def test_with_ever_more_shadows_it_is_lira_with_a_variance_for_each_candidate(student, online):
    noise = torch.where(torch.arange(40) % 2 == 0, 0.5, 2.0)
    gaps = []
    for k in (22, 2002):
        signal, member = made_up(k, 40, leak=1.0, spread=1.0, noise=noise)
        sides = Side.of(signal[2:], member[2:]), Side.of(signal[2:], ~member[2:])
        found, limit = (
            one.score(signal[0], *sides) for one in (BaVarIA(online, student), LiRA(online, False))
        )
        gaps.append(float((found - limit).abs().mean()))
    assert gaps[1] < 0.1 and gaps[1] < gaps[0] / 20


@pytest.mark.parametrize("freedom", [3.0, 6.0, 30.0])
def test_the_deviate_has_the_tail_of_students_t(freedom):
    t = torch.linspace(-12, 12, 49, dtype=torch.float64)
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    found = Belief(zero, one, freedom * one).deviate(t)
    expected = torch.from_numpy(stats.norm.isf(stats.t(freedom).sf(t.abs().numpy()))) * t.sign()
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.005)
    assert (found.diff() > 0).all()
    assert Belief(zero, one, freedom * one).deviate(1e100 * one).isfinite().all()


def test_offline_both_have_one_ranking_under_random_halves():
    signal, member = made_up(10, 300, spread=1.0, noise=torch.linspace(0.3, 3, 300))
    one, other = (
        attacked(a, signal, member) for a in (bayesian.bavaria_t_offline, bayesian.bavaria_n_offline)
    )
    assert torch.equal(one.argsort(), other.argsort())
    online = [attacked(a, signal, member).argsort() for a in (bayesian.bavaria_t, bayesian.bavaria_n)]
    assert not torch.equal(*online)


def from_a_prior(k, candidates, leak=1.0, seed=0):
    """Random halves of candidates whose variances differ, alpha0 = 3."""
    rng = np.random.default_rng(seed)
    noise = torch.from_numpy(np.sqrt(2 / rng.gamma(3.0, size=candidates)))
    return made_up(k, candidates, seed, leak, 1.0, noise)


@BOTH
def test_with_few_shadows_and_different_variances_it_beats_lira(student):
    gains = []
    for seed in range(4):
        signal, member = from_a_prior(10, 3000, seed=seed)
        auc = [
            metrics.auc(member[0], attacked(one, signal, member)).value
            for one in (BaVarIA(student=student), LiRA(True, True), LiRA(True, False))
        ]
        gains.append(auc[0] - max(auc[1:]))
    assert np.mean(gains) > 0.005


def test_the_odds_are_right_where_the_prior_is():
    """Closed form: of candidates with log-odds near l, e^l / (1 + e^l) are members."""
    signal, member = from_a_prior(10, 60_000)
    sides = Side.of(signal[2:], member[2:]), Side.of(signal[2:], ~member[2:])
    score = bayesian.bavaria_t.score(signal[0], *sides)
    for low in (-1.5, -0.5, 0.5, 1.5):
        near = (score - low).abs() < 0.3
        assert float(member[0, near].double().mean()) == pytest.approx(1 / (1 + math.exp(-low)), abs=0.04)


def test_a_target_far_from_all_gets_finite_margins():
    signal, member = made_up(8, 20)
    far = torch.full((1, 20), 900.0)
    for attack in (bayesian.bavaria_t, bayesian.bavaria_n, bayesian.bavaria_t_offline):
        assert attack(views(far), views(signal[2:]), member[2:]).isfinite().all()


def test_the_instances_are_the_four_attacks():
    found = (bayesian.bavaria_t, bayesian.bavaria_n, bayesian.bavaria_t_offline, bayesian.bavaria_n_offline)
    assert found == tuple(BaVarIA(online, student) for online in (True, False) for student in (True, False))
