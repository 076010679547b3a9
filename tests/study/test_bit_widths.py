"""What allocations of bit-widths leak, on shadow models that learned their members by heart."""

import pytest

from mialib import models, training
from mialib.compression import bit_search, quantization
from mialib.data import splits
from mialib.study import bit_widths
from mialib.training import Recipe


@pytest.fixture
def shadows(digits):
    split = splits.target_shadow(len(digits), 1, 1, seed=0, n_train=60)[1:]
    make_model = models.make("small_cnn", digits)
    return make_model, split, training.fit(make_model, digits, split, Recipe(20, 32, 2e-3))


def test_fewer_bits_leak_less_and_nothing_is_measured_twice(digits, shadows, cache_root):
    make_model, split, start = shadows
    measure = bit_widths.measured_on_shadows(make_model, digits, split, start, Recipe(1, 32, 5e-4))
    wide, narrow = (measure(quantization.widths(make_model, b)) for b in (8, 1))
    assert 0 < wide.leak <= 1 and wide.accuracy > narrow.accuracy and wide.leak > narrow.leak
    again = bit_widths.measured_on_shadows(make_model, digits, split, start, Recipe(1, 32, 5e-4))
    assert again(quantization.widths(make_model, 8)) == wide  # to the second: it was not made anew
    other = bit_widths.measured_on_shadows(make_model, digits, split, start, Recipe(3, 32, 5e-4))
    assert other(quantization.widths(make_model, 8)).seconds != wide.seconds


def test_the_search_takes_it_as_its_measure(digits, shadows):
    make_model, split, start = shadows
    measure = bit_widths.measured_on_shadows(make_model, digits, split, start, Recipe(1, 32, 5e-4))
    layers = list(quantization.widths(make_model, 8))[:1]
    found = bit_search.search(layers, (8, 1), measure, tolerance=1.0)
    assert found.evaluations == 2 and found.bits[layers[0]] in (8, 1)
