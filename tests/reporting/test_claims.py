"""Verdicts by hand."""

import math
from dataclasses import replace

import pytest

from mialib.measures import Estimate
from mialib.reporting import Claim, claims

ORDERING = Claim("pruned leaks more", "Section 5", "pruned > original")
NUMBER = Claim("confidence gap at 0.7", "Figure 3", 0.224, tolerance=0.02)


def verdict_on(claim, result, at_paper_setting):
    return claims.compare([claim], {claim.claim: result}, at_paper_setting)["verdict"].item()


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


def test_compare_is_one_row_a_claim_in_the_papers_order():
    table = claims.compare(
        [NUMBER, ORDERING, Claim("SAMIA is best", "abstract", "SAMIA > NN")],
        {ORDERING.claim: Estimate(0.012, -0.003, 0.027), NUMBER.claim: 0.23},
        at_paper_setting=True,
    )
    assert table.columns.tolist() == ["claim", "source", "paper", "ours", "verdict", "margin"]
    assert table["claim"].tolist() == [NUMBER.claim, ORDERING.claim, "SAMIA is best"]
    assert table["ours"].tolist() == ["0.230", "+0.012 [-0.003, +0.027]", ""]
    assert table["paper"].tolist() == ["0.224 (tolerance 0.02)", "pruned > original", "SAMIA > NN"]
    assert table["verdict"].tolist() == ["reproduced", "inconclusive", "not run"]


def test_numbers_away_from_the_papers_setting_are_not_comparable_but_orderings_are():
    ours = {ORDERING.claim: Estimate(0.05, 0.02, 0.08), NUMBER.claim: Estimate(0.224, 0.22, 0.23)}
    table = claims.compare([NUMBER, ORDERING], ours)
    assert table["verdict"].tolist() == ["not comparable", "reproduced"]
    assert table["ours"].tolist()[0] == "0.224 [0.220, 0.230]"


def test_what_cannot_be_compared_keeps_its_result_but_has_no_verdict():
    ours = {ORDERING.claim: Estimate(0.05, 0.02, 0.08)}
    table = claims.compare([ORDERING, NUMBER], ours, incomparable=[ORDERING.claim, NUMBER.claim])
    assert table["verdict"].tolist() == ["not comparable", "not run"]
    assert table["ours"][0] == "+0.050 [+0.020, +0.080]" and table["margin"][0] == math.inf


@pytest.mark.parametrize(
    "claim, result, margin",
    [
        (ORDERING, Estimate(0.05, 0.02, 0.08), 0.02),  # low end above 0
        (ORDERING, Estimate(-0.05, -0.08, -0.015), 0.015),  # high end below 0
        (ORDERING, Estimate(0.01, -0.03, 0.004), 0.004),  # nearer end across 0
        (ORDERING, Estimate(0.01), math.inf),  # one target: no number could decide
        (NUMBER, Estimate(0.22, 0.21, 0.24), 0.004),  # 0.244 - 0.24
        (NUMBER, 0.3, 0.056),  # 0.3 - 0.244
        (
            NUMBER,
            Estimate(0.25, 0.22, 0.28),
            0.024,
        ),  # leaves the region at 0.244 - 0.22, enters it at 0.28 - 0.244
    ],
)
def test_margin_is_the_distance_to_another_verdict(claim, result, margin):
    table = claims.compare([claim], {claim.claim: result}, at_paper_setting=True)
    assert table["margin"][0] == pytest.approx(margin, abs=1e-9)


def test_unresolved_results_say_so():
    table = claims.compare([ORDERING], {ORDERING.claim: Estimate(math.nan)})
    assert table.loc[0, ["ours", "verdict"]].tolist() == ["not resolved", "inconclusive"]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="nearest: .'pruned leaks more'"):
        claims.compare([ORDERING, NUMBER], {"pruned leaks mor": Estimate(0.1, 0.0, 0.2)})
    with pytest.raises(ValueError, match="same text"):
        claims.compare([ORDERING, ORDERING], {})
    with pytest.raises(ValueError, match="must be an Estimate"):
        claims.compare([ORDERING], {ORDERING.claim: 0.1})
    with pytest.raises(ValueError, match="needs a tolerance"):
        Claim("a", "b", 0.6)
    with pytest.raises(ValueError, match="no tolerance"):
        Claim("a", "b", "a > b", tolerance=0.1)
