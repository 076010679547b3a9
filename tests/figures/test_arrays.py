"""Pictures of examples, signals and curves show the numbers they were given."""

from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

from mialib import figures
from mialib.figures import style
from mialib.measures import Estimate, metrics
from tests.figures.test_results import legend, line

GENERATOR = np.random.default_rng(0)
MEMBER = np.arange(400) % 2 == 0
MARGIN = GENERATOR.normal(size=400) + MEMBER
SETTINGS = [
    "original",
    *(
        f"{name} {level}"
        for name in ("l1_unstructured", "l1_filter", "slimming")
        for level in (0.5, 0.7, 0.9)
    ),
]


def mismatch(names=SETTINGS):
    """AUC of an attacker who is better the more he knows; one cell is missing."""
    values = 0.6 + 0.2 * np.eye(len(names)) + 0.004 * np.arange(len(names))
    values[0, 1] = np.nan
    return pd.DataFrame(values, names, names)


def arms(count=16):
    """Accuracy and AUC of some arms with long names over five targets; the last has only one target."""
    names = [f"{index:02} ADMM + adversary + entropy" for index in range(count)]
    accuracy = {name: 0.7 + 0.01 * index + 0.01 * np.arange(5) for index, name in enumerate(names)}
    accuracy[names[-1]] = accuracy[names[-1]][:1]
    return {"test accuracy": accuracy, "AUC left": {name: Estimate(0.6, 0.55, 0.65) for name in names}}


def gaps():
    return {name: GENERATOR.normal(size=30) for name in ("original", "control", "pruned")}


CONFIDENCE = GENERATOR.random(400)
DRAWINGS = {
    "roc": lambda: figures.roc({"samia": (MEMBER, MARGIN), "gap": (MEMBER, np.sign(MARGIN))}),
    "histogram": lambda: figures.divergence(MEMBER, {"original": CONFIDENCE, "pruned": CONFIDENCE**2}),
    "ecdf": lambda: figures.divergence(MEMBER, {"original": CONFIDENCE}, label="sensitivity", kind="ecdf"),
    "per_class": lambda: figures.class_dots({"confidence gap": gaps(), "sensitivity gap": gaps()}),
    "heatmap": lambda: figures.heatmap(mismatch(), "AUC", "SAMIA on digits"),
    "dots": lambda: figures.dots(arms(), {"AUC left": 0.5}),
}


def test_roc_is_log_log_down_to_the_resolution_with_a_chance_line():
    axes = figures.roc({"samia": (MEMBER, MARGIN)}).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("false-positive rate", "true-positive rate")
    assert axes.get_xlim() == axes.get_ylim() == pytest.approx((1 / 200, 1))
    np.testing.assert_array_equal(*line(axes, "chance").get_data())
    drawn = line(axes, f"samia (AUC {metrics.auc(MEMBER, MARGIN).value:.2f})").get_data()
    np.testing.assert_array_equal(drawn, metrics.roc(MEMBER, MARGIN))


def test_targets_given_as_lists_are_pooled():
    halves = np.array_split(MEMBER, 2), np.array_split(MARGIN, 2)
    pooled, whole = (figures.roc({"a": curve}).axes[0].get_lines()[1] for curve in (halves, (MEMBER, MARGIN)))
    np.testing.assert_array_equal(pooled.get_data(), whole.get_data())


def test_divergence_shows_shares_and_means():
    member = np.array([1, 1, 0, 0])
    figure = figures.divergence(
        member, {"original": np.array([1.0, 0.9, 0.0, 0.5]), "pruned": np.ones(4)}, bins=10
    )
    shares = figure.axes[0].patches[0].get_data().values
    assert shares.sum() == 1.0 and shares[-1] == 1.0  # both members in the last tenth
    assert figure.axes[0].get_title() == "original\nmean: members 0.950, non-members 0.250"
    assert legend(figure) == ["members", "non-members"]
    with pytest.raises(ValueError, match="kind is 'violin'"):
        figures.divergence(member, {"a": np.ones(4)}, kind="violin")


