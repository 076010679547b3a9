"""Pictures: every function takes arrays or results rows and returns a matplotlib Figure; `save` writes one.

Figures are built without pyplot, so that nothing is registered, shown or left open. A notebook shows one as
the last line of a cell, after `%matplotlib inline` in its setup. Rows are those of `mialib.results` (a list
of dicts, or its `table`): where they name targets they are averaged first (`results.aggregate`), and
intervals drawn are those over targets; where there is one target, those over its examples. Colours differ in
luminance, and lines and markers in shape too, so that a figure survives colour blindness and grey printing.
"""

import io
import itertools
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mialib import metrics, results, store

DARK, MIDDLE, LIGHT = "#004488", "#BB5566", "#DDAA33"  # Paul Tol's high-contrast scheme
FAINT = "#BBBBBB"
_COLOURS = (DARK, MIDDLE, LIGHT)
# From dark to light, neighbours of different hue.
_EIGHT = ("#14093f", "#7a0e3b", "#004c92", "#11742c", "#e45542", "#24a991", "#e1a112", "#86c8ee")
_LINES = ("-", "--", "-.", ":")
_DOTTED = {"linestyle": (0, (1, 2)), "linewidth": 1.2}
_HOLLOW = {"linestyle": "none", "markersize": 9, "markerfacecolor": "white"}
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">")
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of red, green and blue
_NAMES = {"auc": "AUC", "tpr_at_0.01": "TPR at 1% FPR", "tpr_at_0.001": "TPR at 0.1% FPR"}
_CHANCE = {"auc": 0.5, "balanced_accuracy": 0.5, "tpr_at_0.01": 0.01, "tpr_at_0.001": 0.001}
_MEASURED = {"target", "seed", "value", "low", "high", "low_seeds", "high_seeds", "n_members", "n_nonmembers"}


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


@style()
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


@style()
def roc(curves: dict, title: str = "") -> Figure:
    """ROC curves on log-log axes with the chance line.

    curves: label -> (member, margin), each (n,), or lists of such arrays, one for each target, which are
        pooled.
    The axes begin at the smallest rate that can be resolved, 1 / (number of non-members).
    """
    pooled = {label: (_pool(member), _pool(margin)) for label, (member, margin) in curves.items()}
    figure, axes = _figure(4.2, 4.2)
    limit = 1 / max(np.sum(member == 0) for member, _ in pooled.values())
    axes.plot([limit, 1], [limit, 1], color=FAINT, linewidth=1, label="chance")
    for (label, (member, margin)), look in zip(pooled.items(), _looks(len(pooled)), strict=True):
        del look["marker"]  # a curve of steps has a point for each example
        area = metrics.auc(member, margin).value
        axes.plot(
            *metrics.roc(member, margin), **look, drawstyle="steps-post", label=f"{label} (AUC {area:.2f})"
        )
    axes.set(xscale="log", yscale="log", xlim=(limit, 1), ylim=(limit, 1), aspect="equal", title=title)
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
    return _with_legend(figure)


@style()
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
    figure, panels = _figure(2.9 * len(values) + 0.5, 3.2, columns=len(values), sharex=True, sharey=True)
    everything = np.concatenate(list(values.values()))
    edges = np.histogram_bin_edges(everything, bins)
    groups = (("members", member, MIDDLE, "-"), ("non-members", ~member, DARK, "--"))
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
    return _with_legend(figure, below=True)


@style()
def per_class(panels: dict, names=None, reference: float = 0.0) -> Figure:
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
    figure, every = _figure(width, height, columns=len(panels), sharey=True)
    positions = np.arange(len(last))
    for axes, (label, models) in zip(every, panels.items(), strict=True):
        axes.axvline(reference, color=FAINT, linewidth=1)
        values = np.array([np.asarray(value, dtype=float)[order] for value in models.values()])
        ends = np.fmin.reduce(values), np.fmax.reduce(values)
        axes.hlines(positions, *ends, color=FAINT, linewidth=0.8)
        for name, dots, look in zip(models, values, _looks(len(models)), strict=True):
            axes.plot(dots, positions, **look | {"linestyle": "none"}, label=name)
        axes.set(xlabel=label, ylim=(-0.7, len(last) - 0.3))
    every[0].set_yticks(positions, names[order], fontsize=size)
    every[0].set_ylabel("class")
    return _with_legend(figure, below=True)


