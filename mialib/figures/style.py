"""The look of all pictures: colours and marks that survive grey printing, legends, labels, one way to save."""

import io
import itertools
from collections.abc import Mapping
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
LINES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">")
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of red, green and blue


def theme():
    """The look of all figures, as a context (`with theme():`) or a decorator; settings return afterwards."""
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


def save(picture: Figure, path) -> Path:
    """Write a PNG at 150 dots an inch, whole or not at all; return its path. A missing folder is made."""
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"path is {path.name!r}; it must end in .png")
    content = io.BytesIO()
    picture.savefig(content, format="png", dpi=150, bbox_inches="tight")
    store.write(path, content.getvalue())
    return path


def save_all(pictures: Mapping[str, Figure], folder) -> None:
    """`save` each as folder/name.png."""
    for name, picture in pictures.items():
        save(picture, Path(folder) / f"{name}.png")


def figure(width: float, height: float, columns: int | None = None, **options):
    """A figure of `width` x `height` inches and its axes, or a row of `columns` axes."""
    made = Figure(figsize=(width, height), layout="constrained")
    if columns is None:
        return made, made.subplots(**options)
    return made, made.subplots(1, columns, squeeze=False, **options)[0]


def with_legend(picture: Figure, below=False) -> Figure:
    """The picture with one legend of all its axes outside, where it cannot hide anything."""
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in picture.axes]
    unique = {label: handle for handle, label in itertools.chain(*pairs)}
    place = {"loc": "outside lower center", "ncols": min(len(unique), 4)}
    if not below:
        place = {"loc": "outside right center"}
        longest = max(len(str(label)) for label in unique)
        picture.set_figwidth(picture.get_figwidth() + 0.6 + 0.075 * longest)  # inches; the axes keep theirs
    picture.legend(unique.values(), unique.keys(), **place)
    return picture


def error(value, low, high) -> np.ndarray:
    """Lengths (2, n) of the error bars below and above the values (n,); 0 where there is no interval."""
    return np.nan_to_num(np.maximum([value - low, high - value], 0))


def series(count: int) -> list[dict]:
    """Colour, line and marker of each of `count` series: three fixed colours, else viridis, dark to light."""
    colours = COLOURS if count <= 3 else matplotlib.colormaps["viridis"](np.linspace(0, 0.9, count))
    cycle = zip(colours, itertools.cycle(LINES), itertools.cycle(_MARKERS), strict=False)
    return [
        {"color": matplotlib.colors.to_hex(color), "linestyle": line, "marker": marker}
        for color, line, marker in itertools.islice(cycle, count)
    ]


