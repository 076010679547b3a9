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

from mialib import metrics, results, store

DARK, MIDDLE, LIGHT = "#004488", "#BB5566", "#DDAA33"  # Paul Tol's high-contrast scheme
FAINT = "#BBBBBB"
_COLOURS = (DARK, MIDDLE, LIGHT)
_LINES = ("-", "--", "-.", ":")
_DOTTED = {"linestyle": (0, (1, 2)), "linewidth": 1.2}
_HOLLOW = {"linestyle": "none", "markersize": 9, "markerfacecolor": "white"}
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
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
def per_class(confidence_gap: dict, sensitivity_gap: dict | None = None, names=None) -> Figure:
    """Each class's gap between members and non-members, a dot for each model.

    confidence_gap: model -> gaps (c,), members minus non-members; say {"original": ..., "control": ...,
        "pruned": ...}. Classes are sorted by the last model's.
    sensitivity_gap: the same, non-members minus members; a second panel with the classes in the same order.
    names: class names (c,); their numbers without. nan leaves a dot out.
    """
    gaps = {"confidence gap\n(members − non-members)": confidence_gap}
    if sensitivity_gap is not None:
        gaps["sensitivity gap\n(non-members − members)"] = sensitivity_gap
    last = np.asarray(list(confidence_gap.values())[-1], dtype=float)
    order = np.argsort(np.where(np.isnan(last), -np.inf, last), kind="stable")
    names = np.asarray(range(len(last)) if names is None else names).astype(str)
    spacing, size = (0.22, 9) if len(last) <= 40 else (0.13, 6)
    figure, panels = _figure(
        3.4 * len(gaps) + 0.4, max(2.6, spacing * len(last) + 1.2), columns=len(gaps), sharey=True
    )
    positions = np.arange(len(last))
    for axes, (label, models) in zip(panels, gaps.items(), strict=True):
        axes.axvline(0, color=FAINT, linewidth=1)
        sorted_gaps = np.array([np.asarray(gap, dtype=float)[order] for gap in models.values()])
        ends = np.fmin.reduce(sorted_gaps), np.fmax.reduce(sorted_gaps)
        axes.hlines(positions, *ends, color=FAINT, linewidth=0.8)
        for name, gap, look in zip(models, sorted_gaps, _looks(len(models)), strict=True):
            axes.plot(gap, positions, **look | {"linestyle": "none"}, label=name)
        axes.set(xlabel=label, ylim=(-0.7, len(last) - 0.3))
    panels[0].set_yticks(positions, names[order], fontsize=size)
    panels[0].set_ylabel("class")
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
def tradeoff(rows, attack: str, metric: str = "auc") -> Figure:
    """Test accuracy against an attack's success, for defences by strength; down and to the right is better.

    Takes `test_accuracy` rows (attack None) and `metric` rows of `attack`, matched by defence and strength.
    Points are labelled with the strength; hollow markers are the unaware adversary, filled ones the adaptive;
    a star is no defence. Compression and other columns may not vary (ValueError names them).
    """
    keys = ["defense", "defense_strength"]
    accuracy = _settled(rows, "test_accuracy", set(keys))
    leak = _settled(
        [item for item in _records(rows) if item["attack"] == attack], metric, {*keys, "adversary"}
    )
    points = leak.merge(accuracy, on=keys, how="left", suffixes=("", "_x"))
    if points["value_x"].isna().any():
        lost = points[points["value_x"].isna()].iloc[0]
        raise ValueError(
            f"rows hold no test_accuracy for {lost['defense']}, strength {lost['defense_strength']}"
        )
    figure, axes = _figure(4.8, 4.2)
    defenses = [name for name in leak["defense"].unique() if name != "none"]
    looks = {"none": {"color": "black", "linestyle": "none", "marker": "*", "markersize": 11}}
    looks |= dict(zip(defenses, _looks(len(defenses)), strict=True))
    for (defense, adversary), line in points.groupby(["defense", "adversary"], sort=False, dropna=False):
        line = line.sort_values("defense_strength")
        hollow = {"markerfacecolor": "white"} if adversary == "unaware" and defense != "none" else {}
        label = "no defence" if defense == "none" else f"{defense}, {adversary}"
        errors = {"xerr": _error(line, "_x"), "yerr": _error(line)}
        axes.errorbar(
            line["value_x"], line["value"], **errors, fmt="none", ecolor=FAINT, elinewidth=0.8, zorder=1
        )
        axes.plot(line["value_x"], line["value"], **looks[defense] | hollow, label=label)
        # The adaptive adversary is usually the stronger: its labels go above left, the other's below right.
        place = (
            {"xytext": (6, -3), "va": "top"} if hollow else {"xytext": (-6, 3), "va": "bottom", "ha": "right"}
        )
        for x, y, strength in line[["value_x", "value", "defense_strength"]].dropna().itertuples(index=False):
            axes.annotate(f"{strength:g}", (x, y), **place, textcoords="offset points", fontsize=7)
    if metric in _CHANCE:
        axes.axhline(_CHANCE[metric], color=FAINT, linewidth=1, label="chance")
    axes.margins(0.08)
    axes.set(xlabel="test accuracy", ylabel=f"{_name(metric)} of {attack}")
    return _with_legend(figure)


def _figure(width, height, columns=None, **options):
    """A figure of `width` x `height` inches and its axes, or a row of `columns` axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if columns is None:
        return figure, figure.subplots(**options)
    return figure, figure.subplots(1, columns, squeeze=False, **options)[0]


def _with_legend(figure, below=False) -> Figure:
    """The figure with the first axes' legend outside, where it cannot hide anything."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
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
