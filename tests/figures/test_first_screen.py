"""What fills the first screen later is stored at the top."""

import nbformat
import pytest
from nbclient import NotebookClient

from mialib.figures import first_screen

CELLS = (
    "from mialib import figures\n%matplotlib inline\nfirst = figures.FirstScreen()",
    "from mialib.figures import style\npicture, axes = style.figure(2, 1)",
    'first.update(["It leaks.", "A little."], picture, "One axis.")',
)


@pytest.fixture(scope="module", params=[1, 3], ids=["before", "after"])
def executed(request):
    cells = [nbformat.v4.new_code_cell(text) for text in CELLS[: request.param]]
    return NotebookClient(nbformat.v4.new_notebook(cells=cells)).execute().cells


def test_the_results_are_stored_at_the_top_once_they_are_there(executed):
    text, figure = executed[0].outputs
    if len(executed) == 1:
        assert text.data["text/markdown"] == first_screen.WAITING
        assert "image/png" not in figure.data
    else:
        assert text.data["text/markdown"] == "It leaks. A little.\n\n*One axis.*"
        assert figure.data["image/png"]
        assert not executed[-1].outputs


def test_without_a_caption_there_is_none(monkeypatch):
    said = []
    monkeypatch.setattr(
        first_screen, "_place", lambda text: type("Place", (), {"update": lambda self, it: said.append(it)})()
    )
    first_screen.FirstScreen().update(["It leaks."], None)
    assert said[0].data == "It leaks."
