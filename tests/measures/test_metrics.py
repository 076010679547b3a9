"""Estimates against hand counts, scikit-learn and the bootstrap; the results table's round trip."""

import functools
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from mialib import reporting, study
from mialib.measures import Estimate, metrics
from mialib.reporting import vocabulary

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


def test_constant_margins_give_chance():
    member = np.arange(2000) % 2
    assert metrics.auc(member, np.zeros(2000)) == Estimate(0.5, 0.5, 0.5)
    assert metrics.tpr_at_fpr(member, np.zeros(2000), 0.01).value == 0.0


def test_balanced_accuracy_by_hand():
    # two of three members above 0; a margin of exactly 0 is the decision non-member
    estimate = metrics.balanced_accuracy(MEMBER, np.array([3, 2, -1, 0, 1]))
    assert estimate.value == pytest.approx((2 / 3 + 1 / 2) / 2)
    tpr, tnr = (stats.binomtest(k, n).proportion_ci(method="wilson") for k, n in ((2, 3), (1, 2)))
    below = math.hypot(2 / 3 - tpr.low, 1 / 2 - tnr.low) / 2
    above = math.hypot(tpr.high - 2 / 3, tnr.high - 1 / 2) / 2
    assert estimate.low == pytest.approx(estimate.value - below)
    assert estimate.high == pytest.approx(estimate.value + above)


def test_perfect_decisions_keep_an_interval():
    estimate = metrics.balanced_accuracy(MEMBER, np.array([1, 1, 1, -1, -1]))
    assert estimate.value == estimate.high == 1.0
    assert estimate.low < 0.8


@pytest.mark.parametrize("max_fpr", [0.01, 0.05, 0.29, 1.0])
def test_tpr_equals_the_best_point_of_sklearns_curve(max_fpr):
    member, margin = sample(n=700)
    fpr, tpr, _ = roc_curve(member, margin, drop_intermediate=False)
    estimate = metrics.tpr_at_fpr(member, margin, max_fpr)
    assert estimate.value == pytest.approx(tpr[fpr <= max_fpr].max())
    exact = stats.binomtest(round(estimate.value * member.sum()), int(member.sum())).proportion_ci(
        method="exact"
    )
    assert (estimate.low, estimate.high) == pytest.approx((exact.low, exact.high))


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


def test_tensors_are_accepted_and_left_alone():
    member, margin = torch.tensor([True, True, False, False]), torch.tensor([2.0, 0.0, 1.0, -1.0])
    assert metrics.auc(member, margin).value == 0.75
    assert margin.tolist() == [2.0, 0.0, 1.0, -1.0]