@style()
def against_level(rows, metric: str, by: str = "compression", xlabel: str = "sparsity") -> Figure:
    """A metric against the level of compression: a line with its interval as a band for each value of `by`.

    The original (compression "none") is a dotted horizontal line, cut short where there are more than four;
    the control (level 0.0) a hollow marker of its own, with its interval. Other columns may not vary: choose rows
    with `results.table(rows, attack=...)`; ValueError names the ones that do. Give `xlabel="bit-width"` for
    quantisation.
    """
    frame = _settled(rows, metric, {by, "compression", "level"})
    original, compressed = frame[frame["compression"] == "none"], frame[frame["compression"] != "none"]
    if compressed.empty:
        raise ValueError("rows hold no compressed model; compression is 'none' in all of them")
    groups = compressed[by].unique()
    looks = dict(zip(groups, _looks(len(groups)), strict=True))
    crowded = len(groups) > 4
    figure, axes = _figure(4.6, 4.6 if crowded else 3.6)
    for group, look in looks.items():
        line = compressed[compressed[by] == group].sort_values("level")
        band = {"color": look["color"], "alpha": 0.05 if crowded else 0.15, "linewidth": 0}
        control, pruned = line[line["level"] == 0], line[line["level"] > 0]
        axes.fill_between(pruned["level"], pruned["low"], pruned["high"], **band)
        axes.plot(pruned["level"], pruned["value"], **look, label=group)
        # nothing was pruned there, so no line leads to it
        axes.errorbar(
            control["level"], control["value"], _error(control), color=look["color"], elinewidth=0.9
        )
        axes.plot(control["level"], control["value"], **look | _HOLLOW)
    for group, value in zip(original[by], original["value"], strict=True):
        # One original stands for all methods of compression; of attacks or defences each has its own.
        color = "black" if by == "compression" else looks.get(group, {"color": FAINT})["color"]
        axes.axhline(value, xmax=0.05 if crowded and by != "compression" else 1, color=color, **_DOTTED)
    if len(original):
        axes.plot([], [], color="black", **_DOTTED, label="original")
    if (compressed["level"] == 0).any():
        axes.plot([], [], color="black", marker="o", **_HOLLOW, label="control")
    if metric in _CHANCE:
        axes.axhline(_CHANCE[metric], color=FAINT, linewidth=1, label="chance")
    axes.set(xlabel=xlabel, ylabel=_name(metric))
    return _with_legend(figure)


@style()
def attack_bars(rows, metric: str = "balanced_accuracy") -> Figure:
    """A metric of each attack on each model (original, control, compressed) with intervals, from chance.

    A model is a pair of compression and level; columns other than those and `attack` may not vary (ValueError
    names them). Attacks are sorted by the last model's value. What is unresolved (the low-FPR figures of bare
    decisions) has no bar.
    """
    frame = _settled(rows, metric, {"attack", "compression", "level"})
    frame["model"] = [_model(*pair) for pair in zip(frame["compression"], frame["level"], strict=True)]
    models = frame["model"].unique()
    strength = frame[frame["model"] == models[-1]].set_index("attack")["value"]
    attacks = sorted(frame["attack"].unique(), key=lambda attack: np.nan_to_num(strength.get(attack, 0.0)))
    chance = _CHANCE.get(metric, 0.0)
    figure, axes = _figure(4.8, 1.3 + len(attacks) * (0.1 + 0.12 * len(models)))
    thickness = 0.8 / len(models)
    for index, (model, look) in enumerate(zip(models, _looks(len(models)), strict=True)):
        bars = frame[frame["model"] == model]
        place = (
            np.array([attacks.index(attack) for attack in bars["attack"]]) + 0.4 - thickness * (index + 0.5)
        )
        value = bars["value"].to_numpy()
        axes.barh(place, value - chance, thickness, left=chance, color=look["color"], label=model)
        axes.errorbar(value, place, xerr=_error(bars), fmt="none", ecolor="black", elinewidth=0.9)
    axes.axvline(chance, color="black", linewidth=0.8, linestyle=":", label="chance")
    axes.set_yticks(range(len(attacks)), attacks)
    left, right = axes.get_xlim()
    axes.set(xlim=(min(left, chance - 0.04 * (right - chance)), right), ylim=(-0.6, len(attacks) - 0.4))
    axes.set(xlabel=_name(metric), ylabel="attack")
    return _with_legend(figure)


