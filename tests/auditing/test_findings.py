"""The words of findings."""

import dataclasses

import pytest

from mialib.auditing import findings
from mialib.measures import Estimate


def test_numbers_in_words():
    assert findings.percent(Estimate(0.52, 0.451, 0.588)) == "52.0% [45.1%, 58.8%]"
    assert [findings.many(count, "example") for count in (1, 2000)] == ["1 example", "2,000 examples"]
    assert [findings.are(count) for count in (1, 2)] == ["is", "are"]
    assert findings.classes([3]) == "class 3" and findings.classes([1, 2]) == "classes 1, 2"
    assert findings.first(range(9)) == "0, 1, 2, 3, 4, ..."


def test_a_finding_is_about_all_networks_unless_it_names_one():
    found = findings.Finding(findings.NOTE, "size", "Few.")
    assert found.network == ""
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.kind = findings.REFUSED
