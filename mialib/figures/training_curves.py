"""Pictures of training and compression as they go: accuracy by epoch, ADMM's residual, the weights themselves."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from seaborn import objects as so

from mialib.figures import alt, style
from mialib.measures import metrics
from mialib.reporting.vocabulary import in_words

_MOST_LAYERS = 7  # lines with a colour of their own
_ENDS = {"low": "min", "mean": "mean", "high": "max"}


@style.theme()
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
    frame = pd.concat(
        (
            _by_epoch(title, name, targets)
            for title, parts in curves.items()
            for name, targets in _two(title, parts)
        ),
        ignore_index=True,
    )
    looks = {
        "train": {"color": style.DARK, "linestyle": "-"},
        "test": {"color": style.MIDDLE, "linestyle": "--"},
    }
    if baseline is not None:
        means = frame[frame["title"] == baseline].drop(columns=["low", "high"])
        means = means.assign(curve=means["curve"] + f", {in_words(baseline)}")
        for name in ("train", "test"):
            looks[f"{name}, {in_words(baseline)}"] = looks[name] | {"color": style.FAINT}
        frame = pd.concat(
            [*(means.assign(title=title) for title in curves if title != baseline), frame], ignore_index=True
        )
    columns, rows = style.grid(len(curves), 4)
    picture, _ = style.figure(min(style.WIDTH, 2.6 * columns + 0.6), 2.0 * rows + 0.3)
    picture.clear()
    longest = max(frame["epoch"].max(), 2)
    plot = (
        so.Plot(frame, x="epoch", color="curve", linestyle="curve")
        .facet("title", wrap=columns, order=list(curves))
        .add(so.Band(alpha=0.15, edgewidth=0), ymin="low", ymax="high", linestyle=None, legend=False)
        .add(so.Path(), y="mean", legend=False)
        .scale(**style.scales(looks, "color", "linestyle"))
        .limit(x=(1, longest))
        .label(x="epoch", y=label, title=lambda title: style.folded(in_words(title), 20))
    )
    style.draw(plot, picture)
    picture.axes[0].locator_params(axis="x", integer=True, nbins=5)
    last = frame[frame["curve"] == "test"].groupby("title", sort=False).last()["mean"]
    picture.alt = (
        f"{label.capitalize()} by epoch on training and test examples, {len(curves)} panels: "
        f"{alt.listed(map(in_words, curves))}. At the end, on test examples: {alt.ends(last, map(in_words, last.index))}"
    )
    return style.with_legend(picture, looks)


@style.theme()
def convergence(
    curves: dict, goal: float | None = None, label: str = "residual, relative to the weights"
) -> Figure:
    """The residual of ADMM after each iteration: mean over models, with the least to the greatest as a band.

    curves: layer's name -> (models, iterations), none below 0, named by its place; "all" is drawn thick and black. Of
        more than seven layers only those that end highest and lowest are named, the others are grey.
    goal: residual to reach, a dotted line.
    The y axis is logarithmic, with a 0 marked at its foot where some are 0. A nan leaves a gap in its line.
    """
    if not curves:
        raise ValueError("curves is empty; it must hold at least one line")
    if goal is not None and not goal > 0:
        raise ValueError(f"goal is {goal}; a log axis needs one above 0")
    curves = {name: metrics.numbers(values) for name, values in curves.items()}
    for name, values in curves.items():
        if values.ndim != 2 or values.size == 0 or (values < 0).any():
            raise ValueError(f"curves[{name!r}], {values.shape}, must be (models, iterations), none below 0")
    seen = np.concatenate([values.ravel() for values in curves.values()] + [[goal or np.nan]])
    least = min(seen[seen > 0], default=1.0)
    zero = 0.35 * 10 ** np.floor(np.log10(least / 0.7))  # the place of 0: lower, and between two decades
    layers = [name for name in curves if name != "all"]
    names = {name: _layer(place, name) for place, name in enumerate(layers, 1)} | {"all": "all"}
    frame = pd.concat(
        (_band(values, "iteration", skipna=False, line=names[name]) for name, values in curves.items()),
        ignore_index=True,
    )
    last = {names[name]: values[:, -1].mean() for name, values in curves.items()}
    looks = style.looks(_told(last))
    low_to_high = frame.replace({"low": {0: zero}, "mean": {0: zero}, "high": {0: zero}})
    told = low_to_high[low_to_high["line"].isin(looks)]
    grey = {"color": "#CCCCCC", "linewidth": 0.8, "zorder": 1}
    thick = {"color": "black", "linewidth": 3}
    others = [name for name in last if name not in looks and name != "all"]
    picture, axes = style.figure(5.4, 3.2)
    # seaborn would look for lines of each colour in each line style: minutes for fifty layers
    for name in others:
        one = low_to_high[low_to_high["line"] == name]
        axes.plot(one["iteration"], one["mean"], **grey)
    if len(told):
        plot = (
            so.Plot(told, x="iteration", color="line")
            .add(so.Band(alpha=0.1, edgewidth=0), ymin="low", ymax="high", legend=False)
            .add(so.Path(pointsize=4, linewidth=1.4), y="mean", linestyle="line", marker="line", legend=False)
            .scale(**style.scales(looks))
        )
        style.draw(plot, axes)
    if "all" in curves:
        one = low_to_high[low_to_high["line"] == "all"]
        axes.plot(one["iteration"], one["mean"], **thick, label="all")
    if others:
        axes.plot([], [], **grey, label=f"the {len(others)} other layers")
    if goal is not None:
        axes.axhline(goal, color="black", **style.DOTTED, label="goal")
    axes.set_yscale("log")
    if (seen == 0).any():
        axes.set_ylim(bottom=zero / 1.2)
        axes.text(-0.02, zero, "0", transform=axes.get_yaxis_transform(), ha="right", va="center")
    axes.locator_params(axis="x", integer=True, nbins=10)
    axes.set(xlabel="iteration of ADMM", ylabel=label)
    picture.alt = (
        f"{label[0].upper()}{label[1:]}, of {len(layers)} layers over {frame['iteration'].max()} iterations of ADMM, on a logarithmic axis. "
        f"At the end: {alt.ends(last.values(), last)}" + ("" if goal is None else f" The goal is {goal:g}.")
    )
    return style.with_legend(picture, looks)


@style.theme()
def magnitudes(weights: Mapping[str, np.ndarray], kept: int) -> Figure:
    """Magnitudes of one layer's weights from the largest to the smallest, both axes logarithmic.

    weights: state of the layer (say, before and after ADMM) -> its weights, any shape. The axis spans five decades.
    kept: how many may stay, a dotted line: what stands right of it is what pruning takes away. Lines break there.
    """
    if not weights:
        raise ValueError("weights is empty; it must hold at least one state of the layer")
    looks = style.looks(map(in_words, weights))
    sizes = {name: -np.sort(-np.abs(np.ravel(metrics.numbers(values)))) for name, values in weights.items()}
    frame = pd.concat(
        (
            pd.DataFrame({"rank": np.arange(len(size)) + 1, "size": size, "state": in_words(name)})
            for name, size in sizes.items()
        ),
        ignore_index=True,
    )
    frame = frame[frame["size"] > 0].assign(part=frame["rank"] > kept)
    picture, axes = style.figure(5.4, 3.2)
    scales = style.scales(looks, "color", "linestyle")
    line = so.Plot(frame, x="rank", y="size", color="state", linestyle="state", group="part").scale(**scales)
    style.draw(line.add(so.Path(), legend=False), axes)
    largest = frame["size"].max()
    axes.axvline(kept, color="black", **style.DOTTED, label=f"left of it: the {kept:,} kept")
    axes.set(xscale="log", yscale="log", xlabel="rank of the weight", ylabel="magnitude")
    axes.set_ylim(largest / 1e5, largest * 2)  # what is smaller than that is as good as nothing
    first = {name: size[min(kept, len(size) - 1)] for name, size in sizes.items()}
    picture.alt = (
        f"Magnitudes of a layer's weights by rank, both axes logarithmic: {alt.listed(looks)}. "
        f"The largest weight after the {kept:,} that stay: {alt.ends(first.values(), map(in_words, first))}"
    )
    return style.with_legend(picture, {name: look | {"marker": ""} for name, look in looks.items()})


@style.theme()
def grids(weights: np.ndarray, quantized: Mapping[str, np.ndarray]) -> Figure:
    """What quantisation does to the weights of a layer: which values are left, and how many weights take each.

    weights: (n,), before, drawn faintly behind every panel as a histogram.
    quantized: panel title -> (n,), after; a bar for each value that is left, its height the share of weights there.
    """
    picture, panels = style.panels(len(quantized), 1.9, each=2.4, sharex=True)
    left = {}
    for axes, (title, values) in zip(panels, quantized.items(), strict=True):
        kept, counts = np.unique(values, return_counts=True)
        left[title] = len(kept)
        frame = pd.DataFrame({"weight": kept, "share": counts / counts.max(), "foot": 0.0})
        heights, edges = np.histogram(weights, 60)
        axes.stairs(
            heights / heights.max(), edges, fill=True, color=style.FAINT, label="before (another scale)"
        )
        bars = so.Range(color=style.DARK, linewidth=min(1.5, 60 / len(kept)))
        style.draw(so.Plot(frame, x="weight", ymin="foot", ymax="share").add(bars), axes)
        axes.plot([], [], color=style.DARK, label="after")
        if len(kept) <= 32:  # where few weights are, a bar is too short to see
            axes.plot(kept, [0] * len(kept), "v", color=style.DARK, markersize=4, clip_on=False)
        axes.set(title=f"{title}: {len(kept)} values", xlabel="weight", ylabel="", yticks=[])
        axes.tick_params(labelbottom=True)
        axes.spines["left"].set_visible(False)
    picture.supylabel("share of weights", fontsize=9)
    picture.alt = (
        f"Histograms of a layer's {np.size(weights):,} weights before and after quantisation to "
        f"{alt.listed(left)}. Values left: {alt.ends(left.values(), left)}"
    )
    return style.with_legend(picture)


def _layer(place: int, name: str) -> str:
    """A layer by its place in the network; other names in words."""
    return f"layer {place}" if name.endswith(".weight") else in_words(name)


def _told(last: dict) -> list:
    """The lines with a colour of their own: all of a few, else the two that end highest and lowest."""
    layers = sorted((name for name in last if name != "all"), key=lambda name: -np.nan_to_num(last[name]))
    return (
        [name for name in last if name != "all"] if len(layers) <= _MOST_LAYERS else layers[:2] + layers[-2:]
    )


def _two(title, parts) -> list:
    """The pairs "train" and "test" of a panel."""
    if set(parts) != {"train", "test"}:
        raise ValueError(f"curves[{title!r}] holds {sorted(parts)}; it must hold 'train' and 'test'")
    return [(name, parts[name]) for name in ("train", "test")]


def _by_epoch(title, name, targets) -> pd.DataFrame:
    """The `_band` of a curve over the targets that reach an epoch."""
    sequences = [metrics.numbers(target) for target in targets]
    if not sequences or any(target.ndim != 1 or len(target) == 0 for target in sequences):
        raise ValueError(f"curves[{title!r}][{name!r}] must hold a number for each epoch of each target")
    return _band(map(pd.Series, sequences), "epoch", title=title, curve=name)  # shorter rows end in nan


def _band(values, step: str, skipna: bool = True, **columns) -> pd.DataFrame:
    """Least, mean and greatest of values (n, steps) at each step, from 1, with further columns."""
    values = pd.DataFrame(values)
    ends = {name: getattr(values, how)(skipna=skipna) for name, how in _ENDS.items()}
    return pd.DataFrame({step: values.columns + 1, **ends, **columns})
