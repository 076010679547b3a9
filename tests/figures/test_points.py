"""What a defence costs and leaves: points stand at their means, with their intervals and labels."""

import numpy as np
import pytest
from matplotlib.text import Text

from mialib import figures, study
from mialib.figures import style
from mialib.measures import metrics
from tests.figures.test_results import legend, line, marks


def defended():
    made = []
    for defense, strength, accuracy, auc in (
        ("none", None, 0.8, 0.7),
        ("ppb", 1, 0.78, 0.6),
        ("ppb", 4, 0.7, 0.55),
    ):
        setting = {"defense": defense, "defense_strength": strength}
        made.append(study.tidy_row("test_accuracy", accuracy, **setting))
        for adversary in (None,) if defense == "none" else ("unaware", "adaptive"):
            columns = {"attack": "samia", "adversary": adversary}
            made.append(study.tidy_row("auc", auc + 0.02 * (adversary == "adaptive"), **columns, **setting))
    return made


def eight():
    """Eight defences of five strengths or none, adaptive and unaware, beside two baselines; one target."""
    made = []
    names = "ppb adversarial_regularization dp_sgd early_stopping label_smoothing relaxloss purifier".split()
    groups = [(name, None) for name in ("none", *names)]
    groups += [("none", "group norm"), ("dp_sgd", "whole pipeline")]
    for place, (defense, variant) in enumerate(groups):
        for step in range(1 if defense in ("none", "early_stopping") else 5):
            strength = None if defense in ("none", "early_stopping") else [4, 16, 1, 8, 2][step]
            setting = {"defense": defense, "defense_strength": strength, "variant": variant}
            cost = (strength or 0) / 16
            made.append(study.tidy_row("test_accuracy", 0.8 - 0.02 * place - 0.1 * cost, **setting))
            for adversary in (None,) if defense == "none" else ("unaware", "adaptive"):
                auc = 0.8 - 0.2 * cost + 0.03 * (adversary == "adaptive") - 0.01 * place
                made.append(study.tidy_row("auc", auc, attack="samia", adversary=adversary, **setting))
    return made


def families(count=7, labels=("1", "2", "4", "beta 8", "")):
    """Gap and AUC of some families over three targets, all near one line; the last point has no label."""
    noise = 0.01 * np.arange(-1, 2)
    gaps = {f"family {index}": 0.1 + 0.03 * index + 0.02 * np.arange(len(labels)) for index in range(count)}
    return {
        name: [(text, gap + noise, 0.5 + gap + noise) for text, gap in zip(labels, values, strict=True)]
        for name, values in gaps.items()
    }


DRAWINGS = {
    "tradeoff": lambda: figures.tradeoff(defended(), attack="samia"),
    "many defences": lambda: figures.tradeoff(eight(), attack="samia"),
    "one adversary": lambda: figures.tradeoff(eight(), attack="samia", adversary="adaptive"),
    "scatter": lambda: figures.scatter(families(4), "generalisation gap", "AUC", {"chance": lambda x: 0.5}),
    "many families": lambda: figures.scatter(families(), "generalisation gap", "AUC", {"gap": lambda x: x}),
}


def label_boxes(axes):
    """Where each label is written, without the line that may lead to its point."""
    return [Text.get_window_extent(text) for text in axes.texts]


def test_tradeoff_joins_accuracy_and_attack_by_defence_and_strength():
    axes = figures.tradeoff(defended(), attack="samia").axes[0]
    joined = [item.get_data() for item in axes.get_lines() if np.isfinite(item.get_ydata()).sum() == 2]
    assert any(np.allclose(one, [[0.78, 0.7], [0.62, 0.57]]) for one in joined if len(one[0]) == 2)
    expected = [[0.8, 0.7], [0.78, 0.6], [0.78, 0.62], [0.7, 0.55], [0.7, 0.57]]
    np.testing.assert_allclose(sorted(marks(axes).tolist(), reverse=True), sorted(expected, reverse=True))
    assert legend(axes.figure) == ["no defence", "PPB, unaware", "PPB, adaptive", "chance"]
    assert [(text.get_text(), *text.xy) for text in axes.texts] == [
        ("1", pytest.approx(0.78), pytest.approx(0.62)),
        ("4", pytest.approx(0.7), pytest.approx(0.57)),
    ]  # at the adaptive points
    with pytest.raises(ValueError, match="no test_accuracy for ppb, strength 4"):
        kept = [row for row in defended() if row["metric"] != "test_accuracy" or row["defense_strength"] != 4]
        figures.tradeoff(kept, attack="samia")


def test_tradeoff_draws_one_adversary_or_both_and_names_defences_in_words():
    both, one = figures.tradeoff(eight(), "samia"), figures.tradeoff(eight(), "samia", adversary="adaptive")
    assert (
        len(marks(both.axes[0])) == 2 * (6 * 5 + 5 + 1) + 2 and len(marks(one.axes[0])) == 6 * 5 + 5 + 1 + 2
    )
    named = legend(one)
    assert {"no defence, group norm", "adversarial regularisation", "DP-SGD, whole pipeline"} < set(named)
    assert not any("_" in name for name in named + legend(both)) and "_" not in one.alt
    assert one.axes[0].get_ylabel() == "AUC of SAMIA, adaptive attacker"
    texts = [text.get_text() for axes in one.axes for text in axes.texts]
    assert sorted(texts) == sorted(["1", "2", "4", "8", "16"] * 7)  # once, in whichever panel shows it
    with pytest.raises(ValueError, match="no adversary 'aware'; they hold .'adaptive', 'unaware'"):
        figures.tradeoff(eight(), "samia", adversary="aware")
    with pytest.raises(ValueError, match="no attack 'lira'; they hold .'samia'"):
        figures.tradeoff(eight(), "lira")


