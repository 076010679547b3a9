"""The look of all pictures: colours, lines and markers that survive grey printing, legends outside, one way to save."""

import io
import itertools
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mialib import store

DARK, MIDDLE, LIGHT = "#004488", "#BB5566", "#DDAA33"  # Paul Tol's high-contrast scheme
FAINT = "#BBBBBB"
COLOURS = (DARK, MIDDLE, LIGHT)
DOTTED = {"linestyle": (0, (1, 2)), "linewidth": 1.2}
HOLLOW = {"linestyle": "none", "markersize": 9, "markerfacecolor": "white"}
_LINES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">")
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of red, green and blue


def style():
    """The look of all figures, as a context (`with style():`) or a decorator; settings return afterwards."""
    return matplotlib.rc_context(
        {
            "font.size": 9,
            "axes.titlesize": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "legend.frameon": False,
            "lines.linewidth": 1.5,
            "lines.markersize": 5,
            "savefig.dpi": 150,
        }
    )


def save(figure: Figure, path) -> Path:
    """Write a PNG at 150 dots an inch, whole or not at all; return its path. A missing folder is made."""
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"path is {path.name!r}; it must end in .png")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150, bbox_inches="tight")
    store.write(path, picture.getvalue())
    return path


def figure(width: float, height: float, columns: int | None = None, **options):
    """A figure of `width` x `height` inches and its axes, or a row of `columns` axes."""
    made = Figure(figsize=(width, height), layout="constrained")
    if columns is None:
        return made, made.subplots(**options)
    return made, made.subplots(1, columns, squeeze=False, **options)[0]


def with_legend(figure, below=False) -> Figure:
    """The figure with one legend of all its axes outside, where it cannot hide anything."""
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes]
    unique = {label: handle for handle, label in itertools.chain(*pairs)}
    place = {"loc": "outside lower center", "ncols": min(len(unique), 4)}
    if not below:
        place = {"loc": "outside right center"}
        longest = max(len(str(label)) for label in unique)
        figure.set_figwidth(figure.get_figwidth() + 0.6 + 0.075 * longest)  # inches; the axes keep theirs
    figure.legend(unique.values(), unique.keys(), **place)
    return figure


def series(count: int) -> list[dict]:
    """Colour, line and marker of each of `count` series: three fixed colours, else viridis, dark to light."""
    colours = COLOURS if count <= 3 else matplotlib.colormaps["viridis"](np.linspace(0, 0.9, count))
    cycle = zip(colours, itertools.cycle(_LINES), itertools.cycle(_MARKERS), strict=False)
    return [
        {"color": matplotlib.colors.to_hex(color), "linestyle": line, "marker": marker}
        for color, line, marker in itertools.islice(cycle, count)
    ]


def ink(color) -> str:
    """Black or white, whichever is easier to read on `color`: relative luminance as in WCAG 2."""
    rgb = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ LUMINANCE > 0.179 else "white"
