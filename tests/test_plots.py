"""Figures are built, labelled and show the numbers they were given."""

import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from mialib import metrics, plots, results
from mialib.metrics import Estimate

GENERATOR = np.random.default_rng(0)
MEMBER = np.arange(400) % 2 == 0
MARGIN = GENERATOR.normal(size=400) + MEMBER
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
                made.append(results.row("balanced_accuracy", value, target=target, seed=0, **columns))
    return made


def defended():
    made = []
    for defense, strength, accuracy, auc in (
        ("none", None, 0.8, 0.7),
        ("ppb", 1, 0.78, 0.6),
        ("ppb", 4, 0.7, 0.55),
    ):
        setting = {"defense": defense, "defense_strength": strength}
        made.append(results.row("test_accuracy", accuracy, **setting))
        for adversary in (None,) if defense == "none" else ("unaware", "adaptive"):
            columns = {"attack": "samia", "adversary": adversary}
            made.append(results.row("auc", auc + 0.02 * (adversary == "adaptive"), **columns, **setting))
    return made


def figures():
    gaps = {name: GENERATOR.normal(size=30) for name in ("original", "control", "pruned")}
    confidence = GENERATOR.random(400)
    return {
        "roc": plots.roc({"samia": (MEMBER, MARGIN), "gap": (MEMBER, np.sign(MARGIN))}),
        "histogram": plots.divergence(MEMBER, {"original": confidence, "pruned": confidence**2}),
        "ecdf": plots.divergence(MEMBER, {"original": confidence}, label="sensitivity", kind="ecdf"),
        "per_class": plots.per_class(gaps, gaps),
        "against_level": plots.against_level(results.table(rows(), attack="attack_3"), "balanced_accuracy"),
        "many levels": plots.against_level(rows(), "balanced_accuracy", by="attack"),
        "attack_bars": plots.attack_bars(results.table(rows(), level=[None, 0.0, 0.7])),
        "tradeoff": plots.tradeoff(defended(), attack="samia"),
    }


def line(axes, label):
    return next(item for item in axes.get_lines() if item.get_label() == label)


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_figure_is_labelled_and_leaves_no_trace(tmp_path):
    before = dict(matplotlib.rcParams)
    for name, figure in figures().items():
        assert isinstance(figure, Figure), name
        assert all(axes.get_xlabel() for axes in figure.axes) and figure.axes[0].get_ylabel(), name
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a layout that does not fit warns
            path = plots.save(figure, tmp_path / "figures" / f"{name}.png")
        assert path.read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "figures").iterdir())) == len(figures())
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


def test_legends_stand_beside_the_axes():
    for name, figure in figures().items():
        figure.draw_without_rendering()
        box = figure.legends[0].get_window_extent()
        assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes), name
        assert figure.bbox.padded(1).containsx(box.x0) and figure.bbox.padded(1).containsx(box.x1), name


def test_roc_is_log_log_down_to_the_resolution_with_a_chance_line():
    axes = plots.roc({"samia": (MEMBER, MARGIN)}).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("false-positive rate", "true-positive rate")
    assert axes.get_xlim() == axes.get_ylim() == pytest.approx((1 / 200, 1))
    np.testing.assert_array_equal(*line(axes, "chance").get_data())
    drawn = line(axes, f"samia (AUC {metrics.auc(MEMBER, MARGIN).value:.2f})").get_data()
    np.testing.assert_array_equal(drawn, metrics.roc(MEMBER, MARGIN))


def test_targets_given_as_lists_are_pooled():
    halves = np.array_split(MEMBER, 2), np.array_split(MARGIN, 2)
    pooled, whole = (plots.roc({"a": curve}).axes[0].get_lines()[1] for curve in (halves, (MEMBER, MARGIN)))
    np.testing.assert_array_equal(pooled.get_data(), whole.get_data())


def test_divergence_shows_shares_and_means():
    member = np.array([1, 1, 0, 0])
    figure = plots.divergence(
        member, {"original": np.array([1.0, 0.9, 0.0, 0.5]), "pruned": np.ones(4)}, bins=10
    )
    shares = figure.axes[0].patches[0].get_data().values
    assert shares.sum() == 1.0 and shares[-1] == 1.0  # both members in the last tenth
    assert figure.axes[0].get_title() == "original\nmean: members 0.950, non-members 0.250"
    assert legend(figure) == ["members", "non-members"]
    with pytest.raises(ValueError, match="kind is 'violin'"):
        plots.divergence(member, {"a": np.ones(4)}, kind="violin")