@style()
def tradeoff(rows, attack: str, metric: str = "auc", adversary: str | None = None) -> Figure:
    """Test accuracy against an attack's success, for defences by strength; down and to the right is better.

    Takes `test_accuracy` rows (attack None) and `metric` rows of `attack`, matched by defence, strength and
    variant. A line joins the strengths of each defence and variant; each strength is written once, beside the
    adaptive adversary's point if there is one. Filled markers are the adaptive adversary, hollow ones the
    unaware, large black ones no defence. Compression and other columns may not vary (ValueError names them).

    adversary: "adaptive" or "unaware" draws that one alone (and rows that name none); both without.
    """
    keys = ["defense", "variant", "defense_strength"]
    rows = _records(rows)
    if attack not in (attacks := {item["attack"] for item in rows} - {None}):
        raise ValueError(f"rows hold no attack {attack!r}; they hold {sorted(attacks)}")
    accuracy = _settled(rows, "test_accuracy", set(keys))
    leak = _settled([item for item in rows if item["attack"] == attack], metric, {*keys, "adversary"})
    for frame in (accuracy, leak):
        frame["defense_strength"] = frame["defense_strength"].astype(float)
        frame["variant"] = frame["variant"].fillna("")
    points = leak.merge(accuracy, on=keys, how="left", suffixes=("", "_x"))
    points["adversary"] = points["adversary"].fillna("")
    if points["value_x"].isna().any():
        lost = points[points["value_x"].isna()].iloc[0]
        strength = "" if np.isnan(lost["defense_strength"]) else f", strength {lost['defense_strength']:g}"
        raise ValueError(f"rows hold no test_accuracy for {_listed(*lost[['defense', 'variant']])}{strength}")
    looks = _defense_looks(list(dict.fromkeys(zip(points["defense"], points["variant"], strict=True))))
    found = sorted(set(points["adversary"]) - {""})
    if adversary is not None:
        if adversary not in found:
            raise ValueError(f"rows hold no adversary {adversary!r}; they hold {found}")
        points = points[points["adversary"].isin([adversary, ""])]

    crowded = len(looks) > 4
    figure, axes = _figure(*(6.4, 5.4) if crowded else (4.8, 4.2))
    for (defense, variant, name), line in points.groupby(["defense", "variant", "adversary"], sort=False):
        line = line.sort_values("defense_strength")
        look = looks[defense, variant] | ({"markerfacecolor": "white"} if name == "unaware" else {})
        look |= {"linestyle": "none"} if len(line) == 1 else {}
        shown = "no defence" if defense == "none" else defense
        bars = {"ecolor": FAINT, "elinewidth": 0.4 if crowded else 0.8, "zorder": 1}
        axes.errorbar(line["value_x"], line["value"], _error(line), _error(line, "_x"), fmt="none", **bars)
        label = _listed(shown, variant, name if adversary is None else "")
        axes.plot(line["value_x"], line["value"], **look, label=label)
    if metric in _CHANCE:
        axes.axhline(_CHANCE[metric], color=FAINT, linewidth=1, label="chance")
    axes.margins(0.08)
    whom = f"{attack}, {adversary} adversary" if adversary else attack
    axes.set(xlabel="test accuracy", ylabel=f"{_name(metric)} of {whom}")
    _with_legend(figure)
    named = points.dropna(subset=["defense_strength", "value"]).sort_values("adversary").drop_duplicates(keys)
    places = named[["value_x", "value"]].to_numpy()
    colors = [looks[group]["color"] for group in zip(named["defense"], named["variant"], strict=True)]
    _label_points(axes, places, [f"{value:g}" for value in named["defense_strength"]], colors)
    return figure


@style()
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
    figure, axes = _figure(width, height)
    picture = axes.imshow(values, cmap="cividis", aspect="auto")
    figure.colorbar(picture, label=label)
    for (row, column), value in np.ndenumerate(values):
        ink = "black"
        if not np.isnan(value):
            ink = _ink(picture.to_rgba(value))
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
        axes.plot([], [], color="black", marker="s", **_HOLLOW, label="the attacker knows the setting")
        return _with_legend(figure, below=True)
    return figure


