"""The label swapper flips the flagged members and nobody else, within the distance, whatever batch they come in."""

import pytest
import torch

from mialib.asking import Views
from mialib.defenses import Defender, swapper


def defender(n=60, c=6, right=0.9, others_right=0.6, k=2):
    """k networks: a share `right` of members and `others_right` of the reference answered correctly."""
    generator = torch.Generator().manual_seed(0)

    def views(count, share):
        log_p = (2 * torch.randn(k, count, c, generator=generator, dtype=torch.float64)).log_softmax(-1)
        labels = log_p.argmax(-1)
        wrong = torch.arange(count) >= round(share * count)
        return Views(log_p, torch.where(wrong, (labels + 1) % c, labels))

    return Defender(views(n, right), views(100, others_right), torch.arange(5, 5 + k))


def test_as_many_members_are_flagged_as_makes_the_accuracies_equal():
    known = defender()
    found = swapper.fit(known, seed=3)
    assert found.flagged.sum(1).tolist() == [20, 20]  # r = (0.9 - 0.6) / 0.9 of 60
    assert not torch.equal(found.flagged[0], found.flagged[1])
    assert found.flagged[0].nonzero()[:, 0].tolist() != list(range(20))  # drawn, not the first ones
    assert torch.equal(swapper.fit(known, seed=3).flagged, found.flagged)
    assert not torch.equal(swapper.fit(known, seed=4).flagged, found.flagged)


def known_accuracies(n, right, second, reference, *, c=6, seed=0):
    """One network that is right on these shares of members and reference; `second`: of members, wrong, the label second."""
    log_p = torch.randn(1, 2 * n, c, generator=torch.Generator().manual_seed(seed)).double().log_softmax(-1)
    ranking = log_p.argsort(-1, descending=True)
    place = torch.arange(n) / n
    members = ranking[0, :n].gather(
        1, torch.where(place < right, 0, torch.where(place < right + second, 1, 2))[:, None]
    )
    others = ranking[0, n:].gather(1, (place >= reference).long()[:, None])
    labels = torch.cat([members, others])[None, :, 0]
    return Defender(
        Views(log_p[:, :n], labels[:, :n]), Views(log_p[:, n:], labels[:, n:]), torch.tensor([seed])
    )


def accuracy_after(known, found):
    served = found(known.members.log_posteriors)
    return float((served.argmax(-1) == known.members.labels).double().mean())


def test_the_published_rate_leaves_members_right_more_often_and_the_corrected_one_does_not():
    """Flagged members who were wrong become right where the second class is the label: here 8 of 9.4 in a hundred."""
    known = known_accuracies(1000, 0.906, 0.08, 0.512)
    published, corrected = (
        [accuracy_after(known, swapper.fit(known, seed, rate=rate)) for seed in range(100)]
        for rate in swapper.RATES
    )
    assert sum(published) / 100 == pytest.approx(0.547, abs=0.005)
    assert sum(corrected) / 100 == pytest.approx(0.512, abs=0.005)
    assert max(abs(one - 0.512) for one in corrected) < 4 * 0.5 / 1000**0.5
    one, second = (float(swapper.flip_rate(known, o)) for o in (None, torch.ones(1, 1000, dtype=torch.long)))
    assert one == pytest.approx(0.394 / 0.906) and second == pytest.approx(0.394 / (0.906 - 0.08))


def test_the_corrected_rate_asks_for_the_class_that_is_served():
    # all wrong members have the label second, so that a class at random is it for one in five
    known = known_accuracies(1000, 0.9, 0.1, 0.6)
    found = [swapper.fit(known, seed, other="random", rate="corrected") for seed in range(60)]
    after = [accuracy_after(known, one) for one in found]
    assert sum(after) / 60 == pytest.approx(0.6, abs=0.006)
    assert sum(float(one.flagged.double().mean()) for one in found) / 60 == pytest.approx(
        0.3 / (0.9 - 0.02), abs=0.005
    )


@pytest.mark.parametrize(
    "right, second, reference, share",
    [
        (0.9, 0.1, 0.05, 1.0),  # swapping all of them leaves 0.1
        (0.4, 0.5, 0.3, 1.0),  # swaps gain more than they lose
        (0.4, 0.5, 0.5, 0.0),  # right less often as they are
        (0.0, 0.5, 0.0, 0.0),
    ],
)
def test_what_no_share_can_do(right, second, reference, share):
    known = known_accuracies(100, right, second, reference)
    assert float(swapper.fit(known, 0, rate="corrected").flagged.double().mean()) == share
    assert float(swapper.flip_rate(known, torch.ones(1, 100, dtype=torch.long))) == share


def test_no_member_is_flagged_where_members_are_right_no_more_often():
    assert not bool(swapper.fit(defender(right=0.5, others_right=0.6), seed=0).flagged.any())


@pytest.mark.parametrize("space", swapper.SPACES)
def test_exactly_the_flagged_members_get_the_second_class_and_the_others_nothing_new(space):
    known = defender()
    found = swapper.fit(known, seed=1, space=space)
    before = known.members.log_posteriors
    after = found(before)
    changed = (after != before).any(-1)
    assert torch.equal(changed, found.flagged)
    ranked = before.argsort(-1, descending=True)
    assert torch.equal(after.argmax(-1), torch.where(found.flagged, ranked[..., 1], ranked[..., 0]))
    assert torch.equal(after.sort(-1).values, before.sort(-1).values)  # the same posteriors in other places
    reference = known.reference.log_posteriors
    assert torch.equal(found(reference), reference)
    missed, wrongly = swapper.error_rates(found, before, reference)
    assert missed.tolist() == [0, 0] and wrongly.tolist() == [0, 0]


