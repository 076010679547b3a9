"""Charts of the results table show the rows they were given, and refuse rows that mix settings."""

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from mialib import figures, study
from mialib.figures import style
from mialib.measures import Estimate, metrics

ATTACKS = [f"attack_{index}" for index in range(13)]


def rows():
    """Two targets, 13 attacks; the original, the control and two sparsities."""
    made = []
    for target in (0, 1):
        for index, attack in enumerate(ATTACKS):
            for compression, level in (
                ("none", None),
                *(("l1_unstructured", level) for level in (0.7, 0.0, 0.5)),
            ):
                value = Estimate(0.5 + 0.01 * index + 0.1 * (level or 0) + 0.02 * target, 0.4, 0.8)
                columns = {"compression": compression, "level": level, "attack": attack}
                made.append(study.tidy_row("balanced_accuracy", value, target=target, seed=0, **columns))
    return made


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


def compressions(levels=(0.875, 0.0, 0.5, 1 - 1 / 71), **columns):
    """AUC on the original and at these levels, on two targets."""
    made = []
    for target in (0, 1):
        for level in (None, *levels):
            columns |= {"compression": "none" if level is None else "admm", "level": level, "target": target}
            made.append(study.tidy_row("auc", 0.7 - 0.1 * (level or 0) + 0.02 * target, seed=0, **columns))
    return made


def quantised(*variants):
    """AUC on the original, the control and four bit-widths of each variant, on two targets."""
    made = []
    for target in (0, 1):
        made.append(study.tidy_row("auc", 0.7 + 0.02 * target, compression="none", target=target, seed=0))
        for index, variant in enumerate(variants):
            for level in (8, 1, 32, 1.58, 2):
                columns = {"compression": "dorefa", "level": level, "variant": variant, "target": target}
                value = 0.8 - 0.1 / level - 0.03 * index + 0.02 * target
                made.append(study.tidy_row("auc", value, seed=0, **columns))
    return made


def families(count=10, labels=("1", "2", "4", "beta 8", "")):
    """Gap and AUC of some families over three targets, all near one line; the last point has no label."""
    noise = 0.01 * np.arange(-1, 2)
    gaps = {f"family {index}": 0.1 + 0.03 * index + 0.02 * np.arange(len(labels)) for index in range(count)}
    return {
        name: [(text, gap + noise, 0.5 + gap + noise) for text, gap in zip(labels, values, strict=True)]
        for name, values in gaps.items()
    }


DRAWINGS = {
    "against_level": lambda: figures.against_level(
        study.table(rows(), attack="attack_3"), "balanced_accuracy"
    ),
    "many levels": lambda: figures.against_level(rows(), "balanced_accuracy", by="attack"),
    "ratio": lambda: figures.against_level(compressions(), "auc", axis="ratio"),
    "bits": lambda: figures.against_level(quantised("a", "b"), "auc", by="variant", axis="bits"),
    "attack_bars": lambda: figures.attack_bars(study.table(rows(), level=[None, 0.0, 0.7])),
    "tradeoff": lambda: figures.tradeoff(defended(), attack="samia"),
    "many defences": lambda: figures.tradeoff(eight(), attack="samia"),
    "one adversary": lambda: figures.tradeoff(eight(), attack="samia", adversary="adaptive"),
    "scatter": lambda: figures.scatter(families(), "generalisation gap", "AUC", {"chance": lambda x: 0.5}),
}


def line(axes, label):
    return next(item for item in axes.get_lines() if item.get_label() == label)


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def label_boxes(axes):
    """Where each label is written, without the line that may lead to its point."""
    return [Text.get_window_extent(text) for text in axes.texts]


def test_levels_are_sorted_and_averaged_over_targets():
    figure = figures.against_level(study.table(rows(), attack="attack_3"), "balanced_accuracy")
    axes = figure.axes[0]
    level, value = line(axes, "l1_unstructured").get_data()
    assert level.tolist() == [0.5, 0.7]  # the control stands alone
    np.testing.assert_allclose(value, [0.59, 0.61])  # 0.53 + 0.01 between targets + 0.1 * level
    assert legend(figure) == ["l1_unstructured", "original", "control", "chance"]
    assert any(np.allclose(item.get_ydata(), 0.54) for item in axes.get_lines() if len(item.get_ydata()) == 2)


