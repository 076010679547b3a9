"""Calls as jobs of SLURM, in arrays, by submitit; their files lie in the store, which all machines share.

A job may outlive the process that asked for it, so it puts what it made into the store itself (`tasks.Call.keep`). A job
that was killed, or that failed with its machine, is submitted again.
"""

import itertools
import os
import shutil
import socket
import tempfile
import time
import warnings
from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mialib import places
from mialib.training import parcels, tasks

if TYPE_CHECKING:
    from submitit import Executor, Job

FOLDER = ".slurm"  # in the store
WEEK = 7 * 24 * 3600.0  # seconds; what is older was left by a process that is gone
_ARRAY = 1000  # jobs in an array; SLURM's own limit is 1,001 unless a cluster sets another
_TIMEOUT = 240  # minutes that a call may take, where the address says nothing
_GRACE = 15.0  # seconds that a shared disk may take to show the result of a job that is over
_PREEMPTED = (
    300.0  # seconds after which a job that was preempted counts as lost; most are started again by SLURM
)
_STATES = 10.0  # seconds between two questions to SLURM about its jobs; results are seen on the disk


class _Job(NamedTuple):
    call: tasks.Call
    job: "Job"
    parts: list[str]


class SlurmArrays:
    """A `tasks.Runner` on jobs of SLURM.

    Args:
        workers: how many jobs of an array run at a time.
        cluster: "slurm", or "local": processes of this machine, as a trial.
        options: of jobs, see `elsewhere.slurm_options`.
    """

    def __init__(self, workers: int, cluster: str = "slurm", options: dict[str, Any] | None = None):
        self._workers, self._cluster, self._options = workers, cluster, options or {}

    @property
    def workers(self) -> int:
        return self._workers

    def __call__(self, calls: Iterable[tasks.Call]) -> Iterator[tuple[Hashable, Any]]:
        """(name, result) of each call, in the order in which they finish; see `tasks.as_finished`.

        Raises:
            OSError: the store, which holds the jobs' files, cannot be written to.
            RuntimeError: this is no machine of SLURM; jobs were killed `TRIES` times with none finished between; one took
                longer than it may.
        """
        calls = iter(calls)
        if (first := next(calls, None)) is None:
            return
        root = places.cache_root().absolute() / FOLDER
        places.writable(root, "jobs need a folder that all machines share: set MIALIB_CACHE to one")
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        mark = f"{socket.gethostname()}-{os.getpid()}-"
        folder = Path(tempfile.mkdtemp(prefix=mark, dir=root))
        try:
            yield from _Round(folder, self._executor(folder), self).made(itertools.chain([first], calls))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def local(self) -> bool:
        return self._cluster == "local"

    @property
    def minutes(self) -> int:
        """That a call may take."""
        return self._options.get("timeout_min", _TIMEOUT)

    def _executor(self, folder: Path) -> "Executor":
        import submitit

        executor = submitit.AutoExecutor(folder, cluster=self._cluster)
        own = {} if self.local else {"slurm_array_parallelism": self._workers}
        executor.update_parameters(**{"name": "mialib", "timeout_min": self.minutes} | own | self._options)
        return executor


