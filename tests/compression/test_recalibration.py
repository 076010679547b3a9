"""What is measured on calibration data: BatchNorm's statistics and the ranges of ReLUs."""

import numpy as np
import pytest
import torch
from torch import nn

from mialib import models
from mialib.compression import recalibration, schemes
from mialib.data import Dataset, splits
from mialib.training import population


def test_batchnorm_statistics_are_those_of_the_calibration_data(digits, trained):
    split, full = trained
    index = splits.indices(split.reserve)
    found = recalibration.batchnorm(full, digits, index)
    with torch.no_grad():
        first = full[1][0](digits.inputs(index[1]))  # the layer before the first BatchNorm
    assert torch.allclose(found.buffers["1.running_mean"][1], first.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(found.buffers["1.running_var"][1], first.var((0, 2, 3)), rtol=1e-3)
    assert not torch.equal(found.buffers["1.running_mean"], full.buffers["1.running_mean"])
    assert all(found.params[n] is full.params[n] for n in full.params)
    # what was measured anew is not what was stored under the trained models' keys
    assert full.keys and not found.keys and not recalibration.clips(full, digits, index, 4).keys


class Normed(nn.Module):
    """BatchNorm of the inputs, one feature."""

    def __init__(self):
        super().__init__()
        self.norm, self.last = nn.BatchNorm1d(1), nn.Linear(1, 2)

    def forward(self, x):
        return self.last(self.norm(x))


def measured(values):
    """Mean and variance that BatchNorm gets on these values, a calibration example each."""
    x = torch.tensor(values)[:, None]
    data = Dataset.of_features("values", x, torch.zeros(len(values), dtype=torch.long), 2)
    fresh = population.initial(Normed, [0])
    found = recalibration.batchnorm(fresh, data, torch.arange(len(values))[None]).buffers
    return float(found["norm.running_mean"]), float(found["norm.running_var"])


def test_a_small_last_batch_counts_by_its_size():
    """66 examples, the last two 100 and the others 0: a mean of the means of 64 and 2 would be 50, and the variance 0."""
    values = [0.0] * 64 + [100.0] * 2
    mean, variance = measured(values)
    assert mean == pytest.approx(3.0303, abs=1e-4) and variance == pytest.approx(298.368, abs=1e-2)
    assert (mean, variance) == pytest.approx((np.mean(values), np.var(values, ddof=1)))


class Twice(nn.Module):
    """BatchNorm of what BatchNorm has made of the inputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.BatchNorm1d(1), nn.BatchNorm1d(1)

    def forward(self, x):
        return self.second(self.first(x)).repeat(1, 2)


def test_deeper_layers_see_what_training_would_show_them():
    """Normalised by its own batch, whatever the first layer's statistics were."""
    x = 100 + 7 * torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
    data = Dataset.of_features("values", x, torch.zeros(50, dtype=torch.long), 2)
    found = recalibration.batchnorm(population.initial(Twice, [0]), data, torch.arange(50)[None]).buffers
    assert float(found["second.running_mean"]) == pytest.approx(0, abs=1e-4)
    assert float(found["second.running_var"]) == pytest.approx(50 / 49, rel=1e-4)


@pytest.mark.parametrize("count", [2, 63, 64, 65, 128, 129, 200])
def test_no_example_is_left_out_and_none_counts_twice(count):
    values = np.random.default_rng(count).standard_gamma(0.5, count).astype(np.float32)
    values[-1] = 50.0  # the one that a batch of its own would be
    assert measured(values.tolist()) == pytest.approx((values.mean(), values.var(ddof=1)), rel=1e-5)


def test_statistics_of_parts_are_those_of_all_together():
    parts = [torch.randn(n, 3, generator=torch.Generator().manual_seed(n)).double() + n for n in (1, 2, 7)]
    counts = torch.tensor([[1.0], [2.0], [7.0]]).double()
    found = recalibration.pooled(
        counts, torch.stack([p.mean(0) for p in parts]), torch.stack([p.var(0, correction=0) for p in parts])
    )
    torch.testing.assert_close(found, (torch.cat(parts).mean(0), torch.cat(parts).var(0)))


@pytest.mark.parametrize("count, sizes", [(64, [64]), (65, [33, 32]), (128, [64, 64]), (130, [44, 43, 43])])
def test_calibration_batches_are_of_at_most_64_and_as_even_as_can_be(monkeypatch, count, sizes):
    seen = []
    monkeypatch.setattr(Normed, "forward", lambda self, x: seen.append(len(x)) or self.last(self.norm(x)))
    measured([float(i) for i in range(count)])
    assert seen == sizes


@pytest.mark.parametrize("count, kept", [(99_999, 99_999), (150_000, 75_000), (250_000, 83_334)])
def test_of_many_activations_at_most_100000_are_kept_evenly_spread(count, kept):
    x = torch.arange(count, dtype=torch.float32)[:, None]
    found = recalibration._activations(nn.Sequential(nn.ReLU()), x, ["0"])["0"]
    assert len(found) == kept and len(found.diff().unique()) == 1


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_range_is_the_best_of_40_by_hand(bits):
    values = np.random.default_rng(bits).exponential(0.1, size=2000).astype(np.float32)
    errors = {}
    for i in range(1, 41):
        clip = values.max() * i / 40
        steps = 2**bits - 1
        errors[i] = np.mean((np.round(np.clip(values / clip, 0, 1) * steps) / steps * clip - values) ** 2)
    best = min(errors, key=errors.get)
    assert 1 < best < 40
    found = recalibration._best_range(torch.from_numpy(values), bits)
    assert float(found) == pytest.approx(values.max() * best / 40)


def test_a_relu_that_was_never_active_has_the_range_1():
    assert float(recalibration._best_range(torch.zeros(5), 4)) == 1


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
