"""Charts of the results table: rows in, a Picture out; intervals are drawn as they are stored.

Rows are those of `mialib.study` (a list of dicts, or its `table`): where they name targets they are averaged first
(`study.aggregate`), and intervals drawn are those over targets; where there is one target, those over its examples.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from seaborn import objects as so

from mialib import study
from mialib.figures import alt, style
from mialib.reporting.vocabulary import CHANCE, LEVEL_NAMES, in_words, metric_name, model_name
from mialib.study import COLUMNS
from mialib.study.rows import WITHIN_A_SETTING, is_control


@style.theme()
def against_level(
    rows, metric: str, by: str = "compression", xlabel: str | None = None, axis: str = "sparsity"
) -> Figure:
    """A metric against the level of compression: a line with its interval as a band for each value of `by`.

    The original (compression "none") is a dotted horizontal line, or one for each value of `by` it has; the control
    (`study.rows.is_control`) a hollow marker of its own, with its interval; several stand side by side. Other columns may not vary: choose rows
    with `study.table(rows, attack=...)`; ValueError names the ones that do.

    by: "compression", "variant" (families of one method; what names none bears the method's name), "attack", ...
    axis: "sparsity"; "ratio", the compression 1 / (1 - sparsity) on a log axis, the control at 1x, with ticks at
        the levels present, fewer where they crowd; "bits", bit-widths on a log axis with ticks at the levels
        present, the control at 32.
    """
    if axis not in LEVEL_NAMES:
        raise ValueError(f"axis is {axis!r}; it must be one of {list(LEVEL_NAMES)}")
    frame = settled(rows, metric, {by, "compression", "level"})
    if by == "variant":
        frame["variant"] = frame["variant"].fillna(frame["compression"])
    original, compressed = frame[frame["compression"] == "none"], frame[frame["compression"] != "none"]
    if compressed.empty:
        raise ValueError("rows hold no compressed model; compression is 'none' in all of them")
    levels = compressed["level"]
    if not (levels >= 1 if axis == "bits" else levels.between(0, 1, inclusive="left")).all():
        needed = "bit-widths, from 1" if axis == "bits" else "sparsities, from 0 to below 1"
        raise ValueError(f"rows hold the levels {sorted(set(levels.tolist()))}; axis {axis!r} needs {needed}")
    compressed = compressed.assign(
        x=1 / (1 - levels) if axis == "ratio" else levels,
        name=compressed[by].map(in_words),
        control=compressed["value"].where(levels.map(is_control)),
        line=compressed["value"].mask(
            levels.map(is_control)
        ),  # nothing was compressed there: no line leads to it
    ).sort_values("level", kind="stable")
    compressed["x"] = _side_by_side(compressed["x"], compressed["control"].notna(), log=axis != "sparsity")
    looks = style.looks(in_words(name) for name in frame.loc[frame["compression"] != "none", by].unique())
    ends = {"ymin": "low", "ymax": "high"}
    plot = (
        so.Plot(compressed, x="x", color="name", marker="name", linestyle="name")
        # ends are given where they are drawn: seaborn leaves out what lacks one of its variables
        .add(so.Band(alpha=0.12, edgewidth=0), y="line", **ends, marker=None, linestyle=None, legend=False)
        .add(so.Path(pointsize=5), y="line", legend=False)
        .add(so.Range(linewidth=0.9), y="control", **ends, linestyle=None, legend=False)
        .add(
            so.Dot(color="white", pointsize=5, artist_kws=style.ABOVE), y="control", color=None, legend=False
        )
        .add(so.Dot(fill=False, pointsize=7, stroke=1.2, artist_kws=style.ABOVE), y="control", legend=False)
        .scale(**style.scales(looks))
    )
    picture, axes = style.figure(5.4, 3.2)
    style.draw(plot, axes)
    for group, value in zip(original[by], original["value"], strict=True):
        # one original stands for all methods of compression and their variants; of attacks each has its own
        own = looks.get(in_words(group), {"color": style.FAINT}) if isinstance(group, str) else {}
        shared = by in ("compression", "variant")
        axes.axhline(value, color="black" if shared else own["color"], **style.DOTTED)
    if len(original):
        axes.plot([], [], color="black", **style.DOTTED, label="original")
    if compressed["control"].notna().any():
        axes.plot([], [], color="black", marker="o", **style.HOLLOW, label="control")
    if metric in CHANCE:
        axes.axhline(CHANCE[metric], color=style.FAINT, linewidth=1, label="chance")
    if axis == "ratio":
        _ratio_axis(axes, np.unique(1 / (1 - levels)))
    if axis == "bits":
        _log_axis(axes, bits := np.unique(levels), [f"{level:g}" for level in bits])
    xlabel = LEVEL_NAMES[axis] if xlabel is None else xlabel
    axes.set(xlabel=xlabel, ylabel=metric_name(metric))
    drawn = compressed[compressed["line"].notna()]
    where = [f"{name} at {x:.3g}" for name, x in zip(drawn["name"], drawn["x"], strict=True)]
    picture.alt = (
        f"{metric_name(metric)} against {xlabel}: {alt.listed(looks)}. {alt.ends(drawn['line'], where)}"
        + "".join(f" The original has {value:.3g}." for value in original["value"][:1])
    )
    return style.with_legend(picture, looks)


@style.theme()
def attack_bars(rows, metric: str = "balanced_accuracy") -> Figure:
    """A metric of each attack on each model (original, control, compressed) with intervals, from chance.

    A model is a pair of compression and level; columns other than those and `attack` may not vary (ValueError
    names them). Attacks are sorted by the last model's value. What is unresolved (the low-FPR figures of bare
    decisions) has no bar.
    """
    frame = settled(rows, metric, {"attack", "compression", "level"})
    pairs = zip(frame["compression"], frame["level"], strict=True)
    frame = frame.assign(
        model=[in_words(model_name(*pair)) for pair in pairs], name=frame["attack"].map(in_words)
    )
    looks = style.looks(frame["model"].unique())
    strength = frame[frame["model"] == list(looks)[-1]].set_index("name")["value"]
    attacks = sorted(frame["name"].unique(), key=lambda name: -np.nan_to_num(strength.get(name, 0.0)))
    chance = CHANCE.get(metric, 0.0)
    plot = (
        so.Plot(frame, x="value", y="name", color="model")
        .add(so.Bar(baseline=chance, alpha=1, edgewidth=0), so.Dodge(), orient="y", legend=False)
        .add(
            so.Range(color="black", linewidth=0.9),
            so.Dodge(),
            xmin="low",
            xmax="high",
            orient="y",
            legend=False,
        )
        .scale(**style.scales(looks, "color"), y=so.Nominal(order=attacks))
    )
    picture, axes = style.figure(5.4, 0.7 + len(attacks) * (0.1 + 0.11 * len(looks)))
    style.draw(plot, axes)
    axes.axvline(chance, color="black", linewidth=0.8, linestyle=":", label="chance")
    axes.set(xlabel=metric_name(metric), ylabel="attack")
    where = [f"{name} on {model}" for name, model in zip(frame["name"], frame["model"], strict=True)]
    picture.alt = (
        f"Bars of {metric_name(metric)} by attack ({alt.listed(attacks)}) on {alt.listed(looks)}. "
        f"{alt.ends(frame['value'], where)}"
    )
    blocks = {
        name: {"color": look["color"], "linewidth": 7, "solid_capstyle": "butt"}
        for name, look in looks.items()
    }
    return style.with_legend(picture, blocks)


def records(rows) -> list[dict]:
    """Rows as dicts, also of a DataFrame; what is missing there is None."""
    if isinstance(rows, pd.DataFrame):
        rows = rows.astype(object).where(rows.notna(), None).to_dict("records")
    return list(rows)


def settled(rows, metric: str, free: set) -> pd.DataFrame:
    """The rows of `metric`, averaged over targets, once it is sure that only the columns in `free` vary.

    `low` and `high` are the interval over targets where there is one, else that over examples.
    """
    rows = records(rows)
    chosen = [item for item in rows if item["metric"] == metric]
    if not chosen:
        raise ValueError(f"rows hold no {metric!r}; they hold {sorted({item['metric'] for item in rows})}")
    if len({(item["target"], item["seed"]) for item in chosen}) > 1:
        chosen = study.aggregate(chosen)
    fixed = [name for name in COLUMNS if name not in WITHIN_A_SETTING | free]
    values = {name: {item[name] for item in chosen} for name in fixed}
    varying = {name: sorted(map(str, several)) for name, several in values.items() if len(several) > 1}
    if varying:
        raise ValueError(f"rows vary in {varying}; choose one each with study.table(rows, ...)")
    frame = pd.DataFrame(chosen, columns=list(COLUMNS))
    numbers = ["level", "value", "low", "high", "low_seeds", "high_seeds"]
    frame[numbers] = frame[numbers].astype(float)
    for end in ("low", "high"):
        frame[end] = frame[f"{end}_seeds"].fillna(frame[end])
    return frame


def _side_by_side(x: pd.Series, which: pd.Series, log: bool) -> pd.Series:
    """The places `x` with those of `which`, all at one place, moved apart by a thirtieth of the axis each."""
    places = np.log(x) if log else x
    step = (places.max() - places.min()) / 30 or 0.1
    count = which.sum()
    moved = places.where(~which, places + step * (which.cumsum() - (count + 1) / 2))
    return x.where(~which, np.exp(moved) if log else moved)


def _ratio_axis(axes, ratios) -> None:
    """A log axis with a tick ("2x") at each of these sorted ratios (n,); the highest win where they crowd."""
    least = 0.08 * np.log2(ratios[-1] / ratios[0])  # octaves between two ticks
    kept = [ratios[-1]]
    for ratio in ratios[-2::-1]:
        if np.log2(kept[-1] / ratio) >= least:
            kept.append(ratio)
    _log_axis(axes, kept, [f"{ratio:.2g}x" if ratio < 10 else f"{ratio:.0f}x" for ratio in kept])


def _log_axis(axes, places, texts) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, texts)
    axes.set_xticks([], minor=True)
