"""Dots, bars and grids show the numbers they were given, each beside its name."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

from mialib import figures
from mialib.figures import style
from mialib.measures import Estimate, metrics
from mialib.reporting.vocabulary import in_words
from tests.figures.test_results import legend, line, marks

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


def test_classes_are_sorted_by_the_last_models_gap_in_both_panels():
    pruned = GENERATOR.normal(size=10)
    pruned[3] = np.nan
    confidence = {"original": np.zeros(10), "l1_filter 0.5": pruned}
    sensitivity = {"original": np.ones(10), "l1_filter 0.5": -pruned}
    figure = figures.class_dots({"confidence": confidence, "sensitivity": sensitivity}, reference=0.5)
    first, second = figure.axes
    assert [item.get_xdata() for item in second.get_lines()] == [[0.5, 0.5]]
    order = [int(text.get_text().removeprefix("class ")) for text in first.get_yticklabels()]
    assert order[-1] == 3 and (np.diff(pruned[order[:-1]]) <= 0).all()
    values = np.concatenate([np.ma.getdata(item.get_offsets())[:, 0] for item in second.collections[1:]])
    assert {*(-pruned[order[:-1]]).round(6), 1.0} <= {*values.round(6)}
    assert first.get_xlim() == second.get_xlim() and legend(figure) == ["original", "filter pruning (L1) 0.5"]


def test_of_many_classes_five_at_each_end_are_named_and_the_others_averaged():
    values = GENERATOR.permutation(np.arange(100.0))
    axes = figures.class_dots(
        {"gap": {"pruned": values}}, names=[f"bird {value:g}" for value in values]
    ).axes[0]
    top, bottom = ([f"bird {value}" for value in range(*ends)] for ends in ((99, 94, -1), (4, -1, -1)))
    written = [text.get_text() for text in axes.get_yticklabels()]
    assert written == [*top, "90 between, mean", *bottom]
    assert marks(axes)[:, 0].tolist() == [99, 98, 97, 96, 95, 49.5, 4, 3, 2, 1, 0]


def test_heatmap_writes_each_cell_and_outlines_the_attacker_who_knows():
    table = mismatch().iloc[:3, [1, 0]]
    figure = figures.heatmap(table, "AUC", "SAMIA")
    axes, bar = figure.axes
    written = {text.get_position(): text.get_text() for text in axes.texts}  # (column, row)
    assert written == {
        (column + 0.5, row + 0.5): text
        for (column, row), text in {
            (1, 0): "0.80",
            (0, 1): "0.80",
            (1, 1): "0.60",
            (0, 2): "0.60",
            (1, 2): "0.60",
        }.items()
    }
    assert [patch.get_center().round(6).tolist() for patch in axes.patches] == [[1.5, 0.5], [0.5, 1.5]]
    assert [text.get_text() for text in axes.get_yticklabels()] == [in_words(name) for name in SETTINGS[:3]]
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        in_words(name) for name in SETTINGS[1::-1]
    ]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("target's setting", "what the attacker believes")
    assert (axes.get_title(), bar.get_ylabel()) == ("SAMIA", "AUC")
    assert figures.heatmap(table.iloc[2:], "AUC").legends == []  # no name in common
    with pytest.raises(ValueError, match=r"table \(3 x 2\) holds no number"):
        figures.heatmap(table * np.nan, "AUC")


def test_heatmap_reads_in_grey():
    values = np.linspace(0.5, 1, 100).reshape(10, 10)
    axes = figures.heatmap(pd.DataFrame(values, SETTINGS, SETTINGS), "AUC").axes[0]
    cells = axes.collections[0].get_facecolors()[:, :3]
    ink = np.array([matplotlib.colors.to_rgb(text.get_color()) for text in axes.texts])
    light, dark = np.sort([((cells**2.2) @ style.LUMINANCE, (ink**2.2) @ style.LUMINANCE)], axis=1)[0][::-1]
    assert ((light + 0.05) / (dark + 0.05)).min() > 3.5  # contrast of text and cell, as in WCAG 2
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


def intervals(axes):
    """Low, high and row of each interval that is drawn."""
    drawn = [segment for segment in axes.collections[0].get_segments() if np.isfinite(segment).all()]
    return [[*segment[:, 0], segment[0, 1]] for segment in drawn]


def means(axes):
    """Places of the dots of means; the last marks are those of single targets, where there are any."""
    (own,) = [item for item in axes.collections[1:3] if (item.get_facecolor()[:, :3] != 1).any()] or [None]
    return np.ma.getdata(own.get_offsets())


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
    np.testing.assert_allclose(means(accuracy)[1], [value, 1])
    np.testing.assert_allclose(intervals(accuracy)[1], [low, high, 1])
    np.testing.assert_allclose(intervals(auc), [[0.55, 0.65, row] for row in range(4)])
    assert len(intervals(accuracy)) == 3  # one target has no interval
    single = np.concatenate(list(panels["test accuracy"].values())[:3])
    np.testing.assert_allclose(marks(accuracy)[:, 0], single)
    assert line(auc, "guessing").get_xdata() == [0.5, 0.5]
    assert accuracy.get_xlim()[0] > 0.6  # references of other panels do not stretch it


def test_dots_fill_the_emphasised_only():
    panels = {"AUC": {name: Estimate(0.6, 0.5, 0.7) for name in "abc"}}
    filled = [
        figures.dots(panels, emphasis=names).axes[0].collections[2].get_facecolor()[:, 3].tolist()
        for names in ([], ["b"])
    ]
    assert filled == [[1, 1, 1], [0, 1, 0]]


def test_dots_leave_out_what_is_missing():
    panels = {
        "accuracy": {"a": [0.7, np.nan, 0.8], "b": Estimate(1.0, 0.9, 1)},
        "AUC": {"c": Estimate(0.6), "b": Estimate(np.nan)},
    }
    figure = figures.dots(panels)
    figure.draw_without_rendering()
    first, second = figure.axes
    assert [text.get_text() for text in first.get_yticklabels()] == ["a", "b", "c"]
    assert intervals(first) == [[0.9, 1, 1]] and intervals(second) == []
    assert 0.6 < first.get_xlim()[0] and second.get_xlim()[0] > 0.4


def test_panels_of_one_quantity_have_the_same_limits():
    panels = {
        title: {"a": Estimate(value, value - 0.1, value + 0.1)}
        for title, value in (("AUC: x", 0.5), ("AUC: y", 0.8), ("TPR", 0.3))
    }
    first, second, third = (axes.get_xlim() for axes in figures.dots(panels).axes)
    assert first == second != third and first[0] < 0.41 and first[1] > 0.89 and third[1] < 0.5


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
