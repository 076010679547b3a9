"""What a defence or a network costs and what it leaves: points with intervals in two directions.

Where points crowd, they are told apart: many families stand in panels of their own, the others grey behind; a knot in
one panel is enlarged beside it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from seaborn import objects as so

from mialib.figures import alt, labels, style
from mialib.figures.results import records, settled
from mialib.measures import metrics
from mialib.reporting.vocabulary import CHANCE, in_words, metric_name

_MOST_LABELS = 24  # in one panel
_COLUMNS = 2  # of panels: labels are to be read where the page is narrow
_OTHERS = {"color": "#CCCCCC", "marker": "o", "linestyle": "none", "markersize": 3, "zorder": 0.4}


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
    rows = records(rows)
    if attack not in (attacks := {item["attack"] for item in rows} - {None}):
        raise ValueError(f"rows hold no attack {attack!r}; they hold {sorted(attacks)}")
    accuracy = settled(rows, "test_accuracy", set(keys))
    leak = settled([item for item in rows if item["attack"] == attack], metric, {*keys, "adversary"})
    for frame in (accuracy, leak):
        frame["defense_strength"] = frame["defense_strength"].astype(float)
        frame["variant"] = frame["variant"].fillna("")
    points = leak.merge(accuracy[[*keys, "value", "low", "high"]], on=keys, how="left", suffixes=("", "_x"))
    points["adversary"] = points["adversary"].fillna("")
    if points["value_x"].isna().any():
        lost = points[points["value_x"].isna()].iloc[0]
        strength = "" if np.isnan(lost["defense_strength"]) else f", strength {lost['defense_strength']:g}"
        raise ValueError(f"rows hold no test_accuracy for {_listed(*lost[['defense', 'variant']])}{strength}")
    groups = list(dict.fromkeys(zip(points["defense"], points["variant"], strict=True)))
    if adversary is not None:
        if adversary not in (known := sorted(set(points["adversary"]) - {""})):
            raise ValueError(f"rows hold no adversary {adversary!r}; they hold {known}")
        points = points[points["adversary"].isin([adversary, ""])]
    defended = [group for group in groups if group[0] != "none"]
    own = style.looks(defended) | dict(
        zip([group for group in groups if group[0] == "none"], _plain(), strict=False)
    )
    named, looks = [], {}
    for defense, variant, who in zip(points["defense"], points["variant"], points["adversary"], strict=True):
        named.append(_listed(in_words(defense), in_words(variant), who if adversary is None else ""))
        looks[named[-1]] = own[defense, variant] | ({"markerfacecolor": "white"} if who == "unaware" else {})
    spoken = points.sort_values("adversary", kind="stable").drop_duplicates(keys).index
    written = points["defense_strength"].map("{:g}".format).where(points["defense_strength"].notna(), "")
    points = points.assign(family=named, text=written.where(points.index.isin(spoken), ""))
    points = points.sort_values("defense_strength", kind="stable")
    whom = f"{in_words(attack)}, {adversary} attacker" if adversary else in_words(attack)
    references = {"chance": lambda x: CHANCE[metric]} if metric in CHANCE else {}
    names = ("test accuracy", f"{metric_name(metric)} of {whom}")
    return _one_or_two(points, looks, names, references, joined=looks)


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
    """Points of some families, each at its mean over targets with faint 95% intervals and its label.

    groups: family -> [(label, x (t,), y (t,)), ...], values over targets. Labels are best short ("4", "beta 1"); an
        empty one is not written. A point whose mean is nan is left out. Families with more than 24 labels together
        get a panel each.
    references: name -> function of x, a faint line over the range of x; say {"gap attack": lambda x: 0.5 + x / 2}.
    xscale, yscale: "linear" or "log"; on a log axis a point whose mean is 0 has no place, and is left out.
    joined: families whose points a line joins, in their order.
    """
    means = [
        (in_words(family), in_words(text), *metrics.over_targets(x), *metrics.over_targets(y))
        for family, points in groups.items()
        for text, x, y in points
    ]
    columns = ["family", "text", "value_x", "low_x", "high_x", "value", "low", "high"]
    points = pd.DataFrame(means, columns=columns).dropna(subset=["value_x", "value"])
    for scale, name in ((xscale, "value_x"), (yscale, "value")):
        points = points[points[name] > 0] if scale == "log" else points
    if points.empty:
        raise ValueError("groups hold no point; each family needs one whose mean is no nan")
    looks = style.looks(in_words(family) for family in groups)
    looks = {family: look for family, look in looks.items() if family in set(points["family"])}
    joined = {in_words(family) for family in joined}
    drawn = _panels if (points["text"] != "").sum() > _MOST_LABELS else _one_or_two
    return drawn(points, looks, (xlabel, ylabel), references, joined, xscale=xscale, yscale=yscale)


def _one_or_two(points, looks, names, references, joined, **scales) -> Figure:
    """All families in one panel; where most points lie in a small part of it, that part enlarged in a second."""
    picture, axes = style.figure(5.4, 4.0)
    _draw(axes, points, looks, joined, **scales)
    _refer(axes, references, scales)
    box = _knot(axes.transAxes.inverted().transform(axes.transData.transform(points[["value_x", "value"]])))
    panels = [axes]
    if box is not None:
        picture, panels = style.panels(2, 4.0)
        for axes in panels:
            _draw(axes, points, looks, joined, **scales)
        _refer(panels[0], references, scales)
        (left, bottom), (right, top) = (
            panels[0].transData.inverted().transform(panels[0].transAxes.transform(box))
        )
        panels[1].set(xlim=(left, right), ylim=(bottom, top), title="enlarged")
        panels[0].indicate_inset((left, bottom, right - left, top - bottom), edgecolor="black", linewidth=0.8)
    for axes in panels:
        axes.set(xlabel=names[0])
    panels[0].set_ylabel(style.folded(names[1]))
    picture.alt = _words(points, looks, names)
    style.with_legend(picture, {name: _mark(look, name in joined) for name, look in looks.items()})
    inside = np.zeros(len(points), bool)
    for axes in panels[::-1]:  # what the enlarged part shows is written there
        at = axes.transAxes.inverted().transform(axes.transData.transform(points[["value_x", "value"]]))
        here = ((at >= 0) & (at <= 1)).all(1) & ~inside
        _label(axes, points[here], looks)
        inside |= here
    return picture


def _panels(points, looks, names, references, joined, **scales) -> Figure:
    """A panel for each family, the points of all others grey in it, on shared axes."""
    picture, panels = style.panels(len(looks), 2.1, most=_COLUMNS, each=2.7, sharex=True, sharey=True)
    one = {"color": style.DARK, "marker": "o", "linestyle": "-"}
    for axes, family in zip(panels, looks, strict=True):
        others, own = points[points["family"] != family], points[points["family"] == family]
        _draw(axes, own, {family: one}, joined, **scales)
        axes.plot(others["value_x"], others["value"], **_OTHERS, label="the other families")
        axes.set_title(family)
        axes.margins(0.08, 0.15)  # room for labels
    for axes in panels:  # once all of them have settled their limits
        _refer(axes, references, scales)
    style.outer(panels, xlabel=names[0], most=_COLUMNS)
    picture.supylabel(names[1], fontsize=9)
    picture.alt = _words(points, looks, names)
    style.with_legend(picture)
    for axes, family in zip(panels, looks, strict=True):
        _label(axes, points[points["family"] == family], {family: one})
    return picture


def _draw(axes, points, looks, joined, xscale="linear", yscale="linear") -> None:
    fills = {name: "markerfacecolor" not in look for name, look in looks.items()}
    sizes = {name: 10 if look["color"] == "black" else 6 for name, look in looks.items()}
    lines = points["family"].isin(joined)
    points = points.assign(line=points["value"].where(lines))
    bare = {"color": None, "marker": None, "fill": None, "pointsize": None, "legend": False}
    bar = so.Range(color="#B0B0B0", linewidth=0.7, artist_kws=style.BELOW)
    plot = (
        so.Plot(
            points, x="value_x", y="value", color="family", marker="family", fill="family", pointsize="family"
        )
        .add(bar, ymin="low", ymax="high", **bare)
        .add(bar, xmin="low_x", xmax="high_x", orient="y", **bare)
        .add(so.Path(linewidth=1), y="line", group="family", **bare | {"color": "family"})
        .add(so.Dot(color="white", edgewidth=0, artist_kws=style.ABOVE), **bare | {"pointsize": "family"})
        .add(so.Dot(stroke=1, artist_kws=style.ABOVE), legend=False)
        .scale(fill=so.Nominal(fills), pointsize=so.Nominal(sizes), **style.scales(looks, "color", "marker"))
    )
    style.draw(plot, axes)
    axes.set(xscale=xscale, yscale=yscale, xlabel="", ylabel="")
    axes.margins(0.08)


def _mark(look, joined) -> dict:
    """The look of a family's entry in the legend."""
    return look | {"linestyle": "-" if joined else "none", "linewidth": 1}


