"""What a figure says in words, and how these words travel: into the notebook, its HTML, a site and the PNG."""

import base64

from matplotlib.figure import Figure

from mialib.figures.encoding import png


class Picture(Figure):
    """A figure with one or two sentences of what it shows, `alt`, for whoever cannot see it.

    Jupyter stores them beside the image, as the output's `metadata["image/png"]["alt"]`, and as its plain text. nbconvert's
    classic template and `mialib site` write them into pages, its default one (7.17) and JupyterLab's own view show none.
    """

    alt = ""

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        image = {"image/png": base64.b64encode(png(self, self.dpi)).decode()}
        if not self.alt:
            return image, {}
        return image | {"text/plain": self.alt}, {"image/png": {"alt": self.alt}}


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
