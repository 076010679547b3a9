"""Curves and histograms show the numbers they were given."""

import numpy as np
import pytest

from mialib import figures
from mialib.measures import metrics
from tests.figures.test_results import legend, line

GENERATOR = np.random.default_rng(0)
MEMBER = np.arange(400) % 2 == 0
MARGIN = GENERATOR.normal(size=400) + MEMBER
CONFIDENCE = GENERATOR.random(400)
DRAWINGS = {
    "roc": lambda: figures.roc({"samia": (MEMBER, MARGIN), "gap": (MEMBER, np.sign(MARGIN))}),
    "histogram": lambda: figures.divergence(MEMBER, {"original": CONFIDENCE, "pruned": CONFIDENCE**2}),
    "ecdf": lambda: figures.divergence(MEMBER, {"original": CONFIDENCE}, label="sensitivity", kind="ecdf"),
}


def test_roc_is_log_log_down_to_the_resolution_with_a_chance_line():
    axes = figures.roc({"samia": (MEMBER, MARGIN)}).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("false-positive rate", "true-positive rate")
    assert axes.get_xlim() == axes.get_ylim() == pytest.approx((1 / 200, 1))
    np.testing.assert_array_equal(*line(axes, "chance").get_data())
    drawn = line(axes, f"samia (AUC {metrics.auc(MEMBER, MARGIN).value:.2f})").get_data()
    np.testing.assert_array_equal(drawn, metrics.roc(MEMBER, MARGIN))


def test_targets_given_as_lists_are_pooled():
    halves = np.array_split(MEMBER, 2), np.array_split(MARGIN, 2)
    pooled, whole = (figures.roc({"a": curve}).axes[0].get_lines()[1] for curve in (halves, (MEMBER, MARGIN)))
    np.testing.assert_array_equal(pooled.get_data(), whole.get_data())


def test_divergence_shows_shares_and_means():
    member = np.array([1, 1, 0, 0])
    figure = figures.divergence(
        member, {"original": np.array([1.0, 0.9, 0.0, 0.5]), "pruned": np.ones(4)}, bins=10
    )
    shares = figure.axes[0].patches[0].get_data().values
    assert shares.sum() == 1.0 and shares[-1] == 1.0  # both members in the last tenth
    assert figure.axes[0].get_title() == "original\nmean: members 0.950, non-members 0.250"
    assert legend(figure) == ["members", "non-members"]
    with pytest.raises(ValueError, match="kind is 'violin'"):
        figures.divergence(member, {"a": np.ones(4)}, kind="violin")
