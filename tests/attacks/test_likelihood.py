"""LiRA: by hand and against scipy's normal distribution, on made-up answers of models with random halves."""

import inspect
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import norm

from mialib.asking import Views
from mialib.attacks import calibrating, likelihood, threshold
from mialib.attacks.likelihood import LiRA, lira_offline, lira_online
from mialib.attacks.threshold import best_threshold
from mialib.data import splits
from mialib.measures import metrics

VARIANTS = [LiRA(online, fixed) for online in (True, False) for fixed in (True, False)]


def views(signal):
    """Models whose log-odds of the true class are `signal` (m, n): two classes, labels in turn."""
    labels = torch.arange(signal.shape[1]).expand(signal.shape) % 2
    logits = torch.stack([signal, torch.zeros_like(signal)], -1).double()
    logits = torch.where(labels[..., None] == 0, logits, logits.flip(-1))
    return Views(logits.log_softmax(-1), labels)


def made_up(k, n, seed=0, leak=1.5, spread=0.0, noise=None):
    """Signals (k, n) and membership (k, n) of random halves: candidates differ by `spread` in how hard they are."""
    generator = torch.Generator().manual_seed(seed)
    member = splits.random_halves(n, k, seed, reserve_fraction=0.0).member
    difficulty = spread * torch.randn(n, generator=generator, dtype=torch.float64)
    drawn = torch.randn(k, n, generator=generator, dtype=torch.float64)
    return difficulty + leak * member + drawn * (1.0 if noise is None else noise), member


def attacked(attack, signal, member):
    """Margins of model 0, attacked with all pairs but its own."""
    return attack(views(signal[:1]), views(signal[2:]), member[2:])


def by_loops(own, signal, member, online, fixed, spare=(0.0, 0.0)):
    """The score of each candidate by scipy, one by one, and no zero point; spare: variances where none is known."""
    of_all = variances(signal, member, spare)
    sides = by_side(signal, member)
    found = []
    for phi, *xs in zip(own, *sides, strict=True):
        normal = [
            norm(np.mean(x), np.sqrt(shared if fixed or len(x) == 1 else np.var(x, ddof=1)))
            for x, shared in zip(xs, of_all, strict=True)
            if len(x)
        ]
        if len(normal) < 2 and (online or len(xs[1]) == 0):
            found.append(np.nan)  # nothing to compare with
        elif online:
            found.append(normal[0].logpdf(phi) - normal[1].logpdf(phi))
        else:
            found.append((phi - normal[-1].mean()) / normal[-1].std())
    return np.array(found)


def by_side(signal, member):
    """Of members and of non-members what each candidate's shadows said."""
    return [[x[m == side] for x, m in zip(signal.T, member.T, strict=True)] for side in (True, False)]


def variances(signal, member, spare=(0.0, 0.0)):
    """One for all members, one for all non-members; spare where no candidate has two of them."""
    free = [sum(len(x) - 1 for x in side if len(x)) for side in by_side(signal, member)]
    squares = [sum(len(x) * np.var(x) for x in side if len(x)) for side in by_side(signal, member)]
    return [s / f if f else one for s, f, one in zip(squares, free, spare, strict=True)]


def others(i, member):
    """The shadows left where shadow i plays the target: all but itself and its partner."""
    return [j for j in range(len(member)) if j != i and not np.array_equal(member[j], ~member[i])]


@pytest.mark.parametrize("fixed", [True, False])
def test_the_likelihood_ratio_by_hand(fixed):
    # of both candidates: members 2 and 4, non-members -1 and 1; means 3 and 0, variances 2
    signal = torch.tensor([[2.0, 2.0], [4.0, 4.0], [-1.0, -1.0], [1.0, 1.0]])
    member = torch.tensor([[True, True], [True, True], [False, False], [False, False]])
    target = views(torch.tensor([[3.0, 0.0]]))
    online = LiRA(True, fixed)(target, views(signal), member)
    assert float(online[0] - online[1]) == pytest.approx(9 / 4 + 9 / 4)
    offline = LiRA(False, fixed)(target, views(signal), member)
    # the paper's Pr[N(0, 2) <= 3]; of the candidate at the mean it is 1/2
    assert norm.cdf(float(offline[0] - offline[1])) == pytest.approx(norm(0, 2**0.5).cdf(3.0))


