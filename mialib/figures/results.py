"""Pictures of the results table: rows in, a matplotlib Figure out.

Rows are those of `mialib.study` (a list of dicts, or its `table`): where they name targets they are averaged first
(`study.aggregate`), and intervals drawn are those over targets; where there is one target, those over its examples.
`scatter` alone takes the values themselves.
"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mialib import study
from mialib.figures import style
from mialib.measures import metrics
from mialib.reporting.vocabulary import CHANCE, LEVEL_NAMES, metric_name, model_name
from mialib.study import COLUMNS
from mialib.study.rows import WITHIN_A_SETTING, is_control

# From dark to light, neighbours of different hue.
_EIGHT = ("#14093f", "#7a0e3b", "#004c92", "#11742c", "#e45542", "#24a991", "#e1a112", "#86c8ee")
# fmt: off
_TWELVE = (
    "#2d0a7d", "#462305", "#0f4169", "#195a00", "#b94105", "#b94b73",
    "#009691", "#00a0ff", "#b49b00", "#e187ff", "#69d264", "#f0b9a0",
)
# fmt: on
_SHAPES = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "*", "d", (4, 1, 0))


@style.theme()
def against_level(
    rows, metric: str, by: str = "compression", xlabel: str | None = None, axis: str = "sparsity"
) -> Figure:
    """A metric against the level of compression: a line with its interval as a band for each value of `by`.

    The original (compression "none") is a dotted horizontal line, cut short where there are more than four;
    the control (`study.rows.is_control`) a hollow marker of its own, with its interval. Other columns may not
    vary: choose rows with `study.table(rows, attack=...)`; ValueError names the ones that do.

    by: "compression", "variant" (families of one method; what names none bears the method's name), "attack", ...
    axis: "sparsity"; "ratio", the compression 1 / (1 - sparsity) on a log axis, the control at 1x, with ticks at
        the levels present, fewer where they crowd; "bits", bit-widths on a log axis with ticks at the levels
        present, the control at 32.
    """
    if axis not in LEVEL_NAMES:
        raise ValueError(f"axis is {axis!r}; it must be one of {list(LEVEL_NAMES)}")
    frame = _settled(rows, metric, {by, "compression", "level"})
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
        x=1 / (1 - levels) if axis == "ratio" else levels, control=levels.map(is_control)
    )
    groups = compressed[by].unique()
    looks = dict(zip(groups, style.series(len(groups)), strict=True))
    crowded, shared = len(groups) > 4, by in ("compression", "variant")
    figure, axes = style.figure(4.6, 4.6 if crowded else 3.6)
    for group, look in looks.items():
        line = compressed[compressed[by] == group].sort_values("level")
        band = {"color": look["color"], "alpha": 0.05 if crowded else 0.15, "linewidth": 0}
        control, line = line[line["control"]], line[~line["control"]]
        axes.fill_between(line["x"], line["low"], line["high"], **band)
        axes.plot(line["x"], line["value"], **look, label=group)
        # nothing was compressed there, so no line leads to it
        axes.errorbar(control["x"], control["value"], _error(control), color=look["color"], elinewidth=0.9)
        axes.plot(control["x"], control["value"], **look | style.HOLLOW)
    for group, value in zip(original[by], original["value"], strict=True):
        # One original stands for all methods of compression and their variants; of attacks or defences each
        # has its own.
        color = "black" if shared else looks.get(group, {"color": style.FAINT})["color"]
        axes.axhline(value, xmax=0.05 if crowded and not shared else 1, color=color, **style.DOTTED)
    if len(original):
        axes.plot([], [], color="black", **style.DOTTED, label="original")
    if compressed["control"].any():
        axes.plot([], [], color="black", marker="o", **style.HOLLOW, label="control")
    if metric in CHANCE:
        axes.axhline(CHANCE[metric], color=style.FAINT, linewidth=1, label="chance")
    if axis == "ratio":
        _ratio_axis(axes, np.unique(compressed["x"]))
    if axis == "bits":
        _log_axis(axes, bits := np.unique(levels), [f"{level:g}" for level in bits])
    axes.set(xlabel=LEVEL_NAMES[axis] if xlabel is None else xlabel, ylabel=metric_name(metric))
    return style.with_legend(figure)


@style.theme()
def attack_bars(rows, metric: str = "balanced_accuracy") -> Figure:
    """A metric of each attack on each model (original, control, compressed) with intervals, from chance.

    A model is a pair of compression and level; columns other than those and `attack` may not vary (ValueError
    names them). Attacks are sorted by the last model's value. What is unresolved (the low-FPR figures of bare
    decisions) has no bar.
    """
    frame = _settled(rows, metric, {"attack", "compression", "level"})
    frame["model"] = [model_name(*pair) for pair in zip(frame["compression"], frame["level"], strict=True)]
    models = frame["model"].unique()
    strength = frame[frame["model"] == models[-1]].set_index("attack")["value"]
    attacks = sorted(frame["attack"].unique(), key=lambda attack: np.nan_to_num(strength.get(attack, 0.0)))
    chance = CHANCE.get(metric, 0.0)
    figure, axes = style.figure(4.8, 1.3 + len(attacks) * (0.1 + 0.12 * len(models)))
    thickness = 0.8 / len(models)
    for index, (model, look) in enumerate(zip(models, style.series(len(models)), strict=True)):
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
    axes.set(xlabel=metric_name(metric), ylabel="attack")
    return style.with_legend(figure)


@style.theme()
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
    if adversary is not None:
        if adversary not in (known := sorted(set(points["adversary"]) - {""})):
            raise ValueError(f"rows hold no adversary {adversary!r}; they hold {known}")
        points = points[points["adversary"].isin([adversary, ""])]

    crowded = len(looks) > 4
    figure, axes = style.figure(*(6.4, 5.4) if crowded else (4.8, 4.2))
    for (defense, variant, name), line in points.groupby(["defense", "variant", "adversary"], sort=False):
        line = line.sort_values("defense_strength")
        look = looks[defense, variant] | ({"markerfacecolor": "white"} if name == "unaware" else {})
        look |= {"linestyle": "none"} if len(line) == 1 else {}
        shown = "no defence" if defense == "none" else defense
        bars = {"ecolor": style.FAINT, "elinewidth": 0.4 if crowded else 0.8, "zorder": 1}
        axes.errorbar(line["value_x"], line["value"], _error(line), _error(line, "_x"), fmt="none", **bars)
        label = _listed(shown, variant, name if adversary is None else "")
        axes.plot(line["value_x"], line["value"], **look, label=label)
    if metric in CHANCE:
        axes.axhline(CHANCE[metric], color=style.FAINT, linewidth=1, label="chance")
    axes.margins(0.08)
    whom = f"{attack}, {adversary} adversary" if adversary else attack
    axes.set(xlabel="test accuracy", ylabel=f"{metric_name(metric)} of {whom}")
    style.with_legend(figure)
    named = points.dropna(subset=["defense_strength", "value"]).sort_values("adversary").drop_duplicates(keys)
    places = named[["value_x", "value"]].to_numpy()
    colors = [looks[group]["color"] for group in zip(named["defense"], named["variant"], strict=True)]
    style.label_points(axes, places, [f"{value:g}" for value in named["defense_strength"]], colors)
    return figure


@style.theme()
def scatter(
    groups: Mapping[str, Sequence[tuple]],
    xlabel: str,
    ylabel: str,
    references: Mapping[str, Callable] = {},
    xscale: str = "linear",
    yscale: str = "linear",
    joined: Collection[str] = (),
) -> Figure:
    """Points of up to twelve families, each at its mean over targets with faint 95% intervals and its label.

    groups: family -> [(label, x (t,), y (t,)), ...], values over targets. Labels are best short ("4", "beta 1"); an
        empty one is not written. A point whose mean is nan is left out.
    references: name -> function of x, a faint line over the range of x; say {"gap attack": lambda x: 0.5 + x / 2}.
    xscale, yscale: "linear" or "log"; on a log axis a point whose mean is 0 has no place, and is left out.
    joined: families whose points a line joins, in their order.
    """
    means = [
        (family, text, *metrics.over_targets(x), *metrics.over_targets(y))
        for family, points in groups.items()
        for text, x, y in points
    ]
    columns = ["family", "text", "value_x", "low_x", "high_x", "value", "low", "high"]
    points = pd.DataFrame(means, columns=columns).dropna(subset=["value_x", "value"])
    for scale, value in ((xscale, "value_x"), (yscale, "value")):
        points = points[points[value] > 0] if scale == "log" else points
    if points.empty:
        raise ValueError("groups hold no point; each family needs one whose mean is no nan")
    if len(groups) > len(_TWELVE):
        raise ValueError(f"groups holds {len(groups)} families; more than {len(_TWELVE)} look alike")
    looks = dict(zip(groups, _looks(len(groups)), strict=True))
    figure, axes = style.figure(*(6.4, 5.4) if len(points) > 12 else (4.8, 4.2))
    bars = {"ecolor": "#DDDDDD", "elinewidth": 0.7, "zorder": 1}
    axes.errorbar(
        points["value_x"], points["value"], _error(points), _error(points, "_x"), fmt="none", **bars
    )
    for family, members in points.groupby("family", sort=False):
        look = looks[family] | {"markeredgecolor": "white", "markeredgewidth": 0.5, "linewidth": 1}
        look["linestyle"] = "-" if family in joined else "none"
        look["markersize"] += 1.5  # what the white edge, which parts markers that meet, takes away
        axes.plot(members["value_x"], members["value"], **look, label=family)
    axes.set(xscale=xscale, yscale=yscale)
    axes.margins(0.06)
    ends = axes.get_xlim()
    x = np.geomspace(*ends, 100) if xscale == "log" else np.linspace(*ends, 100)
    for (name, reference), look in zip(references.items(), itertools.cycle(style.LINES), strict=False):
        thin = {"color": style.FAINT, "linewidth": 1, "linestyle": look, "zorder": 0.5}
        axes.plot(x, [reference(place) for place in x], **thin, label=name)
    axes.set(xlim=x[[0, -1]], xlabel=xlabel, ylabel=ylabel)
    style.with_legend(figure)
    named = points[points["text"] != ""]
    colors = [looks[family]["color"] for family in named["family"]]
    style.label_points(axes, named[["value_x", "value"]].to_numpy(), list(named["text"]), colors)
    return figure


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


def _looks(count: int) -> list[dict]:
    """`style.series` with larger markers; from four to twelve no two share a colour or a marker."""
    looks = [look | {"markersize": 6} for look in style.series(count)]
    colours = _EIGHT if count <= 8 else _TWELVE
    if 3 < count <= len(colours):
        for index, look in enumerate(looks):
            look["color"] = colours[index * (len(colours) - 1) // (count - 1)]
            look["marker"] = _SHAPES[index]
            look["markersize"] = 6 if index < 9 else 8  # the last are slender
    return looks


def _defense_looks(groups: list[tuple]) -> dict[tuple, dict]:
    """The look of each (defence, variant): large black symbols for no defence, else a colour each."""
    plain = [group for group in groups if group[0] == "none"]
    defended = [group for group in groups if group[0] != "none"]
    looks = dict(zip(defended, _looks(len(defended)), strict=True))
    for group, marker in zip(plain, itertools.cycle("*ph"), strict=False):
        looks[group] = {"color": "black", "linestyle": "none", "marker": marker, "markersize": 10}
    return looks


def _listed(*parts) -> str:
    return ", ".join(part for part in parts if part)


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
        chosen = study.aggregate(chosen)
    settled = [name for name in COLUMNS if name not in WITHIN_A_SETTING | free]
    values = {name: {item[name] for item in chosen} for name in settled}
    varying = {name: sorted(map(str, several)) for name, several in values.items() if len(several) > 1}
    if varying:
        raise ValueError(f"rows vary in {varying}; choose one each with study.table(rows, ...)")
    frame = pd.DataFrame(chosen, columns=list(COLUMNS))
    numbers = ["level", "value", "low", "high", "low_seeds", "high_seeds"]
    frame[numbers] = frame[numbers].astype(float)
    for end in ("low", "high"):
        frame[end] = frame[f"{end}_seeds"].fillna(frame[end])
    return frame


def _error(frame, suffix="") -> np.ndarray:
    return style.error(*(frame[name + suffix].to_numpy() for name in ("value", "low", "high")))
