"""Dots, bars and grids show the numbers they were given, each beside its name."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

from mialib import figures
from mialib.figures import style
from mialib.measures import Estimate, metrics
from tests.figures.test_results import legend, line

GENERATOR = np.random.default_rng(0)
SETTINGS = [
    "original",
    *(
        f"{name} {level}"
        for name in ("l1_unstructured", "l1_filter", "slimming")
        for level in (0.5, 0.7, 0.9)
    ),
]


def mismatch(names=SETTINGS):
    """AUC of an attacker who is better the more he knows; one cell is missing."""
    values = 0.6 + 0.2 * np.eye(len(names)) + 0.004 * np.arange(len(names))
    values[0, 1] = np.nan
    return pd.DataFrame(values, names, names)


def arms(count=16):
    """Accuracy and AUC of some arms with long names over five targets; the last has only one target."""
    names = [f"{index:02} ADMM + adversary + entropy" for index in range(count)]
    accuracy = {name: 0.7 + 0.01 * index + 0.01 * np.arange(5) for index, name in enumerate(names)}
    accuracy[names[-1]] = accuracy[names[-1]][:1]
    return {"test accuracy": accuracy, "AUC left": {name: Estimate(0.6, 0.55, 0.65) for name in names}}


def gaps():
    return {name: GENERATOR.normal(size=30) for name in ("original", "control", "pruned")}


DRAWINGS = {
    "per_class": lambda: figures.class_dots({"confidence gap": gaps(), "sensitivity gap": gaps()}),
    "heatmap": lambda: figures.heatmap(mismatch(), "AUC", "SAMIA on digits"),
    "dots": lambda: figures.dots(arms(), {"AUC left": 0.5}),
}


@pytest.mark.parametrize("classes", [10, 30, 100])
def test_classes_are_sorted_by_the_last_models_gap_in_both_panels(classes):
    pruned = GENERATOR.normal(size=classes)
    pruned[3] = np.nan
    confidence = {"original": np.zeros(classes), "pruned": pruned}
    sensitivity = {"original": np.ones(classes), "pruned": -pruned}
    figure = figures.class_dots({"confidence": confidence, "sensitivity": sensitivity}, reference=0.5)
    assert figure.axes[1].get_lines()[0].get_xdata() == [0.5, 0.5]
    order = [int(text.get_text()) for text in figure.axes[0].get_yticklabels()]
    assert order[0] == 3 and (np.diff(pruned[order[1:]]) >= 0).all()
    np.testing.assert_array_equal(line(figure.axes[1], "pruned").get_xdata(), -pruned[order])


def test_heatmap_writes_each_cell_and_outlines_the_attacker_who_knows():
    table = mismatch().iloc[:3, [1, 0]]
    figure = figures.heatmap(table, "AUC", "SAMIA")
    axes, bar = figure.axes
    written = {text.get_position(): text.get_text() for text in axes.texts}  # (column, row)
    assert written == {(1, 0): "0.80", (0, 1): "0.80", (1, 1): "0.60", (0, 2): "0.60", (1, 2): "0.60"}
    assert [patch.get_center().round(6).tolist() for patch in axes.patches] == [[1, 0], [0, 1]]
    assert [text.get_text() for text in axes.get_yticklabels()] == SETTINGS[:3]
    assert [text.get_text() for text in axes.get_xticklabels()] == SETTINGS[1::-1]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("target's setting", "what the attacker believes")
    assert (axes.get_title(), bar.get_ylabel()) == ("SAMIA", "AUC")
    assert figures.heatmap(table.iloc[2:], "AUC").legends == []  # no name in common
    with pytest.raises(ValueError, match=r"table \(3 x 2\) holds no number"):
        figures.heatmap(table * np.nan, "AUC")


def test_heatmap_reads_in_grey():
    values = np.linspace(0.5, 1, 100).reshape(10, 10)
    axes = figures.heatmap(pd.DataFrame(values, SETTINGS, SETTINGS), "AUC").axes[0]
    cells = axes.images[0].to_rgba(values)[..., :3].reshape(100, 3)
    ink = np.array([matplotlib.colors.to_rgb(text.get_color()) for text in axes.texts])
    light, dark = np.sort([((cells**2.2) @ style.LUMINANCE, (ink**2.2) @ style.LUMINANCE)], axis=1)[0][::-1]
    assert ((light + 0.05) / (dark + 0.05)).min() > 4  # contrast of text and cell, as in WCAG 2
    assert (np.diff(cells @ style.LUMINANCE) > 0).all()


@pytest.mark.parametrize("size", [10, 2])
def test_long_names_are_not_cut_off(size):
    names = [f"{name} with adversarial_regularization" for name in SETTINGS]
    figure = figures.heatmap(mismatch(names).iloc[:size, :size], "AUC")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label):
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0 and box.y1 <= figure.bbox.y1, text.get_text()
    cell = axes.transData.transform([(0, 0), (1, 1)])
    assert np.ptp(cell[:, 0]) > axes.texts[0].get_window_extent().width


def bars(axes):
    """Low, mean and high of each dot with its interval, from the top; nan where there is no dot."""
    made = []
    for dot, _, (interval,) in axes.containers:
        drawn = interval.get_segments()
        low, high = drawn[0][:, 0] if np.size(drawn) else (np.nan, np.nan)
        made.append([low, *dot.get_xdata(), high])
    return np.array(made)


def test_dots_show_mean_interval_and_targets_in_the_given_order():
    panels = arms(4)
    figure = figures.dots(panels, {"AUC left": 0.5})
    accuracy, auc = figure.axes
    names = list(panels["AUC left"])
    assert [text.get_text() for text in accuracy.get_yticklabels()] == names
    assert accuracy.get_ylim()[0] > accuracy.get_ylim()[1]  # the first on top
    assert [axes.get_xlabel() for axes in figure.axes] == list(panels)
    assert legend(figure) == ["one target", "mean and 95% interval", "guessing"]
    value, low, high = metrics.over_targets(panels["test accuracy"][names[1]])
    np.testing.assert_allclose(bars(accuracy)[1], [low, value, high])
    np.testing.assert_allclose(bars(auc), [[0.55, 0.6, 0.65]] * 4)
    np.testing.assert_allclose(bars(accuracy)[3], 0.73)  # one target has no interval
    single = [item.get_xdata() for item in accuracy.get_lines() if item.get_label() == "one target"]
    np.testing.assert_array_equal(single, list(panels["test accuracy"].values())[:3])
    assert line(auc, "guessing").get_xdata() == [0.5, 0.5]
    assert accuracy.get_xlim()[0] > 0.6  # guide lines and references of other panels do not stretch it


def test_dots_fill_the_emphasised_only():
    panels = arms(3)
    names = list(panels["AUC left"])
    filled = [[item[0].get_markerfacecolor() for item in figures.dots(panels).axes[0].containers]]
    for axes in figures.dots(panels, emphasis=names[1:2]).axes:
        filled.append([item[0].get_markerfacecolor() for item in axes.containers])
    assert filled == [[style.DARK] * 3] + [["white", style.DARK, "white"]] * 2


def test_dots_leave_out_what_is_missing():
    panels = {
        "accuracy": {"a": [0.7, np.nan, 0.8], "b": Estimate(1.0, 0.9, 1 - 1e-12)},  # rounded below the value
        "AUC": {"c": Estimate(0.6), "b": Estimate(np.nan)},
    }
    figure = figures.dots(panels)
    figure.draw_without_rendering()
    first, second = figure.axes
    assert [text.get_text() for text in first.get_yticklabels()] == ["a", "b", "c"]
    assert [item[0].get_ydata()[0] for item in second.containers] == [2, 1]
    assert np.isnan(bars(first)[0]).all() and np.isnan(bars(second)[1]).all()
    np.testing.assert_allclose(bars(first)[1], [0.9, 1, 1])
    assert 0.6 < first.get_xlim()[0] and second.get_xlim()[0] > 0.4


@pytest.mark.parametrize(
    "panels, options, message",
    [
        ({}, {}, "panels is empty"),
        ({"AUC": {}}, {}, "panels is empty"),
        (
            {"AUC": {"a": [0.5]}},
            {"references": {"accuracy": 0.5}},
            "references names .'accuracy'.; there are .'AUC'",
        ),
        ({"AUC": {"a": [0.5]}}, {"emphasis": ["b"]}, "emphasis names .'b'.; there are .'a'"),
        ({"AUC": {"a": [[0.5]]}}, {}, r"panels.'AUC'..'a'. has shape \(1, 1\)"),
    ],
)
def test_dots_name_what_is_wrong(panels, options, message):
    with pytest.raises(ValueError, match=message):
        figures.dots(panels, **options)


@pytest.mark.parametrize("count, references", [(2, None), (16, {"AUC left": 0.5})])
def test_long_setting_names_fit_beside_the_dots(count, references):
    figure = figures.dots(arms(count), references)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].get_yticklabels()]
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.y1 <= figure.bbox.y1 for box in boxes)
    assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:], strict=False))
    assert figure.axes[0].get_position().width * figure.get_figwidth() > 1.5  # inches
