"""Figures take few bytes, and look as they were drawn."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mialib.figures import Picture, encoding


def drawn(what="lines", cls=Picture):
    made = cls(figsize=(4, 3))
    axes = made.subplots()
    if what == "lines":
        for phase in range(3):
            axes.plot(np.sin(np.linspace(0, 9, 200) + phase), alpha=0.7)
    else:
        axes.imshow(np.random.default_rng(0).random((48, 64, 3)))
    return made


def bare(figure, dpi):
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi, bbox_inches="tight")
    return content.getvalue()


def levels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.float64)


@pytest.mark.parametrize("dpi", [100, 150])
def test_a_drawing_takes_less_than_half_and_looks_the_same(dpi):
    figure = drawn()
    full, small = bare(figure, dpi), encoding.png(figure, dpi)
    assert len(small) < len(full) / 2
    assert np.sqrt(np.square(levels(full) - levels(small)).mean()) < encoding.UNSEEN
    assert Image.open(io.BytesIO(small)).info["dpi"] == pytest.approx((dpi, dpi), abs=0.1)


def test_a_photograph_keeps_its_colors():
    figure = drawn("photograph")
    np.testing.assert_array_equal(levels(encoding.png(figure)), levels(bare(figure, 150)))


def test_what_is_transparent_stays_so():
    image = Image.new("RGBA", (20, 20), (10, 20, 30, 128))
    assert encoding.fewer_colors(image) is image


def test_the_same_figure_gives_the_same_bytes_and_its_words():
    figure = drawn()
    figure.alt = "Three waves – a line each."
    assert encoding.png(figure) == encoding.png(figure)
    assert Image.open(io.BytesIO(encoding.png(figure))).text["Description"] == figure.alt
    assert "Description" not in Image.open(io.BytesIO(encoding.png(drawn(cls=Figure)))).text
