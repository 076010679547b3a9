"""Estimates against hand counts, scikit-learn and the bootstrap."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from mialib.measures import Estimate, intervals, metrics

MEMBER = np.array([1, 1, 1, 0, 0])


def sample(seed=0, n=400, shift=0.6, decimals=1):
    """Seeded margins with many ties."""
    generator = np.random.default_rng(seed)
    member = generator.random(n) < 0.4
    return member, np.round(generator.normal(size=n) + shift * member, decimals)


# Estimates


def test_auc_by_hand_with_ties():
    # pairs: (3 > 2), (3 > 1), (2 = 2), (2 > 1), (0 < 2), (0 < 1) -> (1 + 1 + 0.5 + 1 + 0 + 0) / 6
    assert metrics.auc(MEMBER, np.array([3, 2, 0, 2, 1])).value == pytest.approx(3.5 / 6)


def test_auc_and_roc_equal_sklearn():
    member, margin = sample()
    assert metrics.auc(member, margin).value == pytest.approx(roc_auc_score(member, margin), abs=1e-12)
    fpr, tpr = metrics.roc(member, margin)
    expected_fpr, expected_tpr, _ = roc_curve(member, margin, drop_intermediate=False)
    np.testing.assert_allclose(fpr, expected_fpr)
    np.testing.assert_allclose(tpr, expected_tpr)


def test_infinite_margins_rank_like_any_other():
    finite = np.array([9, 2, -9, 9, 1])
    infinite = np.array([np.inf, 2, -np.inf, np.inf, 1])
    assert metrics.auc(MEMBER, infinite) == metrics.auc(MEMBER, finite)
    np.testing.assert_array_equal(metrics.roc(MEMBER, infinite), metrics.roc(MEMBER, finite))
    # The largest margins tie: no threshold takes the member without the non-member.
    many = np.r_[infinite[:3], np.full(10, np.inf)]
    assert metrics.tpr_at_fpr(np.r_[1, 1, 1, np.zeros(10)], many, 0.1).value == 0.0


def test_delong_interval_agrees_with_the_bootstrap():
    member, margin = sample(n=300)
    members, nonmembers = margin[member], margin[~member]
    generator = np.random.default_rng(1)

    def resampled_auc():
        a, b = generator.choice(members, len(members)), generator.choice(nonmembers, len(nonmembers))
        return roc_auc_score(np.r_[np.ones(len(a)), np.zeros(len(b))], np.r_[a, b])

    deviation = np.std([resampled_auc() for _ in range(600)])
    estimate = metrics.auc(member, margin)
    assert (estimate.high - estimate.low) / 2 / 1.96 == pytest.approx(deviation, rel=0.1)


def test_groups_that_are_apart_have_the_worst_case_of_the_smaller_one():
    estimate = metrics.auc([1, 1, 0, 0, 0], [4.0, 5, 1, 2, 3])
    assert estimate == pytest.approx((1.0, 0.025 ** (1 / 2), 1.0))
    assert metrics.auc([0, 0, 1, 1, 1], [4.0, 5, 1, 2, 3]) == pytest.approx((0.0, 0.0, 1 - estimate.low))


def test_constant_margins_give_chance():
    member = np.arange(2000) % 2
    assert metrics.auc(member, np.zeros(2000)) == Estimate(0.5, 0.5, 0.5)
    assert metrics.tpr_at_fpr(member, np.zeros(2000), 0.01).value == 0.0


def test_balanced_accuracy_by_hand():
    # two of three members above 0; a margin of exactly 0 is the decision non-member, right for three of four
    estimate = metrics.balanced_accuracy(np.r_[MEMBER, 0, 0], np.array([3, 2, -1, 0, 1, -2, -3]))
    assert estimate.value == pytest.approx((2 / 3 + 3 / 4) / 2)
    # a hit and a miss more for each: three of five and four of six
    half = stats.norm.ppf(0.975) * math.sqrt(0.6 * 0.4 / 5 + 4 / 6 * 2 / 6 / 6) / 2
    assert estimate.low == pytest.approx((3 / 5 + 4 / 6) / 2 - half)
    assert estimate.high == pytest.approx((3 / 5 + 4 / 6) / 2 + half)


def test_perfect_decisions_keep_an_interval():
    estimate = metrics.balanced_accuracy(MEMBER, np.array([1, 1, 1, -1, -1]))
    assert estimate.value == estimate.high == 1.0
    assert estimate.low < 0.8
    turned = metrics.balanced_accuracy(MEMBER, np.array([-1, -1, -1, 1, 1]))
    assert turned == pytest.approx((0.0, 0.0, 1 - estimate.low)) and turned.low >= 0.0


@pytest.mark.parametrize("max_fpr", [0.01, 0.05, 0.29, 1.0])
def test_tpr_equals_the_best_point_of_sklearns_curve(max_fpr):
    member, margin = sample(n=700)
    fpr, tpr, _ = roc_curve(member, margin, drop_intermediate=False)
    estimate = metrics.tpr_at_fpr(member, margin, max_fpr)
    assert estimate.value == pytest.approx(tpr[fpr <= max_fpr].max())
    if max_fpr == 1:
        assert estimate == (1.0, 1.0, 1.0)
        return
    ends = intervals.rate_at_quantile(margin[member == 1], margin[member == 0], max_fpr)
    assert (estimate.low, estimate.high) == ends and ends[0] < estimate.value < ends[1]


@pytest.mark.parametrize("max_fpr", [0.0, -0.1, 1.01, math.nan])
def test_a_false_positive_rate_out_of_range_is_refused(max_fpr):
    with pytest.raises(ValueError, match="max_fpr is"):
        metrics.tpr_at_fpr(*sample(), max_fpr)


def test_tpr_allows_exactly_the_share_it_names():
    # 29 of 100 non-members lie above the member; 0.29 * 100 is just under 29 in binary
    member = np.r_[1, np.zeros(100)]
    margin = np.r_[70.5, np.arange(100)]
    assert metrics.tpr_at_fpr(member, margin, 0.29).value == 1.0
    assert metrics.tpr_at_fpr(member, margin, 0.28).value == 0.0


def test_tpr_is_nan_where_it_cannot_be_resolved():
    margin = np.arange(200.0)
    assert math.isnan(metrics.tpr_at_fpr(np.arange(200) >= 99, margin, 0.01).value)  # 99 non-members
    assert metrics.tpr_at_fpr(np.arange(200) >= 100, margin, 0.01).value == 1.0  # 100 non-members


@pytest.mark.parametrize("yes, no", [(1, -1), (1, 1), (1, 0), (np.inf, -np.inf)])
def test_tpr_is_nan_for_bare_decisions(yes, no):
    member = np.arange(400) % 2
    assert math.isnan(metrics.tpr_at_fpr(member, np.where(np.arange(400) % 3, yes, no), 0.05).value)


def test_parts_are_plain_numbers():
    member, margin = sample()
    found = [measure(member, margin) for measure in metrics.STANDARD.values()]
    found += [metrics.tpr_at_fpr(member, margin, 0.1), metrics.share(np.int64(1), np.int64(3))]
    found += [metrics.paired_difference(member, margin, -margin, metric) for metric in metrics.PAIRED]
    found += [metrics.over_targets(margin), metrics.minimum_detectable(margin)]
    found += [(metrics.over_targets(values).p(0.0),) for values in (margin, [1.0, 1.0])]
    assert {type(part) for estimate in found for part in estimate} == {float}


def test_tensors_are_accepted_and_left_alone():
    member, margin = torch.tensor([True, True, False, False]), torch.tensor([2.0, 0.0, 1.0, -1.0])
    assert metrics.auc(member, margin).value == 0.75
    assert metrics.auc(member, margin.requires_grad_()).value == 0.75
    assert margin.tolist() == [2.0, 0.0, 1.0, -1.0]


@pytest.mark.cuda
def test_numbers_come_from_any_device(accelerator):
    given = torch.arange(6, dtype=torch.float32).view(2, 3).to(accelerator).requires_grad_()
    assert (
        metrics.numbers(given).tolist() == [[0, 1, 2], [3, 4, 5]]
        and metrics.numbers(given).dtype == np.float64
    )
    assert metrics.auc([1, 0, 0], given[0]).value == 0


def test_a_vector_is_new_and_double():
    for given in (np.array([1.0, 2.0]), np.array([1.0, 2.0], dtype=np.float32), torch.tensor([1, 2]), [1, 2]):
        found = metrics.vector("given", given)
        assert found.dtype == np.float64 and not np.shares_memory(found, given)
        assert found.tolist() == [1.0, 2.0]


def test_one_member_has_an_auc_without_an_interval():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for margin, value in ((1.0, 0.5), (3.0, 1.0), (-1.0, 0.0)):
            estimate = metrics.auc([1, 0, 0], [margin, 0.0, 2.0])
            assert estimate == pytest.approx((value, math.nan, math.nan), nan_ok=True)


def test_standard_measures_are_what_their_names_say():
    member, margin = sample(n=10_000, decimals=6)
    assert metrics.STANDARD["auc"] is metrics.auc
    assert metrics.STANDARD["balanced_accuracy"] is metrics.balanced_accuracy
    rates = {name: measure for name, measure in metrics.STANDARD.items() if name.startswith("tpr_at_")}
    assert list(rates) == ["tpr_at_0.01", "tpr_at_0.001"]
    for name, measure in rates.items():
        expected = metrics.tpr_at_fpr(member, margin, float(name.removeprefix("tpr_at_")))
        assert measure(member, margin) == expected and expected.value > 0


@pytest.mark.parametrize(
    "member, margin, words",
    [
        ([1, 0], [0.0, float("nan")], "margin holds nan"),
        ([1, 0], [0.0], "member has 2"),
        ([1, 1], [0.0, 1.0], "both groups"),
        ([0, 0], [0.0, 1.0], "both groups"),
        ([1, 2], [0.0, 1.0], "only 1"),
        ([1, 0], [[0.0, 1.0]], "margin has shape .* one-dimensional"),
        ([[1, 0]], [0.0, 1.0], "member has shape .* one-dimensional"),
    ],
)
def test_bad_input_is_named(member, margin, words):
    with pytest.raises(ValueError, match=words):
        metrics.auc(member, margin)


@pytest.mark.parametrize("metric", ["auc", "balanced_accuracy"])
def test_paired_difference_of_identical_margins_is_exactly_zero(metric):
    member, margin = sample()
    assert metrics.paired_difference(member, margin, margin.copy(), metric) == Estimate(0.0, 0.0, 0.0)


@pytest.mark.parametrize("metric", ["auc", "balanced_accuracy"])
def test_paired_difference_is_a_minus_b_and_its_interval_matches_the_bootstrap(metric):
    member, margin = sample(n=300, decimals=2)
    generator = np.random.default_rng(2)
    better = margin + 0.5 * member + 0.3 * generator.normal(size=len(margin))
    estimate = metrics.paired_difference(member, better, margin, metric)
    turned = metrics.paired_difference(member, margin, better, metric)
    assert turned == pytest.approx((-estimate.value, -estimate.high, -estimate.low), abs=1e-15)
    single = getattr(metrics, metric)
    difference = single(member, better).value - single(member, margin).value
    assert estimate.value == pytest.approx(difference, abs=1e-12)

    rows = np.flatnonzero(member), np.flatnonzero(~member)

    def resampled():
        pick = np.concatenate([generator.choice(group, len(group)) for group in rows])
        members, nonmembers = pick[: len(rows[0])], pick[len(rows[0]) :]
        if metric == "auc":
            return roc_auc_score(member[pick], better[pick]) - roc_auc_score(member[pick], margin[pick])
        tpr = np.mean(better[members] > 0) - np.mean(margin[members] > 0)
        return (tpr + np.mean(better[nonmembers] <= 0) - np.mean(margin[nonmembers] <= 0)) / 2

    deviation = np.std([resampled() for _ in range(500)])
    assert (estimate.high - estimate.low) / 2 / 1.96 == pytest.approx(deviation, rel=0.12)


def test_the_interval_of_a_paired_difference_by_hand():
    member, a = sample(n=60)
    b = np.round(a + 0.4 * np.random.default_rng(1).normal(size=60), 1)
    members, others = np.flatnonzero(member), np.flatnonzero(~member)

    def found(metric):
        estimate = metrics.paired_difference(member, a, b, metric)
        assert estimate.high - estimate.value == pytest.approx(estimate.value - estimate.low)
        return ((estimate.high - estimate.value) / stats.norm.ppf(0.975)) ** 2

    # DeLong: the variance of the differences of the rows' means, and of the columns' means, over all pairs
    pairs = np.array([[(np.sign(a[i] - a[j]) - np.sign(b[i] - b[j])) / 2 for j in others] for i in members])
    of_rows, of_columns = (stats.sem(pairs.mean(axis)) ** 2 for axis in (1, 0))
    assert found("auc") == pytest.approx(of_rows + of_columns)

    def discordant(group):  # McNemar's table: what one alone gets right
        only_a, only_b = np.sum((a > 0)[group] > (b > 0)[group]), np.sum((a > 0)[group] < (b > 0)[group])
        n = len(group)
        return (only_a + only_b - (only_a - only_b) ** 2 / n) / (n * (n - 1))

    assert discordant(members) > 0 and discordant(others) > 0
    assert found("balanced_accuracy") == pytest.approx((discordant(members) + discordant(others)) / 4)


@pytest.mark.parametrize("metric", ["auc", "balanced_accuracy"])
def test_a_paired_difference_ends_at_one(metric):
    member, best = np.array([1, 1, 1, 0, 0, 0]), np.array([2.0, 2, 2, -2, -2, -2])
    worst_but_one = np.array([-1.0, -1, 3, 1, 1, 1])
    found = metrics.paired_difference(member, best, worst_but_one, metric)
    assert found.low < found.value < found.high == 1.0
    assert metrics.paired_difference(member, worst_but_one, best, metric).low == -1.0


@pytest.mark.parametrize("metric", ["auc", "balanced_accuracy"])
def test_paired_difference_is_that_of_the_mean_over_trainings(metric):
    single = getattr(metrics, metric)
    (member, one), *others = (sample(seed) for seed in range(5))
    a, b = np.stack([one, others[0][1]]), np.stack([margin for _, margin in others[1:]])
    means = [np.mean([single(member, margin).value for margin in side]) for side in (a, b)]
    estimate = metrics.paired_difference(member, a, b, metric)  # two trainings and three
    assert estimate.value == pytest.approx(means[0] - means[1], abs=1e-12)
    assert metrics.paired_difference(member, torch.tensor(a), torch.tensor(b), metric) == estimate
    again = metrics.paired_difference(member, a[[0, 0]], b[0], metric)  # the same training twice is no more
    assert again == pytest.approx(metrics.paired_difference(member, a[0], b[0], metric), abs=1e-15)
    assert metrics.paired_difference(member, a, a[::-1], metric).value == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("metric", ["auc", "balanced_accuracy"])
def test_paired_difference_of_two_trainings_covers_the_truth_95_times_in_100(metric):
    """Gaussian margins whose examples are partly alike hard for both attackers and in both trainings."""
    generator, member = np.random.default_rng(5), np.arange(160) < 80
    leaks = np.array([1.2, 0.6])
    truth = stats.norm.cdf(leaks / (math.sqrt(2) if metric == "auc" else 2))  # at the middle, 0, of both
    truth, covered = truth[0] - truth[1], []
    for _ in range(1500):
        shared, own = generator.normal(size=160), generator.normal(size=(2, 2, 160))
        noise = math.sqrt(0.6) * shared + math.sqrt(0.4) * own  # (attackers, trainings, n), of variance 1
        a, b = leaks[:, None, None] * (member - 0.5) + noise
        _, low, high = metrics.paired_difference(member, a, b, metric)
        covered.append(low <= truth <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_a_share_ends_exactly_where_shares_do():
    for n in range(1, 300):
        assert metrics.share(0, n).low == 0.0 and metrics.share(n, n).high == 1.0, n


@pytest.mark.parametrize("n", [1, 3, 20, 997])
def test_the_interval_of_a_share_is_wilsons_made_symmetric(n):
    for hits in range(0, n + 1, max(1, n // 20)):
        wilson, found = stats.binomtest(hits, n).proportion_ci(method="wilson"), metrics.share(hits, n)
        middle = (hits + stats.norm.ppf(0.975) ** 2 / 2) / (n + stats.norm.ppf(0.975) ** 2)
        if 0 < hits < n:
            assert (wilson.low + wilson.high) / 2 == pytest.approx(middle)
        half = stats.norm.ppf(0.975) * math.sqrt(middle * (1 - middle) / (n + stats.norm.ppf(0.975) ** 2))
        ends = max(middle - half, 0), min(middle + half, 1)
        assert found == pytest.approx((hits / n, *ends), abs=1e-12)
        assert found.low <= wilson.low + 1e-12 and wilson.high <= found.high + 1e-12  # it is the wider one


def test_a_share_takes_parts_of_counts_and_nothing_of_nothing():
    lower, between, upper = (metrics.share(hits, 4) for hits in (2, 2.5, 3))
    assert between.value == 0.625 and lower.low < between.low < upper.low < upper.high
    assert all(math.isnan(part) for part in metrics.share(0, 0))


def test_paired_difference_refuses_other_metrics():
    with pytest.raises(ValueError, match="tpr_at_0.01"):
        metrics.paired_difference(MEMBER, np.arange(5), np.arange(5), "tpr_at_0.01")


def test_over_targets_covers_the_mean_95_times_in_100():
    draws = np.random.default_rng(3).normal(0.6, 0.04, size=(2000, 5))
    estimates = [metrics.over_targets(draw) for draw in draws]
    coverage = np.mean([low <= 0.6 <= high for _, low, high in estimates])
    assert coverage == pytest.approx(0.95, abs=0.015)


def test_over_targets_by_hand_and_for_one():
    half = stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert metrics.over_targets([0.5, 0.6, 0.7]) == pytest.approx((0.6, 0.6 - half, 0.6 + half))
    wide = stats.t.ppf(0.95, 1) * 0.1 / math.sqrt(2) / math.sqrt(2)
    assert metrics.over_targets([0.5, 0.6], 0.9) == pytest.approx((0.55, 0.55 - wide, 0.55 + wide))
    alone = metrics.over_targets([0.6])
    assert alone.value == 0.6 and math.isnan(alone.low) and math.isnan(alone.high) and alone.p is None
    assert metrics.over_targets([0.5, math.nan]) == pytest.approx([math.nan] * 3, nan_ok=True)
    with pytest.raises(ValueError, match="values is empty"):
        metrics.over_targets([])
    with pytest.raises(ValueError, match="values has shape"):
        metrics.over_targets([[0.5]])


@pytest.mark.parametrize("values", [[0.5, 0.7], [0.1, -0.3, 0.2, 0.4, 0.3]])
def test_over_targets_brings_students_test(values):
    found = metrics.over_targets(values, 0.8)  # whatever the confidence
    for boundary in (-1.0, 0.0, 0.3, 0.6, 2.0):
        assert found.p(boundary) == pytest.approx(stats.ttest_1samp(values, boundary).pvalue)
    assert found.paired == "target" and found.p(math.inf) == 0.0
    without_spread = metrics.over_targets([0.25, 0.25])
    assert without_spread.p(0.25) == 1.0 and without_spread.p(0.2) == without_spread.p(0.3) == 0.0


@pytest.mark.parametrize("n", [3, 5, 10])
def test_what_is_detectable_is_found_four_times_in_five(n):
    """The spread is estimated from n differences, and the number is kept by n others."""
    random, found = np.random.default_rng(n), []
    for _ in range(4000):
        effect = metrics.minimum_detectable(random.normal(0, 1, n)).value
        found.append(stats.ttest_1samp(random.normal(effect, 1, n), 0).pvalue < 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.025)


@pytest.mark.parametrize("n", [2, 4, 10])
def test_what_is_detectable_has_a_power_of_four_in_five(n):
    differences = np.arange(n) * 0.1
    estimate, error = metrics.minimum_detectable(differences), stats.sem(differences)

    def power(effect):  # in standard errors
        return stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, effect)

    low, high = (math.sqrt((n - 1) / stats.chi2.ppf(share, n - 1)) for share in (0.975, 0.025))
    assert power(estimate.low / low / error) == pytest.approx(0.8)  # the spread is known
    assert power(estimate.high / high / error) == pytest.approx(0.8)
    shares = stats.chi2.ppf((np.arange(20_000) + 0.5) / 20_000, n - 1) / (n - 1)
    assert power(estimate.value / error * np.sqrt(shares)).mean() == pytest.approx(0.8, abs=1e-3)


def test_what_is_detectable_has_an_uncertainty_of_its_own():
    estimate = metrics.minimum_detectable([-0.1, 0.0, 0.1])
    error = 0.1 / math.sqrt(3)
    assert estimate.value == pytest.approx(8.75 * error, rel=0.01)
    sd = 0.1 * np.sqrt(2 / stats.chi2.ppf([0.975, 0.025], 2))  # the 95 % interval of the spread
    assert (estimate.low, estimate.high) == pytest.approx(tuple(5.653 * sd / math.sqrt(3)), rel=1e-3)
    assert all(math.isnan(part) for part in metrics.minimum_detectable([0.1]))
    with pytest.raises(ValueError, match="differences has shape"):
        metrics.minimum_detectable([[0.1, 0.2]])


def test_steps_rise_unless_they_fall_by_more_than_chance():
    assert metrics.rises([[0.5, 0.6], [0.7, 0.8], [0.7, 0.8]])
    falls = np.array([0.01, 0.02, 0.03, 0.05])
    for share, steps in ((0.025, 1), (0.0125, 2)):  # a level for all steps together
        mean = stats.t.isf(share, 3) * falls.std(ddof=1) / 2
        for times, rising in ((0.99, True), (1.01, False)):
            fall = falls - falls.mean() + times * mean
            path = [np.zeros(4), -fall, 1 - fall][: steps + 1]
            assert metrics.rises(path) is rising, (share, times)
    assert metrics.rises([[0.5, 0.9], [0.6, 0.7], [0.6, 0.8]])  # -0.05 on average, and they differ by 0.3
    assert not metrics.rises([[0.5], [0.7], [0.6]])  # every step counts
    steps = metrics.rises(np.array([[2], [3]], dtype=np.uint8)), metrics.rises([[3], [2]])
    assert steps[0] is True and steps[1] is False
    assert metrics.rises([[0.5], [0.5]]) and not metrics.rises(
        [[0.5], [0.499]]
    )  # one target: chance is not known


# Intervals, as measures hand them out


def test_the_interval_of_an_auc_by_hand():
    member, margin = sample(n=60)
    estimate = metrics.auc(member, margin)
    pairs = (np.sign(margin[member][:, None] - margin[~member]) + 1) / 2
    error = math.hypot(*(stats.sem(pairs.mean(axis)) for axis in (1, 0)))
    auc = pairs.mean()
    smaller = min(member.sum(), (~member).sum())
    half = stats.t.ppf(0.975, smaller - 1) * error / (auc * (1 - auc))  # of the log-odds
    ends = [1 / (1 + (1 - auc) / auc * math.exp(sign * half)) for sign in (1, -1)]
    assert estimate == pytest.approx((auc, *ends))


@pytest.mark.parametrize("max_fpr, n, decimals", [(0.05, 600, 1), (0.3, 40, 6), (0.6, 80, 1), (0.6, 30, 6)])
def test_the_interval_of_a_rate_mixes_what_the_threshold_may_be(max_fpr, n, decimals):
    member, margin = sample(n=n, shift=0.0, decimals=decimals)
    members, others = margin[member], sorted(margin[~member], reverse=True)
    chances = stats.binom.pmf(range(len(others) + 1), len(others), max_fpr)  # that so many others are above

    # between the last of the others above the threshold and the first below: what has to be found, and what may be
    fewest = [0, *(np.sum(members > one) for one in others)]
    most = [*(np.sum(members > one) for one in others), len(members)]
    estimate = metrics.tpr_at_fpr(member, margin, max_fpr)
    assert 0 < estimate.low < estimate.value < estimate.high < 1
    for end, counts, level in ((estimate.low, fewest, 0.025), (estimate.high, most, 0.975)):
        counts = np.array(counts)
        below = chances @ stats.beta.cdf(end, counts + 0.5, len(members) - counts + 0.5)  # Jeffreys
        assert below == pytest.approx(level, abs=1e-7)
