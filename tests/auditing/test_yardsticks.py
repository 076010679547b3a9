"""Baselines and controls: by name, one for all or one for each."""

import pytest

from mialib.auditing import yardsticks

NAMES = ["original", "pruned", "purified", "longer", "longest"]
EACH = {"pruned": "longer", "purified": "longest"}


def test_a_control_for_all_is_a_name_or_gets_one():
    networks = {"original": object(), "pruned": object()}
    assert yardsticks.with_controls(networks, None) == (networks, None)
    assert yardsticks.with_controls(networks, "pruned") == (networks, "pruned")
    one = object()
    assert yardsticks.with_controls(networks, one) == (networks | {"control": one}, "control")
    with pytest.raises(ValueError, match="called 'control' and another one is given as the control; rename"):
        yardsticks.with_controls(networks | {"control": one}, object())


def test_controls_of_their_own_get_names_and_are_asked_once():
    networks = dict.fromkeys(["original", "a", "b", "c", "longer"])
    shared, path = [1, 2], "net.onnx"
    every, control = yardsticks.with_controls(networks, {"a": shared, "b": shared, "c": "longer"})
    assert control == {"a": "control", "b": "control", "c": "longer"}
    assert [name for name in every if name not in networks] == ["control"]
    _, control = yardsticks.with_controls(networks, {"a": path, "b": "".join(path), "c": [1, 2]})
    assert control == {"a": "control of a", "b": "control of a", "c": "control of c"}
    with pytest.raises(ValueError, match="control names 'd'"):
        yardsticks.with_controls(networks, {"d": shared})
    with pytest.raises(ValueError, match="empty mapping"):
        yardsticks.with_controls(networks, {})


def test_controls_and_the_baseline_are_not_compared():
    assert yardsticks.of_each(NAMES, "original", "longer") == {
        "pruned": "longer",
        "purified": "longer",
        "longest": "longer",
    }
    assert yardsticks.of_each(NAMES, "original", EACH) == EACH
    assert yardsticks.of_each(NAMES, "original", {"pruned": "longer"})["longest"] is None


@pytest.mark.parametrize(
    ("baseline", "control", "message"),
    [
        (
            "orginal",
            None,
            r"baseline names 'orginal', did you mean 'original'\?; the networks are original, ",
        ),
        (None, "x", "control names 'x'; the networks are"),
        (None, "original", "control and baseline are both 'original'"),
        (None, {"prunde": "longer"}, "control names 'prunde', did you mean 'pruned'"),
        (None, {"pruned": "loner"}, "control names 'loner', did you mean 'longer'"),
        (None, {"original": "longer"}, "control names 'original', which is the baseline"),
        (None, EACH | {"longer": "longest"}, "control names 'longer', which is a control itself"),
    ],
)
def test_what_does_not_fit_is_named(baseline, control, message):
    with pytest.raises(ValueError, match=message):
        yardsticks.resolved(NAMES, baseline, control)


def test_what_fits_is_kept():
    assert yardsticks.resolved(NAMES, None, EACH) == ("original", EACH)
    assert yardsticks.resolved(["a", "b"], None, None) == ("a", None)


def test_a_gate_compares_with_the_baseline_the_controls_or_a_network():
    asked = NAMES, "original", EACH
    assert yardsticks.over(None, *asked) == dict.fromkeys(EACH, "original")
    assert yardsticks.over("control", *asked) == EACH
    assert yardsticks.over("longest", *asked) == dict.fromkeys(EACH, "longest")
    assert yardsticks.over("pruned", *asked) == {"purified": "pruned"}


@pytest.mark.parametrize(
    ("than", "names", "control", "message"),
    [
        ("longr", NAMES, EACH, "than names 'longr', did you mean 'longer'"),
        ("control", NAMES, None, "none is given for pruned, purified, longer, longest"),
        ("control", NAMES, {"pruned": "longer"}, "none is given for purified, longest"),
        ("control", [*NAMES, "control"], "longer", "a network is called 'control' and is no control"),
    ],
)
def test_a_gate_without_a_yardstick_is_refused(than, names, control, message):
    with pytest.raises(ValueError, match=message):
        yardsticks.over(than, names, "original", control)


def test_words_of_the_command_line():
    assert yardsticks.of_words([], NAMES) is None
    assert yardsticks.of_words(["longer"], NAMES) == "longer"
    assert yardsticks.of_words(["pruned=longer", "purified=longest"], NAMES) == EACH
    assert yardsticks.of_words(["a=b"], ["a=b", "c"]) == "a=b"
    for words in (["longer", "longest"], ["longer", "pruned=longest"], ["pruned=longer", "pruned=longest"]):
        with pytest.raises(ValueError, match="--control is .*; it must be one NAME"):
            yardsticks.of_words(words, NAMES)


def test_a_network_may_need_no_control():
    control = {"pruned": "longer", "int8": None}
    names = ["original", "pruned", "int8", "longer"]
    assert yardsticks.resolved(names, None, control | {"int8": "original"})[1] == control
    every, found = yardsticks.with_controls(dict.fromkeys(names, 1), control)
    assert found == control and list(every) == names
    own = yardsticks.of_each(names, *yardsticks.resolved(names, None, control))
    assert own == {"pruned": "longer", "int8": None} and yardsticks.without(own, control) == []
    assert yardsticks.without({"pruned": "longer", "int8": None}, {"pruned": "longer"}) == ["int8"]
    assert yardsticks.over("control", names, "original", control) == {"pruned": "longer", "int8": "original"}