def label_points(axes, points, texts, colors, size=7) -> None:
    """Write each text beside its point, where it covers the least of markers, lines, intervals and other texts.

    A thin line leads to the point from a text that found no place next to it. The figure must be otherwise
    complete: its layout is settled here, and every place is measured in points (1/72 inch).
    """
    axes.figure.draw_without_rendering()
    scale = 72 / axes.figure.dpi
    points = np.reshape(points, (-1, 2))
    ends = axes.transData.transform(points) * scale
    half = np.reshape([(0.35 * size * len(text), 0.4 * size) for text in texts], (-1, 1, 2))
    sides = np.array([(-1, 1), (1, -1), (-1, -1), (1, 1), (0, 1), (0, -1), (-1, 0), (1, 0)])
    gaps = np.repeat([4, 9, 15], len(sides))
    offsets = np.tile(sides, (3, 1)) * (half + gaps[:, None])
    places = ends[:, None] + offsets  # of a text's middle: (points, sides and gaps, x and y)

    cost = np.tile(0.3 * (gaps - 4), (len(points), 1))
    low, high = axes.bbox.get_points() * scale
    seen = low - 1, high + 1  # what lies on the edge is seen whole
    for middles, radius, bad in _obstacles(axes, scale, *seen):
        cost += bad * _overlap(places[:, :, None], middles, half[:, None] + radius).sum(-1)
    cost += 20 * ((places - half < low) | (places + half > high)).any(-1)
    # a text nearer to another point would be taken for that one's
    away = np.linalg.norm(np.maximum(np.abs(places[:, :, None] - ends) - half[:, None], 0), axis=-1)
    own = np.eye(len(points), dtype=bool)[:, None]
    cost += 4 * (away.min(-1, where=~own, initial=np.inf) < away.min(-1, where=own, initial=np.inf))

    chosen, every = cost.argmin(1), np.arange(len(points))
    for index in np.tile(every, 4):  # each in turn gives way to all others
        covered = _overlap(places[index][:, None], places[every, chosen], half[index] + half[:, 0] + (2, 0))
        chosen[index] = (cost[index] + 20 * covered[:, every != index].sum(1)).argmin()

    middle = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": size}
    for index, (point, text, color) in enumerate(zip(points, texts, colors, strict=True)):
        rgb = np.array(matplotlib.colors.to_rgb(color))
        dark = rgb * min(1, 0.35 / max(rgb @ LUMINANCE, 0.35))  # enough to read on white
        leader = {"arrowstyle": "-", "color": dark, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
        far = gaps[chosen[index]] > 4
        offset = offsets[index, chosen[index]]
        axes.annotate(text, point, offset, **middle, color=dark, arrowprops=leader if far else None)


def ink(color) -> str:
    """Black or white, whichever is easier to read on `color`: relative luminance as in WCAG 2."""
    rgb = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ LUMINANCE > 0.179 else "white"


def _obstacles(axes, scale, low, high):
    """What a text should not cover: middles (m, 2), half the size, and how bad it is to cover one.

    low, high: corners (2,) of what is visible; a line counts as far as it is seen.
    """
    for line in axes.get_lines():
        corners = line.get_transform().transform(line.get_xydata()) * scale
        if line.get_linestyle() != "None":
            yield _along(corners, low, high), 0.5, 1
        if line.get_marker() != "None":
            yield corners, 3.5, 20
    for bars in axes.collections:
        for segment in bars.get_segments():
            yield _along(axes.transData.transform(segment) * scale, low, high), 0.5, 0.3


def _overlap(places, others, reach) -> np.ndarray:
    """Whether boxes with these middles (..., 2) overlap if they reach so far, half of both sizes."""
    return (np.abs(places - others) < reach).all(-1)


def _along(corners, low, high) -> np.ndarray:
    """Points (m, 2) about three apart on what a box shows of the line through these corners (n, 2)."""
    if ((corners >= low) & (corners <= high)).all():
        return _sampled(corners)
    pieces = _clipped(corners, low, high)
    return np.concatenate([_sampled(piece) for piece in pieces]) if len(pieces) else np.empty((0, 2))


def _clipped(corners, low, high) -> np.ndarray:
    """The pieces (m, 2 ends, 2) of the line through these corners (n, 2) that lie in a box; one with a nan is none.

    Each is found by the shares of its segment at which that enters and leaves the box (Liang and Barsky 1984).
    """
    corners = np.clip(corners, -1e12, 1e12)  # a logarithm's end of the world
    begin, step = corners[:-1], np.diff(corners, axis=0)
    step[step == 0] = 1e-9  # level or upright, to be divided by
    one, other = (low - begin) / step, (high - begin) / step
    enter = np.minimum(one, other).max(1).clip(min=0)[:, None]
    leave = np.maximum(one, other).min(1).clip(max=1)[:, None]
    seen = (enter < leave)[:, 0]
    return np.stack([begin + enter * step, begin + leave * step], axis=1)[seen]


def _sampled(corners) -> np.ndarray:
    length = np.concatenate([[0], np.hypot(*np.diff(corners, axis=0).T).cumsum()])
    steps = np.linspace(0, length[-1], 2 + int(length[-1] / 3))
    return np.column_stack([np.interp(steps, length, ends) for ends in corners.T])
