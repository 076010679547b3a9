"""Who is attacked on what, and who teaches."""

import pytest
import torch

from mialib.data import Splits, canaries, splits
from mialib.study import roles


@pytest.fixture
def halves():
    return splits.random_halves(120, 6, seed=1)


def test_targets_come_first_and_every_model_has_its_own_candidates(toy):
    split = splits.target_shadow(120, 2, 3, seed=0, n_train=10)
    found = roles.targets_first(toy, split, 2, seed=3)
    assert (found.targets, found.shadows, found.teachers) == ([0, 1], [2, 3, 4], None)
    index, member = splits.candidates(split, 3)
    assert torch.equal(found.index, index) and torch.equal(found.member, member)
    assert not found.same_candidates


@pytest.mark.parametrize("n_targets", [0, 6])
def test_more_targets_than_models_are_refused(toy, n_targets):
    split = splits.target_shadow(120, 2, 3, seed=0, n_train=10)
    with pytest.raises(ValueError, match=f"n_targets is {n_targets}; the split has 5 models"):
        roles.targets_first(toy, split, n_targets, 0)


def test_random_halves_share_candidates_and_leave_the_targets_pair_out(toy, halves):
    found = roles.one_of_each_pair(toy, halves, 3, seed=2)
    assert (found.targets, found.shadows) == ([0, 2, 4], [0, 1, 2, 3, 4, 5]) and found.same_candidates
    assert found.teachers == [[2, 3, 4, 5], [0, 1, 4, 5], [0, 1, 2, 3]]
    candidates = found.index[0]
    assert sorted(candidates.tolist()) == (~halves.reserve[0]).nonzero()[:, 0].tolist()
    assert candidates.tolist() != sorted(candidates.tolist())  # shuffled
    assert torch.equal(found.member, halves.member[:, candidates])
    for rows in found.teachers:  # nor does the pair show in how often one is a member
        assert bool((found.member[rows].sum(0) == 2).all()), rows


def test_the_order_of_random_halves_does_not_depend_on_who_is_a_member(toy, halves):
    other = splits.random_halves(120, 6, seed=7, reserve_fraction=0.0)
    member, rest = halves.member.clone(), ~halves.reserve[0]
    member[0, rest] = other.member[0, rest]
    member[1] = rest & ~member[0]
    changed = Splits(member, rest & ~member, halves.reserve, halves.seeds)
    before, after = (roles.one_of_each_pair(toy, one, 1, 0) for one in (halves, changed))
    assert torch.equal(before.index, after.index) and not torch.equal(before.member[0], after.member[0])


def test_the_known_half_has_half_of_the_members_and_half_of_the_others(toy):
    split = splits.target_shadow(120, 2, 1, seed=0, n_train=10)
    found = roles.targets_first(toy, split, 2, seed=4)
    given, _ = splits.known_and_scored(split[:2], 4)
    for i in range(2):
        assert torch.equal(found.known[i], given[i][found.index[i]])
        assert int((found.known[i] & found.member[i]).sum()) == 5 and int(found.known[i].sum()) == 10


def test_models_that_are_no_random_halves_are_named(toy, halves):
    def changed(**parts):
        fields = {name: getattr(halves, name).clone() for name in ("member", "test", "reserve")}
        return Splits(**fields | parts, seeds=halves.seeds)

    with pytest.raises(ValueError, match="two pairs of models or more.*found 2 models"):
        roles.one_of_each_pair(toy, halves[:2], 1, 0)
    with pytest.raises(ValueError, match="1 to 3 targets.*found 6 models and 4 targets"):
        roles.one_of_each_pair(toy, halves, 4, 0)
    reserve, test = halves.reserve.clone(), halves.test.clone()
    test[5, test[5].nonzero()[0]] = False
    with pytest.raises(ValueError, match="covers the same candidates"):
        roles.one_of_each_pair(toy, changed(test=test), 1, 0)
    reserve[5] |= halves.test[5] & ~test[5]
    with pytest.raises(ValueError, match="reserves differ"):
        roles.one_of_each_pair(toy, changed(test=test, reserve=reserve), 1, 0)
    with pytest.raises(ValueError, match="covers the same candidates"):
        roles.one_of_each_pair(toy, halves[[0, 2, 1, 3, 4, 5]], 1, 0)


