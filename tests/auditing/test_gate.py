"""A gate: silent, or one error that says which network is why."""

import pytest

from mialib.auditing import gate
from mialib.measures import Estimate


@pytest.mark.parametrize(
    ("text", "metric", "most", "than"),
    [
        ("auc_increase > 0.02", "auc", 0.02, None),
        ("auc_increase>0", "auc", 0.0, None),
        (" tpr_at_0.01_increase > 1e-3 ", "tpr_at_0.01", 0.001, None),
        ("tpr_at_0.001_increase > -0.1", "tpr_at_0.001", -0.1, None),
        ("auc_increase over control > .02", "auc", 0.02, "control"),
        ("auc_increase  over trained  further, > 8 hours> 0.02", "auc", 0.02, "trained  further, > 8 hours"),
    ],
)
def test_conditions_are_read_and_written(text, metric, most, than):
    found = gate.condition(text)
    assert found == (metric, most, than) and gate.condition(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "auc > 0.02",
        "auc_increase < 0.02",
        "auc_increase > a",
        "acc_increase > 1",
        "",
        "auc_increase > 1.2.3",
        "auc_increase over > 0.02",
        "auc_increase than control > 0.02",
    ],
)
def test_other_conditions_are_refused(text):
    with pytest.raises(ValueError, match="or 'NAME over control > NUMBER'"):
        gate.condition(text)


def test_the_three_ends():
    fine, above, wide = Estimate(0.01, 0.0, 0.02), Estimate(0.1, 0.03, 0.2), Estimate(0.01, -0.1, 0.1)
    gate.check({"a": fine}, gate.Condition("auc", 0.02))
    with pytest.raises(
        gate.LeaksMore, match=r"auc rises by more than 0.02: b \+0.100 \[\+0.030, \+0.200\]"
    ) as error:
        gate.check({"a": fine, "b": above, "c": wide}, gate.Condition("auc", 0.02))
    assert error.value.status == 3 and error.value.networks == ["b"]
    with pytest.raises(gate.CannotTell, match="cannot be told: c") as error:
        gate.check({"a": fine, "c": wide}, gate.Condition("auc", 0.02))
    assert error.value.status == 4
    with pytest.raises(
        gate.CannotTell, match="too few others"
    ):  # what is not resolved is not known to be small
        gate.check({"a": Estimate(float("nan"))}, gate.Condition("tpr_at_0.001", 0.02))
    with pytest.raises(gate.CannotTell, match="no verdict can be given: the sets overlap"):
        gate.check({"a": fine}, gate.Condition("auc", 0.02), refused="the sets overlap")


def test_what_is_compared_with_is_said():
    over = gate.Condition("auc", 0.02, "longer")
    with pytest.raises(gate.LeaksMore, match="auc rises over longer by more than 0.02: b"):
        gate.check({"b": Estimate(0.1, 0.03, 0.2)}, over)
    assert over.passed == "no rise of auc over longer above 0.02"


def test_each_outcome_has_its_exit_status():
    assert gate.STATUSES == {"passed": 0, "failed": 3, "cannot tell": 4}


@pytest.mark.parametrize("text", ["auc_increase > 2", "auc_increase > -1", "auc_increase over control > 1"])
def test_a_rise_that_no_rate_can_have_is_refused(text):
    with pytest.raises(ValueError, match="rates lie in 0 to 1"):
        gate.condition(text)
    with pytest.raises(ValueError, match="for 2 % write 0.02"):
        gate.condition("auc_increase > 2")
