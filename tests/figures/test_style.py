"""What all pictures have in common: labels, legends beside the axes, colours that differ in grey, one way to save."""

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