@pytest.mark.parametrize("classes", [10, 30, 100])
def test_classes_are_sorted_by_the_last_models_gap_in_both_panels(classes):
    pruned = GENERATOR.normal(size=classes)
    pruned[3] = np.nan
    confidence = {"original": np.zeros(classes), "pruned": pruned}
    figure = plots.per_class(confidence, {"original": np.ones(classes), "pruned": -pruned})
    order = [int(text.get_text()) for text in figure.axes[0].get_yticklabels()]
    assert order[0] == 3 and (np.diff(pruned[order[1:]]) >= 0).all()
    np.testing.assert_array_equal(line(figure.axes[1], "pruned").get_xdata(), -pruned[order])


def test_levels_are_sorted_and_averaged_over_targets():
    figure = plots.against_level(results.table(rows(), attack="attack_3"), "balanced_accuracy")
    axes = figure.axes[0]
    level, value = line(axes, "l1_unstructured").get_data()
    assert level.tolist() == [0.5, 0.7]  # the control stands alone
    np.testing.assert_allclose(value, [0.59, 0.61])  # 0.53 + 0.01 between targets + 0.1 * level
    assert legend(figure) == ["l1_unstructured", "original", "control", "chance"]
    assert any(np.allclose(item.get_ydata(), 0.54) for item in axes.get_lines() if len(item.get_ydata()) == 2)


def test_bars_start_at_chance_and_are_sorted():
    figure = plots.attack_bars(results.table(rows(), level=[None, 0.0, 0.7]))
    axes = figure.axes[0]
    assert legend(figure) == ["chance", "original", "l1_unstructured 0.7", "control"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ATTACKS
    assert {bar.get_x() for bar in axes.patches} == {0.5}
    assert max(bar.get_width() for bar in axes.patches) == pytest.approx(0.2)  # 0.12 + 0.01 + 0.07


def test_bars_leave_out_what_is_unresolved():
    some = [
        results.row("tpr_at_0.01", value, attack=attack, compression="none")
        for attack, value in (("gap", None), ("samia", 0.2))
    ]
    widths = [bar.get_width() for bar in plots.attack_bars(some, "tpr_at_0.01").axes[0].patches]
    assert sorted(np.nan_to_num(widths)) == pytest.approx([0, 0.19])


def test_tradeoff_joins_accuracy_and_attack_by_defence_and_strength():
    figure = plots.tradeoff(defended(), attack="samia")
    axes = figure.axes[0]
    x, y = line(axes, "ppb, adaptive").get_data()
    np.testing.assert_allclose([x, y], [[0.78, 0.7], [0.62, 0.57]])
    assert line(axes, "ppb, unaware").get_markerfacecolor() == "white"
    assert line(axes, "no defence").get_marker() == "*"
    assert sorted(text.get_text() for text in axes.texts) == ["1", "1", "4", "4"]
    with pytest.raises(ValueError, match="no test_accuracy for ppb, strength 4"):
        kept = [row for row in defended() if row["metric"] != "test_accuracy" or row["defense_strength"] != 4]
        plots.tradeoff(kept, attack="samia")


def test_rows_that_mix_settings_are_refused():
    with pytest.raises(ValueError, match="rows vary in .'attack'"):
        plots.against_level(rows(), "balanced_accuracy")
    with pytest.raises(ValueError, match="rows hold no 'auc'"):
        plots.attack_bars(rows(), "auc")
    with pytest.raises(ValueError, match="no compressed model"):
        plots.against_level(results.table(rows(), compression="none", attack="attack_1"), "balanced_accuracy")


def test_colours_differ_in_luminance():
    for count in (2, 3, 6, 13):
        rgb = np.array([matplotlib.colors.to_rgb(look["color"]) for look in plots._looks(count)])
        luminance = np.sort(rgb @ [0.2126, 0.7152, 0.0722])
        assert np.diff(luminance).min() > 0.5 / count / 2, count


def test_save_wants_a_png(tmp_path):
    with pytest.raises(ValueError, match="must end in .png"):
        plots.save(Figure(), tmp_path / "a.pdf")
