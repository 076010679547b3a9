"""Pictures of examples, signals and curves: arrays in, a matplotlib Figure out. `results` draws the results table.

Figures are built without pyplot, so that nothing is registered, shown or left open. A notebook shows one as
the last line of a cell, after `%matplotlib inline` in its setup.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mialib.figures import style
from mialib.measures import Estimate, metrics

_GUIDE = {"color": "#E4E4E4", "linewidth": 0.8, "zorder": 0.5}
_SMALL = {"color": "#999999", "linestyle": "none", "marker": "o", "markersize": 2.5}
PICTURE = 0.8  # inches; width of a picture in `gallery`


@style.theme()
def examples(data, member, nonmember, count: int = 16) -> Figure:
    """The first `count` members and non-members of one model: pictures, or rows of features as stripes.

    data: a Dataset; member, nonmember: bool (n,).
    """
    figure = Figure(figsize=(6.4, 1.5 if data.is_image else 2.6), layout="constrained")
    panels = figure.subplots(2)
    for axes, (title, mask) in zip(panels, (("members", member), ("non-members", nonmember)), strict=True):
        chosen = mask.nonzero()[:count, 0].to(data.x.device)
        x = data.x[chosen].cpu().numpy()
        if data.is_image:
            x = np.concatenate(list(np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])), axis=2).transpose(1, 2, 0)
        axes.imshow(x, cmap="gray", aspect="equal" if data.is_image else "auto", interpolation="nearest")
        axes.set(title=title, xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure


@style.theme()
def roc(curves: dict, title: str = "") -> Figure:
    """ROC curves on log-log axes with the chance line.

    curves: label -> (member, margin), each (n,), or lists of such arrays, one for each target, which are
        pooled.
    The axes begin at the smallest rate that can be resolved, 1 / (number of non-members).
    """
    pooled = {label: (_pool(member), _pool(margin)) for label, (member, margin) in curves.items()}
    figure, axes = style.figure(4.2, 4.2)
    limit = 1 / max(np.sum(member == 0) for member, _ in pooled.values())
    axes.plot([limit, 1], [limit, 1], color=style.FAINT, linewidth=1, label="chance")
    for (label, (member, margin)), look in zip(pooled.items(), style.series(len(pooled)), strict=True):
        del look["marker"]  # a curve of steps has a point for each example
        area = metrics.auc(member, margin).value
        axes.plot(
            *metrics.roc(member, margin), **look, drawstyle="steps-post", label=f"{label} (AUC {area:.2f})"
        )
    axes.set(xscale="log", yscale="log", xlim=(limit, 1), ylim=(limit, 1), aspect="equal", title=title)
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
    return style.with_legend(figure)


@style.theme()
def divergence(member, values: dict, label="true-class confidence", kind="histogram", bins=30) -> Figure:
    """A signal's distribution for members and non-members, one panel for each model, on shared axes.

    member: (n,), or a list of such arrays, one for each target, which are pooled.
    values: panel title -> signal in the shape of `member`; say {"original": ..., "pruned": ...}.
    kind: "histogram" (share of each group in `bins` equal bins), or "ecdf" (share at or below, drawn up to
        the 99th percentile; better for a long tail such as the sensitivity's).
    """
    if kind not in ("histogram", "ecdf"):
        raise ValueError(f"kind is {kind!r}; it must be 'histogram' or 'ecdf'")
    member = _pool(member).astype(bool)
    values = {title: _pool(signal) for title, signal in values.items()}
    figure, panels = style.figure(2.9 * len(values) + 0.5, 3.2, columns=len(values), sharex=True, sharey=True)
    everything = np.concatenate(list(values.values()))
    edges = np.histogram_bin_edges(everything, bins)
    groups = (("members", member, style.MIDDLE, "-"), ("non-members", ~member, style.DARK, "--"))
    for axes, (title, signal) in zip(panels, values.items(), strict=True):
        for name, group, color, line in groups:
            if kind == "ecdf":
                axes.ecdf(signal[group], color=color, linestyle=line, label=name)
            else:
                shares = np.histogram(signal[group], edges)[0] / group.sum()
                axes.stairs(shares, edges, color=color, linestyle=line, linewidth=1.5, label=name)
                axes.stairs(shares, edges, color=color, fill=True, alpha=0.15)
        means = f"mean: members {signal[member].mean():.3f}, non-members {signal[~member].mean():.3f}"
        axes.set_title(f"{title}\n{means}", fontsize=8)
        axes.set_xlabel(label)
    if kind == "ecdf" and np.ptp(everything) > 0:
        panels[0].set_xlim(everything.min(), np.quantile(everything, 0.99))
    panels[0].set_ylabel("share of examples" if kind == "histogram" else "cumulative share of examples")
    return style.with_legend(figure, below=True)


@style.theme()
def class_dots(panels: dict, names=None, reference: float = 0.0) -> Figure:
    """A quantity of each class, a dot for each model, one panel for each quantity, with a line at `reference`.

    panels: label -> {model -> values (c,)}; say {"confidence gap": {"original": ..., "control": ..., "pruned": ...}}.
        Classes are sorted by the first panel's last model, in all panels alike. nan leaves a dot out.
    names: class names (c,); their numbers without.
    """
    last = np.asarray(list(next(iter(panels.values())).values())[-1], dtype=float)
    order = np.argsort(np.where(np.isnan(last), -np.inf, last), kind="stable")
    names = np.asarray(range(len(last)) if names is None else names).astype(str)
    spacing, size = (0.22, 9) if len(last) <= 40 else (0.13, 6)
    width, height = 3.4 * len(panels) + 0.4, max(2.6, spacing * len(last) + 1.2)
    figure, every = style.figure(width, height, columns=len(panels), sharey=True)
    positions = np.arange(len(last))
    for axes, (label, models) in zip(every, panels.items(), strict=True):
        axes.axvline(reference, color=style.FAINT, linewidth=1)
        values = np.array([np.asarray(value, dtype=float)[order] for value in models.values()])
        ends = np.fmin.reduce(values), np.fmax.reduce(values)
        axes.hlines(positions, *ends, color=style.FAINT, linewidth=0.8)
        for name, value, look in zip(models, values, style.series(len(models)), strict=True):
            axes.plot(value, positions, **look | {"linestyle": "none"}, label=name)
        axes.set(xlabel=label, ylim=(-0.7, len(last) - 0.3))
    every[0].set_yticks(positions, names[order], fontsize=size)
    every[0].set_ylabel("class")
    return style.with_legend(figure, below=True)


@style.theme()
def heatmap(table: pd.DataFrame, label: str, title: str = "") -> Figure:
    """A number for each pair of the target's setting (rows) and the one the attacker believes in (columns).

    table: numbers, up to about 10 x 10; nan leaves a cell blank.
    label: what the numbers are; it names the colour bar.
    Cells whose row and column have the same name, where the attacker is right, are outlined.
    """
    values = table.to_numpy(dtype=float)
    if not np.isfinite(values).any():
        raise ValueError(f"table ({len(table)} x {table.columns.size}) holds no number to draw")
    targets, beliefs = [str(name) for name in table.index], [str(name) for name in table.columns]
    row_name, column_name = max(map(len, targets)), max(map(len, beliefs))
    width = 1.6 + 0.45 * len(beliefs) + 0.07 * row_name
    height = 0.9 + 0.36 * max(len(targets), 3) + 0.05 * column_name
    figure, axes = style.figure(width, height)
    picture = axes.imshow(values, cmap="cividis", aspect="auto")
    figure.colorbar(picture, label=label)
    for (row, column), value in np.ndenumerate(values):
        ink = "black"
        if not np.isnan(value):
            ink = style.ink(picture.to_rgba(value))
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=8)
        if targets[row] == beliefs[column]:
            corner = (column - 0.44, row - 0.44)
            axes.add_patch(Rectangle(corner, 0.88, 0.88, fill=False, edgecolor=ink, linewidth=1.5))
    axes.set_xticks(range(len(beliefs)), beliefs, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(targets)), targets)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(title=title, xlabel="what the attacker believes", ylabel="target's setting")
    if set(targets) & set(beliefs):
        axes.plot([], [], color="black", marker="s", **style.HOLLOW, label="the attacker knows the setting")
        return style.with_legend(figure, below=True)
    return figure


@style.theme()
def dots(
    panels: dict,
    references: dict | None = None,
    emphasis: Sequence[str] = (),
    reference: str = "guessing",
    each: str = "one target",
) -> Figure:
    """A dot for the mean and a bar for its 95% interval: a row for each setting, a panel for each quantity.

    panels: title -> {setting -> values over targets (n,), or an Estimate}. The first setting stands on top; a
        panel may lack some. Values are drawn as small dots too, `each` says of what. An interval or mean that is
        nan is left out.
    references: title -> where a dotted line stands, say 0.5; `reference` is what it means.
    emphasis: settings with filled marks; all others are then hollow.
    """
    references = references or {}
    settings = list(dict.fromkeys(name for values in panels.values() for name in values))
    if not settings:
        raise ValueError("panels is empty; it must hold at least one setting")
    for what, names, known in (("references", references, panels), ("emphasis", emphasis, settings)):
        if strange := sorted(set(names) - set(known)):
            raise ValueError(f"{what} names {strange}; there are {list(known)}")
    width = 0.4 + 2.3 * len(panels) + 0.07 * max(len(str(name)) for name in settings)
    figure, every = style.figure(width, 1.1 + 0.25 * len(settings), columns=len(panels), sharey=True)
    figure.get_layout_engine().set(w_pad=0.1)  # inches, so that the numbers of two axes never touch
    strong = {"color": style.DARK, "markersize": 6, "elinewidth": 1.5}
    weak = {"color": "#555555", "markersize": 6, "elinewidth": 1.2, "markerfacecolor": "white"}
    for axes, (title, values) in zip(every, panels.items(), strict=True):
        axes.hlines(range(len(settings)), 0, 1, transform=axes.get_yaxis_transform(), **_GUIDE)
        if title in references:
            axes.axvline(references[title], color="black", **style.DOTTED, label=reference)
        for name, value in values.items():
            row, single = settings.index(name), np.empty(0)
            if not isinstance(value, Estimate):
                single = metrics.vector(f"panels[{title!r}][{name!r}]", value)
                value = metrics.over_targets(single)
            bar = style.error(*np.reshape(value, (3, 1)))
            look = strong if name in emphasis or not emphasis else weak
            axes.errorbar(value.value, row, xerr=bar, fmt="o", **look, label="mean and 95% interval")
            if len(single) > 1:  # just below the bar, which would hide them
                axes.plot(single, np.full(len(single), row + 0.24), **_SMALL, label=each)
        axes.set(xlabel=title, ylim=(len(settings) - 0.4, -0.6))
        axes.locator_params(axis="x", nbins=5)
        axes.tick_params(axis="y", length=0)
    every[0].set_yticks(range(len(settings)), settings)
    return style.with_legend(figure, below=True)


@style.theme()
def gallery(rows: Mapping, captions: Mapping[str, Sequence[str]] | None = None) -> Figure:
    """One row of pictures for each name, one above the other, to be compared column by column.

    rows: name -> pictures (n, c, h, w) with one or three channels, (n, h, w), or features (n, d), which are drawn as
        stripes; all in [0, 1], the same n in each row.
    captions: name of a row -> n short texts below its pictures, say their errors.
    Raises ValueError for rows of different n, other shapes or values, and captions that fit no row.
    """
    rows = {name: np.asarray(pictures, dtype=float) for name, pictures in rows.items()}
    captions = {name: list(texts) for name, texts in (captions or {}).items()}
    count = _check_gallery(rows, captions)
    gap, line = 0.06, 0.19  # between pictures, height of a line of text; the unit is a picture's width
    figure = Figure()  # its size is known at the end
    axes = figure.add_axes((0, 0, 1, 1))
    top, middles = 0.0, []
    for name, pictures in rows.items():
        if pictures.ndim == 2:
            pictures, height = pictures[:, None], 1 - gap  # a pixel high, and stretched
        else:
            height = (1 - gap) * pictures.shape[-2] / pictures.shape[-1]
        if pictures.ndim == 4:
            pictures = np.moveaxis(pictures, 1, 3)
        for column, picture in enumerate(pictures):
            place = (column + gap / 2, column + 1 - gap / 2, top + height, top)
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=place)
        for column, text in enumerate(captions.get(name, [])):
            axes.text(column + 0.5, top + height + 0.02, text, ha="center", va="top", fontsize=7)
        middles.append(top + height / 2)
        lines = max((text.count("\n") + 1 for text in captions.get(name, [])), default=0)
        top += height + gap + line * lines
    axes.set(xlim=(0, count), ylim=(top, 0), xticks=[], aspect="auto")
    axes.set_yticks(middles, list(rows))
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set_visible(False)
    figure.draw_without_rendering()
    labels = max(label.get_window_extent().width for label in axes.get_yticklabels()) / figure.dpi + 0.1
    width, height = labels + PICTURE * count, PICTURE * top
    figure.set_size_inches(width, height)
    axes.set_position((labels / width, 0, PICTURE * count / width, 1))
    return figure


def _check_gallery(rows: dict, captions: dict) -> int:
    """The number of pictures in each row."""
    if not rows:
        raise ValueError("rows is empty; it must hold at least one row of pictures")
    count = len(next(iter(rows.values())))
    for name, pictures in rows.items():
        if pictures.ndim not in (2, 3, 4) or pictures.ndim == 4 and pictures.shape[1] not in (1, 3):
            raise ValueError(
                f"rows[{name!r}] has shape {pictures.shape}; it must be (n, 1 or 3, h, w), (n, h, w) or (n, d)"
            )
        if len(pictures) != count or count == 0:
            raise ValueError(
                f"rows[{name!r}] has {len(pictures)} pictures, the first row {count}; equal numbers needed"
            )
        if not (pictures.min() >= 0 and pictures.max() <= 1):
            raise ValueError(
                f"rows[{name!r}] holds {pictures.min():g} to {pictures.max():g}; pixels must be in [0, 1]"
            )
    for name, texts in captions.items():
        if name not in rows:
            raise ValueError(f"captions names {name!r}; there are {list(rows)}")
        if len(texts) != count:
            raise ValueError(f"captions[{name!r}] has {len(texts)} texts for {count} pictures")
    return count


def _pool(arrays) -> np.ndarray:
    """One float array (n,) from an array, or from a list of arrays (one for each target)."""
    parts = arrays if isinstance(arrays, (list, tuple)) else [arrays]
    return np.concatenate([np.ravel(np.asarray(part, dtype=float)) for part in parts])
