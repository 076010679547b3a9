"""Several runs side by side: each is a `mialib run` of its own, so that one that fails leaves the others going.

What they say is kept apart. The lines of their stderr come at once and begin with the run's name; what they print to stdout
is printed whole when they end. A table at the end tells what has become of each.
"""

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

# the command, which ends when the sweep is gone, whoever ended that
_CODE = """\
import sys
from mialib.training import workers
workers.end_with(int(sys.argv.pop(1)))
from mialib import cli
sys.exit(cli.main())
"""
_PACE = 0.2  # seconds between two looks at what has ended
_PATIENCE = 10.0  # seconds for what a run started to let go of its pipes
_STOPPED = tuple(128 + number for number in (1, 2, 15))  # by SIGHUP, SIGINT or SIGTERM
_OUTCOMES = {None: "not started", 0: "done", 2: "refused"} | dict.fromkeys(_STOPPED, "stopped")
_NAMES = 53  # columns of the table's first column, at most; with the others these are 100
_SPEAKING = threading.Lock()  # a line is written whole


@dataclass(frozen=True, eq=False)
class Run:
    """One run: its parameter file, its notebook, all its parameters (the notebook's defaults too), where its results go."""

    file: Path
    notebook: str
    parameters: Mapping[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.notebook}/{self.parameters['run']}"

    @property
    def workers(self) -> int:
        """The processes that it trains in by itself."""
        return self.parameters.get("n_jobs", 1)


@dataclass(frozen=True)
class Ended:
    """What has become of a run: the exit status of its command, None if it was not started, how long it took, and where its
    executed notebook lies, if it wrote one."""

    run: Run
    status: int | None = None
    minutes: float | None = None
    executed: Path | None = None

    @property
    def outcome(self) -> str:
        return _OUTCOMES.get(self.status, "failed")