# Canaries


@pytest.fixture(scope="module")
def planted(toy):
    return canaries.mislabelled(toy, 8, 40, seed=0)


def test_canaries_and_the_others_are_candidates_of_two_roles(planted):
    data, split, chosen = planted
    others = roles.one_of_each_pair(data, split, 3, 2, ~chosen)
    worst = roles.by_coins(data, split, 3, 2, chosen)
    assert others.targets == worst.targets == [0, 2, 4] and worst.same_candidates
    assert sorted(worst.index[0].tolist()) == chosen.nonzero()[:, 0].tolist() != worst.index[0].tolist()
    free = (~chosen & ~split.reserve[0]).nonzero()[:, 0]
    assert sorted(others.index[0].tolist()) == free.tolist()
    for one in (others, worst):
        assert torch.equal(one.member, split.member.gather(1, one.index))
        assert torch.equal(one.truth, one.member[one.targets])


def test_the_others_are_attacked_as_if_there_were_no_canaries(toy, planted):
    """The same order and members as those of the halves alone."""
    _, split, chosen = planted
    alone = roles.one_of_each_pair(toy, splits.random_halves(80, 8, seed=0), 3, 2)
    found = roles.one_of_each_pair(planted.data, split, 3, 2, ~chosen)
    assert torch.equal((~chosen).nonzero()[:, 0][alone.index], found.index)
    assert torch.equal(alone.member, found.member) and alone.teachers == found.teachers


def test_all_other_models_teach_about_canaries_but_one_that_mirrors_the_target(toy, planted):
    free = roles.by_coins(planted.data, planted.split, 2, 0, planted.chosen)
    assert free.teachers == [[1, 2, 3, 4, 5, 6, 7], [0, 1, 3, 4, 5, 6, 7]]
    data, split, chosen = canaries.mislabelled(toy, 8, 40, seed=0, in_pairs=True)
    paired = roles.by_coins(data, split, 2, 0, chosen)
    assert paired.teachers == [[2, 3, 4, 5, 6, 7], [0, 1, 4, 5, 6, 7]]
    for rows in paired.teachers:
        assert bool((paired.member[rows].sum(0) == 3).all())


def test_the_order_of_canaries_does_not_depend_on_who_is_a_member(planted):
    data, split, chosen = planted
    other = Splits(split.member.flip(0), split.test.flip(0), split.reserve, split.seeds)
    before, after = (roles.by_coins(data, one, 2, 7, chosen) for one in (split, other))
    assert torch.equal(before.index, after.index) and not torch.equal(before.member, after.member)


def test_what_are_no_canaries_is_refused(toy, planted, halves):
    data, split, chosen = planted
    with pytest.raises(ValueError, match="1 to 4 targets are needed, found 8 models and 5 targets"):
        roles.by_coins(data, split, 5, 0, chosen)
    for mask in (~chosen, chosen & False):
        with pytest.raises(ValueError, match="canaries are needed, and no model has one in its reserve"):
            roles.by_coins(data, split, 2, 0, mask)
    one = torch.zeros_like(chosen)
    one[chosen.nonzero()[0]] = True
    with pytest.raises(ValueError, match="a target has all of the 1 canaries or none"):
        roles.by_coins(data, split, 1, 0, one)
    with pytest.raises(ValueError, match=r"covers the same candidates.*candidates=~canaries.chosen"):
        roles.one_of_each_pair(data, split, 2, 0)


