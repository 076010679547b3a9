import math
import time

import pytest
import torch

from mialib.asking import Views
from mialib.attacks import signals, threshold
from mialib.attacks.threshold import ATTACKS, best_threshold, class_thresholds
from mialib.measures import metrics

THRESHOLDED = [name for name in ATTACKS if name != "gap"]
PER_CLASS = ("confidence", "entropy", "modified_entropy")


def balanced_accuracy(decided, member):
    return (decided[member].double().mean() + (~decided[~member]).double().mean()) / 2


def best_balanced_accuracy(signal, member):
    """Over every cut that there is, the slow way."""
    cuts = torch.cat([signal - 1e-9, signal.max()[None]])
    return max(balanced_accuracy(signal > cut, member) for cut in cuts)


def views(generator, m, n, c=4, scale=3.0):
    """Members (the first half) are answered with more confidence in the true class."""
    labels = torch.randint(c, (m, n), generator=generator)
    member = (torch.arange(n) < n // 2).repeat(m, 1)
    logits = torch.randn(m, n, c, generator=generator, dtype=torch.float64)
    boost = torch.where(member, scale, 0.5 * scale).double()
    logits = logits.scatter_add(-1, labels[..., None], boost[..., None])
    return Views(logits.log_softmax(-1), labels), member


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("ties", [False, True])
def test_best_threshold_is_the_best_of_all(seed, ties):
    generator = torch.Generator().manual_seed(seed)
    n = int(torch.randint(2, 40, (1,), generator=generator))
    member = torch.rand(n, generator=generator) < 0.4
    member[0], member[1] = True, False
    signal = torch.randn(n, generator=generator, dtype=torch.float64) + 0.5 * member
    if ties:
        signal = signal.round()
    found = best_threshold(signal, member)
    assert found.isfinite()
    assert balanced_accuracy(signal > found, member) == pytest.approx(best_balanced_accuracy(signal, member))


def test_best_threshold_is_half_way_between_its_neighbours():
    signal = torch.tensor([5.0, 1.0, 9.0, 2.0], dtype=torch.float64)
    assert best_threshold(signal, torch.tensor([True, False, True, False])) == 3.5


@pytest.mark.parametrize("seed", range(10))
def test_of_equally_good_cuts_the_lowest_is_taken_exactly_half_way(seed):
    """Against all cuts in whole numbers, one after the other."""
    generator = torch.Generator().manual_seed(seed)
    member = torch.arange(30) % 3 == 0
    signal = torch.randint(8, (30,), generator=generator).double() + member * (seed % 3)
    values = signal.unique().tolist()
    cuts = [
        math.nextafter(values[0], -math.inf),
        *((a + b) / 2 for a, b in zip(values, values[1:], strict=False)),
    ]
    good = [int(2 * (signal[member] > cut).sum() + (signal[~member] <= cut).sum()) for cut in cuts]
    assert best_threshold(signal, member).item() == cuts[good.index(max(good))]


def test_adjacent_floats_are_still_told_apart():
    low = torch.tensor(1.0, dtype=torch.float64)
    high = torch.nextafter(low, torch.tensor(2.0, dtype=torch.float64))
    found = best_threshold(torch.stack([low, high]), torch.tensor([False, True]))
    assert high > found and not low > found


def test_a_threshold_is_float64_whatever_the_signal():
    signal, member = torch.tensor([1.0, 1.0 + 2**-23]), torch.tensor([False, True])
    assert signal.dtype == torch.float32 and best_threshold(signal, member).item() == 1 + 2**-24


@pytest.mark.parametrize("signal", [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
def test_a_useless_or_reversed_signal_calls_everything_a_member(signal):
    signal = torch.tensor(signal, dtype=torch.float64)
    found = best_threshold(signal, torch.tensor([True, True, False, False]))
    assert found.isfinite() and found < 0 and found > -1e-3
    assert (signal > found).all()


@pytest.mark.parametrize("seed", range(20))
def test_class_thresholds_equal_a_loop_over_classes(seed):
    generator = torch.Generator().manual_seed(seed)
    n, c = 200, 7
    labels = torch.randint(c, (n,), generator=generator)
    member = torch.rand(n, generator=generator) < 0.5
    signal = torch.randn(n, generator=generator, dtype=torch.float64) + member * labels / c
    if seed % 2:
        signal = (2 * signal).round()
    member[labels == 2], member[labels == 5] = True, False  # one group only
    labels[labels == 6] = 3  # no shadow at all
    found = class_thresholds(signal, member, labels, c)
    assert (found[[2, 5, 6]] == best_threshold(signal, member)).all()
    for k in (0, 1, 3, 4):
        assert found[k] == best_threshold(signal[labels == k], member[labels == k]), k


def test_one_member_and_one_other_are_enough_for_a_threshold_of_their_class():
    signal, member = torch.tensor([0.0, 5.0, 1.0, 2.0]), torch.tensor([False, True, False, True])
    assert class_thresholds(signal, member, torch.tensor([0, 0, 1, 1]), 2).tolist() == [2.5, 1.5]


def test_there_may_be_more_classes_than_shadow_rows():
    generator = torch.Generator().manual_seed(7)
    shadows, shadow_member = views(generator, 1, 4, c=9)
    target, _ = views(generator, 1, 50, c=9)
    assert threshold.confidence(target, shadows, shadow_member).isfinite().all()


@pytest.mark.parametrize("name", THRESHOLDED)
def test_margin_is_positive_where_the_signal_exceeds_its_threshold(name):
    generator = torch.Generator().manual_seed(0)
    shadows, member = views(generator, 3, 100)
    target, _ = views(generator, 1, 80)
    attack = ATTACKS[name]
    margins = attack(target, shadows, member, 0)
    assert margins.shape == (80,) and margins.dtype == torch.float64
    pooled = attack.signal(shadows.log_posteriors, shadows.labels).flatten()
    own = attack.signal(target.log_posteriors, target.labels)[0]
    for k in range(4):
        rows = shadows.labels.flatten() == k if name in PER_CLASS else slice(None)
        cut = best_threshold(pooled[rows], member.flatten()[rows])
        mine = target.labels[0] == k
        assert torch.equal(margins[mine] > 0, own[mine] > cut), f"class {k}"
        torch.testing.assert_close(margins[mine], own[mine] - cut)


@pytest.mark.parametrize("name", THRESHOLDED)
def test_attacks_find_members_of_an_overconfident_model(name):
    generator = torch.Generator().manual_seed(1)
    shadows, shadow_member = views(generator, 5, 400, scale=6.0)
    target, member = views(generator, 1, 400, scale=6.0)
    margins = ATTACKS[name](target, shadows, shadow_member, 0)
    assert balanced_accuracy(margins > 0, member[0]) > 0.7


@pytest.mark.parametrize("name", ATTACKS)
def test_random_membership_gives_chance(name):
    generator = torch.Generator().manual_seed(2)
    shadows, _ = views(generator, 5, 2000, scale=0.0)
    target, _ = views(generator, 1, 4000, scale=0.0)
    member, shadow_member = (torch.rand(shape, generator=generator) < 0.5 for shape in ((4000,), (5, 2000)))
    decided = ATTACKS[name](target, shadows, shadow_member, 0) > 0
    assert balanced_accuracy(decided, member) == pytest.approx(0.5, abs=0.04)


def test_class_without_shadow_rows_falls_back_to_the_global_threshold():
    generator = torch.Generator().manual_seed(3)
    shadows, shadow_member = views(generator, 2, 100)
    shadows = Views(shadows.log_posteriors, shadows.labels.clamp(max=2))  # nobody of class 3
    target, _ = views(generator, 1, 50)
    lacking = target.labels[0] == 3
    per_class = threshold.confidence(target, shadows, shadow_member, 0)
    overall = threshold.confidence_global(target, shadows, shadow_member, 0)
    assert lacking.any() and torch.equal(per_class[lacking], overall[lacking])
    assert not torch.equal(per_class[~lacking], overall[~lacking])


def test_gap_is_correctness():
    target = Views(
        torch.tensor([[[0.9, 0.1], [0.9, 0.1]]], dtype=torch.float64).log(), torch.tensor([[0, 1]])
    )
    assert threshold.gap(target, None, None, 0).tolist() == [1.0, -1.0]


def test_top1_does_not_use_labels_but_confidence_global_does():
    generator = torch.Generator().manual_seed(4)
    shadows, shadow_member = views(generator, 2, 100)
    target, _ = views(generator, 1, 50)
    shifted = Views(target.log_posteriors, (target.labels + 1) % 4)
    attack = threshold.top1
    assert torch.equal(attack(target, shadows, shadow_member, 0), attack(shifted, shadows, shadow_member, 0))
    attack = threshold.confidence_global
    assert not torch.equal(
        attack(target, shadows, shadow_member, 0), attack(shifted, shadows, shadow_member, 0)
    )


@pytest.mark.parametrize("name", list(ATTACKS))
def test_saturated_posteriors_give_finite_margins_and_inputs_stay(name):
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [1.0, 0.0]], dtype=torch.float64)
    seen = Views(p.log()[None], torch.tensor([[0, 0, 1, 1]]))
    member = torch.tensor([[True, False, False, True]])
    before = [t.clone() for t in (seen.log_posteriors, seen.labels, member)]
    assert ATTACKS[name](seen, seen, member, 0).isfinite().all()
    assert all(
        torch.equal(a, b) for a, b in zip(before, (seen.log_posteriors, seen.labels, member), strict=True)
    )


@pytest.mark.parametrize("name", ATTACKS)
def test_margins_move_with_their_candidates(name):
    """A candidate's margin depends on the candidate and the shadows, not on who stands beside it."""
    generator = torch.Generator().manual_seed(5)
    shadows, shadow_member = views(generator, 2, 100)
    target, _ = views(generator, 1, 50)
    order = torch.randperm(50, generator=generator)
    shuffled = Views(target.log_posteriors[:, order], target.labels[:, order])
    margins = ATTACKS[name](target, shadows, shadow_member, 0)
    assert torch.equal(ATTACKS[name](shuffled, shadows, shadow_member, 0), margins[order])


def test_bad_input_is_named():
    generator = torch.Generator().manual_seed(6)
    shadows, member = views(generator, 2, 20)
    target, _ = views(generator, 1, 10)
    attack = threshold.confidence
    with pytest.raises(ValueError, match="target must be the views of one model"):
        attack(shadows, shadows, member, 0)
    with pytest.raises(ValueError, match="shadow_member is torch.int64, must be torch.bool"):
        attack(target, shadows, member.long(), 0)
    with pytest.raises(ValueError, match="shadow_member must have the shape"):
        attack(target, shadows, member[:1], 0)
    with pytest.raises(ValueError, match="target must be the views of one model"):
        threshold.gap(shadows)
    for everybody in (torch.ones_like(member), torch.zeros_like(member)):
        with pytest.raises(ValueError, match="both groups"):
            attack(target, shadows, everybody, 0)
    with pytest.raises(ValueError, match='shadow_member is of no model.*train shadow models.*knowing="half"'):
        attack(target, shadows[:0], member[:0], 0)
    with pytest.raises(ValueError, match="same classes"):
        attack(target, views(generator, 2, 20, c=5)[0], member, 0)
    with pytest.raises(ValueError, match="finite"):
        best_threshold(torch.tensor([0.0, torch.inf]), torch.tensor([True, False]))
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\), found 0 to 2"):
        class_thresholds(torch.zeros(2), torch.tensor([True, False]), torch.tensor([0, 2]), 2)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\), found -1 to 1"):
        class_thresholds(torch.zeros(2), torch.tensor([True, False]), torch.tensor([-1, 1]), 2)


