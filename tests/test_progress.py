"""One display at a time, that fits its terminal and reads well in a log, moved by what runs inside and in other processes."""

import io
import json
import os
import re
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from mialib import progress

pty = pytest.importorskip("pty", reason="terminals of its own are Unix's")
termios = pytest.importorskip("termios")


class Stream(io.StringIO):
    """A terminal of unknown width, where it is one."""

    def __init__(self, terminal=True):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.fixture
def stderr(monkeypatch):
    """`stderr(stream)` puts a stream there, on which every move is drawn."""

    def put(stream):
        for pace in ("_TERMINAL", "_LOG"):
            monkeypatch.setattr(progress, pace, 0.0)
        monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
        return stream

    return put


@pytest.fixture
def terminal(stderr):
    return stderr(Stream())


@pytest.fixture
def narrow(stderr):
    """What a terminal of 60 columns is sent, by a call."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 60))
    with open(slave, "w", closefd=False) as stream:
        stderr(stream)

        def sent():
            stream.flush()
            os.set_blocking(master, False)
            found = b""
            with suppress(BlockingIOError):  # there is no more
                while True:
                    found += os.read(master, 1_000_000)
            return found.decode()

        yield sent
    os.close(slave)
    os.close(master)


def test_a_bar_shows_what_runs_and_how_far_it_is(terminal):
    with progress.bar(4, "training", "epoch") as shown:
        shown.update(2)
    assert "training:  50%" in terminal.getvalue() and "2/4 epochs" in terminal.getvalue()


def test_work_inside_work_moves_the_outer_bar_and_none_of_its_own(terminal):
    with progress.bar(2, "attacks", "step") as outer:
        for _ in progress.follow(range(2), "networks", "network"):
            with progress.bar(2, "training", "epoch") as inner:
                inner.update()
        outer.update()
    lines = terminal.getvalue().split("\r")
    assert all(not line.strip() or line.startswith("attacks") for line in lines)
    assert any("attacks > networks > training:" in line for line in lines)
    # half of the first network is an eighth of the whole; all networks are one of two steps, counted once
    shares = [int(line.split(":")[1].split("%")[0]) for line in lines if "%" in line]
    assert 12 in shares and shares == sorted(shares) and shares[-1] == 50


def test_a_bar_that_is_left_by_an_error_is_closed(terminal):
    with pytest.raises(RuntimeError), progress.bar(2, "first", "step"):
        raise RuntimeError
    with progress.bar(2, "second", "step") as shown:
        shown.update()
    assert "second:  50%" in terminal.getvalue()


def test_nothing_wraps_in_60_columns_and_what_it_is_and_how_long_it_takes_stay(narrow):
    with progress.bar(30, "attack networks", "fit") as outer:
        for _ in progress.follow(range(2), "queries, copies of candidates with noise", "model"):
            with progress.bar(2, "training in private, at most", "epoch") as inner:
                inner.update()
        outer.update(29)
    with progress.bar(
        2, "a name that is far too long for the line that it is to stand in, whole", "x"
    ) as one:
        one.update()
    lines = [line for line in narrow().split("\r") if line.strip()]
    assert len(lines) >= 6
    for line in lines:
        assert "\n" not in line and len(line) < 60
        assert re.fullmatch(
            r"(attack networks|a name that .*\.\.).*: +\d+%\|.{5,}\| \[\d\d:\d\d<.{1,5}\] *", line
        )
    assert " 97%" in lines[-2] and " 50%" in lines[-1]


def test_a_log_gets_whole_lines(stderr, tmp_path):
    with open(tmp_path / "log", "w") as file:
        stderr(file)
        with progress.bar(2, "attacks", "step") as outer:
            with progress.bar(4, "training", "epoch") as inner:
                inner.update(2)
            outer.update()
    text = (tmp_path / "log").read_text()
    assert "\r" not in text and text.endswith("\n")
    first, *_ = lines = text.splitlines()
    assert re.fullmatch(r"attacks > training: 25 %, 0 of 2 steps, 00:00 elapsed, 00:0\d remaining", first)
    assert lines[-1].startswith("attacks: 50 %, 1 of 2 steps")


def test_a_log_gets_a_line_each_thirty_seconds_of_many_short_bars_too(monkeypatch):
    log, clock = Stream(terminal=False), [time.time()]
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=log))
    monkeypatch.setattr(progress, "time", SimpleNamespace(time=lambda: clock[0]))
    monkeypatch.setattr(progress, "_logged", [clock[0]])
    made = progress.Line.__init__

    def on_the_clock(self, *arguments, **options):
        made(self, *arguments, **options)
        self._time = lambda: clock[0]

    monkeypatch.setattr(progress.Line, "__init__", on_the_clock)
    for _ in range(100):  # 200 seconds
        for _ in progress.follow(range(4), "queries", "model"):
            clock[0] += 0.5
    assert len(log.getvalue().splitlines()) == 6
    assert progress._LOG == 30


def test_a_notebook_is_spared_short_work(monkeypatch):
    stream = type("OutStream", (Stream,), {"__module__": "ipykernel.iostream"})(terminal=False)
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    for _ in range(200):
        for _ in progress.follow(range(50), "queries", "model"):
            pass
    assert stream.getvalue() == ""
    assert progress._NOTEBOOK >= 1  # seconds


# From a kernel to the command


@pytest.fixture
def path(monkeypatch, tmp_path):
    monkeypatch.setattr(progress, "_FILE", 0.0)
    monkeypatch.setenv("MIALIB_PROGRESS", str(tmp_path / "progress"))
    (tmp_path / "progress").touch()
    return tmp_path / "progress"


def test_a_file_gets_the_states_where_one_is_named_and_stderr_nothing(path, terminal):
    with progress.bar(3, "training", "epoch") as shown:
        shown.update(3)
    state, end = map(json.loads, path.read_text().splitlines())
    assert state | {"began": 0} == {"names": ["training"], "n": 3, "total": 3, "unit": "epoch", "began": 0}
    assert end is None and terminal.getvalue() == ""


def test_what_a_kernel_does_is_shown_on_a_terminal_of_60_columns(path, narrow):
    watch = progress.Watch(str(path), "yuan2022_pruning, location", 36)
    watch.cell = 11
    watch.step()
    with progress.bar(2, "attacks", "half") as outer, progress.bar(4, "training", "epoch") as inner:
        inner.update(2)
        outer.update()
        watch.step()
    watch.step()
    watch.close()
    lines = [line.rstrip() for line in narrow().split("\r") if line.strip()]
    assert all(len(line) < 60 and "\n" not in line for line in lines)
    assert lines[0] == lines[-1] == "00:00 cell 12/36"
    assert re.fullmatch(r"00:00 cell 12/36, attacks.*:  50%\|.{5,}\| \[00:00<00:00\]", lines[1])


def test_what_a_kernel_does_is_a_line_of_a_log(path, stderr, tmp_path):
    with open(tmp_path / "log", "w") as log:
        stderr(log)
        with (
            progress.watched(str(path), "yuan2022_pruning, location", 36) as watch,
            progress.bar(20, "networks", "network") as shown,
        ):
            watch.cell = 11
            shown.update(9)
            time.sleep(1)
    text = (tmp_path / "log").read_text()
    assert "\r" not in text
    assert re.search(
        r"^yuan2022_pruning, location: cell 12 of 36, 00:0\d since the start, "
        r"networks: 45 %, 9 of 20 networks, 00:0\d elapsed, 00:0\d remaining$",
        text,
        re.MULTILINE,
    )


def test_half_a_state_is_read_when_it_is_whole(path, terminal):
    watch = progress.Watch(str(path), "small, first", 3)
    state = json.dumps({"names": ["training"], "n": 1, "total": 2, "unit": "epoch", "began": time.time()})
    with open(path, "a", buffering=1) as file:
        for part in (state[:20], state[20:], "\n"):
            file.write(part)
            file.flush()
            watch.step()
    watch.close()
    assert "training:  50%" in terminal.getvalue()
