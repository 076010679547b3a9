"""Copies that are planted are found; what is only alike is not."""

import numpy as np
import pytest
import torch

from mialib.auditing import copies


def smooth(n, seed, side=16):
    """Pictures with coarse structure, as photographs have it, 0..1."""
    coarse = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")


def near(a, b):
    return copies.nearly(a, b, copies.hashes(a), copies.hashes(b))


def test_hashes_are_equal_exactly_for_equal_rows(monkeypatch):
    # 0 and 1 differ in few bits, all of them high ones
    rows = (torch.arange(2**10)[:, None] >> torch.arange(10) & 1).float()
    assert len(np.unique(copies.hashes(rows))) == 2**10
    whole = copies.hashes(rows)
    monkeypatch.setattr(copies, "BLOCK", 64)
    assert (copies.hashes(rows.double()) == whole).all()
    assert (copies.hashes(-0.0 * rows) == copies.hashes(0 * rows)).all()


def test_shared_names_both_sides():
    a, b = copies.hashes(torch.arange(5)[:, None]), copies.hashes(torch.tensor([[7], [3], [3]]))
    assert [one.tolist() for one in copies.shared(a, b)] == [[3], [1, 2]]


CHANGES = {
    "brightness": lambda x: x + 0.1,
    "contrast": lambda x: 1.2 * x - 0.1,
    "rounding": lambda x: (x * 31).round() / 31,
    "noise": lambda x: x + 0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found(change):
    a, b = smooth(200, 0), smooth(150, 1)
    b[5:25] = CHANGES[change](a[40:60])
    found = near(a, b)
    assert {(40 + k, 5 + k) for k in range(20)} <= set(map(tuple, found.across.tolist()))
    assert len(found.across) <= 22 and found.within <= 4


def test_different_pictures_and_exact_copies_are_not_near():
    a, b = smooth(200, 0), smooth(150, 1)
    b[:20] = a[:20]
    found = near(a, b)
    assert len(found.across) <= 2 and found.within <= 4


def test_of_a_set_of_near_duplicates_as_many_lie_within_as_across():
    base = smooth(150, 0).repeat_interleave(2, 0)
    base = base + 0.01 * torch.randn(base.shape, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(300, generator=torch.Generator().manual_seed(2))
    found = near(base[order[:150]], base[order[150:]])
    # half of the median is taken by a twin in the same set, so twins may or may not count as near
    assert abs(len(found.across) - found.within) <= 3 * np.sqrt(len(found.across) + found.within + 1)
    assert found.chance == pytest.approx(2 * 150 * 150 / (300 * 299))


def test_columns_of_other_units_count_alike():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(200, 6, generator=generator) * 10.0 ** torch.arange(6) for _ in range(2))
    b[:10] = a[:10] * 1.0001
    found = near(a, b).across.tolist()
    assert all([k, k] in found for k in range(10)) and len(found) <= 12
    b[:10, 0] = -b[:10, 0]  # the smallest unit alone tells them apart
    found = near(a, b).across.tolist()
    assert sum([k, k] in found for k in range(10)) < 8


def test_few_or_constant_examples_have_none():
    assert len(near(torch.ones(3, 2), torch.zeros(3, 2)).across) == 0
    assert len(near(torch.ones(30, 1, 4, 4), torch.zeros(30, 1, 4, 4)).across) == 0
