"""Who is a member of which model: the papers' counts, disjoint sets, rows that do not move when a split grows."""

import pytest
import torch

from mialib.data import Splits, splits


def assert_same(a, b, rows_a=slice(None), rows_b=slice(None)):
    """Bit for bit, for some of the models of each."""
    for name in ("member", "test", "reserve", "seeds"):
        assert torch.equal(getattr(a, name)[rows_a], getattr(b, name)[rows_b]), name


# Yuan & Zhang 2022: N, and each model's members, reserve (their "dev") and non-members
@pytest.mark.parametrize(
    ("n", "member", "reserve", "test"),
    [
        pytest.param(60_000, 13_500, 3_000, 13_500, id="cifar10, cifar100"),
        pytest.param(99_289, 22_340, 4_964, 22_340, id="svhn"),
        pytest.param(5_000, 1_125, 250, 1_125, id="chmnist"),
        pytest.param(5_010, 1_126, 251, 1_128, id="location"),
        pytest.param(67_330, 15_148, 3_367, 15_150, id="texas100"),
        pytest.param(197_324, 44_398, 9_866, 44_398, id="purchase100"),
    ],
)
def test_the_papers_counts(n, member, reserve, test):
    split = splits.target_shadow(n, 1, 1, seed=0)
    assert split.counts()[0] == {"member": member, "test": test, "reserve": reserve}


def test_targets_and_shadows_come_from_disjoint_halves():
    split = splits.target_shadow(1001, 3, 4, seed=0)
    used = split.member | split.test | split.reserve
    assert not bool((used[:3].any(0) & used[3:].any(0)).any())
    assert used.sum(1).tolist() == [500] * 7  # each uses its whole half; of an odd number one is nobody's
    assert bool((split.member[0] & split.test[1]).any())  # targets cut the same half anew,
    assert bool((split.member[3] & split.test[4]).any())  # so do shadows


@pytest.mark.parametrize("n", [*range(100, 140), 1797, 99_289])
def test_targets_and_shadows_have_equally_many_of_each_kind(n):
    split = splits.target_shadow(n, 1, 1, seed=0)
    target, shadow = split.counts()
    assert target == shadow
    assert splits.candidates(split, 0)[0].shape == (2, target["member"] + target["test"])


@pytest.mark.parametrize("n", [1000, 1001])
def test_with_a_number_of_members_both_halves_are_whole(n):
    split = splits.target_shadow(n, 60, 60, seed=0, n_train=100)
    used = (split.member | split.test | split.reserve).any(0)
    assert bool(used.all())  # 60 models take 200 of 500 each, and their reserves


def test_n_train_takes_fewer_members_and_as_many_test_examples():
    full, small = (splits.target_shadow(1000, 1, 1, seed=0, n_train=n) for n in (None, 50))
    assert small.counts() == [{"member": 50, "test": 50, "reserve": 50}] * 2  # 10 % of a half is 50, too
    assert bool((small.member <= full.member).all()) and bool((small.test <= full.test).all())
    assert torch.equal(small.reserve, full.reserve)


def test_more_models_extend_a_target_shadow_split():
    few, more = splits.target_shadow(300, 2, 2, seed=5), splits.target_shadow(300, 4, 7, seed=5)
    assert_same(few, more, slice(2), slice(2))
    assert_same(few, more, slice(2, None), slice(4, 6))


def test_more_models_extend_random_halves():
    few, more = splits.random_halves(300, 4, seed=5), splits.random_halves(300, 16, seed=5)
    assert_same(few, more, rows_b=slice(4))


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: splits.target_shadow(300, 2, 2, seed),
        lambda seed: splits.random_halves(300, 4, seed),
        lambda seed: splits.d1_d2_d3(300, 100, 50, 100, seed, n_models=3),
    ],
    ids=["target_shadow", "random_halves", "d1_d2_d3"],
)
def test_a_seed_decides_everything_and_models_have_seeds_of_their_own(make):
    first, again, other = make(0), make(0), make(1)
    assert_same(first, again)
    assert not torch.equal(first.member, other.member)
    seeds = first.seeds.tolist() + other.seeds.tolist()
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("n", [200, 201, 203, 1797])
def test_every_example_is_a_member_of_exactly_half_of_the_models(n):
    split = splits.random_halves(n, 6, seed=0)
    reserve = split.reserve[0]
    assert bool((split.reserve == reserve).all()) and abs(int(reserve.sum()) - 0.1 * n) < 2
    assert bool((split.member[:, ~reserve].sum(0) == 3).all()) and not bool(split.member[:, reserve].any())
    assert torch.equal(split.member[0::2], split.test[1::2])  # the pair's other model
    assert len(set(split.member.sum(1).tolist())) == 1
    assert not torch.equal(split.member[0], split.member[2])


