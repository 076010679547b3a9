"""Settings side by side: dots with intervals, a quantity of each class, a grid of who believes what."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from seaborn import objects as so

from mialib.figures import alt, style
from mialib.measures import Estimate, metrics
from mialib.reporting.vocabulary import in_words

_END = 5  # classes at each end where there are too many to name


@style.theme()
def class_dots(panels: dict, names=None, reference: float = 0.0) -> Figure:
    """A quantity of each class, a dot for each model, one panel for each quantity, with a line at `reference`.

    panels: label -> {model -> values (c,)}; say {"confidence gap": {"original": ..., "control": ..., "pruned": ...}}.
        Classes are sorted by the first panel's last model, in all panels alike. nan leaves a dot out.
    names: class names (c,); "class 3" without. Of more than 12 classes the five at each end are drawn, and the mean
        of those between.
    """
    last = metrics.numbers(list(next(iter(panels.values())).values())[-1])
    order = np.argsort(np.where(np.isnan(last), -np.inf, last), kind="stable")[::-1]
    names = np.asarray([f"class {index}" for index in range(len(last))] if names is None else names).astype(
        str
    )
    groups = {names[index]: [index] for index in order}
    if len(order) > 2 * _END + 2:
        between = {f"{len(order) - 2 * _END} between, mean": order[_END:-_END]}
        top, bottom = (dict(list(groups.items())[part]) for part in (slice(_END), slice(-_END, None)))
        groups = top | between | bottom
    drawn = [
        (label, in_words(model), name, float(np.mean(metrics.numbers(values)[which])))
        for label, models in panels.items()
        for model, values in models.items()
        for name, which in groups.items()
    ]
    frame = pd.DataFrame(drawn, columns=["label", "model", "class", "value"])
    looks = style.looks(frame["model"].unique())
    picture, every = style.panels(len(panels), 0.9 + 0.22 * len(groups), sharex=True, sharey=True)
    for axes, (label, part) in zip(every, frame.groupby("label", sort=False), strict=True):
        ends = part.groupby("class")["value"]
        part = part.assign(low=ends.transform("min"), high=ends.transform("max"))
        plot = (
            so.Plot(part, x="value", y="class")
            .add(so.Range(color=style.FAINT, linewidth=1), xmin="low", xmax="high", orient="y", legend=False)
            .add(so.Dot(artist_kws=style.ABOVE), color="model", marker="model", legend=False)
            .scale(y=so.Nominal(order=list(groups)), **style.scales(looks, "color", "marker"))
        )
        style.draw(plot, axes)
        axes.axvline(reference, color=style.FAINT, linewidth=1)
        axes.set_xlabel(style.folded(in_words(label), 30))
    style.outer(every, "class")
    picture.alt = _words(frame, "class", "dots of three models" if len(looks) == 3 else "dots")
    return style.with_legend(picture, {name: look | {"linestyle": "none"} for name, look in looks.items()})


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
    targets, beliefs = ([in_words(str(name)) for name in names] for names in (table.index, table.columns))
    picture, axes = style.figure(
        min(style.WIDTH, 1.6 + 0.5 * len(beliefs) + 0.07 * max(map(len, targets))),
        0.9 + 0.36 * max(len(targets), 3) + 0.05 * max(map(len, beliefs)),
    )
    frame = pd.DataFrame(values, targets, beliefs)
    seaborn.heatmap(
        frame,
        annot=True,
        fmt=".2f",
        annot_kws={"size": 8},
        cmap="cividis",
        cbar_kws={"label": label},
        ax=axes,
    )
    (cells,), texts = axes.collections, iter(axes.texts)  # seaborn writes nothing where there is no number
    for (row, column), value in np.ndenumerate(values):
        ink = "black"
        if not np.isnan(value):
            ink = style.ink(cells.to_rgba(value))
            next(texts).set_color(ink)
        if targets[row] == beliefs[column]:
            box = Rectangle((column + 0.06, row + 0.06), 0.88, 0.88, fill=False, edgecolor=ink, linewidth=1.5)
            axes.add_patch(box)
    axes.set_xticks(axes.get_xticks(), beliefs, rotation=40, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.set(title=title, xlabel="what the attacker believes", ylabel="target's setting")
    where = [f"target {target}, belief {belief}" for target in targets for belief in beliefs]
    picture.alt = (
        f"Heat map of {label}: {len(targets)} settings of the target by {len(beliefs)} beliefs of the attacker. "
        f"{alt.ends(values.ravel(), where)}"
    )
    if set(targets) & set(beliefs):
        axes.plot([], [], color="black", marker="s", **style.HOLLOW, label="the attacker knows the setting")
    return style.with_legend(picture)


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
        nan is left out. Titles that begin alike up to a colon ("AUC: ...") name one quantity: their x axes agree.
    references: title -> where a dotted line stands, say 0.5; `reference` is what it means. What can be guessed is a
        share: its axis ends at 0 and 1, also where an interval goes on.
    emphasis: settings with filled marks, named in the legend where they are few; all others are then hollow.
    """
    references = references or {}
    settings = list(dict.fromkeys(name for values in panels.values() for name in values))
    if not settings:
        raise ValueError("panels is empty; it must hold at least one setting")
    for what, names, known in (("references", references, panels), ("emphasis", emphasis, settings)):
        if strange := sorted(set(names) - set(known)):
            raise ValueError(f"{what} names {strange}; there are {list(known)}")
    means, single = [], []
    for title, values in panels.items():
        for name, value in values.items():
            if not isinstance(value, Estimate):
                value = metrics.vector(f"panels[{title!r}][{name!r}]", value)
                single += [(title, in_words(name), number) for number in value if len(value) > 1]
                value = metrics.over_targets(value)
            means.append((title, in_words(name), *value, name in emphasis or not emphasis))
    means = pd.DataFrame(means, columns=["label", "setting", "value", "low", "high", "strong"])
    single = pd.DataFrame(single, columns=["title", "setting", "value"])
    order = so.Nominal(order=list(map(in_words, settings)))
    picture, every = style.panels(len(panels), 0.8 + 0.22 * len(settings), sharey=True)
    for axes, title in zip(every, panels, strict=True):
        own = means[means["label"] == title]
        plot = (
            so.Plot(own, x="value", y="setting")
            .add(so.Range(color=style.DARK, linewidth=1.3), xmin="low", xmax="high", orient="y")
            .add(so.Dot(color="white", pointsize=6, artist_kws=style.ABOVE))
            .add(
                so.Dot(color=style.DARK, pointsize=6, stroke=1.3, artist_kws=style.ABOVE),
                fill="strong",
                legend=False,
            )
            .scale(y=order, fill=so.Nominal({True: True, False: False}))
        )
        style.draw(plot, axes)
        targets = single[single["title"] == title]
        if len(targets):
            small = so.Plot(targets, x="value", y="setting").scale(y=order)
            style.draw(small.add(so.Dot(color="#888888", pointsize=2.5), so.Shift(y=0.27)), axes)
        if title in references:
            axes.axvline(references[title], color="black", **style.DOTTED, label=reference)
        axes.set(xlabel=style.folded(in_words(title), 20), ylim=(len(settings) - 0.4, -0.6))
        axes.grid(axis="y", color="#E4E4E4")
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=5)
    style.outer(every)
    _agree(dict(zip(panels, every, strict=True)))
    for axes in (axes for title, axes in zip(panels, every, strict=True) if title in references):
        if reference == "guessing":
            axes.set_xlim(max(axes.get_xlim()[0], -0.02), min(axes.get_xlim()[1], 1.02))
    if len(single):
        every[0].plot([], [], color="#888888", linestyle="none", marker="o", markersize=2.5, label=each)
    what = "mean" if len(single) else "estimate"
    filled = f" (filled: {alt.listed(map(in_words, emphasis))})" if 0 < len(emphasis) < 3 else ""
    every[0].plot([], [], color=style.DARK, marker="o", label=f"{what} and 95% interval{filled}")
    picture.alt = _words(means.assign(model=""), "setting", f"{what}s with 95% intervals")
    return style.with_legend(picture)


def _agree(panels: dict) -> None:
    """The same limits for the axes of titles that begin alike up to a colon."""
    for _, same in itertools.groupby(sorted(panels, key=_quantity), key=_quantity):
        together = [panels[title] for title in same]
        ends = [axes.get_xlim() for axes in together]
        for axes in together:
            axes.set_xlim(np.min(ends), np.max(ends))


def _quantity(title: str) -> str:
    """What a panel is about: a title up to its colon, if it has one."""
    return title.split(":")[0] + ":" if ":" in title else title


def _words(frame, row: str, what: str) -> str:
    """What rows of dots show: each panel with its highest and lowest."""
    found = [
        f"{in_words(label).replace(chr(10), ' ')}: "
        + alt.ends(part["value"], [_named(*pair) for pair in zip(part[row], part["model"], strict=True)])
        for label, part in frame.groupby("label", sort=False)
    ]
    return f"{what[0].upper()}{what[1:]} by {row}, {frame[row].nunique()} rows. {' '.join(found)}"


def _named(name, model) -> str:
    return f"{name}, {model}" if model else name