@pytest.mark.parametrize("classes", [10, 30, 100])
def test_classes_are_sorted_by_the_last_models_gap_in_both_panels(classes):
    pruned = GENERATOR.normal(size=classes)
    pruned[3] = np.nan
    confidence = {"original": np.zeros(classes), "pruned": pruned}
    sensitivity = {"original": np.ones(classes), "pruned": -pruned}
    figure = figures.class_dots({"confidence": confidence, "sensitivity": sensitivity}, reference=0.5)
    assert figure.axes[1].get_lines()[0].get_xdata() == [0.5, 0.5]
    order = [int(text.get_text()) for text in figure.axes[0].get_yticklabels()]
    assert order[0] == 3 and (np.diff(pruned[order[1:]]) >= 0).all()
    np.testing.assert_array_equal(line(figure.axes[1], "pruned").get_xdata(), -pruned[order])


def test_heatmap_writes_each_cell_and_outlines_the_attacker_who_knows():
    table = mismatch().iloc[:3, [1, 0]]
    figure = figures.heatmap(table, "AUC", "SAMIA")
    axes, bar = figure.axes
    written = {text.get_position(): text.get_text() for text in axes.texts}  # (column, row)
    assert written == {(1, 0): "0.80", (0, 1): "0.80", (1, 1): "0.60", (0, 2): "0.60", (1, 2): "0.60"}
    assert [patch.get_center().round(6).tolist() for patch in axes.patches] == [[1, 0], [0, 1]]
    assert [text.get_text() for text in axes.get_yticklabels()] == SETTINGS[:3]
    assert [text.get_text() for text in axes.get_xticklabels()] == SETTINGS[1::-1]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("target's setting", "what the attacker believes")
    assert (axes.get_title(), bar.get_ylabel()) == ("SAMIA", "AUC")
    assert figures.heatmap(table.iloc[2:], "AUC").legends == []  # no name in common
    with pytest.raises(ValueError, match=r"table \(3 x 2\) holds no number"):
        figures.heatmap(table * np.nan, "AUC")


def test_heatmap_reads_in_grey():
    values = np.linspace(0.5, 1, 100).reshape(10, 10)
    axes = figures.heatmap(pd.DataFrame(values, SETTINGS, SETTINGS), "AUC").axes[0]
    cells = axes.images[0].to_rgba(values)[..., :3].reshape(100, 3)
    ink = np.array([matplotlib.colors.to_rgb(text.get_color()) for text in axes.texts])
    light, dark = np.sort([((cells**2.2) @ style.LUMINANCE, (ink**2.2) @ style.LUMINANCE)], axis=1)[0][::-1]
    assert ((light + 0.05) / (dark + 0.05)).min() > 4  # contrast of text and cell, as in WCAG 2
    assert (np.diff(cells @ style.LUMINANCE) > 0).all()


@pytest.mark.parametrize("size", [10, 2])
def test_long_names_are_not_cut_off(size):
    names = [f"{name} with adversarial_regularization" for name in SETTINGS]
    figure = figures.heatmap(mismatch(names).iloc[:size, :size], "AUC")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label):
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0 and box.y1 <= figure.bbox.y1, text.get_text()
    cell = axes.transData.transform([(0, 0), (1, 1)])
    assert np.ptp(cell[:, 0]) > axes.texts[0].get_window_extent().width


def bars(axes):
    """Low, mean and high of each dot with its interval, from the top; nan where there is no dot."""
    made = []
    for dot, _, (interval,) in axes.containers:
        drawn = interval.get_segments()
        low, high = drawn[0][:, 0] if np.size(drawn) else (np.nan, np.nan)
        made.append([low, *dot.get_xdata(), high])
    return np.array(made)


def test_dots_show_mean_interval_and_targets_in_the_given_order():
    panels = arms(4)
    figure = figures.dots(panels, {"AUC left": 0.5})
    accuracy, auc = figure.axes
    names = list(panels["AUC left"])
    assert [text.get_text() for text in accuracy.get_yticklabels()] == names
    assert accuracy.get_ylim()[0] > accuracy.get_ylim()[1]  # the first on top
    assert [axes.get_xlabel() for axes in figure.axes] == list(panels)
    assert legend(figure) == ["one target", "mean and 95% interval", "guessing"]
    value, low, high = metrics.over_targets(panels["test accuracy"][names[1]])
    np.testing.assert_allclose(bars(accuracy)[1], [low, value, high])
    np.testing.assert_allclose(bars(auc), [[0.55, 0.6, 0.65]] * 4)
    np.testing.assert_allclose(bars(accuracy)[3], 0.73)  # one target has no interval
    single = [item.get_xdata() for item in accuracy.get_lines() if item.get_label() == "one target"]
    np.testing.assert_array_equal(single, list(panels["test accuracy"].values())[:3])
    assert line(auc, "guessing").get_xdata() == [0.5, 0.5]
    assert accuracy.get_xlim()[0] > 0.6  # guide lines and references of other panels do not stretch it