def played_by_loops(signal, member, online, fixed):
    """What `by_loops` says where each shadow plays the target, (s, n), nan where it cannot."""
    spare = variances(signal, member)
    rests = [others(i, member) for i in range(len(member))]
    played = [
        by_loops(signal[i], signal[rest], member[rest], online, fixed, spare) for i, rest in enumerate(rests)
    ]
    return torch.from_numpy(np.stack(played))


@pytest.mark.parametrize("attack", VARIANTS)
@pytest.mark.parametrize("k", [6, 8, 10])
def test_margins_and_their_zero_equal_a_loop_over_candidates(attack, k):
    signal, member = made_up(k, 12, seed=k, spread=1.0)
    variant = (attack.online, attack.fixed_variance)
    own, signal, member = signal[0], signal[2:], member[2:]
    score = by_loops(own.numpy(), signal.numpy(), member.numpy(), *variant)
    assert {len(others(i, member.numpy())) for i in range(k - 2)} == {k - 4}
    played = played_by_loops(signal.numpy(), member.numpy(), *variant)
    answered = ~played.isnan()
    zero = best_threshold(played[answered], member[answered])
    found = attack(views(own[None]), views(signal), member)
    assert found.dtype == torch.float64 and found.shape == (12,)
    torch.testing.assert_close(found, torch.from_numpy(score) - zero, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("attack", VARIANTS)
def test_a_shadow_that_was_alone_on_its_side_leaves_the_candidate_out_of_the_zero(attack):
    """Nor can its partner be judged on it, that leaves it out. Candidate 0 has one shadow as a member, 1 all but one."""
    signal, member = made_up(8, 10, seed=5)
    alone = torch.tensor([True, False, False, False, False, False])
    member[2:, 0], member[2:, 1] = alone, ~alone
    assert attacked(attack, signal, member).isfinite().all()
    signal, member = signal[2:], member[2:]
    expected = played_by_loops(signal.numpy(), member.numpy(), attack.online, attack.fixed_variance)
    answered = ~expected.isnan()
    assert int((~answered).sum()) == (4 if attack.online else 2)
    scores, truth = attack.played(signal, member)
    assert torch.equal(truth, member[answered])
    torch.testing.assert_close(scores, expected[answered], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("attack", VARIANTS)
def test_without_a_leak_there_is_nothing_to_find(attack):
    aucs = []
    for seed in range(3):
        signal, member = made_up(8, 4000, seed=seed, leak=0.0, spread=1.0)
        aucs.append(metrics.auc(member[0], attacked(attack, signal, member)).value)
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.015)


@pytest.mark.parametrize("attack", VARIANTS)
@pytest.mark.parametrize("pairs", [2, 3, 4])
def test_without_a_leak_the_zero_rests_on_scores_that_tell_nothing(attack, pairs):
    """A player's partner among the others would say by its absence whose member a candidate is: AUC .41 for 2 pairs."""
    aucs = []
    for seed in range(4):
        signal, member = made_up(2 * pairs, 4000, seed=seed, leak=0.0, spread=1.0)
        scores, truth = attack.played(signal, member)
        assert scores.shape == (2 * pairs * 4000,)
        aucs.append(metrics.auc(truth, scores).value)
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.01)


def test_without_a_leak_shadows_that_have_no_partners_tell_nothing_either():
    generator, aucs = torch.Generator().manual_seed(0), []
    for _ in range(4):
        member = torch.rand(6, 4000, generator=generator) < 0.5
        signal = torch.randn(6, 4000, generator=generator, dtype=torch.float64)
        scores, truth = LiRA(fixed_variance=True).played(signal, member)
        aucs.append(metrics.auc(truth, scores).value)
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.01)


def test_partners_are_rows_that_are_each_others_complement():
    rows = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 1, 1]]).bool()
    there, number = calibrating.partners(rows)
    assert there.tolist() == [True, False, True, False]
    assert int(number[0]) == 2 and int(number[2]) == 0
    of_halves, number = calibrating.partners(splits.random_halves(40, 8, 0, reserve_fraction=0.0).member)
    assert of_halves.all() and number.tolist() == [1, 0, 3, 2, 5, 4, 7, 6]


@pytest.mark.parametrize("attack", VARIANTS)
def test_members_of_overfit_models_are_found(attack):
    signal, member = made_up(18, 2000, leak=1.5, spread=3.0)
    margins = attacked(attack, signal, member)
    assert metrics.auc(member[0], margins).value > 0.7
    assert metrics.balanced_accuracy(member[0], margins).value > 0.65  # the zero is a good one


