"""Mislabelled canaries, and the coins by which they are members."""

import numpy as np
import pytest
import torch
from scipy import stats

from mialib.data import canaries, splits


@pytest.fixture(scope="module")
def planted(toy):
    return canaries.mislabelled(toy, 64, 40, seed=3)


def test_canaries_alone_have_another_label_and_nothing_else_changes(toy, planted):
    data, _, chosen = planted
    assert int(chosen.sum()) == 40
    assert torch.equal(data.y != toy.y, chosen)
    assert torch.equal(data.x, toy.x) and data.num_classes == 3 and int(data.y.max()) < 3
    assert data.fingerprint != toy.fingerprint  # a cached network of the one is none of the other


def test_every_wrong_class_is_equally_likely(toy):
    steps = []
    for seed in range(60):
        data, _, chosen = canaries.mislabelled(toy, 2, 40, seed)
        steps += ((data.y - toy.y) % 3)[chosen].tolist()
    ones = steps.count(1)
    assert ones + steps.count(2) == 2400
    assert abs(ones - 1200) < 4 * np.sqrt(600)


def test_canaries_are_in_no_reserve_or_test_set_and_the_others_are_exact_halves(planted):
    _, split, chosen = planted
    assert not bool((split.reserve | split.test)[:, chosen].any())
    rest = ~chosen & ~split.reserve[0]
    assert bool((split.reserve == split.reserve[0]).all()) and int(split.reserve[0].sum()) == 8
    assert torch.equal(split.member[0::2, rest], split.test[1::2, rest])
    assert torch.equal(split.test[0::2, rest], split.member[1::2, rest])
    assert set(split.member[:, rest].sum(1).tolist()) == {36}


def test_the_others_are_split_as_they_are_by_themselves(planted):
    _, split, chosen = planted
    halves = splits.random_halves(80, 64, seed=3)
    for name in ("member", "test", "reserve"):
        assert torch.equal(getattr(split, name)[:, ~chosen], getattr(halves, name)), name
    assert torch.equal(split.seeds, halves.seeds)


@pytest.mark.parametrize("in_pairs", [False, True])
def test_coins_are_fair_and_those_of_a_model_independent(toy, in_pairs):
    """Of 64 models x 40 canaries: how many heads, how they vary from model to model, and with which other canary."""
    _, split, chosen = canaries.mislabelled(toy, 64, 40, seed=3, in_pairs=in_pairs)
    coins = split.member[:: 2 if in_pairs else 1, chosen].double()
    models = len(coins)
    heads = coins.sum(1)
    assert stats.binomtest(int(heads.sum()), coins.numel()).pvalue > 1e-3
    # independent within a model: the counts vary as those of 40 coins, by 10
    spread = (models - 1) * float(heads.var()) / 10
    assert 1e-3 < stats.chi2.cdf(spread, models - 1) < 1 - 1e-3
    assert len(set(heads.tolist())) > 5  # they are no exact halves
    between = torch.corrcoef(coins.T) - torch.eye(40)
    assert float(between.abs().max()) < 5 / np.sqrt(models)


def test_coins_of_pairs_are_each_others_reverse_and_others_are_not(toy, planted):
    _, split, chosen = canaries.mislabelled(toy, 8, 40, seed=3, in_pairs=True)
    assert torch.equal(split.member[0::2, chosen], ~split.member[1::2, chosen])
    assert bool((split.member[:, chosen].sum(0) == 4).all())
    free = planted.split.member[:, planted.chosen]
    assert abs(float((free[0::2] == free[1::2]).double().mean()) - 0.5) < 0.06


@pytest.mark.parametrize("in_pairs", [False, True])
def test_more_models_extend_the_fewer(toy, in_pairs):
    few, more = (canaries.mislabelled(toy, k, 30, seed=5, in_pairs=in_pairs) for k in (16, 64))
    assert torch.equal(few.data.y, more.data.y) and torch.equal(few.chosen, more.chosen)
    for name in ("member", "test", "reserve", "seeds"):
        assert torch.equal(getattr(few.split, name), getattr(more.split, name)[:16]), name


def test_a_seed_decides_everything(toy):
    first, again, other = (canaries.mislabelled(toy, 4, 30, seed) for seed in (0, 0, 1))
    assert torch.equal(first.chosen, again.chosen) and torch.equal(first.data.y, again.data.y)
    assert torch.equal(first.split.member, again.split.member)
    assert not torch.equal(first.chosen, other.chosen)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(count=0), "canaries: count is 0; of 120 examples, 1 to 118 can be canaries"),
        (dict(count=119), "canaries: count is 119"),
        (dict(count=2.0), "canaries: count is 2.0"),
        (dict(count=True), "canaries: count is True"),
        (dict(n_models=3), "n_models is 3.*even number"),
        (dict(reserve_fraction=1.0), "reserve_fraction is 1.0"),
    ],
)
def test_what_cannot_be_planted_is_refused(toy, given, message):
    with pytest.raises(ValueError, match=message):
        canaries.mislabelled(toy, **{"n_models": 4, "count": 10, "seed": 0} | given)


def test_a_single_class_has_no_wrong_label(toy):
    one = type(toy).of_features("one", toy.x, toy.y * 0, 1)
    with pytest.raises(ValueError, match="one has a single class"):
        canaries.mislabelled(one, 4, 10, seed=0)


def test_output_defences_get_equally_many_members_of_each_model_and_all_its_canaries(planted):
    _, split, chosen = planted
    even = canaries.evened(split, chosen)
    counts = even.member.sum(1)
    assert len(set(split.member.sum(1).tolist())) > 5
    assert set(counts.tolist()) == {int(split.member.sum(1).min())}
    assert not bool((even.member & ~split.member).any())
    assert torch.equal(even.member[:, chosen], split.member[:, chosen])
    for name in ("test", "reserve", "seeds"):
        assert torch.equal(getattr(even, name), getattr(split, name))
    again = canaries.evened(split, chosen)
    assert torch.equal(even.member, again.member)
