"""Pictures of training and compression as they go: accuracy by epoch, ADMM's residual, the weights themselves."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mialib.figures import style
from mialib.measures import metrics


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
    tables = {title: _by_epoch(title, parts) for title, parts in curves.items()}
    columns = min(len(tables), 4)
    lines = -(-len(tables) // columns)
    figure = Figure(figsize=(2.2 * columns + 0.6, 2 * lines + 0.8), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for spare in panels[len(tables) :]:
        spare.remove()
    looks = {
        "train": {"color": style.DARK, "linestyle": "-"},
        "test": {"color": style.MIDDLE, "linestyle": "--"},
    }
    for index, (axes, (title, parts)) in enumerate(zip(panels, tables.items(), strict=False)):
        for name, look in looks.items():
            epochs, low, mean, high = parts[name]
            axes.fill_between(epochs, low, high, color=look["color"], alpha=0.15, linewidth=0)
            axes.plot(epochs, mean, **look, label=name)
        for name, look in looks.items() if baseline not in (None, title) else ():
            epochs, _, mean, _ = tables[baseline][name]
            axes.plot(epochs, mean, **look | {"color": style.FAINT}, zorder=1.5, label=f"{name}, {baseline}")
        axes.set_title(title)
        if index + columns >= len(tables):  # nothing below it
            axes.set_xlabel("epoch")
            axes.tick_params(labelbottom=True)
        if index % columns == 0:
            axes.set_ylabel(label)
    longest = max(epochs[-1] for parts in tables.values() for epochs, *_ in parts.values())
    panels[0].set_xlim(1, max(longest, 2))
    panels[0].locator_params(axis="x", integer=True, nbins=5)
    return style.with_legend(figure, below=True)


@style.theme()
def convergence(curves: dict, goal: float | None = None, label: str = "||W - Z|| / ||W||") -> Figure:
    """The residual of ADMM after each iteration: mean over models, with the least to the greatest as a band.

    curves: name, say of a layer, -> (models, iterations), none below 0; "all" is drawn thick and black.
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
    parts = [name for name in curves if name != "all"]
    looks = dict(zip(parts, style.series(len(parts)), strict=True))
    looks["all"] = {"color": "black", "linewidth": 3, "zorder": 3}
    figure, axes = style.figure(4.6, 3.6)
    for name, values in curves.items():
        iterations = np.arange(values.shape[1]) + 1
        drawn = values.min(0), values.mean(0), values.max(0)
        low, mean, high = (np.where(line == 0, zero, line) for line in drawn)
        axes.fill_between(iterations, low, high, color=looks[name]["color"], alpha=0.1, linewidth=0)
        axes.plot(iterations, mean, **looks[name], markevery=-(-len(iterations) // 12), label=name)
    if goal is not None:
        axes.axhline(goal, color="black", **style.DOTTED, label="goal")
    axes.set_yscale("log")
    if (seen == 0).any():
        axes.set_ylim(bottom=zero / 1.2)
        axes.text(-0.02, zero, "0", transform=axes.get_yaxis_transform(), ha="right", va="center")
    axes.locator_params(axis="x", integer=True, nbins=10)
    axes.set(xlabel="iteration of ADMM", ylabel=label)
    return style.with_legend(figure)


@style.theme()
def magnitudes(weights: Mapping[str, np.ndarray], kept: int) -> Figure:
    """Magnitudes of one layer's weights from the largest to the smallest, both axes logarithmic.

    weights: state of the layer (say, before and after ADMM) -> its weights, any shape. The axis spans five decades.
    kept: how many may stay, a dotted line: what stands right of it is what pruning takes away.
    """
    if not weights:
        raise ValueError("weights is empty; it must hold at least one state of the layer")
    figure, axes = style.figure(4.6, 3.6)
    for (name, values), look in zip(weights.items(), style.series(len(weights)), strict=True):
        sorted_ = -np.sort(-np.abs(np.ravel(metrics.numbers(values))))
        sorted_ = sorted_[sorted_ > 0]
        axes.plot(
            np.arange(len(sorted_)) + 1, sorted_, color=look["color"], linestyle=look["linestyle"], label=name
        )
    largest = max(float(np.abs(metrics.numbers(values)).max()) for values in weights.values())
    axes.set_ylim(largest / 1e5, largest * 2)  # what is smaller than that is as good as nothing
    axes.axvline(kept, color="black", **style.DOTTED, label=f"the {kept:,} that stay")
    axes.set(xscale="log", yscale="log", xlabel="rank of the weight", ylabel="magnitude")
    return style.with_legend(figure)


@style.theme()
def grids(weights: np.ndarray, quantized: Mapping[str, np.ndarray]) -> Figure:
    """What quantisation does to the weights of a layer: which values are left, and how many weights take each.

    weights: (n,), before, drawn faintly behind every panel as a histogram.
    quantized: panel title -> (n,), after; a bar for each value that is left, its height the share of weights there.
    """
    figure, panels = style.figure(
        max(2.1 * len(quantized), 2.9) + 0.3, 2.3, columns=len(quantized), sharex=True
    )
    edges = np.histogram_bin_edges(weights, 60)
    for axes, (title, values) in zip(panels, quantized.items(), strict=True):
        kept, counts = np.unique(values, return_counts=True)
        shares, before = counts / len(values), np.histogram(weights, edges)[0] / len(weights)
        axes.stairs(before / before.max(), edges, fill=True, color=style.FAINT, label="before (own scale)")
        thin = min(1.5, 60 / len(kept))
        axes.vlines(kept, 0, shares / shares.max(), color=style.DARK, linewidth=thin, label="after")
        if len(kept) <= 32:  # where few weights are, a bar is too short to see
            axes.plot(kept, [0] * len(kept), "v", color=style.DARK, markersize=4, clip_on=False)
        axes.set(title=f"{title}: {len(kept)} values", xlabel="weight", yticks=[])
        axes.spines["left"].set_visible(False)
    panels[0].set_ylabel("share of weights")
    return style.with_legend(figure, below=True)


def _by_epoch(title, parts) -> dict:
    """For "train" and "test": epochs from 1; least, mean and greatest over the targets that reach each."""
    if set(parts) != {"train", "test"}:
        raise ValueError(f"curves[{title!r}] holds {sorted(parts)}; it must hold 'train' and 'test'")
    made = {}
    for name, targets in parts.items():
        sequences = [metrics.numbers(target) for target in targets]
        if not sequences or any(target.ndim != 1 or len(target) == 0 for target in sequences):
            raise ValueError(f"curves[{title!r}][{name!r}] must hold a number for each epoch of each target")
        values = pd.DataFrame(map(pd.Series, sequences))  # shorter rows end in nan, which the next line skips
        made[name] = values.columns + 1, values.min(), values.mean(), values.max()
    return made
