"""Noise: Philox against its published vectors, the normal distribution, independence, and what a number depends on."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from mialib.asking import noise

ONES = 2**32 - 1
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)


def words(counter, key):
    return [int(word) for word in noise.philox([torch.tensor([one]) for one in counter], key)]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (*PI, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_gives_the_published_vectors(counter, key, expected):
    """Random123's kat_vectors, philox4x32 with 10 rounds."""
    assert words(counter, key) == list(expected)


def slow_philox(counter, key):
    """As the paper has it, with whole numbers without bounds."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & ONES, (p0 >> 32) ^ c3 ^ k1, p0 & ONES
        k0, k1 = (k0 + 0x9E3779B9) & ONES, (k1 + 0xBB67AE85) & ONES
    return [c0, c1, c2, c3]


def test_philox_equals_whole_numbers_without_bounds_and_leaves_its_counters():
    generator = np.random.default_rng(0)
    for _ in range(50):
        *counter, left, right = generator.integers(0, 2**32, 6).tolist()
        assert words(counter, (left, right)) == slow_philox(counter, (left, right))
    given = [torch.arange(3), torch.arange(2)[:, None], torch.tensor(7), torch.tensor(ONES)]
    kept = [one.clone() for one in given]
    found = noise.philox(given, (1, 2))
    assert all(torch.equal(one, other) for one, other in zip(given, kept, strict=True))
    for i in range(2):
        for j in range(3):
            assert [int(word[i, j]) for word in found] == slow_philox((j, i, 7, ONES), (1, 2))


def slow_normal(key, example, query, size):
    """By the words of `slow_philox`, in float64."""
    counters = -(-size // 4)
    made = np.empty((4, counters))
    for j in range(counters):
        w = slow_philox((j, query, example & ONES, example >> 32), (key & ONES, key >> 32))
        for i in (0, 2):
            radius = math.sqrt(-2 * math.log((w[i] + 0.5) / 2**32))
            made[i, j] = radius * math.cos(2 * math.pi * w[i + 1] / 2**32)
            made[i + 1, j] = radius * math.sin(2 * math.pi * w[i + 1] / 2**32)
    return made.ravel()[:size]


@pytest.mark.parametrize("shape", [(6,), (1, 3, 4), (1,), (8,)], ids=str)
def test_normal_is_box_and_mullers_of_the_words(shape):
    examples, key = torch.tensor([5, 0, 2**33 + 5]), 2**62 + 12345
    found = noise.normal(key, examples, 3, shape)
    assert found.shape == (3, 3, *shape) and found.dtype == torch.float32
    for i, example in enumerate(examples.tolist()):
        for query in range(3):
            expected = slow_normal(key, example, query, math.prod(shape))
            assert np.abs(found[i, query].flatten().numpy() - expected).max() < 2e-6


def test_the_largest_and_the_smallest_words_give_finite_numbers():
    out = torch.empty(1, 1, 4, 4)
    extreme = [torch.tensor([[[0, ONES, 0, ONES]]]), torch.tensor([[[0, 0, ONES, ONES]]])]
    noise._box_muller(extreme * 2, out)
    assert bool(out.isfinite().all()) and 6.7 < float(out.abs().max()) < 6.8


# What a number depends on


def test_an_examples_noise_is_its_own(monkeypatch):
    whole = noise.normal(3, torch.arange(40), 5, (2, 7))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(noise.normal(3, order, 5, (2, 7)), whole[order])
    assert torch.equal(noise.normal(3, torch.tensor([11]), 5, (2, 7)), whole[11:12])
    assert torch.equal(noise.normal(3, torch.tensor([11, 11]), 2, (2, 7))[1], whole[11, :2])
    for counters in (1, 64, 10**6):
        monkeypatch.setitem(noise._COUNTERS, "cpu", counters)
        assert torch.equal(noise.normal(3, torch.arange(40), 5, (2, 7)), whole), counters
    assert not torch.isclose(noise.normal(4, torch.arange(40), 5, (2, 7)), whole).any()
    assert len(whole.unique()) == whole.numel()  # no number twice


def test_no_examples_and_no_queries_give_no_noise():
    assert noise.normal(3, torch.arange(0), 5, (4,)).shape == (0, 5, 4)
    assert noise.normal(3, torch.arange(2), 0, (4,)).shape == (2, 0, 4)


# The distribution


@pytest.fixture(scope="module")
def many():
    """(examples, queries, numbers), some half million."""
    return noise.normal(2**61 + 7, torch.arange(500), 10, (100,)).double()


def test_moments_are_those_of_the_normal_distribution(many):
    n = many.numel()
    # E[x^k] and the variance of its estimate, (E[x^2k] - E[x^k]^2) / n
    moments = {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96), 5: (0, 945), 6: (15, 10170)}
    for power, (expected, variance) in moments.items():
        assert abs(float((many**power).mean()) - expected) < 4 * math.sqrt(variance / n), power


@pytest.mark.parametrize("part", [*range(4), None], ids=["cosine 0", "sine 0", "cosine 1", "sine 1", "all"])
def test_kolmogorov_and_smirnov_find_no_difference_to_the_normal(many, part):
    numbers = (many if part is None else many[..., 25 * part : 25 * (part + 1)]).flatten().numpy()
    assert scipy.stats.kstest(numbers, "norm").pvalue > 1e-3


def test_rare_numbers_are_as_rare_as_they_should_be(many):
    for bound in (2.0, 3.0, 4.0):
        share = math.erfc(bound / math.sqrt(2))
        n = many.numel()
        assert abs(float((many.abs() > bound).double().mean()) - share) < 4 * math.sqrt(share / n), bound


def largest_correlation(rows):
    """Of all pairs of rows (r, n), in standard errors; and what the largest of so many is expected not to exceed."""
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True)
    pairs = len(rows) * (len(rows) - 1) / 2
    largest = float((rows @ rows.T).fill_diagonal_(0).abs().max()) * math.sqrt(rows.shape[1])
    return largest, math.sqrt(2 * math.log(pairs)) + 2.0


@pytest.mark.parametrize("power", [1, 2])
def test_examples_queries_positions_and_keys_are_uncorrelated(many, power):
    others = [noise.normal(key, torch.arange(500), 10, (100,)).double() for key in (0, 1, 2**32, 2**61 + 8)]
    cases = {
        "examples": many.flatten(1),
        "queries": many.transpose(0, 1).flatten(1),
        "positions": many.flatten(0, 1).T,
        "keys": torch.stack([one.flatten() for one in [many, *others]]),
        "neighbours": torch.stack([many.flatten()[i : i - 8] for i in range(8)]),
    }
    for name, rows in cases.items():
        largest, bound = largest_correlation(rows**power)
        assert largest < bound, name


@pytest.mark.cuda
def test_a_device_gives_the_same_words_and_the_same_numbers_up_to_rounding(accelerator):
    counter = torch.arange(2**16), torch.arange(3)[:, None], torch.tensor(ONES), torch.tensor(5)
    here, there = (
        noise.philox([one.to(device) for one in counter], PI[1]) for device in ("cpu", accelerator)
    )
    assert all(torch.equal(one, other.cpu()) for one, other in zip(here, there, strict=True))
    examples = torch.arange(300)
    there = noise.normal(5, examples.to(accelerator), 10, (3, 8, 8))
    torch.testing.assert_close(there.cpu(), noise.normal(5, examples, 10, (3, 8, 8)), rtol=0, atol=5e-6)
