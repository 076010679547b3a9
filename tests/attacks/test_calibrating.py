"""What all calibrated attacks must do: sign, chance where nothing leaks, order, errors, values that stay."""

import inspect
import math

import numpy as np
import pytest
import torch

from mialib.asking import Views
from mialib.attacks import bayesian, calibrating, likelihood, ratios, suites
from mialib.attacks.calibrating import Calibrated, Side
from mialib.data import splits
from mialib.measures import metrics
from mialib.training.hooks import DemandingAttack
from tests.attacks.test_likelihood import attacked, made_up, views

ATTACKS = {name: one for name, one in suites.yardstick().items() if isinstance(one, Calibrated)}
ATTACKS |= {f"lira_{'online' if on else 'offline'}_each": likelihood.LiRA(on, False) for on in (True, False)}
every = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
OFFLINE = [one for one in ATTACKS.values() if not one.online]


@every
def test_members_have_the_larger_margins_and_the_zero_is_a_good_one(attack):
    signal, member = made_up(18, 2000, leak=2.0, spread=2.0)
    margins = attacked(attack, signal, member)
    assert margins.dtype == torch.float64 and margins.shape == (2000,)
    assert metrics.auc(member[0], margins).value > 0.7
    assert metrics.balanced_accuracy(member[0], margins).value > 0.65


@every
@pytest.mark.parametrize("k", [4, 8, 18])
def test_where_nothing_leaks_nothing_is_found(attack, k):
    """Within four standard errors over 12 draws, of the target and of shadows that play it."""
    if k - 2 < attack.fewest:
        return
    aucs = []
    for seed in range(12):
        signal, member = made_up(k, 1000, seed=seed, leak=0.0, spread=1.0)
        found = [metrics.auc(member[0], attacked(attack, signal, member)).value]
        if k > 4:  # a single pair has no games
            scores, truth = attack.played(attack.statistic(views(signal[2:])), member[2:])
            found.append(metrics.auc(truth, scores).value)
        aucs.append(found)
    assert (np.abs(np.mean(aucs, 0) - 0.5) < 4 * np.std(aucs, 0) / len(aucs) ** 0.5).all()
    assert np.abs(np.mean(aucs, 0) - 0.5).max() < 0.02


@every
def test_the_order_of_the_shadows_does_not_matter(attack):
    signal, member = made_up(10, 60, spread=1.0)
    order = torch.tensor([0, 1, 7, 4, 9, 2, 6, 3, 8, 5])
    there, back = attacked(attack, signal, member), attacked(attack, signal[order], member[order])
    torch.testing.assert_close(there, back, rtol=1e-9, atol=1e-9)


@every
def test_margins_move_with_their_candidates(attack):
    signal, member = made_up(10, 60, spread=1.0)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    target, shadows = views(signal[:1]), views(signal[2:])
    moved = [Views(one.log_posteriors[:, order], one.labels[:, order]) for one in (target, shadows)]
    expected = attack(target, shadows, member[2:])[order]
    torch.testing.assert_close(attack(*moved, member[2:][:, order]), expected, rtol=1e-9, atol=1e-9)


@every
def test_the_targets_membership_is_no_argument_and_nothing_is_random(attack):
    assert list(inspect.signature(attack).parameters) == ["target", "shadows", "shadow_member", "seed"]
    assert isinstance(attack, DemandingAttack) and attack.needs == {"same candidates"}
    assert hash(attack) == hash(type(attack)(**vars(attack)))
    signal, member = made_up(8, 20)
    arguments = views(signal[:1]), views(signal[2:]), member[2:]
    assert torch.equal(attack(*arguments, 0), attack(*arguments, 1))


@every
def test_certain_answers_and_classes_without_probability_give_finite_margins_and_inputs_stay(attack):
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.0, 1.0]], dtype=torch.float64)
    seen = Views(p.log().expand(6, 4, 2), torch.tensor([[0, 0, 1, 1]]).expand(6, 4))
    member = made_up(6, 4)[1]
    before = [part.clone() for part in (seen.log_posteriors, seen.labels, member)]
    assert attack(seen[:1], seen, member).isfinite().all()
    after = (seen.log_posteriors, seen.labels, member)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@every
