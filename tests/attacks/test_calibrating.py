"""What all calibrated attacks must do: sign, chance where nothing leaks, order, errors, values that stay."""

import inspect

import numpy as np
import pytest
import torch

from mialib.asking import Views
from mialib.attacks import bayesian, calibrating, likelihood, suites
from mialib.attacks.calibrating import Calibrated, Side
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


def test_where_each_game_has_one_fewer_no_mask_is_needed():
    signal, member = made_up(8, 30, spread=1.0)
    whole = Side.of(signal, member)
    masked, plain = whole.without(signal, torch.ones_like(member)), whole.without(signal)
    assert torch.equal(masked.count, plain.count.expand_as(signal))
    assert torch.equal(masked.mean, plain.mean) and torch.equal(masked.squares, plain.squares)
    for fixed in (True, False):
        assert torch.equal(masked.variance(fixed), plain.variance(fixed))


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


# margins of `made_up(10, 8, seed=7, spread=1)`, computed once by this code; LiRA's by the code before it was taken apart
GOLDEN = {
    "lira_online": [
        0.4932912721485684,
        -4.846095573049703,
        0.49763634396979944,
        2.092200736173847,
        3.115855553503609,
        -2.6558484836658267,
        0.878135868578513,
        -2.3183895333490367,
    ],
    "lira_offline": [
        3.514462378770744,
        2.6968183321170995,
        -0.23020394038114445,
        1.2774376260370488,
        2.012639910155656,
        0.18837397577821305,
        -0.11167502371836441,
        -0.1812906143631844,
    ],
    "bavaria_t": [
        -0.47606926645082637,
        -3.0186375457551473,
        -0.43110698335433506,
        0.8325424712618794,
        2.2592072625606927,
        -1.999161768943796,
        -0.47688866924985607,
        -3.0552281816073776,
    ],
    "bavaria_n": [
        -1.5370092054719346,
        -6.4251439966851684,
        -0.44866593532077337,
        0.8747724496058273,
        2.5768805646923356,
        -2.2904531485547603,
        -0.5135971334441866,
        -4.0174273217968635,
    ],
    "bavaria_t_offline": [
        2.801635634124611,
        2.561913987653243,
        0.11281783926929025,
        0.8524850115606433,
        2.1182008296074786,
        -0.18418874206951877,
        -0.33573352678019586,
        -0.047599297844320404,
    ],
    "bavaria_n_offline": [
        3.0144902743684443,
        2.7566841619395346,
        0.12282957987160337,
        0.9182968269334727,
        2.2794975332259892,
        -0.19658301063846695,
        -0.3595602485317584,
        -0.049689335691471506,
    ],
    "base_online": [
        0.5401877895384402,
        0.35864465598511064,
        -0.13780150373813707,
        0.09740388830843719,
        0.10034854856082367,
        -0.29137718633621557,
        -0.20194053742558468,
        -0.24089462629230532,
    ],
    "base_offline": [
        0.6504421888666885,
        0.5612508478512426,
        0.21223902454622356,
        0.2698828362618057,
        0.5121174728232907,
        -0.07391772164635668,
        -0.0926221338842278,
        0.11589517851519981,
    ],
    "rmia_online": [
        0.13841779531471043,
        -0.04312533823861914,
        -0.5395714979618669,
        -0.30436610591529256,
        -0.3014214456629061,
        -0.6931471805599453,
        -0.6037105316493144,
        -0.6426646205160351,
    ],
    "rmia_offline": [
        0.07966046940155946,
        -0.08106131648224757,
        -0.46466646275843104,
        -0.318669630051295,
        -0.15671107338785772,
        -0.6563593279132425,
        -0.6931471805599452,
        -0.5353353670438487,
    ],
    "lira_online_each": [
        -0.23679785286528232,
        2.938461329470184,
        0.5436059424547172,
        2.5726116145500457,
        3.586932619646074,
        -0.9825737381603095,
        -3.40223178497899,
        -30.848501412790178,
    ],
    "lira_offline_each": [
        3.434043829271975,
        5.716516222759243,
        -0.38792780321796005,
        0.6509561164151917,
        2.0832697809066967,
        -0.03539443596836568,
        -0.2958369551109864,
        -0.5130773611807391,
    ],
}


@pytest.mark.parametrize("name", list(GOLDEN))
def test_the_margins_stay_what_they_were(name):
    signal, member = made_up(10, 8, seed=7, spread=1.0)
    found = attacked(ATTACKS[name], signal, member)
    torch.testing.assert_close(found, torch.tensor(GOLDEN[name], dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_every_variant_has_a_golden_value():
    assert set(GOLDEN) == set(ATTACKS)
