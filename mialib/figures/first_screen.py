"""The first screen of a notebook: this run's verdict and one figure, shown at the top and filled where they are known.

    page = figures.FirstScreen()                      # in a cell of its own, at the top
    ...
    page.update(sentences, drawings["attacks"])      # where the results are

The places at the top are display handles: what fills them later is stored with the cell at the top. So nothing there can
stem from another run. nbval compares outputs cell by cell: tag the cell `nbval-ignore-output`.
"""

from collections.abc import Sequence

from IPython.display import DisplayHandle, Markdown, display
from matplotlib.figure import Figure

WAITING = "*This run's answer appears here once all cells have been executed.*"


class FirstScreen:
    """Two places on the page: for sentences, and for a figure under them."""

    def __init__(self):
        self._text = _place(WAITING)
        self._figure = _place("")

    def update(self, sentences: Sequence[str], figure: Figure, caption: str = "") -> None:
        """Fill them: the sentences as a paragraph (Markdown), the figure and, before it, what it shows."""
        parts = [" ".join(sentences), f"*{caption}*" if caption else ""]
        self._text.update(Markdown("\n\n".join(part for part in parts if part)))
        self._figure.update(figure)


def _place(text: str) -> DisplayHandle:
    # outside IPython nothing is handed back, and what comes later is printed
    return display(Markdown(text), display_id=True) or DisplayHandle()