def test_last_bits_do_not_matter_and_the_distance_does():
    known = defender()
    found = swapper.fit(known, seed=1)  # at 1e-3
    moved = known.members.log_posteriors.clone()
    moved[..., 0] += 5e-4
    assert torch.equal(found(moved).argmax(-1) != moved.argmax(-1), found.flagged)
    moved[..., 0] += 1e-3
    assert torch.equal(found(moved), moved)
    missed, wrongly = swapper.error_rates(found, moved, known.reference.log_posteriors)
    assert missed.tolist() == [1, 1] and wrongly.tolist() == [0, 0]
    assert missed.dtype == wrongly.dtype == torch.float64


def test_the_same_answer_is_at_distance_zero():
    known = defender()
    before = known.members.log_posteriors - 90.0 * torch.eye(6, dtype=torch.float64)[1]  # large numbers
    known = Defender(Views(before.log_softmax(-1), known.members.labels), known.reference, known.seeds)
    found = swapper.fit(known, seed=1, distance=1e-12)
    swapped, _ = found.swaps(known.members.log_posteriors)
    assert torch.equal(swapped, found.flagged)


def test_a_query_as_a_flagged_member_is_swapped_and_counted_as_an_error():
    known = defender()
    found = swapper.fit(known, seed=1)
    flagged = [own[mask] for own, mask in zip(known.members.log_posteriors, found.flagged, strict=True)]
    twins = torch.stack([one[:4] for one in flagged])
    _, wrongly = swapper.error_rates(found, known.members.log_posteriors, twins)
    assert wrongly.tolist() == pytest.approx([4 / 44, 4 / 44])  # 40 members that are not flagged, and 4 twins


@pytest.mark.parametrize("space, near", [("probability", True), ("log", False)])
def test_saturated_answers_are_alike_as_posteriors_and_not_as_log_posteriors(space, near):
    known = defender()
    log_p = torch.full((1, 2, 3), -50.0, dtype=torch.float64)
    log_p[0, :, 0] = 0.0
    log_p[0, 1, 1] = -40.0
    members = Views(log_p.log_softmax(-1), torch.zeros(1, 2, dtype=torch.long))
    one = swapper.fit(Defender(members[[0]], known.reference[[0]], known.seeds[:1]), 0, space=space)
    both = one.keys[0]
    assert (float((both[0] - both[1]).norm()) < 1e-6) is near


@pytest.mark.parametrize("low, lower, alike", [(-60.0, -95.0, False), (-100.5, -150.0, True)])
def test_log_posteriors_below_the_floor_are_alike(low, lower, alike):
    known = defender(c=2, k=1)
    log_p = torch.tensor([[[0.0, low], [0.0, lower]]], dtype=torch.float64)
    members = Views(log_p, torch.zeros(1, 2, dtype=torch.long))
    first, second = swapper.fit(Defender(members, known.reference, known.seeds[:1]), 0).keys[0]
    assert torch.equal(first, second) is alike


def test_a_random_class_is_one_for_each_member():
    known = defender(others_right=0.1)
    found = swapper.fit(known, seed=1, other="random")
    assert torch.equal(swapper.fit(known, seed=1, other="random").other, found.other)
    before = known.members.log_posteriors
    after = found(before)
    places = (
        before.argsort(-1, descending=True).argsort(-1).gather(-1, after.argmax(-1, keepdim=True))[..., 0]
    )
    assert torch.equal(places[found.flagged], found.other[found.flagged])
    assert set(places[found.flagged].tolist()) == {1, 2, 3, 4, 5}
    assert torch.equal(found(before.flip(1)), after.flip(1))  # the place in a batch says nothing
    assert torch.equal(found[[1]](before[1:]), after[1:])


def test_a_network_has_its_own_members(monkeypatch):
    known = defender()
    found = swapper.fit(known, seed=1)
    before = known.members.log_posteriors
    whole = found(before)
    assert torch.equal(found[[1]](before[1:]), whole[1:]) and torch.equal(found[0:1](before[:1]), whole[:1])
    assert torch.equal(found[[0]](before[1:]), before[1:])  # nobody of network 0's is here
    monkeypatch.setattr(swapper, "BLOCK", 70)  # one row at a time
    assert torch.equal(found(before), whole)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"distance": 0}, "distance is 0"),
        ({"space": "logit"}, "space is 'logit'"),
        ({"rate": "exact"}, "rate is 'exact'"),
    ],
)
def test_errors_name_the_value(options, words):
    with pytest.raises(ValueError, match=words):
        swapper.fit(defender(), 0, **options)


def test_the_table_of_errors_has_a_line_for_each_distance_and_space():
    known = defender(k=3)
    moved = known.members.log_posteriors[:2].clone()
    moved[..., 0] += (
        1e-4  # further than the smaller distance in log-posteriors, in posteriors where p < 1/2 not
    )
    members, others = moved, torch.cat([known.reference.log_posteriors[:2], moved[:, :5]], dim=1)
    table = swapper.error_table(known, 0, members, others, (5e-5, 1e-3))
    assert list(table.index) == [(space, d) for space in swapper.SPACES for d in ("5e-05", "0.001")]
    assert list(table.columns) == ["flagged members missed", "others swapped"]
    for (space, distance), line in table.iterrows():
        one = swapper.fit(known, 0, distance=float(distance), space=space)[:2]
        missed, wrongly = swapper.error_rates(one, members, others)
        assert line.tolist() == pytest.approx([missed.nanmean().item(), wrongly.mean().item()])
    missed = table["flagged members missed"]
    assert missed["log"].tolist() == [1, 0]
    assert 0 < missed["probability", "5e-05"] < 1 and missed["probability", "0.001"] == 0
