"""Joined data sets: each part keeps its name in the store, and a model sees its own part only."""

from dataclasses import replace

import pytest
import torch

from mialib.data import Dataset, Joined, Splits, joined, splits


def part(n=4, seed=0, **other):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, 3, generator=generator), torch.randint(2, (n,), generator=generator)
    return replace(Dataset.of_features("answers", x, y, 2), **other)


@pytest.fixture
def parts():
    return [part(4, 0), part(6, 1), part(4, 2)]


def test_the_examples_follow_each_other(parts):
    whole = Joined.of(parts)
    assert (len(whole), whole.sizes, whole.name, whole.num_classes) == (14, (4, 6, 4), "answers", 2)
    assert torch.equal(whole.y, torch.cat([one.y for one in parts]))
    assert torch.equal(whole.inputs(torch.tensor([5, 13])), torch.stack([parts[1].x[1], parts[2].x[3]]))


def test_everyone_learns_from_their_own_part(parts):
    split = Joined.of(parts).everyone([7, 8])
    assert split.seeds.tolist() == [7, 8, 7, 8, 7, 8]
    expected = [range(4), range(4), range(4, 10), range(4, 10), range(10, 14), range(10, 14)]
    assert [row.nonzero()[:, 0].tolist() for row in split.member] == [list(one) for one in expected]
    assert not split.test.any() and not split.reserve.any()


def test_a_model_has_the_fingerprint_and_the_masks_of_its_part(parts):
    whole = Joined.of(parts)
    split, alone = whole.everyone([7, 8]), splits.everyone(6, [8])
    for there in (whole, whole.to("cpu")):  # moved, it remembers
        fingerprint, own = joined.own_part(there, split[[3]])
        assert fingerprint == parts[1].fingerprint and own.seeds.tolist() == [8]
        assert own.fingerprints() == alone.fingerprints()
        for name in ("member", "test", "reserve"):
            assert torch.equal(getattr(own, name), getattr(alone, name)), name


def test_what_is_held_out_belongs_to_the_part(parts):
    member, reserve = torch.zeros(2, 1, 14, dtype=torch.bool)
    member[0, 11], reserve[0, 13] = True, True
    split = Splits(member, torch.zeros_like(member), reserve, torch.tensor([0]))
    fingerprint, own = joined.own_part(Joined.of(parts), split)
    assert fingerprint == parts[2].fingerprint
    assert (own.member.tolist(), own.reserve.tolist()) == (
        [[False, True, False, False]],
        [[False, False, False, True]],
    )
    reserve[0, 2] = True
    with pytest.raises(ValueError, match="answers: a model sees examples of several of the 3 joined"):
        joined.own_part(Joined.of(parts), split)


def test_of_data_of_one_piece_a_model_sees_all(parts):
    split = splits.everyone(4, [3])
    assert joined.own_part(parts[0], split) == (parts[0].fingerprint, split)


@pytest.mark.parametrize(
    "other",
    [{"name": "others"}, {"num_classes": 3}, {"x": torch.zeros(4, 5)}, {"mean": torch.ones(1)}, {"std": torch.ones(3)}],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_what_is_not_alike_is_not_joined(other):
    with pytest.raises(ValueError, match="part 1 is .*, part 0 is .*can be joined"):
        Joined.of([part(), part(**other)])


def test_nothing_is_no_data_set():
    with pytest.raises(ValueError, match="parts is empty"):
        Joined.of([])