def test_pruners_share_the_original_and_the_first_ones_control():
    pruners = ["l1_unstructured", "l1_filter", "l2_filter", "slimming"]
    settings = [
        ("none", None),
        (pruners[0], 0.0),
        *((name, level) for name in pruners for level in (0.9, 0.5)),
    ]
    made = [
        study.tidy_row("auc", 0.8 - 0.1 * (level or 0), compression=name, level=level, attack="samia")
        for name, level in settings
    ]
    figure = figures.against_level(made, "auc")
    axes = figure.axes[0]
    assert legend(figure) == [*pruners, "original", "control", "chance"]
    for name in pruners:
        np.testing.assert_allclose(line(axes, name).get_data(), [[0.5, 0.9], [0.75, 0.71]], err_msg=name)
    assert len({line(axes, name).get_marker() for name in pruners}) == 4
    across = [item for item in axes.get_lines() if list(item.get_xdata()) == [0, 1]]
    assert sorted(item.get_ydata()[0] for item in across) == [0.5, 0.8]  # chance and one original
    (control,) = [
        item for item in axes.get_lines() if list(item.get_xdata()) == [0] and item.get_marker() == "o"
    ]
    assert (control.get_markerfacecolor(), control.get_color()) == (
        "white",
        line(axes, pruners[0]).get_color(),
    )