def test_dots_fill_the_emphasised_only():
    panels = arms(3)
    names = list(panels["AUC left"])
    filled = [[item[0].get_markerfacecolor() for item in figures.dots(panels).axes[0].containers]]
    for axes in figures.dots(panels, emphasis=names[1:2]).axes:
        filled.append([item[0].get_markerfacecolor() for item in axes.containers])
    assert filled == [[style.DARK] * 3] + [["white", style.DARK, "white"]] * 2


def test_dots_leave_out_what_is_missing():
    panels = {
        "accuracy": {"a": [0.7, np.nan, 0.8], "b": Estimate(1.0, 0.9, 1 - 1e-12)},  # rounded below the value
        "AUC": {"c": Estimate(0.6), "b": Estimate(np.nan)},
    }
    figure = figures.dots(panels)
    figure.draw_without_rendering()
    first, second = figure.axes
    assert [text.get_text() for text in first.get_yticklabels()] == ["a", "b", "c"]
    assert [item[0].get_ydata()[0] for item in second.containers] == [2, 1]
    assert np.isnan(bars(first)[0]).all() and np.isnan(bars(second)[1]).all()
    np.testing.assert_allclose(bars(first)[1], [0.9, 1, 1])
    assert 0.6 < first.get_xlim()[0] and second.get_xlim()[0] > 0.4


@pytest.mark.parametrize(
    "panels, options, message",
    [
        ({}, {}, "panels is empty"),
        ({"AUC": {}}, {}, "panels is empty"),
        (
            {"AUC": {"a": [0.5]}},
            {"references": {"accuracy": 0.5}},
            "references names .'accuracy'.; there are .'AUC'",
        ),
        ({"AUC": {"a": [0.5]}}, {"emphasis": ["b"]}, "emphasis names .'b'.; there are .'a'"),
        ({"AUC": {"a": [[0.5]]}}, {}, r"panels.'AUC'..'a'. has shape \(1, 1\)"),
    ],
)
def test_dots_name_what_is_wrong(panels, options, message):
    with pytest.raises(ValueError, match=message):
        figures.dots(panels, **options)


@pytest.mark.parametrize("count, references", [(2, None), (16, {"AUC left": 0.5})])
def test_long_setting_names_fit_beside_the_dots(count, references):
    figure = figures.dots(arms(count), references)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].get_yticklabels()]
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.y1 <= figure.bbox.y1 for box in boxes)
    assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:], strict=False))
    assert figure.axes[0].get_position().width * figure.get_figwidth() > 1.5  # inches


# Examples


def shown(figure):
    """Title and picture of each of a figure's panels."""
    return {axes.get_title(): np.asarray(axes.images[0].get_array()) for axes in figure.axes}


def test_examples_are_the_first_members_and_nonmembers_as_pictures():
    x = torch.arange(6 * 2 * 3, dtype=torch.uint8).view(6, 1, 2, 3)
    member = torch.tensor([True, False, True, True, False, False])
    panels = shown(figures.examples(SimpleNamespace(x=x, is_image=True), member, ~member, count=2))
    for title, first in (("members", [0, 2]), ("non-members", [1, 4])):
        strip = panels[title].reshape(4, 2, 5)  # each picture with a margin of one pixel
        assert np.array_equal(strip[1:-1, :, 1:-1].transpose(1, 0, 2), x[first, 0]), title
        assert not strip[[0, -1]].any() and not strip[..., [0, -1]].any(), title


def test_examples_of_features_are_stripes():
    x, member = torch.rand(5, 8), torch.tensor([False, True, True, True, False])
    panels = shown(figures.examples(SimpleNamespace(x=x, is_image=False), member, ~member))
    assert np.array_equal(panels["members"], x[1:4]) and np.array_equal(panels["non-members"], x[[0, 4]])


