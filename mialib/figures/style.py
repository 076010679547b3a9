"""The look of all pictures: seaborn's theme, one palette that survives grey printing and colour blindness, legends."""

import itertools
import textwrap
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
import seaborn
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from seaborn import objects as so

from mialib import store
from mialib.figures import encoding
from mialib.figures.alt import Picture

WIDTH = 7.5  # inches, of a notebook's page
# From dark to light in even steps; to a protanope and a deuteranope too, no two are near each other.
PALETTE = ("#432c00", "#0030c0", "#834358", "#517800", "#0085e9", "#cb877a", "#59bec4", "#f6be2b")
DARK, MIDDLE = (PALETTE[index] for index in (1, 5))
FAINT = "#BBBBBB"
DOTTED = {"linestyle": (0, (1, 2)), "linewidth": 1.2}
HOLLOW = {"linestyle": "none", "markerfacecolor": "white"}
BELOW, ABOVE = {"zorder": 1}, {"zorder": 3}  # of marks: intervals never cross their dot
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h", "d")
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of red, green and blue
LOOK = (
    seaborn.axes_style("ticks")
    | seaborn.plotting_context("paper")
    | {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9,
        "axes.grid": False,
        "font.size": 9,
        "grid.linewidth": 0.6,
        "legend.fontsize": 9,
        "legend.frameon": False,
    }
)


def theme():
    """The look of all figures, as a context (`with theme():`) or a decorator; settings return afterwards."""
    return matplotlib.rc_context(LOOK)


def save(picture: Figure, path) -> Path:
    """Write a PNG at 150 dots an inch with its alt text, whole or not at all; return its path. Makes the folder."""
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"path is {path.name!r}; it must end in .png")
    store.write(path, encoding.png(picture))
    return path


def save_all(pictures: Mapping[str, Figure], folder) -> None:
    """`save` each as folder/name.png."""
    for name, picture in pictures.items():
        save(picture, Path(folder) / f"{name}.png")


def figure(width: float, height: float, columns: int | None = None, rows: int = 1, **options):
    """A picture of `width` x `height` inches and its axes, or the `columns` x `rows` axes of one, line by line."""
    made = Picture(figsize=(width, height), layout="constrained")
    if columns is None:
        return made, made.subplots(**options)
    return made, made.subplots(rows, columns, squeeze=False, **options).ravel()


def grid(count: int, most: int = 3) -> tuple[int, int]:
    """Columns and rows for this many panels: at most `most` in a row, four as two and two."""
    columns = 2 if count == 4 and most == 3 else min(count, most)
    return columns, -(-count // columns)


def panels(count: int, height: float, most: int = 3, each: float = 3.4, **options):
    """A picture as wide as a page or less, and its axes in a grid; each `height` inches high, `each` wide at most."""
    columns, rows = grid(count, most)
    made, axes = figure(min(WIDTH, each * columns + 0.5), height * rows, columns, rows, **options)
    for spare in axes[count:]:
        spare.remove()
    return made, axes[:count]


def folded(text: str, width: int = 42) -> str:
    """A label in lines of about this many letters."""
    return textwrap.fill(text, width)


def outer(panels, ylabel: str = "", xlabel: str = "", most: int = 3) -> None:
    """What panels share, once: rows and their label at the first of each line, that of columns below the last ones.

    xlabel: empty where each panel has its own; most: of `panels`.
    """
    columns, _ = grid(len(panels), most)
    for index, axes in enumerate(panels):
        first, last = index % columns == 0, index + columns >= len(panels)
        axes.tick_params(labelleft=first)
        axes.set_ylabel(ylabel if first else "")
        if xlabel:
            axes.set_xlabel(folded(xlabel, 30) if last else "")
            axes.tick_params(labelbottom=last)


def draw(plot: so.Plot, picture: Figure) -> Figure:
    """Draw seaborn's plot on the picture, or on axes of one, in the look of all."""
    plot.theme(LOOK).on(picture).plot()
    return picture


def scales(looks: Mapping[str, dict], *parts: str) -> dict:
    """Scales of seaborn.objects that give each name these parts of its look; default: colour, line and marker."""
    return {
        part: so.Nominal({name: look[part] for name, look in looks.items()}, order=list(looks))
        for part in parts or ("color", "linestyle", "marker")
    }


def with_legend(picture: Figure, looks: Mapping[str, dict] | None = None) -> Figure:
    """The picture with one legend below its axes, of `looks` (those of lines) and of what the axes have named."""
    entries = {name: Line2D([], [], **look) for name, look in (looks or {}).items()}
    for axes in picture.axes:
        entries |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if not entries:
        return picture
    entries = {textwrap.fill(label, 60): handle for label, handle in entries.items()}
    longest = max(len(line) for label in entries for line in label.splitlines())
    columns = int(picture.get_figwidth() // (0.7 + 0.065 * longest))  # inches: mark, a letter
    columns = min(max(columns, 1), len(entries), 5)
    rows = -(-len(entries) // columns)
    columns = -(-len(entries) // rows)
    picture.set_figheight(picture.get_figheight() + 0.18 * rows + 0.1)  # the axes keep theirs
    picture.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, numpoints=1)
    return picture


def series(count: int) -> list[dict]:
    """Colour, line and marker of each of `count` series: the palette from dark to light; of more than 8, viridis."""
    few = {1: [1], 2: [1, 5], 3: [1, 5, 7]}.get(count) or np.linspace(0, 7, min(count, 8)).round().astype(int)
    colours = (
        [PALETTE[index] for index in few] if count <= 8 else seaborn.color_palette("viridis", count).as_hex()
    )
    cycle = zip(colours, itertools.cycle(LINES), itertools.cycle(MARKERS), strict=False)
    return [{"color": color, "linestyle": line, "marker": marker} for color, line, marker in cycle]


def looks(names) -> dict[str, dict]:
    """The look of each of these names, in their order: `series`."""
    names = list(names)
    return dict(zip(names, series(len(names)), strict=True))


def ink(color) -> str:
    """Black or white, whichever is easier to read on `color`: relative luminance as in WCAG 2."""
    rgb = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ LUMINANCE > 0.179 else "white"