class _Round:
    """Calls that are made together."""

    def __init__(self, folder: Path, executor: "Executor", arrays: SlurmArrays):
        self.folder, self.executor, self.arrays = folder, executor, arrays
        self.parts = folder / "parts"
        self.parts.mkdir()
        self.jobs: dict[str, _Job] = {}  # by their ids
        self.needed = parcels.InUse()
        self.over: dict[str, float] = {}  # jobs that are over without a result, since when
        self.looked = 0.0

    def made(self, calls: Iterator[tasks.Call]) -> Iterator[tuple[Hashable, Any]]:
        deaths = 0
        lost: list[tasks.Call] = []
        try:
            while True:
                self._submit(lost, calls)
                if not self.jobs:
                    return
                for one in self._finished():
                    result = self._result(one)
                    deaths = 0
                    yield one.call.name, result
                if lost := self._lost():
                    deaths += 1
                    if deaths == tasks.TRIES:
                        raise tasks.killed(deaths, len(lost), "ask for more (MIALIB_ADDRESS=slurm:mem_gb=16)")
                    warnings.warn(f"jobs were killed; {len(lost)} calls are made again", stacklevel=2)
                elif self.jobs:
                    time.sleep(0.2 if self.arrays.local else 2.0)
        finally:  # also where nobody wants the rest
            for one in self.jobs.values():
                with suppress(Exception):
                    one.job.cancel(check=False)

    def _submit(self, lost: list[tasks.Call], calls: Iterator[tasks.Call]) -> None:
        """A new array once the earlier ones need no more workers than there are."""
        if self.arrays.local:  # each job begins at once
            room = self.arrays.workers - len(self.jobs)
        else:
            room = _ARRAY - len(self.jobs) if lost or len(self.jobs) < self.arrays.workers else 0
        calls = list(itertools.islice(itertools.chain(lost, calls), max(room, len(lost))))
        if not calls:
            return
        todo, parts = [], []
        for call in calls:
            parcel = parcels.packed(call)
            for name, array in parcel.parts.items():
                if not (path := self.parts / f"{name}.npy").exists():
                    np.save(path, array, allow_pickle=False)
            self.needed.update(parcel.parts.keys())
            parts.append([*parcel.parts])
            todo.append(partial(_made, parcel.content, str(self.parts)))
        for call, job, own in zip(calls, self.executor.submit_array(todo), parts, strict=True):
            self.jobs[job.job_id] = _Job(call, job, own)

    def _finished(self) -> list[_Job]:
        names = set(os.listdir(self.folder))
        found = [one for one in self.jobs.values() if one.job.paths.result_pickle.name in names]
        for one in found:
            self._forget(one)
        return found

    def _lost(self) -> list[tasks.Call]:
        """Calls of jobs that are over and left no result."""
        now, local = time.monotonic(), self.arrays.local
        if not local and now - self.looked < _STATES:
            return []
        self.looked = now
        lost = []
        for name, one in list(self.jobs.items()):
            preempted = not local and one.job.state.startswith("PREEMPTED")
            if not (preempted or one.job.done()):
                self.over.pop(name, None)
                continue
            since = self.over.setdefault(name, now)
            grace = _PREEMPTED if preempted else 2.0 if local else _GRACE
            if now - since < grace or one.job.paths.result_pickle.exists():
                continue
            if preempted:
                with suppress(Exception):
                    one.job.cancel(check=False)
            self._forget(one)
            lost.append(one.call)
        return lost

    def _forget(self, one: _Job) -> None:
        del self.jobs[one.job.job_id]
        self.over.pop(one.job.job_id, None)
        for part in self.needed.give_back(one.parts):
            (self.parts / f"{part}.npy").unlink(missing_ok=True)

    def _result(self, one: _Job) -> Any:
        outcome, result = one.job._get_outcome_and_result()  # its public way asks SLURM first, for each job
        for path in self.folder.glob(f"{one.job.job_id}_*"):
            path.unlink(missing_ok=True)
        if outcome == "success":
            outcome, result = result
        if outcome == "done":
            return result
        if outcome == "raised":
            raise result
        if "UncompletedJobError" in result:
            minutes = self.arrays.minutes
            raise RuntimeError(
                f"call {one.call.name} took longer than its {minutes} minutes; give more: "
                f"MIALIB_ADDRESS=slurm:timeout_min={2 * minutes}. What finished is in the store"
            )
        raise RuntimeError(f"call {one.call.name} failed in its job:\n{result}")


def _made(content: bytes, parts: str) -> tuple[str, Any]:
    """In a job: make the call of a parcel; ("done", its result) or ("raised", what it raised)."""
    from submitit.core.utils import UncompletedJobError

    def part(name: str) -> np.ndarray:
        return np.load(Path(parts) / f"{name}.npy", mmap_mode="c", allow_pickle=False)

    try:
        return "done", parcels.made(content, part, keeps=True)
    except UncompletedJobError:  # its time is over
        raise
    except Exception as error:
        return "raised", error


def _sweep(root: Path) -> None:
    """Remove what processes that are long gone left."""
    for folder in root.iterdir():
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > WEEK:
                shutil.rmtree(folder, ignore_errors=True)
