"""One display at a time, seldom refreshed off a terminal, and moved by what runs inside."""

import io
from types import SimpleNamespace

import pytest

from mialib import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """What a terminal shows; every move is drawn."""
    monkeypatch.setattr(progress, "_TERMINAL", {"mininterval": 0.0, "ncols": 100})
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=Terminal()))
    return progress.sys.stderr


def test_a_bar_shows_what_runs_and_how_far_it_is(terminal):
    with progress.bar(4, "training", "epoch") as shown:
        shown.update(2)
    assert "training:  50%" in terminal.getvalue() and "2/4 epoch" in terminal.getvalue()


def test_work_inside_work_moves_the_outer_bar_and_none_of_its_own(terminal):
    with progress.bar(2, "attacks", "step") as outer:
        for _ in progress.follow(range(2), "networks", "network"):
            with progress.bar(2, "training", "epoch") as inner:
                inner.update()
        outer.update()
    lines = terminal.getvalue().split("\r")
    assert all(not line.strip() or line.startswith("attacks:") for line in lines)
    assert any("networks" in line for line in lines) and any("training" in line for line in lines)
    # half of the first network is an eighth of the whole; all networks are one of two steps, counted once
    shares = [int(line.split(":")[1].split("%")[0]) for line in lines if "%" in line]
    assert 12 in shares and shares == sorted(shares) and shares[-1] == 50


def test_a_bar_that_is_left_by_an_error_is_closed(terminal):
    with pytest.raises(RuntimeError), progress.bar(2, "first", "step"):
        raise RuntimeError
    with progress.bar(2, "second", "step") as shown:
        shown.update()
    assert "second:  50%" in terminal.getvalue()


def test_off_a_terminal_short_work_is_silent_and_refreshes_are_rare(monkeypatch):
    written = []
    stream = io.StringIO()
    monkeypatch.setattr(stream, "write", written.append)
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    for _ in range(200):
        for _ in progress.follow(range(50), "queries", "model"):
            pass
    assert written == []
    assert progress._ELSEWHERE["mininterval"] >= 1  # seconds


def test_a_file_gets_the_display_where_one_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(progress, "_ELSEWHERE", {"mininterval": 0.0})
    monkeypatch.setenv("MIALIB_PROGRESS", str(tmp_path / "progress"))
    with progress.bar(3, "training", "epoch") as shown:
        shown.update(3)
    assert "training: 100%" in (tmp_path / "progress").read_text()
