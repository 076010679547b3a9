"""Several runs side by side: they overlap, share the workers, survive each other's failure, and end with their sweep.

Most tests take a script in the place of `mialib run`, written where a run has its parameter file; the last ones start the command.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import torch

from mialib import REPO_ROOT, sweeping
from mialib.sweeping import Ended, Run
from tests import small_repository
from tests.test_kills import COMMAND, those_of

linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")
SCRIPT = "import sys; file, options = sys.argv[3], sys.argv[4:]; exec(open(file).read())"
RESULTS = """
from pathlib import Path
folder = Path(file).with_suffix("")
folder.mkdir()
(folder / "metrics.json").write_text('{"provenance": {"trained": 12, "found": 0}}')
"""
MEETS = """
import pathlib, time
place = pathlib.Path(file).parent
(place / "NAME is here").touch()
until = time.monotonic() + 60
while len(list(place.glob("* is here"))) < 2:
    assert time.monotonic() < until, "nobody came"
    time.sleep(0.02)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(name, script, **parameters)` makes one whose command is a script; it has results, unless they are False."""
    monkeypatch.setattr(sweeping, "_CODE", SCRIPT)

    def make(name, script="", results=True, **parameters):
        file = tmp_path / f"{name}.py"
        file.write_text((RESULTS if results else "") + script)
        return Run(file, "toy", {"run": name} | parameters, tmp_path / name)

    return make


def test_runs_overlap(run, capsys):
    runs = [run(name, MEETS.replace("NAME", name)) for name in ("one", "other")]
    assert sweeping.sweep(runs, at_once=2) == 0
    assert capsys.readouterr().err == ""


def test_one_at_once_keeps_the_order(run, tmp_path):
    log = f"\nfor word in 'begins', 'ends':\n    open({str(tmp_path / 'log')!r}, 'a').write('NAME ' + word + ', ')"
    runs = [run(name, log.replace("NAME", name)) for name in "cab"]
    assert sweeping.sweep(runs, jobs=8, at_once=1) == 0
    said = (tmp_path / "log").read_text()
    assert said == "c begins, c ends, a begins, a ends, b begins, b ends, "


@pytest.mark.parametrize(
    ("jobs", "at_once", "own", "together", "given"),
    [
        (4, None, [2, 2], 2, ["--jobs 2", "--jobs 2"]),
        (5, None, [2, 2], 2, ["--jobs 2", "--jobs 2"]),
        (2, None, [2, 2, 2], 2, ["--jobs 1"] * 3),
        (1, None, [2, 2], 1, ["--jobs 1"] * 2),
        (1, 2, [2, 2], 2, ["--jobs 1"] * 2),  # each has one at least
        (4, 1, [2, 2], 1, ["--jobs 4"] * 2),
        (9, 5, [2, 2], 2, ["--jobs 4"] * 2),  # two are at once, whatever is asked for
        (None, None, [2, 2], 2, ["--jobs 1"] * 2),
        (None, None, [1, 4], 2, ["", "--jobs 2"]),  # none has more than it asks for
        (None, None, [None, 2], 2, ["", "--jobs 1"]),
        (None, 1, [1, 4], 1, ["", ""]),
    ],
)
def test_the_workers_are_divided(run, capsys, jobs, at_once, own, together, given):
    runs = [
        run(str(i), "print('got', *options)", **({} if one is None else {"n_jobs": one}))
        for i, one in enumerate(own)
    ]
    assert sweeping.sweep(runs, jobs, at_once, ["--keep"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{len(own)} runs, {together} at once, ")
    found = {line: after for line, after in zip(said, said[1:], strict=False) if line.startswith("toy/")}
    got = [found[f"toy/{i}: done"] for i in range(len(own))]
    assert got == [f"got {one} --keep".replace("  ", " ") for one in given]


def test_a_failure_leaves_the_others_and_tells_how_to_run_it_again(run, capsys, tmp_path):
    failing = "import os\nos.mkdir(file[:-3]); open(file[:-3] + '/executed.ipynb', 'w').close()\nsys.exit(1)"
    runs = [
        run("bad", failing, results=False),
        run("refused", "sys.exit(2)"),  # whose results are those of an earlier run
        run("died", "import os; os.kill(os.getpid(), 9)", results=False),  # what lies there is older
        run("ended", "import os; os.kill(os.getpid(), 15)", results=False),
        run("good", "print('a headline\\nof two lines')"),
    ]
    (tmp_path / "died").mkdir()
    (tmp_path / "died" / "executed.ipynb").touch()
    assert sweeping.sweep(runs, jobs=2, options=["--keep"]) == 143  # of the worst: 128 + SIGTERM
    said = capsys.readouterr().out
    assert "\ntoy/good: done\na headline\nof two lines\n\n" in said
    *lines, empty, last = said[said.rindex("run  ") :].splitlines()
    assert [line.split() for line in lines if not line.startswith("  ")] == [
        ["run", "outcome", "minutes", "networks", "trained", "found"],
        ["toy/bad", "failed", "0.0"],
        ["toy/refused", "refused", "0.0"],
        ["toy/died", "failed", "0.0"],
        ["toy/ended", "stopped", "0.0"],
        ["toy/good", "done", "0.0", "12", "0"],
    ]
    assert [line for line in lines if line.startswith("  ")] == [
        f"  executed so far: {tmp_path / 'bad' / 'executed.ipynb'}"
    ]
    again = " ".join(str(tmp_path / f"{name}.py") for name in ("bad", "refused", "died", "ended"))
    assert (empty, last) == (
        "",
        f"These again, one at a time: mialib run {again} --at-once 1 --jobs 2 --keep",
    )


def test_where_all_is_well_the_table_is_the_end(run, capsys):
    assert sweeping.sweep([run("one"), run("two")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["toy/two", "done", "0.0", "12", "0"]


def test_the_table_has_at_most_100_columns_and_no_nan(tmp_path):
    ended = [
        Ended(Run(Path(), "n" * 30, {"run": "r" * length}, tmp_path), *how)
        for length, how in ((9, ()), (22, (1, 12345.6)), (23, (130, 0.01)))
    ]
    (tmp_path / "metrics.json").write_text(json.dumps({"provenance": {}}))
    ended.append(Ended(Run(Path(), "toy", {"run": "silent"}, tmp_path), 0, 1.25))  # tells of no networks
    lines = sweeping.table(ended).splitlines()
    assert max(map(len, lines)) == 100
    assert [line.split()[1:] for line in lines[1:]] == [
        ["not", "started"],
        ["failed", "12345.6"],
        ["stopped", "0.0"],
        ["done", "1.2"],
    ]
    assert lines[2].startswith(f"{'n' * 30}/{'r' * 22} ")
    assert lines[3].startswith(f"{'n' * 30}/{'r' * 19}... ")
    assert lines[0].index("minutes") + len("minutes") == lines[2].index("12345.6") + len("12345.6")


def test_lines_of_stderr_begin_with_the_run(run, capsys):
    says = "print('toy, one: cell 2 of 4', 'a warning', '', 'toy, other: x', sep='\\n', file=sys.stderr)"
    assert sweeping.sweep([run("one", says), run("two")]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "toy, one: cell 2 of 4",
        "toy/one: a warning",
        "toy/one: toy, other: x",
    ]


def test_lines_of_stderr_come_at_once(run, capsys, tmp_path, monkeypatch):
    """The run ends only when its line has come."""

    class Hears:
        def write(self, text):
            (tmp_path / "heard").write_text(text)

        def flush(self):
            pass

    waits = "import pathlib, time\nprint('hello', file=sys.stderr)\nheard, until = pathlib.Path(file).with_name('heard'), time.monotonic() + 60\n"
    waits += "while not heard.exists():\n    assert time.monotonic() < until\n    time.sleep(0.02)"
    monkeypatch.setattr(sys, "stderr", Hears())
    assert sweeping.sweep([run("one", waits), run("two")]) == 0
    assert (tmp_path / "heard").read_text() == "toy/one: hello\n"


def test_side_by_side_each_has_a_gpu_of_its_own(run, capsys, monkeypatch):
    monkeypatch.setattr(sweeping, "gpus", lambda runs: ["3", "5"])
    sees = "import os; print('sees', os.environ.get('CUDA_VISIBLE_DEVICES'))"
    runs = [run(name, MEETS.replace("NAME", name) + sees, n_jobs=1) for name in ("one", "two")]
    assert sweeping.sweep(runs) == 0  # two at once, though each has one worker
    assert {line for line in capsys.readouterr().out.splitlines() if "sees" in line} == {"sees 3", "sees 5"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert sweeping.sweep([run(name, sees, results=False) for name in ("one", "two")], at_once=1) == 0
    said = capsys.readouterr().out
    assert said.count("sees None") == 2 and said.startswith("2 runs, 1 at once, ")
    assert sweeping.sweep([run(name, sees, results=False) for name in ("one", "two")], jobs=1) == 0
    assert capsys.readouterr().out.startswith("2 runs, 1 at once, ")  # as many processes as are given


@pytest.mark.parametrize(
    ("devices", "visible", "found"),
    [
        (["cpu", "cpu"], None, []),
        ([None], None, []),  # the notebook has no such parameter
        (["cpu", "auto"], None, ["0", "1", "2"]),
        (["cuda"], "4, 1,GPU-5", ["4", "1", "GPU-5"]),
        (["cuda"], "4,1,2,-1,3", ["4", "1", "2"]),  # CUDA reads as far as it understands
    ],
)
def test_gpus_are_named_as_this_process_sees_them(monkeypatch, devices, visible, found):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: asked.append("torch") or True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    runs = [
        Run(Path(), "toy", {"run": "one"} | ({} if one is None else {"device": one}), Path())
        for one in devices
    ]
    assert sweeping.gpus(runs) == found and bool(asked) == bool(found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert sweeping.gpus(runs) == []


def test_what_is_ignored_stays_so_and_the_terminal_speaks_to_the_sweep_alone(run, capsys):
    asks = "import os, signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, os.getsid(0) == os.getpid())"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        assert sweeping.sweep([run("one", asks), run("two")]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert "\nTrue True\n" in capsys.readouterr().out


def test_no_run_outlives_a_sweep_whose_reader_has_seen_enough(run, tmp_path, monkeypatch):
    waits = "import os, time\nopen(file[:-3] + str(os.getpid()), 'w').close()\ntime.sleep(30)\nopen(file + ' is done', 'w').close()"
    comes = "import pathlib, time\nwhile not list(pathlib.Path(file).parent.glob('waits[0-9]*')): time.sleep(0.02)"
    runs = [run("waits", waits, results=False), run("quick", comes, results=False)]

    class Gone:
        def write(self, text):
            if "quick" in text:
                raise BrokenPipeError

        def flush(self):
            pass

    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(BrokenPipeError):
        sweeping.sweep(runs, at_once=2)
    assert not list(tmp_path.glob("* is done"))
    (place,) = tmp_path.glob("waits[0-9]*")
    with pytest.raises(ProcessLookupError):
        os.kill(int(place.name.removeprefix("waits")), 0)


# The command itself


@pytest.fixture
def command(tmp_path):
    """`mialib run` in a repository of one small notebook, with a copy of the package: `command(epochs, *options)` starts it."""
    write = small_repository.made(tmp_path)
    leave = shutil.ignore_patterns("repository")
    shutil.copytree(REPO_ROOT / "mialib", tmp_path / "mialib", ignore=leave)
    started = []

    def start(epochs, *options):
        files = [str(write(f"epochs: {value}", name).relative_to(tmp_path)) for name, value in epochs.items()]
        mark = uuid.uuid4().hex
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "run", *files, *options],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path), "MARK": mark, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, mark

    yield start
    for process in started:
        process.kill()
        process.communicate()


def outcomes(said):
    """Run -> outcome and counts, of the table in what a sweep printed."""
    lines = said[said.rindex("run   ") :].split("\n\n")[0].splitlines()[1:]
    return {line.split()[0]: line.split()[1:] for line in lines if not line.startswith("  ")}


def test_a_sweep_leaves_the_results_of_what_did_not_fail(command):
    process, _ = command({"bad": 7, "good": 6}, "--at-once", "2")
    out, error = process.communicate(timeout=300)
    assert process.returncode == 1, error
    folder = Path(os.environ["MIALIB_OUTPUTS"]) / "small"
    assert (folder / "good" / "metrics.json").exists() and not (folder / "bad" / "metrics.json").exists()
    found = outcomes(out)
    assert found["small/bad"][0] == "failed" and found["small/good"][0::2] == ["done", "6"]
    assert found["small/good"][3] == "1" and len(found) == 2
    assert f"executed so far: {folder / 'bad' / 'executed.ipynb'}" in out
    assert "small/good: done\n" in out and "reproduced" in out  # the headline table
    assert "small/bad: mialib: cell " in error and "RuntimeError: seven is too many" in error
    assert out.endswith("mialib run params/small/bad.yaml --at-once 1\n")


@linux
@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("SIGTERM", 143),
        pytest.param("SIGINT", 130, marks=pytest.mark.slow),
        pytest.param("SIGHUP", 129, marks=pytest.mark.slow),
        pytest.param("SIGKILL", -9, marks=pytest.mark.slow),
    ],
)
def test_nothing_is_left_of_a_sweep_that_is_stopped(command, name, status):
    process, mark = command({"one": 9, "two": 9, "three": 6}, "--at-once", "2")
    results = Path(os.environ["MIALIB_OUTPUTS"]) / "small"
    until = time.monotonic() + 300
    while len(list(results.glob("*/waiting"))) < 2:
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        time.sleep(0.1)
    assert sorted(those_of(mark).values()).count("kernel") == 2  # without them the test could not fail
    process.send_signal(getattr(signal, name))
    out, error = process.communicate(timeout=60)
    until = time.monotonic() + 40  # ten seconds, and what a busy machine adds
    while (left := those_of(mark)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left
    assert process.returncode == status
    assert not [
        line for line in error.splitlines() if line.startswith("Traceback")
    ]  # a kernel may show its own
    if name != "SIGKILL":
        assert error.splitlines()[-1] == "mialib: stopped; start again to go on"
        found = outcomes(out)
        assert [found[f"small/{one}"][0] for one in ("one", "two", "three")] == ["stopped", "stopped", "not"]
