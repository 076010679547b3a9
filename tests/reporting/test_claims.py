"""Verdicts by hand."""

import itertools
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from scipy import stats

from mialib import study
from mialib.measures import Estimate, WithTest, metrics
from mialib.reporting import Claim, claims

ORDERING = Claim("pruned leaks more", "Section 5", "pruned > original")
NUMBER = Claim("confidence gap at 0.7", "Figure 3", 0.224, tolerance=0.02)


def verdict_on(claim, result, at_paper_setting):
    return claims.compare({"it": claim}, {"it": result}, at_paper_setting)["verdict"].item()


@pytest.mark.parametrize(
    "low, high, boundary, verdict",
    [
        (0.01, 0.05, 0.0, "reproduced"),
        (-0.05, -0.01, 0.0, "not reproduced"),
        (-0.01, 0.05, 0.0, "inconclusive"),
        (0.0, 0.05, 0.0, "inconclusive"),  # the claim is strict
        (0.0, 0.0, 0.0, "not reproduced"),  # no difference at all
        (-0.005, 0.05, -0.01, "reproduced"),  # not worse by more than 0.01
        (0.01, 0.05, 0.02, "inconclusive"),
        (math.nan, math.nan, 0.0, "inconclusive"),
    ],
)
def test_orderings(low, high, boundary, verdict):
    claim = replace(ORDERING, boundary=boundary)
    assert verdict_on(claim, Estimate((low + high) / 2, low, high), False) == verdict


@pytest.mark.parametrize(
    "result, verdict",
    [
        (0.63, "reproduced"),  # 0.63 - 0.60 exceeds 0.03 in binary only
        (0.57, "reproduced"),
        (0.64, "not reproduced"),
        (Estimate(0.61, 0.59, 0.62), "reproduced"),
        (Estimate(0.61, 0.55, 0.67), "inconclusive"),
        (Estimate(0.66, 0.64, 0.68), "not reproduced"),
        (Estimate(0.50, 0.48, 0.52), "not reproduced"),
        (Estimate(0.61), "reproduced"),
        (math.nan, "inconclusive"),
    ],
)
def test_published_numbers(result, verdict):
    claim = replace(NUMBER, paper=0.60, tolerance=0.03)
    assert verdict_on(claim, result, True) == verdict
    assert verdict_on(claim, result, False) == "not comparable"


@pytest.mark.parametrize("ends", [(0.05,), (math.nan, 0.2), ()], ids=str)
def test_an_interval_that_lacks_an_end_is_none(ends):
    paper = {"more": ORDERING, "less": replace(ORDERING, boundary=0.3), "gap": NUMBER}
    table = claims.compare(paper, dict.fromkeys(paper, Estimate(0.1, *ends)), at_paper_setting=True)
    assert table["ours"].tolist() == ["+0.100", "+0.100", "0.100"]
    assert table["verdict"].tolist() == ["inconclusive", "inconclusive", "not reproduced"]
    assert table["margin"].tolist() == pytest.approx([math.nan, math.nan, 0.204 - 0.1], nan_ok=True)


PAPER = {"gap": NUMBER, "leak": ORDERING, "best": Claim("SAMIA is best", "abstract", "SAMIA > NN")}


def test_compare_is_one_row_a_claim_in_the_papers_order():
    ours = {"leak": Estimate(0.012, -0.003, 0.027), "gap": 0.23}
    table = claims.compare(PAPER, ours, at_paper_setting=True)
    assert table.columns.tolist() == ["claim", "source", "paper", "ours", "paired", "verdict", "margin", "p"]
    assert table.index.tolist() == list(PAPER) and table.index.name == "key"
    assert table["claim"].tolist() == [NUMBER.claim, ORDERING.claim, "SAMIA is best"]
    assert table["ours"].tolist() == ["0.230", "+0.012 [-0.003, +0.027]", ""]
    assert table["paper"].tolist() == ["0.224 (tolerance 0.02)", "pruned > original", "SAMIA > NN"]
    assert table["verdict"].tolist() == ["reproduced", "inconclusive", "not run"]


def test_results_go_by_key_so_that_the_order_of_claims_changes_no_verdict():
    ours = {"best": Estimate(0.1, 0.05, 0.15), "leak": Estimate(-0.1, -0.15, -0.05), "gap": 0.3}
    table = claims.compare(PAPER, ours, True, incomparable=["best"])
    for order in itertools.permutations(PAPER):
        turned = claims.compare({key: PAPER[key] for key in order}, ours, True, incomparable=["best"])
        assert turned.index.tolist() == list(order) and turned.loc[list(PAPER)].equals(table), order
    assert table["verdict"].tolist() == ["not reproduced", "not reproduced", "not comparable"]


