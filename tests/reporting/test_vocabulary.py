"""What models, settings and metrics are called in tables and pictures."""

import numpy as np
import pytest

from mialib.measures import Estimate, metrics
from mialib.reporting import vocabulary


@pytest.mark.parametrize(
    "compression, level, name",
    [
        ("none", None, "original"),
        ("l1_filter", 0.0, "control"),
        ("dorefa", 32, "control"),
        ("l1_filter", 0.7, "l1_filter 0.7"),
        ("dorefa", 1.0, "dorefa, 1 bit"),
        ("dorefa", 1.58, "dorefa, 1.58 bits"),
        ("dorefa", 4, "dorefa, 4 bits"),
    ],
)
def test_models_are_named_by_sparsity_or_bits_and_controls_alike(compression, level, name):
    assert vocabulary.model_name(compression, level) == name


@pytest.mark.parametrize(
    "columns, name",
    [
        (("none", None, None, "none", None), "original"),
        (("none", None, "longer", None, None), "longer"),
        (("l1_filter", 0.7, None, "none", None), "l1_filter 0.7"),
        (("l1_filter", 0.7, None, "ppb", 4.0), "ppb 4"),
        (("l1_filter", 0.7, None, "ppb", 0.5, "unaware"), "ppb 0.5 unaware"),
        (("none", None, "whole pipeline", "dp_sgd", 1.0, "adaptive"), "dp_sgd 1 whole pipeline adaptive"),
        (("none", None, None, "early_stopping", None, "unaware"), "early_stopping unaware"),
        (("none", None, None, "none", None, None, "shadow"), "original"),
        (("none", None, None, "none", None, None, "known_members"), "original, known members"),
        (("none", None, None, "ppb", 4.0, "adaptive", "known_members"), "ppb 4 adaptive, known members"),
    ],
)
def test_settings_are_named_by_their_defence_or_else_by_the_model(columns, name):
    assert vocabulary.setting_name(*columns) == name


@pytest.mark.parametrize(
    "metric, name",
    [
        ("auc", "AUC"),
        ("tpr_at_0.01", "TPR at 1% FPR"),
        ("tpr_at_0.001", "TPR at 0.1% FPR"),
        ("test_accuracy", "test accuracy"),
        ("generalization_gap", "generalisation gap"),
    ],
)
def test_metrics_are_named_as_on_an_axis(metric, name):
    assert vocabulary.metric_name(metric) == name


@pytest.mark.parametrize(
    "estimate, sign, text",
    [
        (Estimate(0.0124, -0.0031, 0.0279), "+", "+0.012 [-0.003, +0.028]"),
        (Estimate(-1.0, -1.25, -0.75), "+", "-1.000 [-1.250, -0.750]"),
        (Estimate(0.6124, 0.5971, 0.6279), "", "0.612 [0.597, 0.628]"),
    ],
)
def test_estimates_come_with_their_interval(estimate, sign, text):
    assert vocabulary.with_interval(estimate, sign) == text


@pytest.mark.parametrize("metric", vocabulary.CHANCE)
def test_guessing_gets_what_is_drawn_as_chance(metric):
    member, guess = np.arange(4000) % 2 == 0, np.arange(4000) - 1999.5  # every second candidate is a member
    value = metrics.STANDARD[metric](member, guess).value
    assert value == pytest.approx(vocabulary.CHANCE[metric], abs=0.0003)


def test_widths_in_words_and_differences_in_points():
    assert [vocabulary.width_name(b) for b in (1, 1.58, 32)] == ["1 bit", "1.58 bits", "32 bits"]
    assert vocabulary.in_points(Estimate(-0.14, -0.152, 0.0028)) == "-14.0 [-15.2, +0.3]"
    assert vocabulary.in_points(Estimate(0.5)) == "+50.0 (no interval)"
    assert vocabulary.with_interval(Estimate(0.5)) == "0.500 (no interval)"


@pytest.mark.parametrize(
    "text, words",
    [
        ("adversarial_regularization 0.5", "adversarial regularisation 0.5"),
        ("dp_sgd 1, fine-tuning only", "DP-SGD 1, fine-tuning only"),
        ("samia, l1_unstructured 0.7", "SAMIA, magnitude pruning 0.7"),
        ("G + H + I, retrained", "purifier against a decoder and a judge, retrained"),
        ("G", "purifier"),
        ("G ADMM and game", "G ADMM and game"),  # a letter that numbers an arm
        ("none", "no defence"),
        ("none of these", "none of these"),
        ("tpr_at_0.01", "TPR at 1% FPR"),
        ("an_unknown_name 2", "an unknown name 2"),
        ("$x_1$", "$x_1$"),
        ("nonsense", "nonsense"),
    ],
)
def test_code_names_are_put_into_words_and_unknown_ones_lose_their_underscores(text, words):
    assert vocabulary.in_words(text) == words
    assert vocabulary.in_words(words) == words


@pytest.mark.parametrize("name", sorted(vocabulary.WORDS))
def test_words_stay_as_they_are(name):
    words = vocabulary.in_words(name)
    assert vocabulary.in_words(words) == words and vocabulary.in_words(f"{words} 0.5") == f"{words} 0.5"
