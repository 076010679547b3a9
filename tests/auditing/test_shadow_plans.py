"""What shadow models learn."""

import pytest
import torch

from mialib.auditing.shadow_plans import planned

LABELS = torch.arange(300) % 3


def members(count):
    return torch.arange(300) < count


@pytest.mark.parametrize(("count", "half"), [(150, 150), (200, 100), (60, 60)])
def test_every_candidate_is_learned_by_one_of_each_pair_and_sizes_are_the_networks(count, half):
    plan = planned(members(count), LABELS, 3, 6, 0, seed=0)
    assert len(plan.candidates) == 2 * half and int(members(count)[plan.candidates].sum()) == half
    learned = plan.learned[:, plan.candidates]
    assert torch.equal(learned[0::2], ~learned[1::2])
    assert plan.learned.sum(1).tolist() == [count] * 6
    assert len({tuple(row.tolist()) for row in learned}) == 6


def test_members_that_are_no_candidates_are_learned_by_all_and_others_by_none():
    plan = planned(members(200), LABELS, 3, 4, 0, seed=0)
    rest = torch.ones(300, dtype=torch.bool)
    rest[plan.candidates] = False
    assert torch.equal(plan.learned[:, rest].all(0), members(200)[rest])
    few = planned(members(60), LABELS, 3, 4, 0, seed=0)
    rest = torch.ones(300, dtype=torch.bool)
    rest[few.candidates] = False
    assert not few.learned[:, rest].any() and int(rest.sum()) == 180


def test_who_is_a_member_says_nothing_about_what_a_shadow_learns():
    """A shadow learns a member of the network as often as another candidate, over many seeds."""
    shares = []
    for seed in range(100):
        plan = planned(members(150), LABELS, 3, 4, 0, seed)
        own = members(150)[plan.candidates]
        shares.append(float(plan.learned[0, plan.candidates][own].double().mean()))
    assert abs(sum(shares) / 100 - 0.5) < 0.015  # 4 standard errors


def test_canaries_are_others_with_a_wrong_label_and_make_room_for_themselves():
    plan = planned(members(200), LABELS, 3, 6, 40, seed=0)
    assert not members(200)[plan.canaries].any() and (plan.wrong != LABELS[plan.canaries]).all()
    assert not set(plan.canaries.tolist()) & set(plan.candidates.tolist())
    coins = plan.learned[:, plan.canaries]
    assert torch.equal(coins[0::2], ~coins[1::2]) and 8 < int(coins[0].sum()) < 32
    assert len(plan.candidates) == 120
    assert (plan.learned.sum(1) - coins.sum(1)).tolist() == [180] * 6


def test_too_few_examples_are_named():
    with pytest.raises(
        ValueError, match="20 candidates of each side or more, and 10 members and 290 others leave 10"
    ):
        planned(members(10), LABELS, 3, 4, 0, seed=0)
    with pytest.raises(ValueError, match="and 200 members and 100 others with 90 canaries leave 10"):
        planned(members(200), LABELS, 3, 4, 90, seed=0)
