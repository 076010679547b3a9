"""Members against non-members: ROC curves, and how a signal is distributed over both."""

import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure

from mialib.figures import alt, style
from mialib.measures import metrics
from mialib.reporting.vocabulary import in_words


@style.theme()
def roc(curves: dict, title: str = "") -> Figure:
    """ROC curves on log-log axes with the chance line.

    curves: label -> (member, margin), each (n,), or lists of such arrays, one for each target, which are
        pooled; the AUC in the legend is the mean over targets, as in the tables. Scores of so few values that
        only one or two rates can be chosen are marks without a line.
    The axes begin at the smallest rate that can be resolved, 1 / (number of non-members).
    """
    pooled = {in_words(label): (_pool(member), _pool(margin)) for label, (member, margin) in curves.items()}
    picture, axes = style.figure(4.6, 4.0)
    limit = 1 / max(np.sum(member == 0) for member, _ in pooled.values())
    axes.plot([limit, 1], [limit, 1], color=style.FAINT, linewidth=1, label="chance")
    areas = {in_words(label): _area(*each) for label, each in curves.items()}
    for (label, look), (member, margin) in zip(style.looks(pooled).items(), pooled.values(), strict=True):
        fpr, tpr = metrics.roc(member, margin)
        label = f"{label} (AUC {areas[label]:.2f})"
        chosen = (np.minimum(fpr, tpr) < 1) & (np.maximum(fpr, tpr) > 0)  # neither all nor none
        if chosen.sum() <= 2:
            point = look | {"linestyle": "none", "clip_on": not chosen.any(), "zorder": 3}
            axes.plot(*np.maximum([fpr, tpr], limit)[:, chosen], **point, markersize=7, label=label)
        else:
            line = {"color": look["color"], "linestyle": look["linestyle"], "drawstyle": "steps-post"}
            axes.plot(fpr[tpr > 0], tpr[tpr > 0], **line, label=label)
    axes.set(xscale="log", yscale="log", xlim=(limit, 1), ylim=(limit, 1), aspect="equal", title=title)
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
    picture.alt = (
        f"ROC curves on logarithmic axes from a rate of {limit:.2g}: {alt.listed(pooled)}. "
        f"Area under the curve: {alt.ends(areas.values(), areas)} Chance is the diagonal."
    )
    return style.with_legend(picture)


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
    groups = np.where(member, "members", "non-members")
    values = {in_words(title): _pool(signal) for title, signal in values.items()}
    everything = np.concatenate(list(values.values()))
    edges = np.histogram_bin_edges(everything, bins)
    looks = {
        "members": {"color": style.MIDDLE, "linestyle": "-"},
        "non-members": {"color": style.DARK, "linestyle": "--"},
    }
    picture, panels = style.panels(len(values), 2.5, sharex=True, sharey=True)
    for axes, (title, signal) in zip(panels, values.items(), strict=True):
        frame = pd.DataFrame({"signal": signal, "group": groups})
        for name, look in looks.items():
            part = frame[frame["group"] == name]
            if kind == "ecdf":
                seaborn.ecdfplot(part, x="signal", ax=axes, **look)
            else:
                bars = {"element": "step", "stat": "probability", "bins": edges, "alpha": 0.15}
                seaborn.histplot(part, x="signal", ax=axes, linewidth=1.3, **bars, **look)
        means = (
            f"mean: members {_short(signal[member].mean())},\nnon-members {_short(signal[~member].mean())}"
        )
        axes.set_title(f"{title}\n{means}", fontsize=8)
        axes.set_xlabel(style.folded(label, 30))
        axes.tick_params(labelbottom=True)
    if kind == "ecdf" and np.ptp(everything) > 0:
        panels[0].set_xlim(everything.min(), np.quantile(everything, 0.99))
    style.outer(panels, "share of examples" if kind == "histogram" else "cumulative share")
    gaps = [signal[member].mean() - signal[~member].mean() for signal in values.values()]
    picture.alt = (
        f"{'Histograms' if kind == 'histogram' else 'Cumulative shares'} of {label} for members and non-members: "
        f"{alt.listed(values)}. Mean of members minus mean of non-members: {alt.ends(gaps, values)}"
    )
    return style.with_legend(picture, looks)


def _short(number: float) -> str:
    """Two decimals; of what is below a tenth two digits."""
    return f"{number:.2f}" if abs(number) >= 0.1 else f"{number:.2g}"


def _area(member, margin) -> float:
    """The AUC of one target, or its mean over lists of targets."""
    if isinstance(member, (list, tuple)):
        return float(np.mean([metrics.auc(*target).value for target in zip(member, margin, strict=True)]))
    return metrics.auc(member, margin).value


def _pool(arrays) -> np.ndarray:
    """One float array (n,) from an array, or from a list of arrays (one for each target)."""
    parts = arrays if isinstance(arrays, (list, tuple)) else [arrays]
    return np.concatenate([np.ravel(metrics.numbers(part)) for part in parts])
