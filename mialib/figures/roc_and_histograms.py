"""Members against non-members: ROC curves, and how a signal is distributed over both."""

import numpy as np
from matplotlib.figure import Figure

from mialib.figures import style
from mialib.measures import metrics


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


def _pool(arrays) -> np.ndarray:
    """One float array (n,) from an array, or from a list of arrays (one for each target)."""
    parts = arrays if isinstance(arrays, (list, tuple)) else [arrays]
    return np.concatenate([np.ravel(metrics.numbers(part)) for part in parts])