def test_bars_start_at_chance_and_are_sorted():
    figure = figures.attack_bars(study.table(rows(), level=[None, 0.0, 0.7]))
    axes = figure.axes[0]
    assert legend(figure) == ["chance", "original", "l1_unstructured 0.7", "control"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ATTACKS
    assert {bar.get_x() for bar in axes.patches} == {0.5}
    assert max(bar.get_width() for bar in axes.patches) == pytest.approx(0.2)  # 0.12 + 0.01 + 0.07


def test_bars_leave_out_what_is_unresolved():
    some = [
        study.tidy_row("tpr_at_0.01", value, attack=attack, compression="none")
        for attack, value in (("gap", None), ("samia", 0.2))
    ]
    widths = [bar.get_width() for bar in figures.attack_bars(some, "tpr_at_0.01").axes[0].patches]
    assert sorted(np.nan_to_num(widths)) == pytest.approx([0, 0.19])


def test_tradeoff_joins_accuracy_and_attack_by_defence_and_strength():
    figure = figures.tradeoff(defended(), attack="samia")
    axes = figure.axes[0]
    x, y = line(axes, "ppb, adaptive").get_data()
    np.testing.assert_allclose([x, y], [[0.78, 0.7], [0.62, 0.57]])
    assert line(axes, "ppb, unaware").get_markerfacecolor() == "white"
    assert line(axes, "no defence").get_marker() == "*"
    assert [text.get_text() for text in axes.texts] == ["1", "4"]
    np.testing.assert_allclose(
        [text.xy for text in axes.texts], np.transpose([x, y])
    )  # at the adaptive points
    with pytest.raises(ValueError, match="no test_accuracy for ppb, strength 4"):
        kept = [row for row in defended() if row["metric"] != "test_accuracy" or row["defense_strength"] != 4]
        figures.tradeoff(kept, attack="samia")


def test_tradeoff_draws_a_line_for_each_defence_and_variant():
    axes = figures.tradeoff(eight(), attack="samia", adversary="adaptive").axes[0]
    assert axes.get_ylabel() == "AUC of samia, adaptive adversary"
    drawn = {item.get_label(): item for item in axes.get_lines()}
    x, _ = drawn["dp_sgd, whole pipeline"].get_data()
    np.testing.assert_allclose(x, 0.8 - 0.18 - 0.1 * np.array([1, 2, 4, 8, 16]) / 16)  # by strength
    assert len(drawn["dp_sgd"].get_xdata()) == 5 and drawn["early_stopping"].get_xdata().shape == (1,)
    plain = drawn["no defence"], drawn["no defence, group norm"]
    assert [item.get_xdata().tolist() for item in plain] == [[0.8], [pytest.approx(0.64)]]
    assert len(drawn) == 8 + 2 + 1  # and chance
    assert len({item.get_marker() for item in drawn.values()}) == 11
    assert sorted(text.get_text() for text in axes.texts) == sorted(["1", "2", "4", "8", "16"] * 7)


def test_tradeoff_draws_one_adversary_or_both_in_the_same_look():
    both, one = figures.tradeoff(eight(), "samia"), figures.tradeoff(eight(), "samia", adversary="unaware")
    alone, beside = line(one.axes[0], "relaxloss"), line(both.axes[0], "relaxloss, unaware")
    np.testing.assert_array_equal(alone.get_data(), beside.get_data())
    assert (alone.get_color(), alone.get_marker()) == (beside.get_color(), beside.get_marker())
    assert len(both.axes[0].get_lines()) == 2 * 8 + 2 + 1  # two baselines and chance
    assert len(one.axes[0].get_lines()) == 8 + 2 + 1
    with pytest.raises(ValueError, match="no adversary 'aware'; they hold .'adaptive', 'unaware'"):
        figures.tradeoff(eight(), "samia", adversary="aware")
    with pytest.raises(ValueError, match="no attack 'lira'; they hold .'samia'"):
        figures.tradeoff(eight(), "lira")


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
    boxes = label_boxes(figure.axes[0])
    assert len(boxes) == 10
    assert not any(a.overlaps(b) for index, a in enumerate(boxes) for b in boxes[:index])


def test_levels_as_ratios_stand_on_a_log_axis():
    figure = figures.against_level(compressions(), "auc", axis="ratio")
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "compression of the weights")
    ratio, value = line(axes, "admm").get_data()
    np.testing.assert_allclose(ratio, [2, 8, 71])
    np.testing.assert_allclose(value, 0.71 - 0.1 * (1 - 1 / ratio))
    alone = [item.get_xdata()[0] for item in axes.get_lines() if len(item.get_xdata()) == 1]
    assert set(alone) == {1}  # the control
    written = {
        text.get_text(): place for text, place in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
    }
    assert written == pytest.approx({"1x": 1, "2x": 2, "8x": 8, "71x": 71})
    assert axes.get_xticks(minor=True).size == 0
    named = figures.against_level(compressions(), "auc", xlabel="size", axis="ratio").axes[0]
    assert named.get_xlabel() == "size"
    plain = figures.against_level(compressions(), "auc").axes[0]
    assert (plain.get_xscale(), plain.get_xlabel()) == ("linear", "sparsity")


def test_ratios_that_crowd_lose_ticks_not_points():
    levels = (0.499, 0.5, 0.502, 0.6, 0.7, 0.75, 0.8, 0.9, 0.91, 0.95, 0.99)
    figure = figures.against_level(compressions(levels), "auc", axis="ratio")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = sorted((text.get_window_extent() for text in axes.get_xticklabels()), key=lambda box: box.x0)
    assert 4 <= len(boxes) < len(levels) == len(line(axes, "admm").get_xdata())
    assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:], strict=False))
    assert "100x" in [text.get_text() for text in axes.get_xticklabels()]
    figures.against_level(compressions([0.5]), "auc", axis="ratio").draw_without_rendering()


@pytest.mark.parametrize("wrong", [1.0, 8.0])
def test_a_ratio_is_that_of_a_sparsity(wrong):
    with pytest.raises(ValueError, match="axis 'ratio' needs sparsities, from 0 to below 1"):
        figures.against_level(compressions([0.5, wrong]), "auc", axis="ratio")


