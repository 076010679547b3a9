"""Imitations that are none."""

import torch

from mialib.auditing import shadow_checks
from tests.auditing.conftest import kinds


def rights(share: float, n: int = 200) -> torch.Tensor:
    return torch.arange(n) % 100 < round(100 * share)


def test_sizes():
    assert shadow_checks.of_sizes(torch.tensor([95, 105]), 100) == []
    (one,) = shadow_checks.of_sizes(torch.tensor([40, 60]), 100)
    assert one.kind == "warning" and "learned 40 to 60 examples, the networks 100" in one.text
    (same,) = shadow_checks.of_sizes(torch.tensor([50, 50]), 100)
    assert "learned 50 examples" in same.text


def test_accuracies():
    member = torch.arange(200) < 100
    theirs = torch.stack([member, ~member, member, ~member])
    alike = torch.stack([rights(0.8), rights(0.82), rights(0.78), rights(0.8)])
    assert shadow_checks.of_accuracies("a", rights(0.83), member, alike, theirs) == []
    found = shadow_checks.of_accuracies("a", rights(0.6), member, alike, theirs)
    assert kinds(found) == [("warning", "shadows")] * 2 and all(one.network == "a" for one in found)
    assert "right for 60.0% of what it has learned, its imitations for 78.0% to 82.0%" in found[0].text
    assert "recipe that the network was really trained by" in found[0].text


def test_imitations_that_differ_much_among_themselves_say_little():
    member = torch.arange(200) < 100
    theirs = torch.stack([member, ~member, member, ~member])
    wide = torch.stack([rights(0.5), rights(0.9), rights(0.6), rights(0.95)])
    assert shadow_checks.of_accuracies("a", rights(0.6), member, wide, theirs) == []
