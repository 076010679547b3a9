"""Figures are built, labelled and show the numbers they were given."""

import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from mialib import figures
from mialib.figures import style
from mialib.measures import Estimate, metrics
from tests.figures import test_results
from tests.figures.test_results import LUMINANCE, legend, line

GENERATOR = np.random.default_rng(0)
MEMBER = np.arange(400) % 2 == 0
MARGIN = GENERATOR.normal(size=400) + MEMBER
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


def epochs(*lengths):
    """Train and test curves of as many targets; target t is at (epoch + t²) / 10, its test half of it."""
    train = [(np.arange(length) + 1 + target**2) / 10 for target, length in enumerate(lengths)]
    return {"train": train, "test": [curve / 2 for curve in train]}


def residuals():
    """Three models, ten iterations: a layer that shrinks, one that is 0 from the sixth on, and all."""
    shrinking = np.array([[1.0], [2.0], [3.0]]) * 0.8 ** np.arange(10)
    return {"conv1": shrinking, "fc": shrinking * (np.arange(10) < 5), "all": shrinking / 2}


def arms(count=16):
    """Accuracy and AUC of some arms with long names over five targets; the last has only one target."""
    names = [f"{index:02} ADMM + adversary + entropy" for index in range(count)]
    accuracy = {name: 0.7 + 0.01 * index + 0.01 * np.arange(5) for index, name in enumerate(names)}
    accuracy[names[-1]] = accuracy[names[-1]][:1]
    return {"test accuracy": accuracy, "AUC left": {name: Estimate(0.6, 0.55, 0.65) for name in names}}


def drawings():
    gaps = {name: GENERATOR.normal(size=30) for name in ("original", "control", "pruned")}
    confidence = GENERATOR.random(400)
    return {
        "roc": figures.roc({"samia": (MEMBER, MARGIN), "gap": (MEMBER, np.sign(MARGIN))}),
        "histogram": figures.divergence(MEMBER, {"original": confidence, "pruned": confidence**2}),
        "ecdf": figures.divergence(MEMBER, {"original": confidence}, label="sensitivity", kind="ecdf"),
        "per_class": figures.class_dots({"confidence gap": gaps, "sensitivity gap": gaps}),
        "heatmap": figures.heatmap(mismatch(), "AUC", "SAMIA on digits"),
        "learning_curves": figures.learning_curves({name: epochs(3, 5) for name in "abc"}, baseline="b"),
        "convergence": figures.convergence(residuals(), goal=0.1),
        "magnitudes": figures.magnitudes({"before": GENERATOR.normal(size=200), "after": np.eye(9)}, kept=9),
        "grids": figures.grids(GENERATOR.normal(size=200), {"1 bit": np.repeat([-1.0, 1.0], 100)}),
        "dots": figures.dots(arms(), {"AUC left": 0.5}),
        **test_results.drawings(),
    }


def test_every_figure_is_labelled_and_leaves_no_trace(tmp_path):
    before = dict(matplotlib.rcParams)
    for name, figure in drawings().items():
        assert isinstance(figure, Figure), name
        panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
        named = name == "dots"  # its rows bear names, which say what they are
        assert all(axes.get_xlabel() for axes in panels) and (panels[0].get_ylabel() or named), name
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a layout that does not fit warns
            path = figures.save(figure, tmp_path / "figures" / f"{name}.png")
        assert path.read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "figures").iterdir())) == len(drawings())
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


def test_legends_stand_beside_the_axes():
    for name, figure in drawings().items():
        figure.draw_without_rendering()
        box = figure.legends[0].get_window_extent()
        assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes), name
        assert figure.bbox.padded(1).containsx(box.x0) and figure.bbox.padded(1).containsx(box.x1), name


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
    light, dark = np.sort([((cells**2.2) @ LUMINANCE, (ink**2.2) @ LUMINANCE)], axis=1)[0][::-1]
    assert ((light + 0.05) / (dark + 0.05)).min() > 4  # contrast of text and cell, as in WCAG 2
    assert (np.diff(cells @ LUMINANCE) > 0).all()