def _refer(axes, references, scales) -> None:
    ends = axes.get_xlim()
    x = np.geomspace(*ends, 100) if scales.get("xscale") == "log" else np.linspace(*ends, 100)
    for (name, reference), line in zip(references.items(), style.LINES, strict=False):
        thin = {"color": style.FAINT, "linewidth": 1, "linestyle": line, "zorder": 0.5}
        axes.plot(x, [reference(place) for place in x], **thin, label=name)
    axes.set_xlim(ends)


def _knot(places) -> np.ndarray | None:
    """Corners (2, 2) of the part of the axes where two thirds of the places (n, 2) lie, if it is a tenth or less."""
    if len(places) < 8:
        return None
    away = np.abs(places - np.median(places, axis=0)).max(1)
    near = places[away <= np.quantile(away, 0.67)]
    box = np.array([near.min(0), near.max(0)]) + [[-0.05], [0.05]]
    within = ((places >= box[0]) & (places <= box[1])).all(1)
    return box if np.prod(box[1] - box[0]) < 0.12 and not within.all() else None


def _label(axes, points, looks) -> None:
    named = _met(axes, points[points["text"] != ""])
    colors = [looks[family]["color"] for family in named["family"]]
    labels.label_points(axes, named[["value_x", "value"]].to_numpy(), list(named["text"]), colors)


