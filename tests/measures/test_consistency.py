"""Rates behind published changes, found again from rates that are known."""

import pytest

from mialib.measures import consistency
from mialib.measures.consistency import Rates


def test_accuracy_and_f1_by_hand():
    # of 10 members 8 are found, of 10 others 2 are accused: precision and recall are 0.8
    assert Rates.of(0.2, 0.8) == pytest.approx((0.2, 0.8, 0.8, 0.8))


@pytest.mark.parametrize(
    "rates",
    [
        ((0.1, 0.5), (0.05, 0.2)),
        ((0.3, 0.4), (0.2, 0.9)),
        ((0.25, 0.5), (0.5, 1.0)),
        ((0.5, 1.0), (0.25, 0.5)),
    ],
)
def test_the_rates_that_were_changed_are_found_again(rates):
    before, after = (Rates.of(*one) for one in rates)
    changes = (after.accuracy - before.accuracy, after.tpr - before.tpr, after.f1 - before.f1)
    found = consistency.rates_behind(*changes, before.fpr)
    assert found[0] == pytest.approx(before) and found[1] == pytest.approx(after)


@pytest.mark.parametrize(
    "rates",
    [
        ((0.1, 0.6), (0.2, 1.05)),  # too many found after
        ((0.2, 1.05), (0.1, 0.6)),  # or before
        ((0.1, 0.25), (0.05, -0.05)),  # fewer than none found
        ((0.05, -0.05), (0.1, 0.25)),
    ],
)
def test_rates_that_are_no_shares_are_refused(rates):
    before, after = (Rates.of(*one) for one in rates)
    with pytest.raises(ValueError, match="no rates change so"):
        changes = (after.accuracy - before.accuracy, after.tpr - before.tpr, after.f1 - before.f1)
        consistency.rates_behind(*changes, before.fpr)


def test_changes_that_no_rates_fit_are_refused():
    with pytest.raises(
        ValueError, match=r"accuracy by -0.01, TPR by -0.01 and F1 by -0.9 from an FPR of 0.1"
    ):
        consistency.rates_behind(-0.01, -0.01, -0.9, 0.1)
