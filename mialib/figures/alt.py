"""What a figure says in words, and how these words travel: into the notebook, its HTML, a site and the PNG."""

import io

from matplotlib.figure import Figure


class Picture(Figure):
    """A figure with one or two sentences of what it shows, `alt`, for whoever cannot see it.

    Jupyter stores them beside the image, as the output's `metadata["image/png"]["alt"]`, and as its plain text. nbconvert's
    classic template and `mialib site` write them into pages, its default one (7.17) and JupyterLab's own view show none.
    """

    alt = ""

    def _repr_png_(self) -> bytes:  # where no `%matplotlib inline` draws it
        return png(self)

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        if not self.alt:
            return {}, {}
        return {"text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def png(picture: Figure) -> bytes:
    """The picture at 150 dots an inch, with `alt`, where it has some, as its Description."""
    content = io.BytesIO()
    words = getattr(picture, "alt", "")  # a plain Figure has none
    kept = {"Description": words} if words else {}
    picture.savefig(content, format="png", dpi=150, bbox_inches="tight", metadata=kept)
    return content.getvalue()


def listed(names) -> str:
    """ "a", "a and b", "a, b and c"; of more than eight the first six and how many are left."""
    names = list(map(str, names))
    if len(names) > 8:
        names[6:] = [f"{len(names) - 6} more"]
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def ends(values, names, unit="") -> str:
    """Where the highest and the lowest of `values` lie: "Highest 0.91 (a), lowest 0.5 (b)."; nan counts for none."""
    found = sorted(
        (float(value), str(name)) for value, name in zip(values, names, strict=True) if value == value
    )
    if not found:
        return "Nothing could be measured."
    (low, lowest), (high, highest) = found[0], found[-1]
    return f"Highest {high:.3g}{unit} ({highest}), lowest {low:.3g}{unit} ({lowest})."