def sweep(
    runs: Sequence[Run], jobs: int | None = None, at_once: int | None = None, options: Sequence[str] = ()
) -> int:
    """Execute the runs, print what each says and a table of all; return the highest exit status.

    Whatever ends this, say a signal, ends the runs too, and waits for them.

    Args:
        runs: at least one; they write into different folders.
        jobs: training processes of all runs together, at least 1; default: the most that one of the runs has by itself, and
            none gets more than that.
        at_once: runs side by side, at least 1; default: all, but not more than there are training processes. If there
            are GPUs and a run may use them, as many as GPUs, but not more than `jobs`.
        options: further ones of each command.
    """
    devices = [] if at_once == 1 else gpus(runs)
    total = jobs or max(run.workers for run in runs)
    most = min(len(devices), jobs or len(devices)) if devices else total
    at_once = min(len(runs), at_once or most)
    share = max(total // at_once, 1)
    print(
        f"{len(runs)} runs, {at_once} at once, each in at most {share} {'process' if share == 1 else 'processes'}"
    )
    waiting, running, ended = list(runs), [], {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                device = min(devices, key=[one.device for one in running].count, default=None)
                workers = None if jobs is None and waiting[0].workers <= share else share
                running.append(_Child(waiting.pop(0), workers, options, device))
            time.sleep(_PACE)
            for child in [one for one in running if one.process.poll() is not None]:
                ended[child.run] = one = child.end()
                running.remove(child)
                print(f"\n{one.run.name}: {one.outcome}\n{child.printed()}", flush=True)
    except BaseException as error:
        for child in running:
            child.process.terminate()  # SIGTERM, since one that is still starting has a traceback for SIGINT
        ended |= {child.run: child.end() for child in running}
        if isinstance(error, KeyboardInterrupt):
            with suppress(OSError):  # the terminal is gone
                print("\n" + table([ended.get(run, Ended(run)) for run in runs]), flush=True)
        raise
    found = [ended[run] for run in runs]
    print("\n" + table(found))
    if again := [one.run for one in found if one.status]:
        given = [] if jobs is None else ["--jobs", str(jobs)]
        command = ["mialib", "run", *(str(run.file) for run in again), "--at-once", "1", *given, *options]
        print(f"\nThese again, one at a time: {shlex.join(command)}")
    return max(one.status for one in found)


def gpus(runs: Sequence[Run]) -> list[str]:
    """The names of the GPUs, as CUDA_VISIBLE_DEVICES takes them; none if no run may use one."""
    if all(run.parameters.get("device", "cpu") == "cpu" for run in runs):
        return []
    import torch  # only now: it takes seconds

    if not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return [name.strip() for name in named.split(",")][:count]


def table(found: Sequence[Ended]) -> str:
    """A line for each run, in at most 100 columns, and under one that failed the path of its executed notebook."""
    wide = min(max(len(one.run.name) for one in found), _NAMES)
    row = f"{{:{wide}}}  {{:11}}  {{:>7}}  {{:>16}}  {{:>5}}"
    lines = [row.format("run", "outcome", "minutes", "networks trained", "found")]
    for one in found:
        name = one.run.name if len(one.run.name) <= wide else one.run.name[: wide - 3] + "..."
        minutes = "" if one.minutes is None else f"{one.minutes:.1f}"
        lines.append(row.format(name, one.outcome, minutes, *_networks(one)).rstrip())
        if one.outcome == "failed" and one.executed:
            lines.append(f"  executed so far: {one.executed}")
    return "\n".join(lines)


def _networks(one: Ended) -> list[str]:
    """How many networks a run trained and found in the store, where it says so."""
    if one.status != 0:  # what lies there may be of an earlier run
        return ["", ""]
    provenance = json.loads((one.run.folder / "metrics.json").read_bytes())["provenance"]
    counts = [provenance.get(name) for name in ("trained", "found")]
    return ["" if count is None else str(count) for count in counts]


def _written(path: Path) -> int | None:
    """When a file was last written, by the clock of where it lies; None if there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


class _Child:
    """The command of one run at work.

    It has a session of its own: Ctrl-C in the terminal reaches the sweep alone, which passes it on once.

    Args:
        workers: its training processes, instead of those of its file; device: the GPU that it sees, None: all.
    """

    def __init__(self, run: Run, workers: int | None, options: Sequence[str], device: str | None):
        self.run, self.device, self._began = run, device, time.monotonic()
        self._executed = run.folder / "executed.ipynb"
        self._before = _written(self._executed)
        instead = [] if workers is None else ["--jobs", str(workers)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CODE, str(os.getpid()), "run", str(run.file), *instead, *options],
            env=os.environ | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._lines: list[str] = []
        readers = ((self._keep, self.process.stdout), (self._pass_on, self.process.stderr))
        self._readers = [threading.Thread(target=read, args=(file,), daemon=True) for read, file in readers]
        for reader in self._readers:
            reader.start()

    def end(self) -> Ended:
        """Wait for its end, and until all that it said is read."""
        status = self.process.wait()
        minutes = (time.monotonic() - self._began) / 60
        for reader in self._readers:
            reader.join(_PATIENCE)  # something else may still hold the other end of the pipe
        executed = None if _written(self._executed) in (None, self._before) else self._executed
        return Ended(self.run, 128 - status if status < 0 else status, minutes, executed)

    def printed(self) -> str:
        return "".join(self._lines)

    def _keep(self, file: IO[str]) -> None:
        self._lines.extend(file)

    def _pass_on(self, file: IO[str]) -> None:
        title = f"{self.run.notebook}, {self.run.parameters['run']}"  # so begin the lines of `progress`
        for line in file:
            if not line.strip():
                continue
            text = line.rstrip("\n")
            said = text if text.startswith(title) else f"{self.run.name}: {text}"
            with (
                _SPEAKING,
                suppress(OSError, ValueError),
            ):  # nobody reads it; the pipe has to be emptied all the same
                sys.stderr.write(said + "\n")
                sys.stderr.flush()