@pytest.mark.parametrize("signal, member, labels", [((2, 2),) * 3, ((2,), (3,), (2,)), ((2,), (2,), (3,))])
def test_signal_member_and_labels_have_one_axis_and_one_length(signal, member, labels):
    with pytest.raises(ValueError, match="one shape"):
        class_thresholds(torch.zeros(signal), torch.ones(member).bool(), torch.zeros(labels).long(), 1)


@pytest.mark.parametrize("c", [10, 100])
def test_papers_size_is_quick(c):
    """135,000 shadow rows (five models of 27,000); the time is printed under pytest -s, not asserted."""
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(135_000, generator=generator, dtype=torch.float64)
    member, labels = (
        signal > torch.randn(135_000, generator=generator),
        torch.randint(c, (135_000,), generator=generator),
    )
    start = time.perf_counter()
    found = class_thresholds(signal, member, labels, c)
    print(f"135,000 rows, {c} classes: {time.perf_counter() - start:.3f} s")
    assert found.shape == (c,) and found.isfinite().all()


def test_every_thresholded_signal_is_in_log_odds():
    assert {attack.signal for name, attack in ATTACKS.items() if name != "gap"} == {
        signals.confidence, signals.entropy, signals.modified_entropy, signals.top1,
    }  # fmt: skip


def test_the_gap_attacks_accuracy_is_that_of_the_generalisation_gap():
    correct = torch.tensor([1, 1, 1, 0, 1, 0, 0, 0]).bool()  # members 3 of 4, others 1 of 4
    member = torch.arange(8) < 4
    log_p = torch.where(correct, 0.9, 0.1).double()
    seen = Views(torch.stack([log_p, 1 - log_p], -1).log()[None], torch.zeros(1, 8, dtype=torch.long))
    margins = threshold.gap(seen)
    for measure in (metrics.balanced_accuracy, metrics.auc):
        assert measure(member, margins).value == threshold.gap_accuracy(0.75 - 0.25)