def test_bit_widths_stand_on_a_log_axis_with_full_precision_apart():
    figure = figures.against_level(quantised("weights", "activations"), "auc", by="variant", axis="bits")
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "bit-width")
    written = [text.get_text() for text in axes.get_xticklabels()]
    assert written == ["1", "1.58", "2", "8", "32"]
    np.testing.assert_array_equal(axes.get_xticks(), [1, 1.58, 2, 8, 32])
    assert axes.get_xticks(minor=True).size == 0
    bits, value = line(axes, "activations").get_data()
    np.testing.assert_array_equal(bits, [1, 1.58, 2, 8])  # the control stands alone
    np.testing.assert_allclose(value, 0.78 - 0.1 / bits)
    controls = [item for item in axes.get_lines() if list(item.get_xdata()) == [32]]
    hollow = {item.get_color() for item in controls if item.get_markerfacecolor() == "white"}
    assert hollow == {line(axes, name).get_color() for name in ("weights", "activations")}
    assert legend(figure) == ["weights", "activations", "original", "control", "chance"]


def test_variants_share_one_original_and_need_no_name():
    axes = figures.against_level(quantised(None, *"abcde"), "auc", by="variant", axis="bits").axes[0]
    (original,) = [
        item for item in axes.get_lines() if list(item.get_xdata()) == [0, 1] and item.get_label() != "chance"
    ]
    assert original.get_color() == "black" and original.get_ydata() == pytest.approx([0.71, 0.71])
    assert len(line(axes, "dorefa").get_xdata()) == len(line(axes, "e").get_xdata()) == 4


def test_axis_and_levels_must_agree():
    with pytest.raises(ValueError, match="axis is 'bit'; it must be one of .'sparsity', 'ratio', 'bits'"):
        figures.against_level(quantised("a"), "auc", by="variant", axis="bit")
    with pytest.raises(ValueError, match="levels .0.0, 0.5.; axis 'bits' needs bit-widths, from 1"):
        figures.against_level(compressions([0.5, 0.0]), "auc", axis="bits")
    with pytest.raises(ValueError, match="axis 'sparsity' needs sparsities"):
        figures.against_level(quantised("a"), "auc", by="variant")


def test_scatter_draws_means_with_intervals_and_joins_nothing():
    x, y = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.9])
    groups = {"dorefa": [("4", x, y), ("8", x + 0.2, y[:1])], "none": [("", x[:1], y[:1])]}
    figure = figures.scatter(groups, "gap", "AUC")
    axes = figure.axes[0]
    np.testing.assert_allclose(line(axes, "dorefa").get_data(), [[0.2, 0.4], [2 / 3, 0.5]])
    assert line(axes, "dorefa").get_linestyle() == "None"
    across, up = (bars.get_segments() for bars in axes.collections)
    (_, *ends), (_, *other_ends) = metrics.over_targets(x), metrics.over_targets(y)
    np.testing.assert_allclose(across[0], [[ends[0], 2 / 3], [ends[1], 2 / 3]])
    np.testing.assert_allclose(up[0], [[0.2, other_ends[0]], [0.2, other_ends[1]]])
    np.testing.assert_allclose(up[1], [[0.4, 0.5], [0.4, 0.5]])  # one target has no interval
    assert [(text.get_text(), *text.xy) for text in axes.texts] == [
        ("4", pytest.approx(0.2), pytest.approx(2 / 3)),
        ("8", pytest.approx(0.4), 0.5),
    ]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("gap", "AUC")
    assert legend(figure) == ["dorefa", "none"]
    assert not figures.scatter({"a": [("", x, y)]}, "gap", "AUC").axes[0].texts


def test_scatter_draws_references_over_the_range_of_x():
    references = {"gap attack": lambda x: 0.5 + x / 2, "chance": lambda x: 0.5}
    figure = figures.scatter(families(2), "gap", "AUC", references)
    axes = figure.axes[0]
    for name, reference in references.items():
        x, y = line(axes, name).get_data()
        assert (x[0], x[-1]) == axes.get_xlim() == figures.scatter(families(2), "", "").axes[0].get_xlim(), (
            name
        )
        np.testing.assert_allclose(y, [reference(place) for place in x], err_msg=name)
    assert legend(figure)[2:] == list(references)
    assert len({line(axes, name).get_linestyle() for name in references}) == 2