def _met(axes, points):
    """The points, those of a family whose marks nearly coincide as one, with all their texts."""
    at = axes.transData.transform(points[["value_x", "value"]]) * 72 / axes.figure.dpi
    kept: dict[int, list[str]] = {}
    for index, (family, text) in enumerate(zip(points["family"], points["text"], strict=True)):
        near = (
            one
            for one in kept
            if points["family"].iloc[one] == family and np.hypot(*(at[one] - at[index])) < 5
        )
        kept.setdefault(next(near, index), []).append(text)
    texts = [", ".join(dict.fromkeys(several)) for several in kept.values()]
    return points.iloc[list(kept)].assign(text=texts)


def _words(points, looks, names) -> str:
    says_more = ~points["text"].isin(["", *looks])
    where = points["family"] + (" " + points["text"]).where(says_more, "")
    return (
        f"{len(points)} points of {names[1]} against {names[0]}: {alt.listed(looks)}. "
        f"{names[1]}: {alt.ends(points['value'], where)} {names[0]}: {alt.ends(points['value_x'], where)}"
    )


def _plain() -> list[dict]:
    """Large black symbols for no defence."""
    return [{"color": "black", "linestyle": "none", "marker": marker, "markersize": 10} for marker in "*Ph"]


def _listed(*parts) -> str:
    return ", ".join(part for part in parts if part)
