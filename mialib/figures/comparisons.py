"""Settings side by side: dots with intervals, a quantity of each class, a grid of who believes what."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mialib.figures import style
from mialib.measures import Estimate, metrics

_GUIDE = {"color": "#E4E4E4", "linewidth": 0.8, "zorder": 0.5}
_SMALL = {"color": "#999999", "linestyle": "none", "marker": "o", "markersize": 2.5}


@style.theme()
def class_dots(panels: dict, names=None, reference: float = 0.0) -> Figure:
    """A quantity of each class, a dot for each model, one panel for each quantity, with a line at `reference`.

    panels: label -> {model -> values (c,)}; say {"confidence gap": {"original": ..., "control": ..., "pruned": ...}}.
        Classes are sorted by the first panel's last model, in all panels alike. nan leaves a dot out.
    names: class names (c,); their numbers without.
    """
    last = metrics.numbers(list(next(iter(panels.values())).values())[-1])
    order = np.argsort(np.where(np.isnan(last), -np.inf, last), kind="stable")
    names = np.asarray(range(len(last)) if names is None else names).astype(str)
    spacing, size = (0.22, 9) if len(last) <= 40 else (0.13, 6)
    width, height = 3.4 * len(panels) + 0.4, max(2.6, spacing * len(last) + 1.2)
    figure, every = style.figure(width, height, columns=len(panels), sharey=True)
    positions = np.arange(len(last))
    for axes, (label, models) in zip(every, panels.items(), strict=True):
        axes.axvline(reference, color=style.FAINT, linewidth=1)
        values = np.array([metrics.numbers(value)[order] for value in models.values()])
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
