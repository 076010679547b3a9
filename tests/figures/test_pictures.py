"""Pictures stand where they belong, whole, and with the pixels that were given."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mialib import figures

# Examples


def shown(figure):
    """Title and picture of each of a figure's panels."""
    return {axes.get_title(): np.asarray(axes.images[0].get_array()) for axes in figure.axes}


def test_examples_are_the_first_members_and_nonmembers_as_pictures():
    x = torch.arange(6 * 2 * 3, dtype=torch.uint8).view(6, 1, 2, 3)
    member = torch.tensor([True, False, True, True, False, False])
    panels = shown(figures.examples(SimpleNamespace(x=x, is_image=True), member, ~member, count=2))
    for title, first in (("members", [0, 2]), ("non-members", [1, 4])):
        strip = panels[title].reshape(4, 2, 5)  # each picture with a margin of one pixel
        assert np.array_equal(strip[1:-1, :, 1:-1].transpose(1, 0, 2), x[first, 0]), title
        assert not strip[[0, -1]].any() and not strip[..., [0, -1]].any(), title


def test_examples_of_features_are_stripes():
    x, member = torch.rand(5, 8), torch.tensor([False, True, True, True, False])
    panels = shown(figures.examples(SimpleNamespace(x=x, is_image=False), member, ~member))
    assert np.array_equal(panels["members"], x[1:4]) and np.array_equal(panels["non-members"], x[[0, 4]])


# The gallery


GREY, COLOUR, STRIPES = torch.rand(4, 1, 8, 8), torch.rand(4, 3, 32, 32), torch.rand(4, 30)
ROWS = {
    "truth": GREY,
    "a decoder with a rather long name": GREY[:, 0],
    "in colour": COLOUR,
    "features": STRIPES,
}
CAPTIONS = {"truth": ["0.011", "0.022", "0.033", "0.044"]}


def test_every_row_is_named_and_captions_stand_below_their_pictures():
    (axes,) = figures.gallery(ROWS, CAPTIONS).axes
    assert [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()] == list(ROWS)
    assert [text.get_text() for text in axes.texts] == CAPTIONS["truth"]
    for text, picture, below in zip(axes.texts, axes.images[:4], axes.images[4:8], strict=True):
        left, right, bottom, _ = picture.get_extent()
        assert text.get_position() == (pytest.approx((left + right) / 2), pytest.approx(bottom, abs=0.05))
        assert below.get_extent()[3] > bottom + 0.15  # room for the text


@pytest.mark.parametrize("rows", [ROWS, {name: value[:1] for name, value in ROWS.items()}, {"x": GREY}])
def test_nothing_is_cut_off_and_no_text_covers_a_picture(rows):
    captions = {name: texts[: len(rows[name])] for name, texts in CAPTIONS.items() if name in rows}
    figure = figures.gallery(rows, captions)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    texts = [text.get_window_extent() for text in (*axes.texts, *axes.get_yticklabels())]
    pictures = [picture.get_window_extent() for picture in axes.images]
    for box in (*texts, *pictures):
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
    assert not any(text.overlaps(picture) for text in texts for picture in pictures)
    assert min(box.width for box in pictures) > 0.6 * figure.dpi  # inches: the labels do not squeeze them


def test_rows_stand_below_each_other_in_the_same_columns_and_keep_their_proportions():
    (axes,) = figures.gallery(ROWS | {"tall": torch.rand(4, 20, 10)}).axes
    places = np.reshape([picture.get_extent() for picture in axes.images], (5, 4, 4))  # row, column, edge
    assert np.allclose(places[:, :, :2], places[:1, :, :2]) and np.allclose(
        places[:, :, 2:], places[:, :1, 2:]
    )
    assert (places[1:, 0, 3] > places[:-1, 0, 2]).all()
    width, height = places[:, 0, 1] - places[:, 0, 0], places[:, 0, 2] - places[:, 0, 3]
    assert np.allclose(height / width, [1, 1, 1, 1, 2])
    box = axes.get_window_extent()  # and a unit is as high as it is wide
    assert box.width / 4 == pytest.approx(box.height / axes.get_ylim()[0])


def test_the_pixels_are_those_given():
    (axes,) = figures.gallery(ROWS).axes
    pixels = [picture.get_array() for picture in axes.images]
    assert np.allclose(pixels[1], GREY[1, 0]) and np.allclose(pixels[5], GREY[1, 0])
    assert np.allclose(pixels[9], COLOUR[1].permute(1, 2, 0)) and np.allclose(pixels[13], STRIPES[1][None])
    assert all(picture.get_clim() == (0, 1) for picture in axes.images)  # black is 0 in every row, white 1


@pytest.mark.cuda
def test_pictures_on_cuda_are_drawn_as_those_of_the_cpu(accelerator):
    rows = {"private": torch.linspace(0, 1, 32).view(2, 1, 4, 4)}
    here, there = (
        figures.gallery({"private": rows["private"].to(device)}) for device in ("cpu", accelerator)
    )
    for one, other in zip(here.axes[0].images, there.axes[0].images, strict=True):
        assert np.array_equal(one.get_array(), other.get_array())


@pytest.mark.parametrize(
    "rows, captions, words",
    [
        ({}, None, "rows is empty"),
        ({"a": GREY, "b": GREY[:3]}, None, r"rows\['b'\] has 3 pictures, the first row 4"),
        ({"a": torch.rand(4, 2, 8, 8)}, None, r"rows\['a'\] has shape \(4, 2, 8, 8\)"),
        ({"a": GREY[0, 0, 0]}, None, r"rows\['a'\] has shape \(8,\)"),
        ({"a": GREY * 255}, None, r"rows\['a'\] holds .* pixels must be in \[0, 1\]"),
        ({"a": GREY * torch.nan}, None, r"rows\['a'\] holds nan"),
        ({"a": GREY}, {"b": ["x"] * 4}, "captions names 'b'; there are"),
        ({"a": GREY}, {"a": ["x"]}, r"captions\['a'\] has 1 texts for 4 pictures"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows, captions, words):
    with pytest.raises(ValueError, match=words):
        figures.gallery(rows, captions)