# The gallery


GREY, COLOUR, STRIPES = torch.rand(4, 1, 8, 8), torch.rand(4, 3, 32, 32), torch.rand(4, 30)
ROWS = {
    "truth": GREY,
    "a decoder with a rather long name": GREY[:, 0],
    "in colour": COLOUR,
    "features": STRIPES,
}
CAPTIONS = {"truth": ["0.011", "0.022", "0.033", "0.044"]}


def test_every_row_is_named_and_captions_stand_below_their_pictures():
    (axes,) = figures.gallery(ROWS, CAPTIONS).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(ROWS)
    assert [text.get_text() for text in axes.texts] == CAPTIONS["truth"]
    for text, picture, below in zip(axes.texts, axes.images[:4], axes.images[4:8], strict=True):
        left, right, bottom, _ = picture.get_extent()
        assert text.get_position() == (pytest.approx((left + right) / 2), pytest.approx(bottom, abs=0.05))
        assert below.get_extent()[3] > bottom + 0.15  # room for the text


@pytest.mark.parametrize("rows", [ROWS, {name: value[:1] for name, value in ROWS.items()}, {"x": GREY}])
def test_nothing_is_cut_off_and_no_text_covers_a_picture(rows):
    captions = {name: texts[: len(rows[name])] for name, texts in CAPTIONS.items() if name in rows}
    figure = figures.gallery(rows, captions)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    texts = [text.get_window_extent() for text in (*axes.texts, *axes.get_yticklabels())]
    pictures = [picture.get_window_extent() for picture in axes.images]
    for box in (*texts, *pictures):
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
    assert not any(text.overlaps(picture) for text in texts for picture in pictures)
    assert min(box.width for box in pictures) > 0.6 * figure.dpi  # inches: the labels do not squeeze them


def test_rows_stand_below_each_other_in_the_same_columns_and_keep_their_proportions():
    (axes,) = figures.gallery(ROWS | {"tall": torch.rand(4, 20, 10)}).axes
    places = np.reshape([picture.get_extent() for picture in axes.images], (5, 4, 4))  # row, column, edge
    assert np.allclose(places[:, :, :2], places[:1, :, :2]) and np.allclose(
        places[:, :, 2:], places[:, :1, 2:]
    )
    assert (places[1:, 0, 3] > places[:-1, 0, 2]).all()
    width, height = places[:, 0, 1] - places[:, 0, 0], places[:, 0, 2] - places[:, 0, 3]
    assert np.allclose(height / width, [1, 1, 1, 1, 2])
    box = axes.get_window_extent()  # and a unit is as high as it is wide
    assert box.width / 4 == pytest.approx(box.height / axes.get_ylim()[0])


def test_the_pixels_are_those_given():
    (axes,) = figures.gallery(ROWS).axes
    pixels = [picture.get_array() for picture in axes.images]
    assert np.allclose(pixels[1], GREY[1, 0]) and np.allclose(pixels[5], GREY[1, 0])
    assert np.allclose(pixels[9], COLOUR[1].permute(1, 2, 0)) and np.allclose(pixels[13], STRIPES[1][None])
    assert all(picture.get_clim() == (0, 1) for picture in axes.images)  # black is 0 in every row, white 1


@pytest.mark.parametrize(
    "rows, captions, words",
    [
        ({}, None, "rows is empty"),
        ({"a": GREY, "b": GREY[:3]}, None, r"rows\['b'\] has 3 pictures, the first row 4"),
        ({"a": torch.rand(4, 2, 8, 8)}, None, r"rows\['a'\] has shape \(4, 2, 8, 8\)"),
        ({"a": GREY[0, 0, 0]}, None, r"rows\['a'\] has shape \(8,\)"),
        ({"a": GREY * 255}, None, r"rows\['a'\] holds .* pixels must be in \[0, 1\]"),
        ({"a": GREY * torch.nan}, None, r"rows\['a'\] holds nan"),
        ({"a": GREY}, {"b": ["x"] * 4}, "captions names 'b'; there are"),
        ({"a": GREY}, {"a": ["x"]}, r"captions\['a'\] has 1 texts for 4 pictures"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows, captions, words):
    with pytest.raises(ValueError, match=words):
        figures.gallery(rows, captions)
