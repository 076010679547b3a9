"""Texts written beside points, where they cover least."""

import matplotlib
import numpy as np
from matplotlib.path import Path

from mialib.figures.style import LUMINANCE


def label_points(axes, points, texts, colors, size=8) -> None:
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


def _obstacles(axes, scale, low, high):
    """What a text should not cover: middles (m, 2), half the size, and how bad it is to cover one.

    low, high: corners (2,) of what is visible; a line counts as far as it is seen.
    """
    for line in axes.get_lines():
        corners = line.get_transform().transform(line.get_xydata()) * scale
        if line.get_linestyle() != "None":
            yield _along(corners, low, high), 0.5, 1
        if line.get_marker() not in ("None", "", None):
            yield corners, 3.5, 20
    for drawn in axes.collections:
        if hasattr(drawn, "get_segments"):
            for segment in drawn.get_segments():
                yield _along(axes.transData.transform(segment) * scale, low, high), 0.5, 0.3
        else:  # marks
            yield axes.transData.transform(drawn.get_offsets()) * scale, 3.5, 20


def _overlap(places, others, reach) -> np.ndarray:
    """Whether boxes with these middles (..., 2) overlap if they reach so far, half of both sizes."""
    return (np.abs(places - others) < reach).all(-1)


def _along(corners, low, high) -> np.ndarray:
    """Points (m, 2) about three apart on what a box shows of the line through these corners (n, 2)."""
    corners = np.clip(corners, -1e9, 1e9)  # a logarithm's end of the world
    seen = Path(corners).cleaned(remove_nans=True, clip=(*low, *high), simplify=False)
    pieces = np.split(
        seen.vertices[:-1], np.flatnonzero(seen.codes[:-1] == Path.MOVETO)
    )  # the last says stop
    return np.concatenate([np.empty((0, 2)), *(_sampled(piece) for piece in pieces if len(piece) > 1)])


def _sampled(corners) -> np.ndarray:
    length = np.concatenate([[0], np.hypot(*np.diff(corners, axis=0).T).cumsum()])
    steps = np.linspace(0, length[-1], 2 + int(length[-1] / 3))
    return np.column_stack([np.interp(steps, length, ends) for ends in corners.T])
