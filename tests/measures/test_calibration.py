"""Calibration error by hand, and of models that are calibrated."""

import pytest
import torch

from mialib.measures.calibration import calibration_error


def posteriors(*rows):
    return torch.tensor(rows, dtype=torch.float64).log()


def test_calibration_error_by_hand():
    log_p = posteriors([0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55])
    labels = torch.tensor([0, 1, 1, 1])  # right, wrong, right, right
    # one bin: 3 of 4 right, mean confidence 0.7375
    assert calibration_error(log_p, labels, bins=1) == pytest.approx(0.0125)
    # (0.5, 0.75]: both right, 0.625 on average; (0.75, 1]: one of two right, 0.85 on average
    assert calibration_error(log_p, labels, bins=4) == pytest.approx(0.5 * 0.375 + 0.5 * 0.35)
    # each in a bin of its own
    expected = (0.1 + 0.8 + 0.3 + 0.45) / 4
    assert calibration_error(log_p, labels) == pytest.approx(expected)
    assert calibration_error(log_p.float(), labels) == pytest.approx(expected)


def test_a_calibrated_model_has_no_calibration_error():
    # 3 of 4 right at 0.75 and 9 of 10 at 0.9, in two bins
    log_p = posteriors(*[[0.75, 0.25]] * 4, *[[0.1, 0.9]] * 10)
    labels = torch.tensor([0, 0, 0, 1] + [1] * 9 + [0])
    assert calibration_error(log_p, labels, bins=5) == pytest.approx(0.0, abs=1e-12)
    # in one and the same bin overconfidence and underconfidence cancel out: 0.8 right at 0.8 on average
    log_p = posteriors(*[[0.9, 0.1], [0.7, 0.3]] * 5)
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
    assert calibration_error(log_p, labels, bins=1) == pytest.approx(0.0, abs=1e-12)


def test_a_bin_holds_its_upper_end():
    # 0.5, right, and 0.6, wrong, in bins of their own; in one bin they would make up for each other
    log_p, labels = posteriors([0.5, 0.5], [0.6, 0.4]), torch.tensor([0, 1])
    assert calibration_error(log_p, labels, bins=2) == pytest.approx((0.5 + 0.6) / 2)


def test_certain_posteriors_are_as_wrong_as_they_are_often_wrong():
    log_p = posteriors(*[[1.0, 0.0, 0.0]] * 4)
    assert torch.isinf(log_p).any()
    assert calibration_error(log_p, torch.tensor([0, 0, 0, 2])) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "log_p, labels, bins, words",
    [
        (torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64), 15, "one model"),
        (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 15, "n > 0"),
        (torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64), 0, "at least one bin"),
        (torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64), 15, "labels must have the shape"),
        (torch.ones(3, 4), torch.zeros(3, dtype=torch.int64), 15, "log_softmax"),
    ],
)
def test_calibration_error_names_bad_input(log_p, labels, bins, words):
    with pytest.raises(ValueError, match=words):
        calibration_error(log_p, labels, bins)