def test_long_names_are_not_cut_off():
    names = [f"{name} with adversarial_regularization" for name in SETTINGS]
    for figure in (
        figures.heatmap(mismatch(names), "AUC"),
        figures.heatmap(mismatch(names).iloc[:2, :2], "AUC"),
    ):
        figure.draw_without_rendering()
        axes = figure.axes[0]
        for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label):
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0 and box.y1 <= figure.bbox.y1, text.get_text()
        cell = axes.transData.transform([(0, 0), (1, 1)])
        assert np.ptp(cell[:, 0]) > axes.texts[0].get_window_extent().width


def test_learning_curves_average_the_targets_that_reach_an_epoch():
    axes = figures.learning_curves({"ppb": epochs(2, 3, 2)}, label="top-1 accuracy").axes[0]
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("ppb", "epoch", "top-1 accuracy")
    for name, factor, dashes in (("train", 1, "-"), ("test", 0.5, "--")):
        x, y = line(axes, name).get_data()
        assert list(x) == [1, 2, 3]
        np.testing.assert_allclose(y, factor * np.array([0.8 / 3, 1.1 / 3, 0.4]))
        assert line(axes, name).get_linestyle() == dashes
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in band.round(6)} >= {(1, 0.1), (2, 0.2), (1, 0.5), (2, 0.6), (3, 0.4)}
    assert axes.get_xlim() == (1, 3)


def test_learning_curves_show_the_baseline_in_the_other_panels():
    lines = {"none": epochs(4, 4), **{f"defence {index}": epochs(2, 3) for index in range(4)}}
    figure = figures.learning_curves(lines, baseline="none")
    assert [axes.get_title() for axes in figure.axes] == list(lines)
    assert [len(axes.get_lines()) for axes in figure.axes] == [2, 4, 4, 4, 4]
    np.testing.assert_allclose(line(figure.axes[3], "test, none").get_ydata(), [0.075, 0.125, 0.175, 0.225])
    assert legend(figure) == ["train", "test", "train, none", "test, none"]
    assert len({axes.get_ylim() for axes in figure.axes} | {axes.get_xlim() for axes in figure.axes}) == 2
    figure.draw_without_rendering()
    tops = [round(axes.get_position().y1, 3) for axes in figure.axes]
    assert len(set(tops[:4])) == 1 and tops[4] < tops[0]  # four a row
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "epoch", "epoch", "epoch", "epoch"]


def test_learning_curves_name_what_is_wrong():
    for lines, baseline, message in (
        ({}, None, "curves is empty"),
        ({"ppb": epochs(2)}, "none", "baseline is 'none'; the panels are .'ppb'"),
        ({"ppb": {"train": [[0.1]]}}, None, "'ppb'. holds .'train'.; it must hold 'train' and 'test'"),
        (
            {"ppb": {"train": [[0.1]], "test": [0.1, 0.2]}},
            None,
            "'ppb'..'test'. must hold a number for each epoch",
        ),
        ({"ppb": {"train": [], "test": [[0.1]]}}, None, "'ppb'..'train'. must hold a number for each epoch"),
    ):
        with pytest.raises(ValueError, match=message):
            figures.learning_curves(lines, baseline=baseline)


def test_convergence_draws_the_mean_over_models_on_a_log_axis():
    figure = figures.convergence(residuals(), goal=0.1)
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("iteration of ADMM", "||W - Z|| / ||W||")
    assert legend(figure) == ["conv1", "fc", "all", "goal"] and len(axes.get_lines()) == 4
    x, y = line(axes, "conv1").get_data()
    assert list(x) == list(range(1, 11))
    np.testing.assert_allclose(y, 2 * 0.8 ** np.arange(10))
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in band.round(6)} >= {(1, 1), (1, 3), (2, 0.8), (2, 2.4)}
    thick, layers = line(axes, "all"), [line(axes, name) for name in ("conv1", "fc")]
    assert thick.get_color() == "black"
    assert all(thick.get_linewidth() > 1.5 * item.get_linewidth() for item in layers)
    assert all(thick.get_zorder() > item.get_zorder() for item in layers)
    assert line(axes, "goal").get_ydata() == [0.1, 0.1]
    assert len({item.get_linestyle() for item in layers}) == 2


