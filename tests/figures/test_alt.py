"""Alt texts reach whoever reads the notebook, its HTML or a site, and say what was drawn."""

import base64
import re

import nbformat
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure
from nbconvert import HTMLExporter

from mialib.figures import Picture, alt


def picture(words="A line from 0 to 1 & back."):
    made = Picture(figsize=(2, 1))
    made.subplots().plot([0, 1])
    made.alt = words
    return made


@pytest.fixture(params=["bare", "inline"])
def shown(request):
    """How Jupyter shows a figure, without and with `%matplotlib inline`: data and metadata of its output."""
    formatter = InteractiveShell().display_formatter
    if request.param == "inline":
        from IPython.core.pylabtools import print_figure

        formatter.formatters["image/png"].for_type(Figure, lambda one: print_figure(one, "png", base64=True))
    return formatter.format


def as_notebook(data, metadata):
    png = data["image/png"]
    png = png if isinstance(png, str) else base64.b64encode(png).decode()
    output = nbformat.v4.new_output("display_data", data | {"image/png": png}, metadata=metadata)
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("figure", outputs=[output], execution_count=1)]
    )


def test_jupyter_stores_the_alt_text_beside_the_image_and_nbconvert_writes_it(shown):
    data, metadata = shown(picture())
    assert metadata["image/png"]["alt"] == data["text/plain"] == "A line from 0 to 1 & back."
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(as_notebook(data, metadata))
    (image,) = re.findall(r"<img[^>]*data:image/png[^>]*>", page)
    assert 'alt="A line from 0 to 1 &amp; back."' in image


def test_a_picture_without_words_is_shown_as_any_figure(shown):
    data, metadata = shown(picture(""))
    assert "image/png" in data and "alt" not in metadata.get("image/png", {})


def test_names_are_listed_and_many_cut_short():
    assert [alt.listed("abc"[:count]) for count in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert alt.listed(range(10)) == "0, 1, 2, 3, 4, 5 and 4 more"


def test_the_ends_are_named_and_nan_is_none_of_them():
    assert alt.ends([0.5, np.nan, 0.25], ["a", "b", "c"]) == "Highest 0.5 (a), lowest 0.25 (c)."
    assert alt.ends([np.nan], ["a"]) == "Nothing could be measured."