def test_without_a_reserve_random_halves_use_every_example():
    split = splits.random_halves(100, 2, seed=0, reserve_fraction=0.0)
    assert split.counts() == [{"member": 50, "test": 50, "reserve": 0}] * 2


def test_candidates_are_the_members_and_test_examples_shuffled():
    split = splits.target_shadow(200, 1, 1, seed=0)
    index, member = splits.candidates(split, seed=0)
    assert index.shape == member.shape == (2, 90)
    for i in range(2):
        assert sorted(index[i].tolist()) == (split.member | split.test)[i].nonzero()[:, 0].tolist(), i
        assert torch.equal(member[i], split.member[i][index[i]]), i
        assert index[i].tolist() != sorted(index[i].tolist()), i
    assert not torch.equal(splits.candidates(split, seed=1)[0], index)


def test_known_half_is_disjoint_and_half_of_each_group():
    split = splits.target_shadow(400, 2, 1, seed=0)
    known, scored = splits.known_and_scored(split, seed=0)
    assert not bool((known & scored).any()) and torch.equal(known | scored, split.member | split.test)
    for name in ("member", "test"):
        group = getattr(split, name)
        assert (known & group).sum(1).tolist() == [count // 2 for count in group.sum(1).tolist()], name
    assert torch.equal(splits.known_and_scored(split[1:], seed=0)[0][0], known[1])  # a model's row is its own
    assert not torch.equal(splits.known_and_scored(split, seed=1)[0], known)


def test_d1_d2_d3_cut_the_pool_anew_for_each_model():
    split = splits.d1_d2_d3(100, 50, 20, 25, seed=0, n_models=3)
    assert split.counts() == [{"member": 50, "test": 25, "reserve": 20}] * 3
    assert len({tuple(row.tolist()) for row in split.member}) == 3 and len(set(split.seeds.tolist())) == 3
    with pytest.raises(ValueError, match="need 101 examples, the data set has 100"):
        splits.d1_d2_d3(100, 50, 26, 25, seed=0)


def test_in_blocks_each_model_learns_from_rows_of_its_own():
    member = torch.tensor([[True, False, True], [False, True, False]])
    split = splits.blocks(member, torch.tensor([7, 8]))
    assert split.member.int().tolist() == [[1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0]]
    assert split.reserve.int().tolist() == [[0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 1]]
    assert not bool(split.test.any()) and split.seeds.tolist() == [7, 8]


def test_official_members_come_first_and_models_differ_by_seed():
    split = splits.official(10, 7, 3, seed=0)
    assert split.counts() == [{"member": 7, "test": 3, "reserve": 0}] * 3
    assert bool(split.member[:, :7].all()) and bool(split.test[:, 7:].all())
    more, other = splits.official(10, 7, 5, seed=0), splits.official(10, 7, 3, seed=1)
    assert_same(split, more, rows_b=slice(3))
    seeds = more.seeds.tolist() + other.seeds.tolist()
    assert len(set(seeds)) == len(seeds)


def test_everyone_is_a_member():
    split = splits.everyone(7, [3, 5])
    assert split.counts() == [{"member": 7, "test": 0, "reserve": 0}] * 2 and split.seeds.tolist() == [3, 5]


def test_indices_by_hand():
    mask = torch.tensor([[True, False, True, True], [False, True, True, True]])
    assert splits.indices(mask).tolist() == [[0, 2, 3], [1, 2, 3]]
    with pytest.raises(ValueError, match="between 1 and 3 examples"):
        splits.indices(torch.tensor([[True, False, False], [True, True, True]]))


def test_slices_keep_rows_together():
    split = splits.target_shadow(100, 1, 3, seed=0)
    assert_same(split[[3, 1]], split, rows_b=[3, 1])


def masks(**changes):
    eye = torch.eye(4, dtype=torch.bool)
    common = dict(
        member=eye[:2], test=eye[2:], reserve=torch.zeros(2, 4, dtype=torch.bool), seeds=torch.arange(2)
    )
    return common | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test": torch.eye(4, dtype=torch.bool)[:2]}, "1 examples of one model are both member and test"),
        ({"reserve": torch.eye(4, dtype=torch.bool)[:2]}, "both member and reserve"),
        ({"reserve": torch.eye(4, dtype=torch.bool)[2:]}, "both test and reserve"),
        (
            {"test": torch.zeros(2, 5, dtype=torch.bool)},
            r"splits.test must be bool of shape \(2, 4\).*\(2, 5\)",
        ),
        ({"test": torch.zeros(2, 4)}, "splits.test must be bool.*float32"),
        ({"seeds": torch.arange(3)}, r"one seed a model \(2\)"),
        ({"member": torch.zeros(2, 4, dtype=torch.bool)}, "at least one member"),
    ],
)
def test_a_split_that_cannot_be_is_refused(changes, words):
    Splits(**masks())
    with pytest.raises(ValueError, match=words):
        Splits(**masks(**changes))


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        (
            splits.target_shadow,
            dict(n=1000, n_targets=1, n_shadows=1, n_train=226),
            "n_train is 226; a half of 500 examples gives each model 1 to 225 members",
        ),
        (splits.target_shadow, dict(n=1000, n_targets=1, n_shadows=1, n_train=0), "n_train is 0"),
        (splits.target_shadow, dict(n=1000, n_targets=0, n_shadows=1), "is 0; at least 1 is needed"),
        (splits.target_shadow, dict(n=1000, n_targets=1, n_shadows=0), "is 0; at least 1 is needed"),
        (splits.random_halves, dict(n=100, n_models=0), "n_models is 0.*even number"),
        (splits.random_halves, dict(n=100, n_models=1), "n_models is 1.*even number"),
        (splits.random_halves, dict(n=100, n_models=5), "n_models is 5.*even number"),
        (
            splits.random_halves,
            dict(n=100, n_models=2, reserve_fraction=1.0),
            r"reserve_fraction is 1.0; it must lie in \[0, 1\)",
        ),
        (
            splits.official,
            dict(n=10, n_members=0, n_models=1),
            "n_members is 0; of 10 examples, 1 to 9 can be",
        ),
        (
            splits.official,
            dict(n=10, n_members=10, n_models=1),
            "n_members is 10; of 10 examples, 1 to 9 can",
        ),
        (
            splits.official,
            dict(n=10, n_members=11, n_models=1),
            "n_members is 11; of 10 examples, 1 to 9 can",
        ),
        (splits.official, dict(n=10, n_members=7, n_models=0), "n_models is 0; at least 1"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None if isinstance(value, str) else str(value),
)
def test_impossible_requests_name_the_valid_range(make, arguments, words):
    with pytest.raises(ValueError, match=words):
        make(seed=0, **arguments)