def test_scatter_draws_means_with_intervals_and_joins_what_it_is_told():
    x, y = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.9])
    groups = {
        "dorefa": [("4", x, y), ("8", x + 0.2, y[:1])],
        "dp_sgd": [("", x[:1], y[:1]), ("1", x, [np.nan])],
    }
    figure = figures.scatter(groups, "gap", "AUC", joined=["dorefa"])
    axes = figure.axes[0]
    np.testing.assert_allclose(sorted(marks(axes).tolist()), [[0.1, 0.5], [0.2, 2 / 3], [0.4, 0.5]])
    up, across = (bars.get_segments() for bars in axes.collections[:2])
    (_, *ends), (_, *other_ends) = metrics.over_targets(x), metrics.over_targets(y)
    np.testing.assert_allclose(min(across, key=np.min), [[ends[0], 2 / 3], [ends[1], 2 / 3]])
    np.testing.assert_allclose(up, [[[0.2, other_ends[0]], [0.2, other_ends[1]]]])
    np.testing.assert_allclose(line(axes, "DoReFa").get_data(), [[0.2, 0.4], [2 / 3, 0.5]])
    assert {text.get_text(): text.xy[0] for text in axes.texts} == pytest.approx({"4": 0.2, "8": 0.4})
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("gap", "AUC")
    assert legend(figure) == ["DoReFa", "DP-SGD"]


def test_scatter_on_log_axes_leaves_out_zero_and_draws_references_over_the_range_of_x():
    x = np.array([0.01, 0.02])
    groups = {"a": [("1", x, x), ("2", 100 * x, x), ("3", x, 0 * x)]}
    axes = figures.scatter(groups, "loss", "AUC", {"x": lambda x: x}, xscale="log", yscale="log").axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    np.testing.assert_allclose(marks(axes)[:, 0], [0.015, 1.5])
    reference = line(axes, "x").get_xdata()
    assert (reference[0], reference[-1]) == pytest.approx(axes.get_xlim())
    np.testing.assert_allclose(reference[1:] / reference[:-1], reference[1] / reference[0])


def test_many_families_stand_in_panels_of_their_own_with_the_others_grey():
    figure = figures.scatter(families(8), "gap", "AUC", {"gap attack": lambda x: 0.5 + x / 2})
    figure.draw_without_rendering()
    assert [axes.get_title() for axes in figure.axes] == list(families(8))
    assert len({axes.get_xlim() for axes in figure.axes} | {axes.get_ylim() for axes in figure.axes}) == 2
    assert figure.get_figwidth() <= style.WIDTH
    for axes in figure.axes:
        assert len(marks(axes)) == 5 and len(line(axes, "the other families").get_xdata()) == 7 * 5
        boxes = label_boxes(axes)
        assert len(boxes) == 4
        assert not any(a.overlaps(b) for index, a in enumerate(boxes) for b in boxes[:index])
        assert all(
            axes.bbox.containsx(x) and axes.bbox.containsy(y) for box in boxes for x, y in box.corners()
        )


def test_a_knot_is_enlarged_beside_the_whole():
    far, near = np.array([[0.0, 0.0], [1.0, 0.3]]), 0.9 + 0.001 * np.arange(12).reshape(6, 2)
    groups = {"a": [(str(index), [x], [y]) for index, (x, y) in enumerate([*far, *near])]}
    whole, part = figures.scatter(groups, "gap", "AUC").axes
    assert len(marks(whole)) == len(marks(part)) == 8
    assert part.get_title() == "enlarged" and part.get_xlim()[0] > 0.5
    assert [text.get_text() for text in whole.texts] == ["0", "1"]
    assert [text.get_text() for text in part.texts] == list("234567")
    assert len(figures.scatter({"a": groups["a"][:4]}, "gap", "AUC").axes) == 1


def test_tradeoff_matches_the_accuracy_of_the_same_variant():
    kept = [row for row in eight() if row["metric"] != "test_accuracy" or row["variant"] != "whole pipeline"]
    with pytest.raises(ValueError, match="no test_accuracy for dp_sgd, whole pipeline, strength 4"):
        figures.tradeoff(kept, attack="samia")
    kept = [row for row in kept if row["metric"] != "test_accuracy" or row["variant"] is None]
    with pytest.raises(ValueError, match="no test_accuracy for none, group norm$"):
        figures.tradeoff(kept, attack="samia")


def test_strengths_do_not_overlap_where_lines_meet():
    steep = [(name, step) for name in ("ppb", "relaxloss") for step in (1, 2, 4, 8, 16)]
    made = []
    for name, step in steep:  # the two are one hundredth of the axes apart
        setting = {"defense": name, "defense_strength": step}
        made.append(study.tidy_row("test_accuracy", 0.7 - 0.02 * step + 0.003 * (name == "ppb"), **setting))
        made.append(study.tidy_row("auc", 0.9 - 0.02 * step, attack="samia", adversary="adaptive", **setting))
    figure = figures.tradeoff(made, attack="samia")
    figure.draw_without_rendering()
    boxes = [box for axes in figure.axes for box in label_boxes(axes)]
    assert len(boxes) == 10
    assert not any(a.overlaps(b) for index, a in enumerate(boxes) for b in boxes[:index])


@pytest.mark.parametrize(
    "groups, message",
    [
        ({}, "groups hold no point"),
        ({"a": [("1", [np.nan], [0.5])]}, "groups hold no point"),
        ({"a": [("1", 0.1, 0.5)]}, r"values has shape \(\)"),
    ],
    ids=["nothing", "nan", "no targets"],
)
def test_scatter_names_what_is_wrong(groups, message):
    with pytest.raises(ValueError, match=message):
        figures.scatter(groups, "gap", "AUC")
