"""Calibration error by hand, of models that are calibrated, and what chance alone makes of it."""

import pytest
import torch

from mialib.measures.calibration import calibration_error, calibration_error_by_chance


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
    assert type(calibration_error(log_p, labels)) is type(calibration_error_by_chance(log_p)) is float


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
    # just below 0.7, which is a little more in double than in single precision: both in (0.6, 0.7]
    log_p = posteriors([0.7 - 1e-9, 0.3 + 1e-9], [0.65, 0.35])
    assert calibration_error(log_p, labels, bins=10) == pytest.approx((0.65 - 0.3) / 2)


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


def ten_classes(n, generator):
    return (2 * torch.randn(n, 10, generator=generator, dtype=torch.float64)).log_softmax(-1)


@pytest.mark.parametrize("n, error", [(50, 0.163), (100, 0.120), (1000, 0.038)])
def test_a_calibrated_model_has_a_calibration_error_by_chance(n, error):
    generator = torch.Generator().manual_seed(0)
    answers = [ten_classes(n, generator) for _ in range(40)]
    expected = sum(map(calibration_error_by_chance, answers)) / 40
    assert expected == pytest.approx(error, abs=0.003)
    drawn = [
        calibration_error(log_p, torch.multinomial(log_p.exp(), 1, generator=generator)[:, 0])
        for log_p in answers
        for _ in range(10)
    ]
    assert sum(drawn) / len(drawn) == pytest.approx(expected, abs=0.004)  # labels drawn from the posteriors


def test_the_error_by_chance_by_hand():
    # two at 0.7: 0, 1 or 2 right for 1.4, with chances 0.09, 0.42 and 0.49; one at 0.9; one that is certain
    log_p = posteriors([0.7, 0.3], [0.3, 0.7], [0.9, 0.1], [0.0, 1.0])
    alone = (0.9 * 0.1 + 0.1 * 0.9) / 4
    pair = (0.09 * 1.4 + 0.42 * 0.4 + 0.49 * 0.6) / 4
    assert calibration_error_by_chance(log_p, bins=10) == pytest.approx(pair + alone)
    assert calibration_error_by_chance(log_p[3:]) == 0.0
    assert calibration_error_by_chance(log_p.flip(0), bins=10) == pytest.approx(pair + alone)
    past_one = torch.tensor([[1e-7, -torch.inf]]).expand(50, 2)  # by rounding: certain
    assert calibration_error_by_chance(past_one) == 0.0
    # one bin of many: the mean absolute deviation of a normal distribution
    many = posteriors([0.5, 0.5]).expand(2000, 2)
    assert calibration_error_by_chance(many) == pytest.approx(0.5 * (2 / torch.pi / 2000) ** 0.5, rel=1e-3)


def test_the_error_by_chance_names_bad_input():
    with pytest.raises(ValueError, match="n > 0"):
        calibration_error_by_chance(torch.zeros(0, 4))
    with pytest.raises(ValueError, match="log_softmax"):
        calibration_error_by_chance(torch.ones(3, 4))
