"""Audited epsilons: by hand, and how often a bound exceeds the truth where that is known."""

import functools
import math

import numpy as np
import pytest
from scipy import special, stats

from mialib.measures import epsilon
from mialib.measures.epsilon import Guesses

RUNS = 1000
# what 1,000 runs of a bound that is wrong in 5 % exceed in one of 1,000 tests
MOST = int(stats.binom.ppf(1 - 1e-3, RUNS, epsilon.LEVEL))


@functools.cache
def bound(made, right, canaries, delta=0.0):
    return epsilon.one_run(Guesses(made, right, canaries), delta)


# One run


@pytest.mark.parametrize("made", [1, 10, 100, 10_000])
def test_all_right_in_closed_form(made):
    """q^r < level, and epsilon is the log-odds of q."""
    found = epsilon.one_run(Guesses(made, made, made), level=0.01)
    assert found == pytest.approx(max(0.0, special.logit(0.01 ** (1 / made))), abs=1e-6)


def test_a_single_right_guess_says_nothing_at_a_level_of_a_half():
    assert epsilon.one_run(Guesses(1, 1, 1), level=0.5) == 0
    assert epsilon.one_run(Guesses(1, 1, 1), level=0.6) == pytest.approx(special.logit(0.6))


def test_a_p_value_by_hand():
    # P[Binomial(3, 2/3) >= 2] = 3 * 4/27 + 8/27, for e^eps = 2
    assert epsilon.p_value(Guesses(3, 2, 3), math.log(2)) == pytest.approx(20 / 27)
    # max over i of P[2 > B >= 2 - i] / i: (6/27) / 1 against (7/27) / 2
    with_delta = 20 / 27 + 2 * 5 * 1e-3 * 6 / 27
    assert epsilon.p_value(Guesses(3, 2, 5), math.log(2), delta=1e-3) == pytest.approx(with_delta)
    assert epsilon.p_value(Guesses(3, 2, 5), math.log(2), delta=1.0) == 1.0
    assert epsilon.p_value(Guesses(0, 0, 5), 0.0) == epsilon.p_value(Guesses(3, 0, 5), 0.0, 0.1) == 1.0


# of jax_privacy 2.0.0, auditing._epsilon_one_run(0, canaries, made, right, level, delta)
PUBLIC = [
    (100, 100, 60, 0.05, 0.0, 0.051915),
    (100, 100, 90, 0.05, 0.0, 1.630823),
    (500, 100, 99, 0.05, 1e-05, 3.011111),
    (500, 500, 400, 0.05, 1e-05, 1.198307),
    (500, 50, 50, 0.01, 0.0001, 1.822104),
    (1000, 300, 220, 0.1, 1e-06, 0.836983),
    (5000, 1000, 980, 0.05, 1e-05, 3.501922),
    (20, 20, 11, 0.05, 0.0, 0.000000),
]


@pytest.mark.parametrize(("canaries", "made", "right", "level", "delta", "expected"), PUBLIC)
def test_bounds_are_those_of_a_public_implementation(canaries, made, right, level, delta, expected):
    found = epsilon.one_run(Guesses(made, right, canaries), delta, level)
    assert found == pytest.approx(expected, abs=2e-6)


def test_at_its_bound_an_epsilon_is_no_more_refuted_and_below_it_is():
    for made, right, delta in ((100, 80, 0.0), (400, 300, 1e-5), (50, 50, 1e-6)):
        guesses = Guesses(made, right, 500)
        found = epsilon.one_run(guesses, delta)
        below, above = (epsilon.p_value(guesses, found + step, delta) for step in (-1e-6, 1e-6))
        assert below < epsilon.LEVEL <= above + 1e-9, (made, right, delta)


