"""Imitations that are none."""

import torch

from mialib.auditing import shadow_checks


def rights(share: float, n: int = 200) -> torch.Tensor:
    return torch.arange(n) % 100 < round(100 * share)


def test_sizes():
    assert shadow_checks.of_sizes(torch.tensor([95, 105]), 100) == []
    (one,) = shadow_checks.of_sizes(torch.tensor([40, 60]), 100)
    assert one.kind == "warning" and "learned 40 to 60 examples, the networks 100" in one.text
    (same,) = shadow_checks.of_sizes(torch.tensor([50, 50]), 100)
    assert "learned 50 examples" in same.text


MEMBER = torch.arange(200) < 100
THEIRS = torch.stack([MEMBER, ~MEMBER, MEMBER, ~MEMBER])
ALIKE = torch.stack([rights(0.8), rights(0.82), rights(0.78), rights(0.8)])


def test_networks_like_their_imitations_are_passed_over():
    assert shadow_checks.of_accuracies("a", rights(0.83), MEMBER, ALIKE, THEIRS) == []
    assert shadow_checks.of_accuracies("a", rights(0.83), MEMBER & False, ALIKE, THEIRS) == []


def test_a_little_less_like_it_is_a_warning_and_much_less_no_verdict():
    (one,) = shadow_checks.of_accuracies("a", rights(0.68), MEMBER, ALIKE, THEIRS)
    assert (one.kind, one.about, one.network) == ("warning", "shadows", "a")
    assert "right for 68.0% of what it has learned (78.0% to 82.0%); for 68.0% of other examples" in one.text
    (one,) = shadow_checks.of_accuracies("a", rights(0.6), MEMBER, ALIKE, THEIRS)
    assert one.kind == "refused" and "nothing can be learned from them" in one.text


def test_imitations_that_remember_nothing_are_none():
    """They learned something else than what they were given: as right on what they lack as on what they have."""
    network = torch.where(MEMBER, rights(0.98), rights(0.78))
    same = torch.stack([rights(0.88)] * 4)
    (one,) = shadow_checks.of_accuracies("a", network, MEMBER, same, THEIRS)
    assert one.kind == "refused" and "on the data that it is given" in one.text


def test_imitations_that_differ_much_among_themselves_say_little():
    member = torch.arange(200) < 100
    theirs = torch.stack([member, ~member, member, ~member])
    wide = torch.stack([rights(0.5), rights(0.9), rights(0.6), rights(0.95)])
    assert shadow_checks.of_accuracies("a", rights(0.6), member, wide, theirs) == []
