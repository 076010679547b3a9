"""What all pictures have in common: labels, legends beside the axes, colours that differ in grey, one way to save."""

import warnings
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from mialib import figures
from mialib.figures import Picture, style
from tests.figures import (
    test_comparisons,
    test_points,
    test_results,
    test_roc_and_histograms,
    test_training_curves,
)
from tests.figures.test_results import legend

DRAWINGS = (
    test_comparisons.DRAWINGS
    | test_points.DRAWINGS
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
    assert any(axes.get_xlabel() for axes in panels)
    assert panels[0].get_ylabel() or figure.get_supylabel() or named
    assert figure.get_figwidth() <= style.WIDTH
    assert figure.alt.endswith(".") and "nan" not in figure.alt and "_" not in figure.alt
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that does not fit warns
        path = figures.save(figure, tmp_path / "figures" / f"{name}.png")
    with Image.open(path) as stored:
        assert stored.format == "PNG" and stored.text["Description"] == figure.alt
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


# Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation of color vision deficiency", IEEE
# TVCG 15(6), severity 1.0; on linear red, green and blue
BLINDNESS = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "none": np.eye(3),
}


def seen(colours, blindness):
    """CIELAB (n, 3) of these colours as somebody with this blindness sees them."""
    rgb = np.array([matplotlib.colors.to_rgb(color) for color in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = (linear @ np.transpose(BLINDNESS[blindness])).clip(0, 1)
    return rgb2lab(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("blindness, least", [("none", 28), ("protanopia", 20), ("deuteranopia", 20)])
def test_no_two_colours_of_the_palette_look_alike(blindness, least):
    np.testing.assert_allclose(np.sum(BLINDNESS[blindness], axis=1), 1, atol=1e-5)  # grey stays grey
    lab = seen(style.PALETTE, blindness)
    one, other = (lab[places] for places in np.triu_indices(len(lab), 1))
    away = deltaE_ciede2000(one, other)
    assert away.min() > least  # 28.8, 20.5 and 20.4; 2.3 is just noticeable


def test_the_palette_goes_from_dark_to_light_in_even_steps_and_reads_on_white():
    lightness = seen(style.PALETTE, "none")[:, 0]
    assert np.diff(lightness).min() > 7.5 and lightness.max() < 81  # of 100; the smallest step is 7.8


@pytest.mark.parametrize("count", [1, 2, 3, 6, 8, 9, 12, 13])
def test_series_differ_in_lightness_and_from_their_neighbours_in_line_and_marker(count):
    series = style.series(count)
    assert len(series) == count
    lightness = np.sort(seen([look["color"] for look in series], "none")[:, 0])
    assert (np.diff(lightness) > 4.5).all()
    for one, next_ in pairwise(series):
        assert one["linestyle"] != next_["linestyle"] and one["marker"] != next_["marker"]


def test_the_legend_names_a_label_once_however_many_axes_bear_it():
    picture, panels = style.figure(4, 2, columns=2)
    for axes, names in zip(panels, (["a", "b"], ["b", "c"]), strict=True):
        for name in names:
            axes.plot([0, 1], [0, 1], label=name)
    assert legend(style.with_legend(picture)) == ["a", "b", "c"]
    assert len(picture.legends) == 1


def test_a_theme_lasts_as_long_as_its_figure():
    before = dict(matplotlib.rcParams)

    @style.theme()
    def size():
        return matplotlib.rcParams["font.size"], matplotlib.rcParams["axes.spines.top"]

    assert size() == (9, False) and dict(matplotlib.rcParams) == before


def test_save_wants_a_png(tmp_path):
    with pytest.raises(ValueError, match="must end in .png"):
        figures.save(Picture(), tmp_path / "a.pdf")


def test_save_all_names_each_picture(tmp_path):
    pictures = {"roc": Picture(), "sweep": Figure()}
    figures.save_all(pictures, tmp_path / "figures")
    figures.save_all({}, tmp_path / "none")
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == ["roc.png", "sweep.png"]
    assert [file.name for file in tmp_path.iterdir()] == ["figures"]


def test_what_panels_share_is_written_once():
    _, panels = style.panels(5, 1.0, most=2, sharex=True, sharey=True)
    style.outer(panels, "AUC", "gap", most=2)
    assert [axes.get_ylabel() for axes in panels] == ["AUC", "", "AUC", "", "AUC"]
    assert [axes.get_xlabel() for axes in panels] == ["", "", "", "gap", "gap"]  # nothing is below these two
    for axes in panels:
        axes.set_xlabel("its own")
    style.outer(panels, most=2)
    assert {axes.get_xlabel() for axes in panels} == {"its own"}
