"""From an interval to a verdict and its sentence."""

import numpy as np
import pytest

from mialib.auditing import verdicts
from mialib.auditing.judging import Difference
from mialib.measures import Estimate


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.001, 0.5, "leaks more"),
        (-0.5, -0.001, "leaks less"),
        (-0.01, 0.02, "leaks no more"),
        (0.0, 0.02, "leaks no more"),
        (-0.01, 0.021, "cannot tell"),
        (-0.3, 0.3, "cannot tell"),
    ],
)
def test_what_an_interval_says(low, high, said):
    difference = Estimate((low + high) / 2, low, high)
    assert verdicts.verdict(difference, 0.02) == said
    found = Difference(difference, {}, 0.05)
    text = verdicts.sentence("pruned", "original", (Estimate(0.7), Estimate(0.6)), found, 0.02)
    assert f"{low:+.3f}" in text and "from 0.600 to 0.700" in text
    assert ("0.050 would have been found" in text) == (said in ("leaks no more", "cannot tell"))
    assert f"{low:+.3f}" in verdicts.attribution("pruned", "longer", found, 0.02)


def test_a_nan_is_no_verdict():
    assert verdicts.verdict(Estimate(0.1)) == "cannot tell"


def test_networks_that_answer_alike_are_said_to():
    found = Difference(Estimate(0.0, 0.0, 0.0), {}, 0.0)
    assert "the same" in verdicts.sentence("halved", "original", (Estimate(0.7), Estimate(0.7)), found, 0.02)


def test_a_rise_that_does_not_matter_is_said_not_to():
    found = Difference(Estimate(0.009, 0.001, 0.018), {}, 0.02)
    leaks = Estimate(0.709), Estimate(0.7)
    assert "less than 0.02, which was said not to matter" in verdicts.sentence("a", "b", leaks, found, 0.02)
    assert "matter" not in verdicts.sentence("a", "b", leaks, found, 0.01)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.5, "pruned leaks more than original on average ("),
        (-0.5, -0.01, "pruned leaks less than original on average ("),
        (-0.01, 0.01, "pruned leaks no more than original on average, within 0.02 ("),
        (-0.3, 0.3, "whether pruned leaks more than original on average is not decided ("),
    ],
)
def test_networks_trained_anew(low, high, said):
    sentence = verdicts.anew("pruned", "original", Estimate((low + high) / 2, low, high), 8, 0.02)
    assert said in sentence and sentence.endswith("8 imitations of each).")


def test_it_is_said_which_networks_lack_a_control():
    assert verdicts.without_control([]).startswith(
        "No control was given: a network trained further for as long"
    )
    assert verdicts.without_control(["int8"]).startswith(
        "No control was given for int8. Where a network was trained further"
    )


def apart(low, high, each=()):
    return Difference(Estimate((low + high) / 2, low, high), {}, 0.1, np.array(each))


def test_one_sentence_for_each_network():
    found = {"original": apart(0.05, 0.15), "longer": apart(-0.1, 0.1)}
    assert verdicts.brief("pruned", found, 0.02) == (
        "**pruned** leaks more than original (+0.100 [+0.050, +0.150]), and perhaps leaks more than longer (+0.000 [-0.100, +0.100])."
    )
    less = {"original": apart(-0.15, -0.05), "longer": apart(-0.01, 0.01, [0.1, 0.1])}
    said = verdicts.brief("a", less, 0.02)
    assert "leaks less than original" in said and "no more than longer" in said
    assert said.endswith("; trained anew, on average +0.100 [+0.100, +0.100]).")


def test_how_many_more_examples_it_takes():
    leaks = Estimate(0.6, 0.5, 0.7), Estimate(0.6, 0.5, 0.7)
    said = verdicts.sentence("a", "b", leaks, apart(-0.1, 0.1), 0.02)
    assert said.endswith("four times in five; one of 0.02 takes about 25 times as many examples.")
    assert verdicts.sentence("a", "b", leaks, apart(-0.1, 0.1), 0.1).endswith("four times in five.")
    assert verdicts.sentence("a", "b", leaks, apart(-0.1, 0.1), 0.0).endswith("four times in five.")
