"""Pictures of training show the curves, residuals and weights they were given."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from mialib import figures
from tests.figures.test_results import legend, line


def epochs(*lengths):
    """Train and test curves of as many targets; target t is at (epoch + t²) / 10, its test half of it."""
    train = [(np.arange(length) + 1 + target**2) / 10 for target, length in enumerate(lengths)]
    return {"train": train, "test": [curve / 2 for curve in train]}


def residuals():
    """Three models, ten iterations: a layer that shrinks, one that is 0 from the sixth on, and all."""
    shrinking = np.array([[1.0], [2.0], [3.0]]) * 0.8 ** np.arange(10)
    return {"conv1": shrinking, "fc": shrinking * (np.arange(10) < 5), "all": shrinking / 2}


DRAWINGS = {
    "learning_curves": lambda: figures.learning_curves({name: epochs(3, 5) for name in "abc"}, baseline="b"),
    "convergence": lambda: figures.convergence(residuals(), goal=0.1),
    "magnitudes": lambda: figures.magnitudes({"before": np.linspace(-1, 2, 200), "after": np.eye(9)}, kept=9),
    "grids": lambda: figures.grids(np.linspace(-1, 2, 200), {"1 bit": np.repeat([-1.0, 1.0], 100)}),
}


def test_learning_curves_average_the_targets_that_reach_an_epoch():
    axes = figures.learning_curves({"ppb": epochs(2, 3, 2)}, label="top-1 accuracy").axes[0]
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("PPB", "epoch", "top-1 accuracy")
    for name, factor, dashes in (("train", 1, "-"), ("test", 0.5, "--")):
        x, y = line(axes, name).get_data()
        assert list(x) == [1, 2, 3], name
        np.testing.assert_allclose(y, factor * np.array([0.8 / 3, 1.1 / 3, 0.4]))
        assert bool(line(axes, name)._unscaled_dash_pattern[1]) == (dashes == "--"), name
    band = axes.patches[0].get_xy()
    assert {tuple(corner) for corner in band.round(6)} >= {(1, 0.1), (2, 0.2), (1, 0.5), (2, 0.6), (3, 0.4)}
    assert axes.get_xlim() == (1, 3)


def test_learning_curves_show_the_baseline_in_the_other_panels():
    lines = {"none": epochs(4, 4), **{f"defence {index}": epochs(2, 3) for index in range(4)}}
    figure = figures.learning_curves(lines, baseline="none")
    assert [axes.get_title() for axes in figure.axes] == ["no defence", *list(lines)[1:]]
    assert [len([item for item in axes.get_lines() if len(item.get_xdata())]) for axes in figure.axes] == [
        2,
        4,
        4,
        4,
        4,
    ]
    np.testing.assert_allclose(
        line(figure.axes[3], "test, no defence").get_ydata(), [0.075, 0.125, 0.175, 0.225]
    )
    assert legend(figure) == ["train", "test", "train, no defence", "test, no defence"]
    assert len({axes.get_ylim() for axes in figure.axes} | {axes.get_xlim() for axes in figure.axes}) == 2
    figure.draw_without_rendering()
    tops = [round(axes.get_position().y1, 3) for axes in figure.axes]
    assert len(set(tops[:4])) == 1 and tops[4] < tops[0]  # four a row
    named = [axes.xaxis.label.get_visible() and axes.get_xlabel() == "epoch" for axes in figure.axes]
    assert named == [False, True, True, True, True]  # the first has another below it


def test_convergence_draws_the_mean_over_models_on_a_log_axis():
    figure = figures.convergence(residuals(), goal=0.1)
    axes = figure.axes[0]
    assert axes.get_yscale() == "log" != axes.get_xscale()
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "iteration of ADMM",
        "residual, relative to the weights",
    )
    assert legend(figure) == ["conv1", "fc", "all", "goal"]
    x, y = line(axes, "conv1").get_data()
    assert list(x) == list(range(1, 11))
    np.testing.assert_allclose(y, 2 * 0.8 ** np.arange(10))
    band = axes.patches[0].get_xy()
    assert {tuple(corner) for corner in band.round(6)} >= {(1, 1), (1, 3), (2, 0.8), (2, 2.4)}
    thick, layers = line(axes, "all"), [line(axes, name) for name in ("conv1", "fc")]
    assert to_hex(thick.get_color()) == "#000000"
    assert all(thick.get_linewidth() > 1.5 * item.get_linewidth() for item in layers)
    assert axes.get_lines().index(thick) > max(map(axes.get_lines().index, layers))
    assert line(axes, "goal").get_ydata() == [0.1, 0.1]
    assert len({str(item._unscaled_dash_pattern) for item in layers}) == 2


def test_of_many_layers_the_ends_are_named_and_the_others_grey():
    layers = {f"features.{place}.weight": np.full((2, 3), 1 / (place + 1)) for place in range(50)}
    figure = figures.convergence(layers | {"all": np.full((2, 3), 0.1)})
    named = ["layer 1", "layer 2", "layer 49", "layer 50", "all", "the 46 other layers"]
    assert sorted(legend(figure)) == sorted(named)
    assert "of 50 layers" in figure.alt and "Highest 1 (layer 1), lowest 0.02 (layer 50)" in figure.alt


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


def test_magnitudes_are_sorted_and_zeros_left_out():
    axes = figures.magnitudes({"a": np.array([[-3.0, 0.0], [1.0, 2.0]])}, kept=2).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    pieces = [item.get_xydata().tolist() for item in axes.get_lines()[:2]]
    assert pieces == [[[1, 3], [2, 2]], [[3, 1]]]  # broken where pruning cuts
    assert line(axes, "left of it: the 2 kept").get_xdata() == [2, 2]
    with pytest.raises(ValueError, match="weights is empty"):
        figures.magnitudes({}, kept=2)


def test_grids_draw_a_bar_for_each_value_that_is_left():
    before = np.array([-1.0, -0.4, 0.4, 0.6, 1.0, 1.0])
    panels = figures.grids(before, {"a": np.array([-1.0, 0, 0, 1, 1, 1]), "b": np.ones(6)}).axes
    assert [axes.get_title() for axes in panels] == ["a: 3 values", "b: 1 values"]
    bars = panels[0].collections[0].get_segments()
    assert [tuple(bar[1]) for bar in bars] == [(-1, pytest.approx(1 / 3)), (0, pytest.approx(2 / 3)), (1, 1)]


@pytest.mark.parametrize(
    "curves, baseline, message",
    [
        ({}, None, "curves is empty"),
        ({"ppb": epochs(2)}, "none", "baseline is 'none'; the panels are .'ppb'"),
        ({"ppb": {"train": [[0.1]]}}, None, "'ppb'. holds .'train'.; it must hold 'train' and 'test'"),
        (
            {"ppb": {"train": [[0.1]], "test": [0.1, 0.2]}},
            None,
            "'ppb'..'test'. must hold a number for each epoch",
        ),
        ({"ppb": {"train": [], "test": [[0.1]]}}, None, "'ppb'..'train'. must hold a number for each epoch"),
    ],
)
def test_learning_curves_name_what_is_wrong(curves, baseline, message):
    with pytest.raises(ValueError, match=message):
        figures.learning_curves(curves, baseline=baseline)


@pytest.mark.parametrize(
    "curves, goal, message",
    [
        ({}, None, "curves is empty"),
        ({"fc": [0.1, 0.2]}, None, r"curves.'fc'., \(2,\), must be \(models, iterations\)"),
        ({"fc": np.empty((0, 3))}, None, r"curves.'fc'., \(0, 3\)"),
        ({"fc": [[0.1, -0.2]]}, None, "none below 0"),
        ({"fc": [[0.1]]}, 0, "goal is 0; a log axis needs one above 0"),
    ],
)
def test_convergence_names_what_is_wrong(curves, goal, message):
    with pytest.raises(ValueError, match=message):
        figures.convergence(curves, goal=goal)