def test_two_claims_may_have_the_same_text():
    table = claims.compare({"a": ORDERING, "b": ORDERING}, {"b": Estimate(0.1, 0.05, 0.15)})
    assert table["verdict"].to_dict() == {"a": "not run", "b": "reproduced"}


def test_numbers_away_from_the_papers_setting_are_not_comparable_but_orderings_are():
    ours = {"leak": Estimate(0.05, 0.02, 0.08), "gap": Estimate(0.224, 0.22, 0.23)}
    table = claims.compare({"gap": NUMBER, "leak": ORDERING}, ours)
    assert table["verdict"].tolist() == ["not comparable", "reproduced"]
    assert table.loc["gap", "ours"] == "0.224 [0.220, 0.230]"


def test_what_cannot_be_compared_keeps_its_result_but_has_no_verdict():
    table = claims.compare(PAPER, {"leak": Estimate(0.05, 0.02, 0.08)}, incomparable=["leak", "gap"])
    assert table["verdict"].to_dict() == {"gap": "not run", "leak": "not comparable", "best": "not run"}
    assert table.loc["leak", "ours"] == "+0.050 [+0.020, +0.080]" and table.loc["leak", "margin"] == math.inf


def test_what_is_shown_has_a_line_a_claim_and_neither_keys_nor_margins():
    shown = claims.shown(claims.compare(PAPER, {"leak": Estimate(0.05, 0.02, 0.08)}))
    assert shown.index.tolist() == [claim.claim for claim in PAPER.values()]
    assert shown.columns.tolist() == ["verdict", "ours", "claimed", "paired", "source"]
    assert shown.loc[ORDERING.claim, "verdict"] == "reproduced"


@pytest.mark.parametrize(
    "stable, result, kept",
    [
        (True, Estimate(0.05, 0.0101, 0.08), True),
        (True, Estimate(-0.05, -0.08, -0.0101), True),  # not reproduced is a verdict too
        (True, Estimate(0.05, 0.0099, 0.08), False),  # another machine may find otherwise
        (True, Estimate(0.0, -0.05, 0.05), False),  # inconclusive
        (True, Estimate(math.nan), False),  # inconclusive, and no number could decide it
        (True, None, False),  # not run
        (False, Estimate(0.05, 0.04, 0.08), False),
    ],
    ids=str,
)
def test_firm_are_decided_verdicts_on_stable_claims(stable, result, kept):
    claim = replace(ORDERING, stable=stable)
    paper = {"leak": claim, "gap": replace(NUMBER, stable=True)}
    table = claims.compare(paper, {"gap": 0.224} | ({} if result is None else {"leak": result}))
    firm = claims.firm(paper, table)  # a number away from the paper's setting is never firm
    assert firm["verdict"].to_dict() == ({claim.claim: table.loc["leak", "verdict"]} if kept else {})


def test_how_firm_is_asked_for():
    paper = {"leak": replace(ORDERING, stable=True)}
    table = claims.compare(paper, {"leak": Estimate(0.05, 0.02, 0.08)})
    assert len(claims.firm(paper, table)) == len(claims.firm(paper, table, margin=0.02)) == 1
    assert claims.firm(paper, table, margin=0.03).empty
    assert claims.firm({"leak": ORDERING}, table).empty  # a claim is stable only where it says so


@pytest.mark.parametrize(
    "claim, result, margin",
    [
        (ORDERING, Estimate(0.05, 0.02, 0.08), 0.02),  # low end above 0
        (ORDERING, Estimate(-0.05, -0.08, -0.015), 0.015),  # high end below 0
        (ORDERING, Estimate(0.01, -0.03, 0.004), 0.004),  # nearer end across 0
        (ORDERING, Estimate(0.01), math.nan),  # one target: there is nothing to decide by
        (NUMBER, Estimate(0.22, 0.21, 0.24), 0.004),  # 0.244 - 0.24
        (NUMBER, 0.3, 0.056),  # 0.3 - 0.244
        (NUMBER, np.float32(0.3), float(np.float32(0.3)) - 0.244),  # judged in double precision
        (
            NUMBER,
            Estimate(0.25, 0.22, 0.28),
            0.024,
        ),  # leaves the region at 0.244 - 0.22, enters it at 0.28 - 0.244
    ],
)
def test_margin_is_the_distance_to_another_verdict(claim, result, margin):
    table = claims.compare({"it": claim}, {"it": result}, at_paper_setting=True)
    assert table.loc["it", "margin"] == pytest.approx(margin, abs=1e-9, nan_ok=True)


