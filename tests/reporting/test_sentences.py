"""The sentence that a verdict chooses."""

import pytest

from mialib.measures import Estimate
from mialib.reporting import Claim, Told, claims, sentences

PAPER = {name: Claim(name, "here", "a > b") for name in ("more", "less", "unknown", "left_out")}
OURS = {
    "more": Estimate(0.2, 0.1, 0.3),
    "less": Estimate(-0.2, -0.3, -0.1),
    "unknown": Estimate(0.0, -0.1, 0.1),
}
TOLD = Told("It is more, by {ours}.", "It is less: {ours}.", "Nobody knows.")


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("more", "It is more, by +0.200 [+0.100, +0.300]."),
        ("less", "It is less: -0.200 [-0.300, -0.100]."),
        ("unknown", "Nobody knows."),
        ("left_out", "Nobody knows."),
    ],
)
def test_the_verdict_chooses(key, sentence):
    assert sentences.by_verdict(claims.compare(PAPER, OURS), {key: TOLD}) == [sentence]


def test_of_what_was_not_run_no_number_is_told():
    told = Told("", "", "It is undecided ({ours}; above 0: more).")
    found = sentences.by_verdict(claims.compare(PAPER, OURS), {"left_out": told})
    assert found == ["It is undecided (not run; above 0: more)."]


def test_in_the_order_in_which_they_are_told():
    found = sentences.by_verdict(claims.compare(PAPER, OURS), {"less": TOLD, "more": TOLD})
    assert [one[:10] for one in found] == ["It is less", "It is more"]


def test_braces_that_stand_for_nothing_stay():
    told = Told(r"$\frac{1}{2}$ {ours}", "", "")
    assert sentences.by_verdict(claims.compare(PAPER, OURS), {"more": told})[0].startswith(
        r"$\frac{1}{2}$ +0.2"
    )


def test_an_unknown_claim_is_named():
    with pytest.raises(ValueError, match="no claim lesss; the table has more, less"):
        sentences.by_verdict(claims.compare(PAPER, OURS), {"lesss": TOLD})
