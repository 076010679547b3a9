"""What fills the first screen later is stored at the top."""

import nbformat
from nbclient import NotebookClient

from mialib.figures import first_screen

CELLS = (
    "from mialib import figures\n%matplotlib inline\nfirst = figures.FirstScreen()",
    "from mialib.figures import style\npicture, axes = style.figure(2, 1)",
    'first.update(["It leaks.", "A little."], picture, "One axis.")',
)


def test_the_results_are_stored_at_the_top():
    cells = [nbformat.v4.new_code_cell(text) for text in CELLS]
    top, _, last = NotebookClient(nbformat.v4.new_notebook(cells=cells)).execute().cells
    text, figure = top.outputs
    assert text.data["text/markdown"] == "It leaks. A little.\n\n*One axis.*"
    assert figure.data["image/png"]
    assert not last.outputs


def test_outside_a_notebook_it_is_printed(capsys):
    first_screen.FirstScreen().update(["It leaks."], None)  # as `mialib plan` does, without a page
    assert "Markdown" in capsys.readouterr().out  # what a terminal shows of it


def test_without_a_caption_there_is_none(monkeypatch):
    said, shown = [], []

    def place(text):
        shown.append(text)
        return type("Place", (), {"update": lambda self, it: said.append(it)})()

    monkeypatch.setattr(first_screen, "_place", place)
    first = first_screen.FirstScreen()
    assert shown == [first_screen.WAITING, ""]
    first.update(["It leaks."], None)
    assert said[0].data == "It leaks." and said[1] is None