@pytest.mark.parametrize(
    "member, margin, words",
    [
        ([1, 0], [0.0, float("nan")], "margin holds nan"),
        ([1, 0], [0.0], "member has 2"),
        ([1, 1], [0.0, 1.0], "both groups"),
        ([1, 2], [0.0, 1.0], "only 1"),
        ([1, 0], [[0.0, 1.0]], "one-dimensional"),
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
def test_paired_difference_is_b_minus_a_and_its_interval_matches_the_bootstrap(metric):
    member, margin = sample(n=300, decimals=2)
    generator = np.random.default_rng(2)
    better = margin + 0.5 * member + 0.3 * generator.normal(size=len(margin))
    estimate = metrics.paired_difference(member, margin, better, metric)
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


def test_wilson_is_scipys_to_the_last_bit_and_takes_parts_of_counts():
    for n in (1, 3, 20, 997):
        for hits in range(0, n + 1, max(1, n // 20)):
            interval = stats.binomtest(hits, n).proportion_ci(method="wilson")
            assert metrics.wilson(hits, n) == Estimate(hits / n, interval.low, interval.high)
    lower, between, upper = (metrics.wilson(hits, 4) for hits in (2, 2.5, 3))
    assert between.value == 0.625 and lower.low < between.low < upper.low < upper.high
    assert all(math.isnan(part) for part in metrics.wilson(0, 0))


# Calibration of a model


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
    alone = metrics.over_targets([0.6])
    assert alone.value == 0.6 and math.isnan(alone.low) and math.isnan(alone.high)


def test_minimum_detectable_has_about_80_percent_power():
    half = (stats.t.ppf(0.975, 2) + stats.t.ppf(0.8, 2)) * 0.1 / math.sqrt(3)
    assert metrics.minimum_detectable([-0.1, 0.0, 0.1]) == pytest.approx(half)
    assert math.isnan(metrics.minimum_detectable([0.1]))
    n = 10
    standardised = np.linspace(-1, 1, n)
    standardised /= standardised.std(ddof=1)
    effect = metrics.minimum_detectable(standardised)
    draws = np.random.default_rng(4).normal(effect, 1, size=(4000, n))
    assert np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.03)


# The results table

CONTRACT = (
    "dataset model protocol knowledge compression level defense defense_strength adversary "
    "attacker_compression attacker_level variant attack class target seed metric value low "
    "high low_seeds high_seeds n_members n_nonmembers n_shadows"
)


def save(path, rows=(), claims=(), parameters=None):
    about = {"torch": "2", "seconds": 1.0}
    return reporting.save(
        path,
        notebook="yuan2022_pruning",
        run="digits",
        parameters=parameters or {},
        rows=list(rows),
        claims=claims,
        provenance=about,
    )


def test_a_row_has_every_column_of_the_contract_in_order():
    row = study.tidy_row(
        "auc", Estimate(0.6, 0.5, 0.7), level=np.float64(0.7), class_=np.int64(3), target=torch.tensor(1)
    )
    assert list(row) == CONTRACT.split()
    assert (row["value"], row["low"], row["high"], row["level"], row["class"], row["target"]) == (
        *(0.6, 0.5, 0.7),
        *(0.7, 3, 1),
    )
    assert type(row["class"]) is int and row["dataset"] is None


def test_unknown_columns_get_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'compression'"):
        study.tidy_row("auc", 0.5, compresion="none")
    with pytest.raises(ValueError, match="column 'level' holds a list"):
        study.tidy_row("auc", 0.5, level=[0.5, 0.7])


def test_attack_rows_hold_the_four_metrics_and_the_counts():
    member, margin = sample(n=500)
    rows = study.attack_rows(member, margin, attack="samia", target=0, seed=0)
    assert [row["metric"] for row in rows] == ["balanced_accuracy", "auc", "tpr_at_0.01", "tpr_at_0.001"]
    assert {(row["n_members"], row["n_nonmembers"]) for row in rows} == {(member.sum(), (~member).sum())}
    assert rows[1]["value"] == metrics.auc(member, margin).value
    assert math.isnan(rows[3]["value"])  # about 300 non-members cannot show 0.1%


def test_attack_rows_hold_the_measures_the_caller_names():
    member, margin = sample(n=500)
    measures = {"auc": metrics.auc, "tpr_at_0.05": functools.partial(metrics.tpr_at_fpr, max_fpr=0.05)}
    rows = study.attack_rows(member, margin, measures, attack="samia")
    assert [row["metric"] for row in rows] == ["auc", "tpr_at_0.05"]
    expected = metrics.tpr_at_fpr(member, margin, 0.05)
    assert (rows[1]["value"], rows[1]["low"], rows[1]["high"]) == expected
    assert {(row["attack"], row["n_members"]) for row in rows} == {("samia", member.sum())}


def test_bare_decisions_have_null_low_fpr_figures_in_the_saved_file(tmp_path):
    member = np.arange(4000) % 2
    decisions = np.where(np.arange(4000) % 3, 1, -1)
    path = save(tmp_path / "deep" / "metrics.json", study.attack_rows(member, decisions, attack="gap"))
    values = {row["metric"]: row["value"] for row in reporting.load(path)["rows"]}
    assert values["tpr_at_0.01"] is None and values["tpr_at_0.001"] is None
    assert values["auc"] == metrics.auc(member, decisions).value


def test_save_and_load_are_a_round_trip(tmp_path):
    claim = {"claim": "a", "source": "b", "paper": "> 0", "ours": "+0.1", "verdict": "reproduced"}
    rows = [
        study.tidy_row("auc", Estimate(1 / 3, math.nan, math.inf), attack="nn"),
        study.tidy_row("test_accuracy", 0.9),
    ]
    path = save(tmp_path / "metrics.json", rows, [claim | {"margin": math.inf}], {"levels": [0.5, 0.7]})
    content = reporting.load(path)
    assert list(content) == ["notebook", "run", "parameters", "provenance", "rows", "claims"]
    assert content["rows"] == [rows[0] | {"low": None, "high": None}, rows[1]]
    assert content["claims"] == [claim] and content["parameters"] == {"levels": [0.5, 0.7]}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_save_refuses_nan_elsewhere_and_leaves_the_old_file(tmp_path):
    path = save(tmp_path / "metrics.json")
    before = path.read_text()
    with pytest.raises(ValueError, match="parameters"):
        save(path, parameters={"lr": math.nan})
    with pytest.raises(ValueError, match="rows"):
        save(path, [study.tidy_row("auc", 0.5, level=math.nan)])
    with pytest.raises(ValueError, match="lacks columns"):
        save(path, [{"metric": "auc", "value": 0.5}])
    assert path.read_text() == before


def test_load_names_what_is_wrong(tmp_path):
    path = tmp_path / "metrics.json"
    with pytest.raises(FileNotFoundError, match="metrics.json"):
        reporting.load(path)
    for text, words in (('{"rows": [NaN]}', "NaN"), ('{"rows": [', "not valid"), ("{}", "lacks")):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            reporting.load(path)


def test_models_are_named_by_sparsity_or_bits_and_controls_alike():
    named = {
        ("none", None): "original",
        ("l1_filter", 0.0): "control",
        ("dorefa", 32): "control",
        ("l1_filter", 0.7): "l1_filter 0.7",
        ("dorefa", 1.0): "dorefa, 1 bit",
        ("dorefa", 1.58): "dorefa, 1.58 bits",
        ("dorefa", 4): "dorefa, 4 bits",
    }
    assert {key: vocabulary.model_name(*key) for key in named} == named
    assert [level for level in (None, math.nan, 0, 0.5, 1, 8, 32.0) if vocabulary.is_control(level)] == [
        0,
        32.0,
    ]


def test_aggregate_by_hand():
    def auc(value, target, seed, n_members=10, **columns):
        return study.tidy_row(
            "auc", value, target=target, seed=seed, n_members=n_members, n_nonmembers=9, **columns
        )

    rows = [
        auc(Estimate(0.6, 0.5, 0.7), 0, 0, attack="nn"),
        auc(0.8, 0, 1, attack="nn"),
        auc(0.9, 0, 0, attack="samia"),
        auc(0.5, 1, 0, attack="nn", n_members=11),
    ]
    nn, samia = study.aggregate(rows)
    # target 0: (0.6 + 0.8) / 2 = 0.7; target 1: 0.5; mean 0.6, sd 0.1 * sqrt(2)
    half = stats.t.ppf(0.975, 1) * 0.1
    assert nn["attack"] == "nn" and samia["attack"] == "samia"
    assert nn["value"] == pytest.approx(0.6)
    assert (nn["low_seeds"], nn["high_seeds"]) == pytest.approx((0.6 - half, 0.6 + half))
    for column in ("target", "seed", "low", "high", "n_members"):
        assert nn[column] is None
    assert nn["n_nonmembers"] == 9 and samia["n_members"] == 10
    assert samia["value"] == 0.9 and samia["low_seeds"] is None
    assert list(nn) == CONTRACT.split()


def test_aggregate_keeps_unresolved_and_refuses_doubles():
    rows = [
        study.tidy_row("tpr_at_0.01", value, target=target) for target, value in enumerate((0.2, math.nan))
    ]
    assert study.aggregate(rows)[0]["value"] is None
    with pytest.raises(ValueError, match="two rows measure tpr_at_0.01"):
        study.aggregate(rows + rows)


def test_table_filters():
    rows = [
        study.tidy_row("auc", level, level=level, attack=attack)
        for level in (0.0, 0.5)
        for attack in ("nn", "gap")
    ]
    assert len(study.table(rows)) == 4
    assert study.table(rows, attack="nn")["value"].tolist() == [0.0, 0.5]
    assert len(study.table(rows, attack=["nn", "gap"], level=0.5)) == 2
    with pytest.raises(ValueError, match="did you mean 'attack'"):
        study.table(rows, atack="nn")


def test_provenance_can_be_saved():
    about = reporting.provenance(12.345, "cpu")
    assert about.keys() == {"torch", "mialib", "python", "device", "commit", "seconds"}
    assert about["seconds"] == 12.3 and about["device"].startswith("cpu")
    assert json.dumps(about, allow_nan=False)
    assert about["commit"] is None or len(about["commit"].removesuffix("-dirty")) == 40