def test_candidates_that_no_shadow_can_speak_of_are_counted(attack):
    signal, member = made_up(8, 10)
    target, shadows, member = views(signal[:1]), views(signal[2:]), member[2:].clone()
    member[:, :3], member[:, 3] = False, True
    name = type(attack).__name__
    if attack.online:
        with pytest.raises(
            ValueError, match=f"4 of 10 candidates are members of none or of all.*online {name} needs"
        ):
            attack(target, shadows, member)
        return
    with pytest.raises(
        ValueError, match=f"1 of 10 candidates are members of all of the 6 shadows; {name} needs"
    ):
        attack(target, shadows, member)
    member[0, 3] = False
    assert attack(target, shadows, member).isfinite().all()  # it needs no shadow with the member


@every
def test_memberships_by_coins_are_attacked_too(attack):
    generator = torch.Generator().manual_seed(0)
    member = torch.rand(9, 400, generator=generator) < 0.5
    member[1:, (member[1:].all(0) | ~member[1:].any(0))] = member[1:].roll(1, 0)[:, :1]
    signal = 2 * member + torch.randn(9, 400, generator=generator, dtype=torch.float64)
    margins = attack(views(signal[:1]), views(signal[1:]), member[1:])
    assert margins.isfinite().all() and metrics.auc(member[0], margins).value > 0.75


@every
def test_bad_input_is_named(attack):
    name = type(attack).__name__
    signal, member = made_up(8, 10)
    target, shadows, member = views(signal[:1]), views(signal[2:]), member[2:]
    with pytest.raises(ValueError, match="target must be the views of one model"):
        attack(shadows, shadows, member)
    with pytest.raises(ValueError, match=f"{name} compares.*the target has 10, the shadows have 9"):
        attack(target, views(signal[2:, :9]), member[:, :9])
    with pytest.raises(ValueError, match="shadow_member must have the shape"):
        attack(target, shadows, member[:4])
    few = attack.fewest - 1
    with pytest.raises(ValueError, match=f"{name} needs {attack.fewest} shadows or more.*found {few}"):
        attack(target, shadows[:few], member[:few])


@pytest.mark.parametrize("name", [name for name in ATTACKS if not name.startswith("lira")])
def test_one_pair_of_shadows_is_enough(name):
    attack = ATTACKS[name]
    signal, member = made_up(4, 3000, leak=2.0, spread=1.0)
    margins = attacked(attack, signal, member)
    assert metrics.auc(member[0], margins).value > 0.65
    assert metrics.balanced_accuracy(member[0], margins).value > 0.6


def test_offline_takes_no_notice_of_answers_on_members_but_for_the_zero():
    signal, member = made_up(8, 20)
    louder = signal + 10.0 * member
    for attack in OFFLINE:
        found = [attack(views(signal[:1]), views(one[2:]), member[2:]) for one in (signal, louder)]
        torch.testing.assert_close(*(one - one[0] for one in found))


def test_a_side_without_one_shadow_is_the_side_of_the_others():
    signal, member = made_up(8, 30, spread=1.0)
    whole = Side.of(signal, member)
    without = whole.without(signal[3].expand_as(signal), member[3].expand_as(member))
    rest = [i for i in range(8) if i != 3]
    expected = Side.of(signal[rest], member[rest])
    assert torch.equal(without.count[0], expected.count) and without.whole is whole
    torch.testing.assert_close(without.mean[0], expected.mean)
    torch.testing.assert_close(without.squares[0], expected.squares)


def test_games_leave_the_player_and_its_partner_out():
    signal, member = made_up(8, 40, spread=1.0)
    there, partner = calibrating.partners(member)
    assert there.all()
    for attack in ATTACKS.values():
        if isinstance(attack, bayesian.BaVarIA):
            continue  # its prior stays that of all
        seen = attack.statistic(views(signal))
        scores, _ = attack.played(seen, member)
        rest = [j for j in range(8) if j not in (5, int(partner[5]))]
        sides = [Side.of(attack.averaged(seen[rest]), side[rest]) for side in (member, ~member)]
        if isinstance(attack, likelihood.LiRA) and attack.fixed_variance is None:
            sides = [side._replace(shadows=8) for side in sides]
        torch.testing.assert_close(scores.view(8, 40)[5], attack.score(seen[5], *sides))


# margins of `made_up(10, 5, seed=7, spread=1)`, computed once by this code; LiRA's by the code before it was taken apart
GOLDEN = {}


@pytest.mark.parametrize("name", list(GOLDEN))
def test_the_margins_stay_what_they_were(name):
    signal, member = made_up(10, 5, seed=7, spread=1.0)
    found = attacked(ATTACKS[name], signal, member)
    torch.testing.assert_close(found, torch.tensor(GOLDEN[name], dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_every_variant_has_a_golden_value():
    assert set(GOLDEN) == set(ATTACKS)