def test_more_right_guesses_refute_more_and_delta_and_certainty_cost():
    by_right = [bound(200, right, 500) for right in range(0, 201, 5)]
    assert by_right == sorted(by_right) and by_right[0] == 0 and by_right[-1] > 4
    by_delta = [epsilon.one_run(Guesses(200, 180, 500), delta) for delta in (0.0, 1e-6, 1e-4, 1e-2)]
    assert by_delta == sorted(by_delta, reverse=True) and by_delta[-1] == 0
    by_level = [epsilon.one_run(Guesses(200, 180, 500), level=level) for level in (0.2, 0.05, 0.001)]
    assert by_level == sorted(by_level, reverse=True)
    # canaries that are not guessed about cost nothing but with delta
    assert bound(200, 180, 500) == bound(200, 180, 5000)
    assert bound(200, 180, 500, 1e-5) > bound(200, 180, 5000, 1e-5)


@pytest.mark.parametrize("true", [0.0, 0.5, 2.0, 4.0])
def test_randomised_response_is_overestimated_in_one_run_of_twenty(true):
    """Each canary's coin is told truly with probability e^eps / (1 + e^eps): no bound is tighter than this mechanism's."""
    generator = np.random.default_rng(int(10 * true) + 1)
    right = generator.binomial(300, special.expit(true), RUNS)
    over = sum(bound(300, int(one), 300) > true for one in right)
    assert over <= MOST
    if true:
        # and it is as tight as a discrete count allows, not just safe
        assert over >= stats.binom.ppf(1e-3, RUNS, 0.02)


def test_with_delta_too():
    """A coin is told outright with probability delta, else by randomised response."""
    delta, true = 1e-3, 1.0
    generator = np.random.default_rng(2)
    rate = delta + (1 - delta) * special.expit(true)
    right = generator.binomial(300, rate, RUNS)
    assert sum(bound(300, int(one), 300, delta) > true for one in right) <= MOST


@pytest.mark.parametrize(("delta", "told"), [(1e-3, 1), (1e-3, 10), (0.05, 10)])
def test_with_a_delta_that_is_spent_on_several_coins_at_once(delta, told):
    """With probability m delta / told, so many coins at random are told outright: each coin is, with probability delta."""
    m, true = 200, 1.0
    generator = np.random.default_rng(3)
    outright = np.where(generator.random(RUNS) < m * delta / told, told, 0)
    right = outright + generator.binomial(m - outright, special.expit(true))
    assert sum(bound(m, int(one), m, delta) > true for one in right) <= MOST
    if delta == 0.05:  # what the term in delta is for
        assert sum(bound(m, int(one), m) > true for one in right) > MOST


def test_it_gets_tight_as_canaries_grow():
    gaps = []
    for m in (100, 1000, 10_000, 100_000):
        right = round(m * special.expit(2.0))
        gaps.append(2.0 - epsilon.one_run(Guesses(m, right, m)))
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 0.02 and gaps[0] < 0.6
    # as the standard error of the share does
    assert gaps[1] / gaps[3] == pytest.approx(10, rel=0.1)


# Guesses from margins


def test_guesses_by_hand():
    member, margin = [1, 0, 1, 0, 1], [5.0, 4.0, 1.0, -2.0, -3.0]
    made = {k: epsilon.guess(member, margin, k) for k in range(6)}
    # 1: the first is one; 2: and the last is none, wrong; 3: the second is one, wrong; 4: the fourth is none
    assert [made[k].right for k in range(6)] == [0, 1, 1, 1, 2, 3]
    assert all(made[k] == (k, made[k].right, 5) for k in made)


def test_the_order_of_margins_counts_and_nothing_else():
    generator = np.random.default_rng(0)
    member, margin = generator.random(60) < 0.5, generator.normal(size=60)
    order = generator.permutation(60)
    for made in (7, 30, 60):
        expected = epsilon.guess(member, margin, made)
        assert epsilon.guess(member, np.exp(3 * margin), made) == expected
        assert epsilon.guess(member[order], margin[order], made) == expected