@pytest.mark.parametrize("attack", [lira_online, lira_offline])
def test_where_candidates_differ_lira_beats_one_threshold_for_all(attack):
    """At low false-positive rates: easy non-members are more certain than hard members."""
    signal, member = made_up(34, 4000, leak=2.0, spread=3.0)
    rival = attacked(threshold.confidence_global, signal, member)
    found = attacked(attack, signal, member)
    low = metrics.tpr_at_fpr(member[0], found, 0.01).value
    assert low > 0.2 and low > 4 * metrics.tpr_at_fpr(member[0], rival, 0.01).value


@pytest.mark.parametrize("attack", VARIANTS)
def test_the_order_of_the_shadows_does_not_matter(attack):
    signal, member = made_up(8, 50, spread=1.0)
    order = torch.tensor([0, 1, 7, 4, 2, 6, 3, 5])
    there, back = attacked(attack, signal, member), attacked(attack, signal[order], member[order])
    torch.testing.assert_close(there, back)
    assert torch.equal(there.argsort(), back.argsort())


@pytest.mark.parametrize("attack", VARIANTS)
def test_margins_move_with_their_candidates(attack):
    signal, member = made_up(8, 50, spread=1.0)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    margins = attack(views(signal[:1]), views(signal[2:]), member[2:])
    moved = [views(part) for part in (signal[:1], signal[2:])]
    moved = [Views(one.log_posteriors[:, order], one.labels[:, order]) for one in moved]
    torch.testing.assert_close(attack(*moved, member[2:][:, order]), margins[order])


@pytest.mark.parametrize("fixed", [True, False])
def test_the_other_side_of_membership_turns_the_ratio_round(fixed):
    signal, member = made_up(8, 50, spread=1.0)
    ratio, turned = (attacked(LiRA(True, fixed), signal, m) for m in (member, ~member))
    both = ratio + turned  # but for the zeros
    torch.testing.assert_close(both, both[:1].expand(50))


@pytest.mark.parametrize("attack", VARIANTS)
def test_the_zero_does_not_depend_on_the_target(attack):
    signal, member = made_up(8, 50)
    shifted = signal[:1] + torch.arange(50) % 2
    one, other = (attack(views(own), views(signal[2:]), member[2:]) for own in (signal[:1], shifted))
    torch.testing.assert_close(one[::2], other[::2])
    assert bool((one[1::2] != other[1::2]).all())


def test_the_targets_membership_is_no_argument():
    assert list(inspect.signature(lira_online).parameters) == ["target", "shadows", "shadow_member", "seed"]
    signal, member = made_up(8, 20)
    arguments = views(signal[:1]), views(signal[2:]), member[2:]
    assert torch.equal(lira_online(*arguments, 0), lira_online(*arguments, 1))  # and nothing is random


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("shadows, fixed", [(63, True), (64, False)])  # the paper's border
def test_one_variance_below_64_shadows_and_one_for_each_candidate_from_there(shadows, fixed, online):
    signal, member = made_up(66, 30, spread=1.0)
    signal, member = signal[: 2 + shadows], member[: 2 + shadows]  # two are the target's pair
    found = attacked(LiRA(online), signal, member)
    assert torch.equal(found, attacked(LiRA(online, fixed), signal, member))
    assert not torch.equal(found, attacked(LiRA(online, not fixed), signal, member))


def test_a_variance_of_its_own_pays_where_candidates_differ_in_it_and_shadows_are_many():
    noise = torch.where(torch.arange(3000) % 2 == 0, 0.3, 3.0)
    gain = {}
    for k in (6, 130):
        signal, member = made_up(k, 3000, leak=1.0, noise=noise)
        of_all, of_each = (
            metrics.auc(member[0], attacked(LiRA(fixed_variance=fixed), signal, member)).value
            for fixed in (True, False)
        )
        gain[k] = of_each - of_all
    assert gain[130] > 0.02 and gain[130] > gain[6]


def test_offline_is_one_sided_and_does_not_saturate():
    signal, member = made_up(8, 7)
    own = torch.tensor([[-500.0, -5.0, 0.0, 5.0, 50.0, 500.0, 900.0]])
    margins = lira_offline(views(own), views(signal[2:]), member[2:])
    assert all(a < b for a, b in pairwise(margins.tolist()))


@pytest.mark.parametrize("fixed", [True, False])
def test_offline_takes_no_notice_of_answers_on_members_but_for_the_zero(fixed):
    signal, member = made_up(8, 20)
    louder = signal + 10.0 * member
    found = [LiRA(False, fixed)(views(signal[:1]), views(one[2:]), member[2:]) for one in (signal, louder)]
    torch.testing.assert_close(*(one - one[0] for one in found))


