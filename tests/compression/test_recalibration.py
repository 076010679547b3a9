"""What is measured on calibration data: BatchNorm's statistics and the ranges of ReLUs."""

import pytest
import torch

from mialib import models
from mialib.compression import recalibration, schemes
from mialib.data import splits
from mialib.training import population


def test_batchnorm_statistics_are_those_of_the_calibration_data(digits, trained):
    split, full = trained
    index = splits.indices(split.reserve)[:, :64]
    measured = recalibration.batchnorm(full, digits, index)
    with torch.no_grad():
        first = full[1][0](digits.inputs(index[1]))  # the layer before the first BatchNorm
    assert torch.allclose(measured.buffers["1.running_mean"][1], first.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(measured.buffers["1.running_var"][1], first.var((0, 2, 3)), rtol=1e-3)
    assert not torch.equal(measured.buffers["1.running_mean"], full.buffers["1.running_mean"])
    assert all(measured.params[n] is full.params[n] for n in full.params)


def test_without_batchnorm_nothing_is_measured(digits):
    fresh = population.initial(models.make("lenet5", digits), [0, 1])
    assert recalibration.batchnorm(fresh, digits, torch.arange(20).expand(2, -1)) is fresh


def test_ranges_shrink_with_the_bits_and_stay_within_what_is_seen(digits, trained):
    split, full = trained
    index = splits.indices(split.reserve)
    ranges = {b: recalibration.clips(full, digits, index, b).buffers["2.clip"] for b in (2, 8)}
    with torch.no_grad():
        largest = [float(full[i][:3](digits.inputs(index[i])).max()) for i in range(len(full))]
    assert (ranges[2] < ranges[8]).all()
    assert (ranges[8] <= torch.tensor(largest) + 1e-5).all()


@pytest.mark.parametrize(
    "index",
    [torch.zeros(3, 0, dtype=torch.long), torch.zeros(1, 9, dtype=torch.long)],
    ids=["empty", "foreign"],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda full, data, index: schemes.post_training(
            full, data, index, schemes.scheme(full.make_model, 8)
        ),
        recalibration.batchnorm,
        lambda full, data, index: recalibration.clips(full, data, index, 4),
    ],
    ids=["post_training", "batchnorm", "clips"],
)
def test_calibration_sets_that_do_not_fit_are_refused(digits, trained, call, index):
    words = "calibration: index is .*at least 2 examples for each of the 3 models"
    with pytest.raises(ValueError, match=words):
        call(trained[1], digits, index)