def test_the_largest_number_of_members_that_is_named_is_possible():
    assert splits.target_shadow(1000, 1, 1, seed=0, n_train=225).counts()[0]["member"] == 225


def test_reference_examples_stand_in_for_members():
    split = splits.d1_d2_d3(60, 20, 10, 15, seed=0, n_models=2)
    turned = splits.as_members(split)
    assert torch.equal(turned.member, split.reserve) and torch.equal(turned.reserve, split.member)
    assert torch.equal(turned.test, split.test) and torch.equal(turned.seeds, split.seeds)


def test_only_what_a_defence_learned_from_stands_in_for_members():
    split = splits.d1_d2_d3(60, 20, 10, 15, seed=0, n_models=2)
    learned = split.reserve & (torch.arange(60) % 5 > 0)
    turned = splits.as_members(split, learned)
    assert torch.equal(turned.member, learned) and torch.equal(turned.test, split.test)
    index, member = splits.candidates(splits.as_members(split[:1], learned[:1]), 0)
    assert not bool((split.reserve & ~learned)[0][index].any()) and int(member.sum()) == int(learned[0].sum())
    assert torch.equal(turned.reserve, split.member | (split.reserve & ~learned))  # never attacked
    with pytest.raises(ValueError, match="outside the reserve"):
        splits.as_members(split, split.test)


def test_no_example_is_attacked_twice_in_a_purifiers_split():
    """Public code repeats non-members until there are as many as members; here each row is one example."""
    split = splits.d1_d2_d3(200, 60, 40, 60, seed=3, n_models=3)
    index, member = splits.candidates(split, seed=0)
    for own, mask, row in zip(index, member, range(3), strict=True):
        assert len(set(own.tolist())) == len(own) == 120 and int(mask.sum()) == 60, row
        # what the purifier learned from is not among them
        assert not bool(split.reserve[row][own].any()), row
    known, scored = splits.known_and_scored(split, seed=0)
    assert known.sum(1).tolist() == [60] * 3 and not bool((known & scored).any())