def test_turned_margins_refute_nothing_and_good_ones_much():
    generator = np.random.default_rng(0)
    member = generator.random(400) < 0.5
    margin = generator.normal(size=400) + 2.5 * member
    assert epsilon.of_one_run(member, margin) > 1.5
    assert epsilon.of_one_run(member, -margin) == 0


def test_several_numbers_of_guesses_share_the_level():
    generator = np.random.default_rng(1)
    member = generator.random(200) < 0.5
    margin = generator.normal(size=200) + 3.0 * member
    found = epsilon.of_one_run(member, margin, shares=(0.1, 1.0))
    expected = max(epsilon.one_run(epsilon.guess(member, margin, made), level=0.025) for made in (20, 200))
    assert found == expected > 0


def test_nothing_leaks_and_nothing_is_found():
    generator = np.random.default_rng(5)
    found = [epsilon.of_one_run(generator.random(100) < 0.5, generator.normal(size=100)) for _ in range(200)]
    assert sum(one > 0 for one in found) <= stats.binom.ppf(1 - 1e-3, 200, epsilon.LEVEL)


# Many models


def test_many_models_by_hand():
    low, high = 0.025 ** (1 / 20), 1 - 0.025 ** (1 / 20)  # 20 of 20, and 0 of 20
    assert epsilon.many_models(20, 20, 0, 20) == pytest.approx(math.log(low / high))
    assert epsilon.many_models(20, 20, 0, 20, delta=0.1) == pytest.approx(math.log((low - 0.1) / high))
    # the other side says more here: no member is missed, and half of the others are alarms
    fpr = float(stats.beta.ppf(0.975, 11, 10))
    assert epsilon.many_models(20, 20, 10, 20) == pytest.approx(math.log((1 - fpr) / (1 - low)))
    for nothing in ((0, 20, 20, 20), (10, 20, 10, 20), (0, 0, 0, 20), (5, 5, 0, 0), (0, 0, 0, 0)):
        assert epsilon.many_models(*nothing) == 0


def test_ends_are_those_of_clopper_and_pearson():
    of = stats.binomtest(17, 25).proportion_ci(0.95, method="exact")
    others = stats.binomtest(3, 30).proportion_ci(0.95, method="exact")
    assert epsilon.many_models(17, 25, 3, 30) == pytest.approx(math.log(of.low / others.high))


def test_more_hits_and_fewer_alarms_refute_more():
    by_hits = [epsilon.many_models(hits, 30, 2, 30) for hits in range(31)]
    by_alarms = [epsilon.many_models(28, 30, alarms, 30) for alarms in range(31)]
    assert by_hits == sorted(by_hits) and by_alarms == sorted(by_alarms, reverse=True)
    assert epsilon.many_models(300, 300, 0, 300) > epsilon.many_models(30, 30, 0, 30)


@pytest.mark.parametrize("true", [0.0, 1.0, 2.5])
def test_many_models_overestimate_in_one_run_of_twenty(true):
    generator = np.random.default_rng(7)
    hits = generator.binomial(40, special.expit(true), RUNS)
    alarms = generator.binomial(40, special.expit(-true), RUNS)
    found = {}
    for pair in zip(hits.tolist(), alarms.tolist(), strict=True):
        found[pair] = found.get(pair) or epsilon.many_models(pair[0], 40, pair[1], 40)
    pairs = zip(hits.tolist(), alarms.tolist(), strict=True)
    assert sum(found[pair] > true for pair in pairs) <= MOST


def models(k, canaries, leak, seed):
    generator = np.random.default_rng(seed)
    member = generator.random((k, canaries)) < 0.5
    return generator.normal(size=(k, canaries)) + np.asarray(leak) * member, member


