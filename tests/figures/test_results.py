"""Charts of the results table show the rows they were given, and refuse rows that mix settings."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from mialib import figures, study
from mialib.measures import Estimate

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


DRAWINGS = {
    "against_level": lambda: figures.against_level(
        study.table(rows(), attack="attack_3"), "balanced_accuracy"
    ),
    "many levels": lambda: figures.against_level(rows(), "balanced_accuracy", by="attack"),
    "ratio": lambda: figures.against_level(compressions(), "auc", axis="ratio"),
    "bits": lambda: figures.against_level(quantised("a", "b"), "auc", by="variant", axis="bits"),
    "attack_bars": lambda: figures.attack_bars(study.table(rows(), level=[None, 0.0, 0.7])),
}


def line(axes, label):
    """The line of this label, or the one that looks like the legend's entry of this name."""
    for item in axes.get_lines():
        if item.get_label() == label and len(item.get_xdata()):
            return item
    look = axes.figure.legends[0].legend_handles[legend(axes.figure).index(label)]
    return next(
        item
        for item in axes.get_lines()
        if to_hex(item.get_color()) == to_hex(look.get_color())
        and item._unscaled_dash_pattern == look._unscaled_dash_pattern
        and len(item.get_xdata())
    )


def drawn(axes, label):
    """x and y of that line, where it has both."""
    x, y = line(axes, label).get_data()
    return x[np.isfinite(y)], y[np.isfinite(y)]


def marks(axes):
    """Places of the marks that seaborn drew on top, those without a place left out."""
    places = np.ma.filled(np.ma.asarray(axes.collections[-1].get_offsets(), float), np.nan)
    return places[np.isfinite(places).all(1)]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_levels_are_sorted_and_averaged_over_targets():
    figure = figures.against_level(study.table(rows(), attack="attack_3"), "balanced_accuracy")
    axes = figure.axes[0]
    level, value = drawn(axes, "magnitude pruning")
    assert level.tolist() == [0.5, 0.7]  # the control stands alone
    np.testing.assert_allclose(value, [0.59, 0.61])  # 0.53 + 0.01 between targets + 0.1 * level
    assert legend(figure) == ["magnitude pruning", "original", "control", "chance"]
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
    assert legend(figure)[4:] == ["original", "control", "chance"]
    named = legend(figure)[:4]
    for name in named:
        x, y = drawn(axes, name)
        np.testing.assert_allclose([x, y], [[0.5, 0.9], [0.75, 0.71]], err_msg=name)
    assert len({line(axes, name).get_marker() for name in named}) == 4
    across = [item for item in axes.get_lines() if list(item.get_xdata()) == [0, 1]]
    assert sorted(item.get_ydata()[0] for item in across) == [0.5, 0.8]  # chance and one original
    assert marks(axes).tolist() == [[0, 0.8]]


def test_bars_start_at_chance_and_are_sorted():
    figure = figures.attack_bars(study.table(rows(), level=[None, 0.0, 0.7]))
    axes = figure.axes[0]
    assert legend(figure) == ["original", "magnitude pruning 0.7", "control", "chance"]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        name.replace("_", " ") for name in ATTACKS[::-1]
    ]
    assert {bar.get_x() for bar in axes.patches} == {0.5}
    assert max(bar.get_width() for bar in axes.patches) == pytest.approx(0.2)  # 0.12 + 0.01 + 0.07


def test_bars_leave_out_what_is_unresolved():
    some = [
        study.tidy_row("tpr_at_0.01", value, attack=attack, compression="none")
        for attack, value in (("gap", None), ("samia", 0.2))
    ]
    widths = [bar.get_width() for bar in figures.attack_bars(some, "tpr_at_0.01").axes[0].patches]
    assert sorted(np.nan_to_num(widths)) == pytest.approx([0.19])


def test_levels_as_ratios_stand_on_a_log_axis():
    figure = figures.against_level(compressions(), "auc", axis="ratio")
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "compression of the weights")
    ratio, value = drawn(axes, "ADMM")
    np.testing.assert_allclose(ratio, [2, 8, 71])
    np.testing.assert_allclose(value, 0.71 - 0.1 * (1 - 1 / ratio))
    assert marks(axes)[:, 0].tolist() == [1]  # the control
    written = {
        text.get_text(): place for text, place in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
    }
    assert written == pytest.approx({"1x": 1, "2x": 2, "8x": 8, "71x": 71})
    assert axes.get_xticks(minor=True).size == 0
    named = figures.against_level(compressions(), "auc", xlabel="size", axis="ratio").axes[0]
    assert named.get_xlabel() == "size"
    plain = figures.against_level(compressions(), "auc").axes[0]
    assert plain.get_xscale() != "log" and plain.get_xlabel() == "sparsity"


def test_ratios_that_crowd_lose_ticks_not_points():
    levels = (0.499, 0.5, 0.502, 0.6, 0.7, 0.75, 0.8, 0.9, 0.91, 0.95, 0.99)
    figure = figures.against_level(compressions(levels), "auc", axis="ratio")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = sorted((text.get_window_extent() for text in axes.get_xticklabels()), key=lambda box: box.x0)
    assert 4 <= len(boxes) < len(levels) == len(drawn(axes, "ADMM")[0])
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
    bits, value = drawn(axes, "activations")
    np.testing.assert_array_equal(bits, [1, 1.58, 2, 8])  # the control stands alone
    np.testing.assert_allclose(value, 0.78 - 0.1 / bits)
    np.testing.assert_allclose(sorted(marks(axes)[:, 1]), np.array([0.78, 0.81]) - 0.1 / 32)
    controls = np.unique(marks(axes)[:, 0])  # one each, side by side about the tick
    assert len(controls) == 2 and np.prod(controls) == pytest.approx(32**2) and np.ptp(controls) > 2
    assert legend(figure) == ["weights", "activations", "original", "control", "chance"]


def test_variants_share_one_original_and_need_no_name():
    axes = figures.against_level(quantised(None, *"abcde"), "auc", by="variant", axis="bits").axes[0]
    (original,) = [
        item for item in axes.get_lines() if list(item.get_xdata()) == [0, 1] and item.get_label() != "chance"
    ]
    assert original.get_color() == "black" and original.get_ydata() == pytest.approx([0.71, 0.71])
    assert len(drawn(axes, "DoReFa")[0]) == len(drawn(axes, "e")[0]) == 4


def test_axis_and_levels_must_agree():
    with pytest.raises(ValueError, match="axis is 'bit'; it must be one of .'sparsity', 'ratio', 'bits'"):
        figures.against_level(quantised("a"), "auc", by="variant", axis="bit")
    with pytest.raises(ValueError, match="levels .0.0, 0.5.; axis 'bits' needs bit-widths, from 1"):
        figures.against_level(compressions([0.5, 0.0]), "auc", axis="bits")
    with pytest.raises(ValueError, match="axis 'sparsity' needs sparsities"):
        figures.against_level(quantised("a"), "auc", by="variant")


def test_rows_that_mix_settings_are_refused():
    with pytest.raises(ValueError, match="rows vary in .'attack'"):
        figures.against_level(rows(), "balanced_accuracy")
    with pytest.raises(ValueError, match="rows hold no 'auc'"):
        figures.attack_bars(rows(), "auc")
    with pytest.raises(ValueError, match="no compressed model"):
        figures.against_level(study.table(rows(), compression="none", attack="attack_1"), "balanced_accuracy")