def test_magnitudes_are_sorted_and_zeros_left_out():
    axes = figures.magnitudes({"a": np.array([[-3.0, 0.0], [1.0, 2.0]])}, kept=2).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    x, y = line(axes, "a").get_data()
    assert list(x) == [1, 2, 3] and list(y) == [3, 2, 1]
    assert line(axes, "the 2 that stay").get_xdata() == [2, 2]
    with pytest.raises(ValueError, match="weights is empty"):
        figures.magnitudes({}, kept=2)


def test_grids_draw_a_bar_for_each_value_that_is_left():
    before = np.array([-1.0, -0.4, 0.4, 0.6, 1.0, 1.0])
    panels = figures.grids(before, {"a": np.array([-1.0, 0, 0, 1, 1, 1]), "b": np.ones(6)}).axes
    assert [axes.get_title() for axes in panels] == ["a: 3 values", "b: 1 values"]
    bars = next(item for item in panels[0].collections if item.get_label() == "after").get_segments()
    assert [tuple(bar[1]) for bar in bars] == [(-1, pytest.approx(1 / 3)), (0, pytest.approx(2 / 3)), (1, 1)]


def test_convergence_keeps_zeros_and_gaps_on_the_picture():
    lines = residuals()
    lines["conv1"][1, 4] = np.nan
    axes = figures.convergence(lines).axes[0]
    bottom, _ = axes.get_ylim()
    drawn = line(axes, "fc").get_ydata()
    assert 0 < bottom < drawn[5] == drawn[9] < min(array[array > 0].min() for array in lines.values())
    assert [(text.get_text(), text.get_position()[1]) for text in axes.texts] == [("0", drawn[5])]
    assert np.isnan(line(axes, "conv1").get_ydata()).tolist() == [False] * 4 + [True] + [False] * 5
    assert not figures.convergence({"all": lines["all"]}).axes[0].texts
    nothing = figures.convergence({"all": np.zeros((2, 3))})
    nothing.draw_without_rendering()
    assert np.isfinite(nothing.axes[0].get_ylim()).all()


def test_convergence_names_what_is_wrong():
    for lines, goal, message in (
        ({}, None, "curves is empty"),
        ({"fc": [0.1, 0.2]}, None, r"curves.'fc'., \(2,\), must be \(models, iterations\)"),
        ({"fc": np.empty((0, 3))}, None, r"curves.'fc'., \(0, 3\)"),
        ({"fc": [[0.1, -0.2]]}, None, "none below 0"),
        ({"fc": [[0.1]]}, 0, "goal is 0; a log axis needs one above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            figures.convergence(lines, goal=goal)


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


def test_dots_name_what_is_wrong():
    for panels, options, message in (
        ({}, {}, "panels is empty"),
        ({"AUC": {}}, {}, "panels is empty"),
        (
            {"AUC": {"a": [0.5]}},
            {"references": {"accuracy": 0.5}},
            "references names .'accuracy'.; there are .'AUC'",
        ),
        ({"AUC": {"a": [0.5]}}, {"emphasis": ["b"]}, "emphasis names .'b'.; there are .'a'"),
        ({"AUC": {"a": [[0.5]]}}, {}, r"panels.'AUC'..'a'. has shape \(1, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            figures.dots(panels, **options)


def test_long_setting_names_fit_beside_the_dots():
    for figure in (figures.dots(arms(2)), figures.dots(arms(), {"AUC left": 0.5})):
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in figure.axes[0].get_yticklabels()]
        assert all(box.x0 >= 0 and box.y0 >= 0 and box.y1 <= figure.bbox.y1 for box in boxes)
        assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:], strict=False))
        assert figure.axes[0].get_position().width * figure.get_figwidth() > 1.5  # inches


def test_save_wants_a_png(tmp_path):
    with pytest.raises(ValueError, match="must end in .png"):
        figures.save(Figure(), tmp_path / "a.pdf")