def saturated():
    """Views of six models that are all certain in the same way, and who is a member of which."""
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [1.0, 0.0]], dtype=torch.float64)
    return Views(p.log().expand(6, 4, 2), torch.tensor([[0, 0, 1, 1]]).expand(6, 4)), made_up(6, 4)[1]


@pytest.mark.parametrize("attack", VARIANTS)
def test_saturated_posteriors_and_shadows_that_agree_give_finite_margins_and_inputs_stay(attack):
    seen, member = saturated()
    before = [part.clone() for part in (seen.log_posteriors, seen.labels, member)]
    assert attack(seen[:1], seen, member).isfinite().all()
    after = (seen.log_posteriors, seen.labels, member)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("fixed", [True, False])
def test_two_shadows_of_one_candidate_give_the_variance_of_all(fixed):
    signal = torch.tensor([[1.0, 0.0], [4.0, 3.0], [0.0, 5.0], [2.0, 1.0]], dtype=torch.float64)
    member = torch.tensor([[True, False], [True, False], [False, True], [False, False]])
    own = torch.tensor([2.5, 0.5], dtype=torch.float64)
    expected = by_loops(own.numpy(), signal.numpy(), member.numpy(), True, fixed)
    margins = LiRA(True, fixed)(views(own[None]), views(signal), member)
    assert float(margins[0] - margins[1]) == pytest.approx(expected[0] - expected[1])


@pytest.mark.parametrize("fixed", [True, False])
def test_shadows_that_agree_to_the_last_bit_count_as_a_thousandth_apart(fixed):
    target = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    member = torch.tensor([[True, False], [False, True]]).repeat(2, 1)
    margins = LiRA(False, fixed)(views(target), views(torch.zeros(4, 2)), member)
    assert float(margins[0] - margins[1]) == pytest.approx(0.5 / 0.001)


def test_a_target_far_from_all_that_the_shadows_ever_said_gets_finite_margins():
    seen, member = saturated()
    other = views(torch.full((1, 4), -7.0))
    other = Views(other.log_posteriors, seen.labels[:1])
    assert lira_online(other, seen, member).isfinite().all()


def test_bad_input_is_named():
    signal, member = made_up(8, 10)
    target, shadows, member = views(signal[:1]), views(signal[2:]), member[2:]
    with pytest.raises(ValueError, match="target must be the views of one model"):
        lira_online(shadows, shadows, member)
    with pytest.raises(ValueError, match="the target has 10, the shadows have 9"):
        lira_online(target, views(signal[2:, :9]), member[:, :9])
    other = shadows.labels.clone()
    other[0, 0] = 1  # one label of one shadow
    with pytest.raises(ValueError, match="labels are not the target's"):
        lira_online(target, Views(shadows.log_posteriors, other), member)
    with pytest.raises(ValueError, match="shadow_member must have the shape"):
        lira_online(target, shadows, member[:4])
    with pytest.raises(ValueError, match="shadow_member is torch.int64, must be torch.bool"):
        lira_online(target, shadows, member.long())
    with pytest.raises(ValueError, match="4 shadows or more.*found 3"):
        lira_online(target, shadows[:3], member[:3])


def test_candidates_that_no_shadow_can_speak_of_are_counted():
    signal, member = made_up(8, 10)
    target, shadows, member = views(signal[:1]), views(signal[2:]), member[2:].clone()
    member[:, :3], member[:, 3] = False, True
    with pytest.raises(ValueError, match="4 of 10 candidates are members of none or of all of the 6 shadows"):
        lira_online(target, shadows, member)
    with pytest.raises(ValueError, match="1 of 10 candidates are members of all of the 6 shadows"):
        lira_offline(target, shadows, member)
    member[0, 3] = False
    assert lira_offline(target, shadows, member).isfinite().all()  # it needs no shadow with the member
    once = torch.zeros(6, 10, dtype=torch.bool)
    once[0] = True
    with pytest.raises(ValueError, match="among the members of two shadows"):
        lira_online(target, shadows, once)
    with pytest.raises(ValueError, match="among the non-members of two shadows"):
        lira_offline(target, shadows, ~once)


def test_the_instances_are_the_two_attacks():
    assert likelihood.lira_online == LiRA(True) and likelihood.lira_offline == LiRA(False)