def test_unresolved_results_say_so():
    table = claims.compare({"leak": ORDERING}, {"leak": Estimate(math.nan)})
    assert table.loc["leak", ["ours", "verdict"]].tolist() == ["not resolved", "inconclusive"]


@pytest.mark.parametrize(
    "result",
    [Estimate(math.nan), Estimate(math.nan, 0.1, 0.2), Estimate(math.inf, math.inf, math.inf)],
    ids=str,
)
@pytest.mark.parametrize("claim", [ORDERING, NUMBER], ids=["ordering", "number"])
def test_what_is_not_resolved_is_never_firm(claim, result):
    claim = replace(claim, stable=True)
    table = claims.compare({"it": claim}, {"it": result}, at_paper_setting=True)
    assert table.loc["it", "verdict"] == "inconclusive" and math.isnan(table.loc["it", "margin"])
    assert claims.firm({"it": claim}, table, margin=0.0).empty


def test_a_setting_compared_with_itself_is_not_run():
    nothing = metrics.over_targets([0.0, 0.0, 0.0])
    itself = study.Difference.of(nothing, "itself")
    paper = {"leak": ORDERING, "same": ORDERING}
    table = claims.compare(paper, {"leak": itself, "same": nothing}, incomparable=["leak"])
    assert table["verdict"].tolist() == ["not run", "not reproduced"]  # of two settings 0 is a finding
    assert table["ours"].tolist() == ["a setting compared with itself", "+0.000 [+0.000, +0.000]"]


def test_each_difference_says_how_it_is_paired():
    of_one = study.Difference.of(Estimate(0.1, 0.05, 0.15), "example")
    results = {
        "leak": study.Difference.of(metrics.over_targets([0.1, 0.2]), "target"),
        "best": of_one,
        "mean": metrics.over_targets([0.1, 0.2]),
        "bare": Estimate(0.1, 0.0, 0.2),
    }
    table = claims.compare(dict.fromkeys([*results, "left out"], ORDERING), results)
    assert table["paired"].tolist() == ["target", "example", "target", "", ""]


# Many claims


def test_the_p_value_is_the_level_at_which_a_verdict_is_lost():
    values = [0.02, 0.05, 0.03, 0.06, 0.04]
    for boundary in (0.0, 0.015, 0.02, 0.04, 0.07):
        claim = replace(ORDERING, boundary=boundary)
        p = claims.compare({"it": claim}, {"it": metrics.over_targets(values)}).loc["it", "p"]
        assert p == pytest.approx(stats.ttest_1samp(values, boundary).pvalue)
        for level in (p * 0.999, min(p * 1.001, 0.9999)):
            at_level = claims.compare({"it": claim}, {"it": metrics.over_targets(values, 1 - level)})
            assert (at_level.loc["it", "verdict"] != "inconclusive") == (level > p)
    near = replace(NUMBER, paper=0.05, tolerance=0.03)
    p = claims.compare({"it": near}, {"it": metrics.over_targets(values)}, True).loc["it", "p"]
    assert p == pytest.approx(stats.ttest_1samp(values, 0.02).pvalue)  # the nearer end of the region
    # unknown: an interval whose test is not known, and a number that is not compared
    assert math.isnan(claims.compare({"it": ORDERING}, {"it": Estimate(0.1, 0.05, 0.15)}).loc["it", "p"])
    assert math.isnan(claims.compare({"it": near}, {"it": metrics.over_targets(values)}).loc["it", "p"])


def with_p(*p):
    """A table of as many ordering claims, whose results have these p-values."""
    results = {
        str(i): WithTest.of(Estimate(0.1, 0.05 if one <= 0.05 else -0.05, 0.2), lambda _, one=one: one)
        for i, one in enumerate(p)
    }
    return claims.compare(dict.fromkeys(results, ORDERING), results)


