"""Times are those of the fastest try, and ratios are of those."""

import pytest

from mialib.measures import timing


@pytest.fixture
def clock(monkeypatch):
    """A clock that work moves on by hand."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def working(*durations):
        left = iter(durations)

        def work():
            now[0] += next(left)

        return work

    return working


def test_the_shortest_of_the_tries_counts(clock):
    assert timing.seconds(clock(3.0, 1.0, 2.0)) == timing.seconds(clock(3.0, 2.0, 1.0)) == 1.0
    assert timing.seconds(clock(3.0, 1.0, 2.0), tries=1) == 3.0
    with pytest.raises(ValueError, match="tries is 0"):
        timing.seconds(clock(), tries=0)


def test_ratios_are_multiples_of_the_base(clock):
    found = timing.ratios({"slow": clock(9, 8, 12), "quick": clock(1, 2, 1)}, clock(4, 5, 4))
    assert found == {"slow": 2.0, "quick": 0.25}
    assert timing.ratios({"third": clock(9, 8, 6)}, clock(4, 5, 2)) == {"third": 3.0}
    assert timing.ratios({"once": clock(9)}, clock(3), tries=1) == {"once": 3.0}