def test_the_first_half_chooses_and_the_second_is_counted():
    leak = np.zeros(30)
    leak[17] = 8.0
    signal, member = models(64, 30, leak, 0)
    found = epsilon.of_many_models(signal, member)
    assert found.canary == 17 and 2 < found.threshold < 6
    of = member[32:, 17]
    above = signal[32:, 17] > found.threshold
    counts = ((above & of).sum(), of.sum(), (above & ~of).sum(), (~of).sum())
    assert found.bound == epsilon.many_models(*map(int, counts)) > 1
    # what the second half says has no part in the choice
    mixed = signal.copy()
    mixed[32:] = np.random.default_rng(1).normal(size=(32, 30))
    assert epsilon.of_many_models(mixed, member)[1:] == found[1:]


def test_the_best_of_many_canaries_of_noise_refutes_nothing():
    found = [epsilon.of_many_models(*models(24, 40, 0.0, seed)).bound for seed in range(100)]
    assert sum(one > 0 for one in found) <= stats.binom.ppf(1 - 1e-3, 100, epsilon.LEVEL)
    assert epsilon.of_many_models(np.zeros((8, 3)), models(8, 3, 0, 0)[1]).bound == 0  # all alike


def test_a_canary_of_one_side_is_no_choice_and_order_does_not_matter():
    signal, member = models(16, 4, [0.0, 9.0, 0.0, 0.0], 3)
    member[:8, 0], signal[:8, 0] = True, 50.0
    expected = epsilon.of_many_models(signal, member)
    assert expected.canary == 1
    turned = epsilon.of_many_models(signal[:, ::-1], member[:, ::-1])
    assert (turned.bound, turned.canary) == (expected.bound, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: epsilon.one_run(Guesses(5, 6, 9)), "guesses.right is 6; it must be a whole number, 0 to 5"),
        (lambda: epsilon.one_run(Guesses(10, 6, 9)), "guesses.made is 10.*0 to 9, the number of canaries"),
        (lambda: epsilon.one_run(Guesses(5, 2.0, 9)), "guesses.right is 2.0"),
        (lambda: epsilon.one_run(Guesses(5, 2, 9), delta=-0.1), r"delta is -0.1; it must lie in \[0, 1\]"),
        (lambda: epsilon.one_run(Guesses(5, 2, 9), level=0.0), r"level is 0.0; it must lie in \(0, 1\)"),
        (lambda: epsilon.one_run(Guesses(5, 2, 9), level=math.nan), "level is nan"),
        (lambda: epsilon.p_value(Guesses(5, 2, 9), -1.0), "epsilon is -1.0; it must be 0 or more"),
        (lambda: epsilon.guess([1, 0], [0.0, 1.0], 3), "made is 3; it must be a whole number, 0 to 2"),
        (lambda: epsilon.guess([1, 0], [0.0], 1), "member has 2 examples but margin has 1"),
        (lambda: epsilon.guess([1, 0], [0.0, math.nan], 1), "margin holds nan"),
        (lambda: epsilon.of_one_run([1, 0], [1.0, 0.0], shares=()), r"shares are \(\)"),
        (lambda: epsilon.of_one_run([1, 0], [1.0, 0.0], shares=(1.5,)), r"each in \(0, 1\]"),
        (
            lambda: epsilon.many_models(3, 2, 0, 2),
            "hits is 3; it must be a whole number, 0 to 2, the number of",
        ),
        (lambda: epsilon.many_models(1, 2, -1, 2), "alarms is -1"),
        (lambda: epsilon.many_models(1, 2, 0, 2, level=1.0), "level is 1.0"),
        (lambda: epsilon.of_many_models(np.zeros((3, 2)), np.zeros((3, 2))), "4 models or more"),
        (lambda: epsilon.of_many_models(np.zeros((4, 2)), np.zeros((4, 3))), "of one shape"),
        (lambda: epsilon.of_many_models(np.full((4, 2), np.nan), np.zeros((4, 2))), "signal holds nan for 8"),
        (lambda: epsilon.of_many_models(np.zeros((4, 2)), np.ones((4, 2))), "no canary is a member of some"),
    ],
)
def test_what_is_no_audit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