@style()
def learning_curves(curves: dict, label: str = "accuracy", baseline: str | None = None) -> Figure:
    """Training and test curves by epoch: mean over targets, with the least to the greatest as a band.

    curves: panel title -> {"train": (targets, epochs), "test": the same}; lists of different lengths are
        averaged, at each epoch, over the targets that reach it.
    label: what the numbers are.
    baseline: title of the panel whose means are drawn faintly in all others.
    """
    if not curves:
        raise ValueError("curves is empty; it must hold at least one panel")
    if baseline is not None and baseline not in curves:
        raise ValueError(f"baseline is {baseline!r}; the panels are {list(curves)}")
    tables = {title: _by_epoch(title, parts) for title, parts in curves.items()}
    columns = min(len(tables), 4)
    lines = -(-len(tables) // columns)
    figure = Figure(figsize=(2.2 * columns + 0.6, 2 * lines + 0.8), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for spare in panels[len(tables) :]:
        spare.remove()
    looks = {"train": {"color": DARK, "linestyle": "-"}, "test": {"color": MIDDLE, "linestyle": "--"}}
    for index, (axes, (title, parts)) in enumerate(zip(panels, tables.items(), strict=False)):
        for name, look in looks.items():
            epochs, low, mean, high = parts[name]
            axes.fill_between(epochs, low, high, color=look["color"], alpha=0.15, linewidth=0)
            axes.plot(epochs, mean, **look, label=name)
        for name, look in looks.items() if baseline not in (None, title) else ():
            epochs, _, mean, _ = tables[baseline][name]
            axes.plot(epochs, mean, **look | {"color": FAINT}, zorder=1.5, label=f"{name}, {baseline}")
        axes.set_title(title)
        if index + columns >= len(tables):  # nothing below it
            axes.set_xlabel("epoch")
            axes.tick_params(labelbottom=True)
        if index % columns == 0:
            axes.set_ylabel(label)
    longest = max(epochs[-1] for parts in tables.values() for epochs, *_ in parts.values())
    panels[0].set_xlim(1, max(longest, 2))
    panels[0].locator_params(axis="x", integer=True, nbins=5)
    return _with_legend(figure, below=True)


def _figure(width, height, columns=None, **options):
    """A figure of `width` x `height` inches and its axes, or a row of `columns` axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if columns is None:
        return figure, figure.subplots(**options)
    return figure, figure.subplots(1, columns, squeeze=False, **options)[0]


def _with_legend(figure, below=False) -> Figure:
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


def _looks(count: int) -> list[dict]:
    """Colour, line and marker of each of `count` series: three fixed colours, else viridis, dark to light."""
    colours = _COLOURS if count <= 3 else matplotlib.colormaps["viridis"](np.linspace(0, 0.9, count))
    cycle = zip(colours, itertools.cycle(_LINES), itertools.cycle(_MARKERS), strict=False)
    return [
        {"color": matplotlib.colors.to_hex(color), "linestyle": line, "marker": marker}
        for color, line, marker in itertools.islice(cycle, count)
    ]


def _defense_looks(groups: list[tuple]) -> dict[tuple, dict]:
    """The look of each (defence, variant): large black symbols for no defence, else one of eight colours."""
    plain = [group for group in groups if group[0] == "none"]
    defended = [group for group in groups if group[0] != "none"]
    looks = dict(zip(defended, [look | {"markersize": 6} for look in _looks(len(defended))], strict=True))
    if 3 < len(defended) <= 8:
        for index, look in enumerate(looks.values()):
            look["color"] = _EIGHT[index * 7 // (len(defended) - 1)]
    for group, marker in zip(plain, itertools.cycle("*ph"), strict=False):
        looks[group] = {"color": "black", "linestyle": "none", "marker": marker, "markersize": 10}
    return looks


def _label_points(axes, points, texts, colors, size=7) -> None:
    """Write each text beside its point, where it covers the least of lines, markers and texts before it.

    The figure must be otherwise complete: its layout is settled here, and every place is measured in points.
    """
    axes.figure.draw_without_rendering()
    scale = 72 / axes.figure.dpi
    taken = []  # rows: centre, half the width, half the height, how bad it is to be covered
    for line in axes.get_lines():
        corners = line.get_transform().transform(line.get_xydata()) * scale
        steps = np.linspace(0, len(corners) - 1, 50 * len(corners))
        path = np.column_stack([np.interp(steps, range(len(corners)), ends) for ends in corners.T])
        taken += [(*place, 0.5, 0.5, 1) for place in path] + [(*place, 3.5, 3.5, 10) for place in corners]
    sides = np.array([(-1, 1), (1, -1), (-1, -1), (1, 1), (0, 1), (0, -1), (-1, 0), (1, 0)])
    for point, text, color in zip(points, texts, colors, strict=True):
        place = axes.transData.transform(point) * scale
        half = np.array([0.35 * size * len(text), 0.4 * size])
        offsets = np.concatenate([sides * (half + gap) for gap in (4, 9)])
        boxes = np.array(taken)
        apart = np.abs(boxes[:, :2] - (place + offsets)[:, None]) >= boxes[:, 2:4] + half
        offset = offsets[np.argmin((~apart.any(2)) @ boxes[:, 4])]
        taken.append((*(place + offset), *(half + (2, 0)), 20))
        rgb = np.array(matplotlib.colors.to_rgb(color))
        ink = rgb * min(1, 0.35 / (rgb @ _LUMINANCE))  # dark enough to read on white
        middle = {"textcoords": "offset points", "ha": "center", "va": "center"}
        axes.annotate(text, point, offset, **middle, fontsize=size, color=ink)


def _by_epoch(title, parts) -> dict:
    """For "train" and "test": epochs from 1; least, mean and greatest over the targets that reach each."""
    if set(parts) != {"train", "test"}:
        raise ValueError(f"curves[{title!r}] holds {sorted(parts)}; it must hold 'train' and 'test'")
    made = {}
    for name, targets in parts.items():
        sequences = [np.asarray(target, dtype=float) for target in targets]
        if not sequences or any(target.ndim != 1 or len(target) == 0 for target in sequences):
            raise ValueError(f"curves[{title!r}][{name!r}] must hold a number for each epoch of each target")
        values = pd.DataFrame(map(pd.Series, sequences))  # shorter rows end in nan, which the next line skips
        made[name] = values.columns + 1, values.min(), values.mean(), values.max()
    return made


def _ink(color) -> str:
    """Black or white, whichever is easier to read on `color`: relative luminance as in WCAG 2."""
    rgb = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ _LUMINANCE > 0.179 else "white"


def _listed(*parts) -> str:
    return ", ".join(part for part in parts if part)


def _pool(arrays) -> np.ndarray:
    """One float array (n,) from an array, or from a list of arrays (one for each target)."""
    parts = arrays if isinstance(arrays, (list, tuple)) else [arrays]
    return np.concatenate([np.ravel(np.asarray(part, dtype=float)) for part in parts])


def _records(rows) -> list[dict]:
    if isinstance(rows, pd.DataFrame):
        rows = rows.astype(object).where(rows.notna(), None).to_dict("records")
    return list(rows)


def _settled(rows, metric: str, free: set) -> pd.DataFrame:
    """The rows of `metric`, averaged over targets, once it is sure that only the columns in `free` vary.

    `low` and `high` are the interval over targets where there is one, else that over examples.
    """
    rows = _records(rows)
    chosen = [item for item in rows if item["metric"] == metric]
    if not chosen:
        raise ValueError(f"rows hold no {metric!r}; they hold {sorted({item['metric'] for item in rows})}")
    if len({(item["target"], item["seed"]) for item in chosen}) > 1:
        chosen = results.aggregate(chosen)
    found = {
        name: {item[name] for item in chosen} for name in results.COLUMNS if name not in _MEASURED | free
    }
    varying = {name: sorted(map(str, values)) for name, values in found.items() if len(values) > 1}
    if varying:
        raise ValueError(f"rows vary in {varying}; choose one each with results.table(rows, ...)")
    frame = pd.DataFrame(chosen, columns=list(results.COLUMNS))
    numbers = ["level", "value", "low", "high", "low_seeds", "high_seeds"]
    frame[numbers] = frame[numbers].astype(float)
    for end in ("low", "high"):
        frame[end] = frame[f"{end}_seeds"].fillna(frame[end])
    return frame


def _error(frame, suffix="") -> np.ndarray:
    """Lengths (2, n) of the error bars below and above the values; 0 where there is no interval."""
    value, low, high = (frame[name + suffix].to_numpy() for name in ("value", "low", "high"))
    return np.nan_to_num(np.maximum([value - low, high - value], 0))


def _model(compression, level) -> str:
    if compression == "none":
        return "original"
    return "control" if level == 0 else f"{compression} {level:g}"


def _name(metric: str) -> str:
    return _NAMES.get(metric, metric.replace("_", " ").replace("generalization", "generalisation"))