def test_scatter_on_a_log_axis():
    x = np.array([0.01, 0.02])
    figure = figures.scatter(
        {"a": [("1", x, x), ("2", 100 * x, x)]}, "loss", "AUC", {"x": lambda x: x}, xscale="log"
    )
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    np.testing.assert_allclose(line(axes, "a").get_xdata(), [0.015, 1.5])
    reference = line(axes, "x").get_xdata()
    np.testing.assert_allclose(reference[1:] / reference[:-1], reference[1] / reference[0])
    assert reference[0] > 0


def test_scatter_with_low_rates_on_a_log_axis_leaves_out_zero_and_joins_what_it_is_told():
    x, zero = np.array([0.5, 0.7]), np.zeros(2)
    groups = {"noise": [("1", x, 0.01 * x), ("2", x - 0.1, 0.1 * x), ("3", x, zero)], "others": [("4", x, x)]}
    figure = figures.scatter(groups, "accuracy", "TPR", yscale="log", joined=["noise"])
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")
    np.testing.assert_allclose(line(axes, "noise").get_ydata(), [0.006, 0.06])
    assert line(axes, "noise").get_linestyle() == "-" and line(axes, "others").get_linestyle() == "None"
    assert "3" not in {text.get_text() for text in axes.texts}


def test_scatter_keeps_many_labels_apart_and_families_different():
    figure = figures.scatter(families(12), "gap", "AUC", {"gap attack": lambda x: 0.5 + x / 2})
    figure.draw_without_rendering()
    axes = figure.axes[0]
    names = list(families(12))
    for look in ("color", "marker"):
        assert len({getattr(line(axes, name), f"get_{look}")() for name in names}) == 12, look
    boxes = label_boxes(axes)
    assert len(boxes) == 4 * 12
    assert not any(a.overlaps(b) for index, a in enumerate(boxes) for b in boxes[:index])
    marks = np.concatenate([axes.transData.transform(line(axes, name).get_xydata()) for name in names])
    assert not any(box.contains(*mark) for box in boxes for mark in marks)
    assert all(axes.bbox.containsx(x) and axes.bbox.containsy(y) for box in boxes for x, y in box.corners())


def test_scatter_leaves_out_a_point_without_a_mean():
    groups = {"a": [("1", [0.1], [0.6]), ("1", [np.nan], [0.6])]}
    figure = figures.scatter(groups, "gap", "AUC")
    figure.draw_without_rendering()
    assert line(figure.axes[0], "a").get_xdata().tolist() == [0.1]


@pytest.mark.parametrize(
    "groups, message",
    [
        ({}, "groups hold no point"),
        ({"a": [("1", [np.nan], [0.5])]}, "groups hold no point"),
        ({"a": [("1", 0.1, 0.5)]}, r"values has shape \(\)"),
        (families(13), "groups holds 13 families; more than 12 look alike"),
    ],
    ids=["nothing", "nan", "no targets", "thirteen"],
)
def test_scatter_names_what_is_wrong(groups, message):
    with pytest.raises(ValueError, match=message):
        figures.scatter(groups, "gap", "AUC")


def test_rows_that_mix_settings_are_refused():
    with pytest.raises(ValueError, match="rows vary in .'attack'"):
        figures.against_level(rows(), "balanced_accuracy")
    with pytest.raises(ValueError, match="rows hold no 'auc'"):
        figures.attack_bars(rows(), "auc")
    with pytest.raises(ValueError, match="no compressed model"):
        figures.against_level(study.table(rows(), compression="none", attack="attack_1"), "balanced_accuracy")


@pytest.mark.parametrize("count", [2, 3, 6, 8, 9, 12, 13])
def test_defences_differ_in_luminance(count):
    names = [str(index) for index in range(count)]
    made = [
        study.tidy_row(metric, 0.5 + 0.01 * place, defense=name, defense_strength=1, attack=attack)
        for place, name in enumerate(names)
        for metric, attack in (("auc", "samia"), ("test_accuracy", None))
    ]
    axes = figures.tradeoff(made, "samia").axes[0]
    rgb = np.array([matplotlib.colors.to_rgb(line(axes, name).get_color()) for name in names])
    assert np.diff(np.sort(rgb @ style.LUMINANCE)).min() > 0.5 / count / 2