@pytest.mark.parametrize(
    "p, survive",
    [
        ([0.01, 0.02, 0.04], 3),  # 0.01 <= 0.05 / 3, 0.02 <= 0.05 / 2, 0.04 <= 0.05
        ([0.04, 0.016, 0.026], 1),  # 0.026 > 0.05 / 2, and 0.04 is not asked any more
        ([0.02, 0.04, 0.04], 0),
        ([0.012, 0.3, 0.3, 0.3], 1),  # undecided claims count: 0.012 <= 0.05 / 4
        ([0.013, 0.3, 0.3, 0.3], 0),
        ([0.05], 1),  # not above the level is enough
        ([], 0),
    ],
)
def test_holm_by_hand(p, survive):
    decided = sum(one <= 0.05 for one in p)
    assert claims.family(with_p(*p)) == (
        f"{len(p)} claims are judged, each at 95% for itself: expect {0.05 * len(p):.1f} of the intervals to miss. "
        f"Verdicts that hold for all claims together (Holm's correction): {survive} of {decided} decided ones."
    )


def test_undecided_verdicts_hold_at_no_level():
    assert "0 of 0 decided" in claims.family(with_p(0.07), level=0.2)
    assert "1 of 1 decided" in claims.family(with_p(0.07, 0.03), level=0.2)


def test_only_what_is_judged_is_of_the_family():
    results = {
        "no interval": Estimate(0.1),
        "by hand": Estimate(0.1, 0.05, 0.2),
        "number": Estimate(0.2, 0.1, 0.3),
    }
    paper = dict.fromkeys(["no interval", "by hand", "left out"], ORDERING) | {"number": NUMBER}
    table = claims.compare(paper, results)
    assert claims.family(table).startswith("1 claims are judged")
    assert claims.family(table).endswith("0 of 1 decided ones; 1 have no p-value and count as lost.")


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="the paper has no claim 'leek'; did you mean 'leak'"):
        claims.compare(PAPER, {"leek": Estimate(0.1, 0.0, 0.2)})
    with pytest.raises(ValueError, match="no claim 'the loss of privacy is a leak'; did you mean 'leak'"):
        claims.compare(PAPER, {"the loss of privacy is a leak": 0.2})
    with pytest.raises(ValueError, match="the paper has no claim 'bost'; did you mean 'best'"):
        claims.compare(PAPER, {}, incomparable=["bost"])
    with pytest.raises(ValueError, match="no claim 'leak'; did you mean None"):
        claims.compare({}, {"leak": Estimate(0.1)})
    with pytest.raises(ValueError, match="ordering 'leak' is 0.1; it must be an Estimate"):
        claims.compare(PAPER, {"leak": 0.1})
    for none in (None, 0.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="needs a tolerance"):
            Claim("a", "b", 0.6, tolerance=none)
    with pytest.raises(ValueError, match="no tolerance"):
        Claim("a", "b", "a > b", tolerance=0.1)


def test_a_claim_stays_as_it_was_fixed():
    with pytest.raises(FrozenInstanceError):
        NUMBER.tolerance = 0.2


def test_stated_claims_by_hand():
    found = claims.stated("""
        falls | 1. attack accuracy falls | abstract | full precision > 2 bits
        cheap | utility: less than 2 points | ours | 8 bits - control > -0.02 | stable

        points | by 14 points | abstract: -14 | 0.14 +- 0.03
    """)
    assert found == {
        "falls": Claim("1. attack accuracy falls", "abstract", "full precision > 2 bits"),
        "cheap": Claim(
            "utility: less than 2 points", "ours", "8 bits - control > -0.02", boundary=-0.02, stable=True
        ),
        "points": Claim("by 14 points", "abstract: -14", 0.14, tolerance=0.03),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("key | claim | A > B", "has 3 parts; it must be 'key . claim . source . claimed'"),
        ("key | claim | source | A > B | stabel", "has 5 parts"),
        ("key | claim | source | falls", "claim 'key' claims 'falls'; it must be an ordering"),
        ("key | claim | source | 0.14", "or a number with its tolerance, '0.14 .- 0.03'"),
        ("key | a | b | A > B\nkey | a | b | A > B", "the key 'key' names two claims"),
        ("key | a | b | 0.14 +- 0", "needs a tolerance > 0"),
    ],
)
def test_stated_refuses_what_it_cannot_read(line, message):
    with pytest.raises(ValueError, match=message):
        claims.stated(line)


def test_the_smallest_difference_that_would_be_found_is_said():
    differences = np.array([0.01, 0.03, 0.02])
    smallest = metrics.minimum_detectable(differences)
    said = claims.detectable(differences, "the AUC left, E minus D")
    assert said.startswith(
        f"With 3 targets, a true difference of {smallest.value:.3f} in the AUC left, E minus D, would"
    )
    assert f"{smallest.low:.3f} to {smallest.high:.3f}" in said


def test_one_target_has_no_such_difference():
    assert (
        claims.detectable([0.01], "the AUC")
        == "With one target, no difference in the AUC can be told from chance."
    )