def test_candidates_belong_to_two_protocols(toy, planted, halves):
    data, split, chosen = planted
    with pytest.raises(ValueError, match='under the protocols "random_halves" and "canaries" alone'):
        roles.made(roles.targets_first, data, split, 2, 0, chosen)
    for mask, found in ((None, "found none"), (chosen[:9], r"torch.bool \(9,\)"), (chosen.long(), "int64")):
        with pytest.raises(ValueError, match=f"bool mask of the 120 examples.*{found}"):
            roles.made(roles.by_coins, data, split, 2, 0, mask)
    plain = roles.made(roles.one_of_each_pair, toy, halves, 2, 0)
    everyone = roles.made(roles.one_of_each_pair, toy, halves, 2, 0, torch.ones(120, dtype=torch.bool))
    assert torch.equal(plain.index, everyone.index) and torch.equal(plain.member, everyone.member)


def test_public_is_who_is_neither_member_nor_candidate(toy):
    split = splits.random_halves(len(toy), 4, seed=0)
    found = roles.one_of_each_pair(toy, split, 2, 0)
    for target in (0, 1):
        assert torch.equal(found.public(target)[0], split.reserve[0].nonzero()[:, 0])
        assert not set(found.public(target)[0].tolist()) & set(found.index[0].tolist())
    apart = splits.target_shadow(len(toy), 1, 1, seed=0, n_train=5)
    assert roles.apart(toy, apart, 1, 0).public(0).shape == (1, len(toy) - 10)


def test_canaries_are_never_public(planted):
    data, split, chosen = planted
    for found in (
        roles.by_coins(data, split, 2, 0, chosen),
        roles.one_of_each_pair(data, split, 2, 0, ~chosen),
    ):
        assert torch.equal(found.public(1)[0], split.reserve[0].nonzero()[:, 0])


# One's own network and imitations of it


def mirrored(k, n=120):
    """Bool (1 + k, n): one's own members, then pairs of random halves."""
    generator = torch.Generator().manual_seed(0)
    own, *halves = (torch.rand(n, generator=generator).argsort() < n // 2 for _ in range(1 + k // 2))
    return torch.stack([own, *(side for half in halves for side in (half, ~half))])


def test_imitations_teach_about_the_network_and_about_each_other_without_their_mirror(toy):
    member = mirrored(6)
    split = Splits(member, ~member, torch.zeros_like(member), torch.arange(7))
    made = roles.own_then_halves(toy, split, 7, 3)
    assert made.targets == list(range(7)) and made.same_candidates
    assert made.teachers[0] == [1, 2, 3, 4, 5, 6]
    assert made.teachers[1:3] == [[3, 4, 5, 6], [3, 4, 5, 6]] and made.teachers[5] == [1, 2, 3, 4]
    assert torch.equal(made.member, member.gather(1, made.index)) and torch.equal(made.truth, made.member)
    for rows in made.teachers:  # how many have a candidate says nothing about the target
        assert bool((made.member[rows].sum(0) == len(rows) // 2).all())


def test_the_order_of_candidates_does_not_depend_on_who_is_ones_own_member(toy):
    member = mirrored(4)
    other = torch.cat([~member[:1], member[1:]])
    splits_ = (Splits(one, ~one, torch.zeros_like(one), torch.arange(5)) for one in (member, other))
    before, after = (roles.own_then_halves(toy, one, 5, 3) for one in splits_)
    assert torch.equal(before.index, after.index) and before.teachers == after.teachers


def test_too_few_imitations_are_named(toy):
    member = mirrored(4)
    split = Splits(member, ~member, torch.zeros_like(member), torch.arange(5))
    with pytest.raises(ValueError, match="2 imitations or more.*found 2 models and 1 targets"):
        roles.own_then_halves(toy, split[:2], 1, 0)
    with pytest.raises(ValueError, match="1 to 5 targets, found 5 models and 6 targets"):
        roles.own_then_halves(toy, split, 6, 0)
    member[2] = True
    split = Splits(member, ~member, torch.zeros_like(member), torch.arange(5))
    with pytest.raises(ValueError, match="a model has learned all candidates or none"):
        roles.own_then_halves(toy, split, 5, 0)
