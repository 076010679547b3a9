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
    drawn = line(axes, f"SAMIA (AUC {metrics.auc(MEMBER, MARGIN).value:.2f})").get_data()
    fpr, tpr = metrics.roc(MEMBER, MARGIN)
    np.testing.assert_array_equal(drawn, [fpr[tpr > 0], tpr[tpr > 0]])


def test_a_bare_decision_is_a_mark_inside_the_axes():
    decided = np.where(MARGIN > 0, 1.0, -1.0)
    axes = figures.roc({"gap": (MEMBER, decided), "constant": (MEMBER, 0 * decided)}).axes[0]
    _, point, nothing = axes.get_lines()
    rates = [[np.mean(MARGIN[MEMBER == group] > 0)] for group in (0, 1)]
    np.testing.assert_allclose(point.get_data(), rates)
    assert point.get_linestyle() == "None" and point.get_marker() == "o" and nothing.get_xdata().size == 0
    axes.figure.draw_without_rendering()
    assert axes.get_window_extent().width > 0.6 * axes.figure.bbox.width


def test_targets_given_as_lists_are_pooled():
    halves = np.array_split(MEMBER, 2), np.array_split(MARGIN, 2)
    pooled, whole = (figures.roc({"a": curve}).axes[0].get_lines()[1] for curve in (halves, (MEMBER, MARGIN)))
    np.testing.assert_array_equal(pooled.get_data(), whole.get_data())


def test_divergence_shows_shares_and_means():
    member = np.array([1, 1, 0, 0])
    figure = figures.divergence(
        member, {"original": np.array([1.0, 0.9, 0.0, 0.5]), "pruned": np.ones(4)}, bins=10
    )
    members, others = (item.get_paths()[0].vertices[:, 1].max() for item in figure.axes[0].collections)
    assert (members, others) == (1.0, 0.5)  # both members in the last tenth
    assert figure.axes[0].get_title() == "original\nmean: members 0.95,\nnon-members 0.25"
    assert legend(figure) == ["members", "non-members"]
    with pytest.raises(ValueError, match="kind is 'violin'"):
        figures.divergence(member, {"a": np.ones(4)}, kind="violin")
