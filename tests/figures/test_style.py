"""What all pictures have in common: labels, legends beside the axes, colours that differ in grey, one way to save."""

import tracemalloc
import warnings
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from mialib import figures
from mialib.figures import style
from tests.figures import test_comparisons, test_results, test_roc_and_histograms, test_training_curves
from tests.figures.test_results import label_boxes, legend

DRAWINGS = (
    test_comparisons.DRAWINGS
    | test_results.DRAWINGS
    | test_roc_and_histograms.DRAWINGS
    | test_training_curves.DRAWINGS
)


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_labelled_and_leaves_no_trace(name, tmp_path):
    before = dict(matplotlib.rcParams)
    figure = DRAWINGS[name]()
    assert isinstance(figure, Figure)
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    named = name == "dots"  # its rows bear names, which say what they are
    assert all(axes.get_xlabel() for axes in panels) and (panels[0].get_ylabel() or named)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that does not fit warns
        path = figures.save(figure, tmp_path / "figures" / f"{name}.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in (tmp_path / "figures").iterdir()] == [f"{name}.png"]
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("name", DRAWINGS)
def test_legends_stand_beside_the_axes(name):
    figure = DRAWINGS[name]()
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes)
    assert figure.bbox.padded(1).containsx(box.x0) and figure.bbox.padded(1).containsx(box.x1)


@pytest.mark.parametrize("count", [2, 3, 6, 8, 9, 12, 13])
def test_series_differ_in_luminance_and_from_their_neighbours_in_line_and_marker(count):
    looks = style.series(count)
    rgb = np.array([matplotlib.colors.to_rgb(look["color"]) for look in looks])
    assert len(rgb) == count
    assert np.diff(np.sort(rgb @ style.LUMINANCE)).min() > 0.5 / count / 2
    for one, next_ in pairwise(looks):
        assert one["linestyle"] != next_["linestyle"] and one["marker"] != next_["marker"]


@pytest.mark.parametrize("color", ["white", "black", "#777777", "yellow", *style.COLOURS])
def test_the_ink_is_the_one_of_more_contrast(color):
    rgb = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    contrast = {"white": 1.05 / (linear + 0.05), "black": (linear + 0.05) / 0.05}  # as in WCAG 2
    assert style.ink(color) == max(contrast, key=contrast.get)


def test_the_legend_names_a_label_once_however_many_axes_bear_it():
    picture, panels = style.figure(4, 2, columns=2)
    for axes, names in zip(panels, (["a", "b"], ["b", "c"]), strict=True):
        for name in names:
            axes.plot([0, 1], [0, 1], label=name)
    assert legend(style.with_legend(picture, below=True)) == ["a", "b", "c"]
    assert len(picture.legends) == 1


def test_labels_give_way_to_each_other_and_to_the_axes_edges():
    with style.theme():
        picture, axes = style.figure(3, 3)
        points = np.array([[0.5, 0.5], [0.51, 0.5], [0.5, 0.51], [0.0, 0.0], [1.0, 1.0]])
        axes.plot(*points.T, "o", linestyle="none")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        style.label_points(axes, points, list("abcde"), [style.DARK] * 5)
        picture.draw_without_rendering()
    boxes = label_boxes(axes)
    assert [text.get_text() for text in axes.texts] == list("abcde")
    assert [text.xy for text in axes.texts] == [pytest.approx(point) for point in points]
    assert not any(a.overlaps(b) for index, a in enumerate(boxes) for b in boxes[:index])
    assert all(axes.bbox.containsx(x) and axes.bbox.containsy(y) for box in boxes for x, y in box.corners())


def labelled(reach, scale="linear", limits=(0.5, 1.5)):
    """Two points on axes of these limits, the first with an interval that reaches so far down."""
    picture, axes = style.figure(3, 3)
    axes.errorbar([0.9, 1.0], [0.5, 0.6], xerr=[[reach, 0.01], [0.1, 0.01]], fmt="none")
    axes.plot([0.9, 1.0], [0.5, 0.6], "o", linestyle="none")
    axes.set_xscale(scale)
    axes.set_xlim(limits)
    style.label_points(axes, [(0.9, 0.5), (1.0, 0.6)], ["1", "2"], [style.DARK] * 2)
    return [(text.get_text(), *text.get_position()) for text in axes.texts]


@pytest.mark.parametrize(
    ("reach", "scale", "limits"),
    [(1e6, "linear", (0.5, 1.5)), (1e300, "linear", (0.5, 1.5)), (7e5, "log", (0.88, 1.05))],
)
def test_an_interval_out_of_sight_takes_no_memory_and_places_labels_as_at_the_edge(reach, scale, limits):
    tracemalloc.start()
    try:
        places = labelled(reach, scale, limits)
        assert tracemalloc.get_traced_memory()[1] < 2**25  # a bar that is seen whole: a few megabytes
    finally:
        tracemalloc.stop()
    assert places == labelled(0.9 - limits[0] + 1e-3, scale, limits)


def test_a_line_counts_as_far_as_it_is_seen():
    low, high = np.array([0.0, 0.0]), np.array([30.0, 30.0])
    inside = np.array([[3.0, 3.0], [3.0, 27.0], [27.0, 27.0]])
    assert len(style._along(inside, low, high)) == 2 + 48 // 3  # one line, as it was drawn
    across = style._along(np.array([[-1e9, 15.0], [1e9, 15.0]]), low, high)
    assert across[[0, -1]].round(3).tolist() == [[0, 15], [30, 15]] and len(across) in (11, 12)
    corner = style._along(np.array([[-10.0, 20.0], [20.0, -10.0], [20.0, 50.0]]), low, high)
    assert ((corner >= low - 1e-9) & (corner <= high + 1e-9)).all()
    assert corner[0].tolist() == pytest.approx([0, 10]) and corner[-1].tolist() == pytest.approx([20, 30])
    for nothing in (
        [[-5.0, 40.0], [40.0, 40.0]],
        [[np.nan, 5.0], [9.0, 5.0]],
        [[-np.inf, 99.0], [5.0, 99.0]],
    ):
        assert style._along(np.array(nothing), low, high).shape == (0, 2)
    endless = style._along(np.array([[-np.inf, 15.0], [15.0, 15.0]]), low, high)
    assert endless[[0, -1]].round(3).tolist() == [[0, 15], [15, 15]]


def test_a_theme_lasts_as_long_as_its_figure():
    before = dict(matplotlib.rcParams)

    @style.theme()
    def size():
        return matplotlib.rcParams["font.size"], matplotlib.rcParams["axes.spines.top"]

    assert size() == (9, False) and dict(matplotlib.rcParams) == before


def test_save_wants_a_png(tmp_path):
    with pytest.raises(ValueError, match="must end in .png"):
        figures.save(Figure(), tmp_path / "a.pdf")


def test_save_all_names_each_picture(tmp_path):
    pictures = {"roc": Figure(), "sweep": Figure()}
    figures.save_all(pictures, tmp_path / "figures")
    figures.save_all({}, tmp_path / "none")
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == ["roc.png", "sweep.png"]
    assert [file.name for file in tmp_path.iterdir()] == ["figures"]
