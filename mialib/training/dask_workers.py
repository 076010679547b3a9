"""Calls on workers of Dask, on other machines or on this one.

Dask makes the calls of a worker that dies again. When the scheduler or all workers are gone, that is said in one error, and
what finished is in the store. All that a call needs to know of this process comes with it (`parcels`), so a worker may join late.
"""

import logging
import os
import queue
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mialib import places
from mialib.training import parcels, tasks

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT = 30.0  # seconds until a scheduler has answered
PATIENCE = 45.0  # seconds without any worker
_LOOK = 1.0  # seconds between two looks at the workers
_ANSWER = 10.0  # seconds for the scheduler's answer to a short question
_AHEAD = 2  # calls for each worker: one is there when the other is done
_KILLED = 4  # workers that a call may take with it, Dask's default and one
_alone = threading.Lock()  # in a worker


class DaskWorkers:
    """A `tasks.Runner` on workers of Dask.

    Args:
        address: of a scheduler; None: workers of this machine's own, started at the first call, which end with this process.
        workers: how many calls are made at a time; None: as many as there are workers. It must be given without an address.
    """

    def __init__(self, address: str | None, workers: int | None = None):
        if address is None and workers is None:
            raise ValueError("workers is None; without an address it must say how many are to be started")
        self.address, self._wanted = address, workers
        self._client: Client | None = None
        self._count, self._counted, self._seen = 0, 0.0, 0.0

    @property
    def workers(self) -> int:
        """How many calls are made at a time; connects if that was not done."""
        count = self._looked(self.connect())
        return max(1, count if self._wanted is None else min(count, self._wanted))

    def connect(self) -> "Client":
        """The connection, made at the first time and whenever it was lost.

        Raises:
            ConnectionError: nobody answers at the address.
        """
        if self._client is not None and self._client.status == "running":
            return self._client
        from distributed import Client

        if self.address is None:
            self._client = Client(_cluster(self._wanted), set_as_default=False)
        else:
            try:
                self._client = Client(self.address, timeout=CONNECT, set_as_default=False)
            except (OSError, TimeoutError, ValueError) as error:
                raise ConnectionError(
                    f"no Dask scheduler answers at {self.address} within {CONNECT:.0f} s ({error}); start one with `dask "
                    "scheduler` and workers with `dask worker ADDRESS --nthreads 1`, or set MIALIB_ADDRESS to where it is"
                ) from error
        self._seen = time.monotonic()
        return self._client

    def __call__(self, calls: Iterable[tasks.Call]) -> Iterator[tuple[Hashable, Any]]:
        """(name, result) of each call, in the order in which they finish; see `tasks.as_finished`.

        Raises:
            OSError: workers do not see the store.
            RuntimeError: the scheduler is gone, or no worker has been there for `PATIENCE` seconds, or workers were killed
                again and again.
        """
        client = self.connect()
        _check_store(client)
        yield from _Round(self, client).made(iter(calls))

    def room(self, client: "Client") -> int:
        """How many calls may be under way."""
        if time.monotonic() - self._counted > _LOOK:
            self._looked(client)
        ahead = _AHEAD * max(1, self._count)
        return ahead if self._wanted is None or self._count <= self._wanted else self._wanted

    def check(self, client: "Client") -> None:
        """Raises RuntimeError if the scheduler is gone, or all workers have been for a while."""
        if client.status != "running":
            where, self._client = self._where(client), None
            with suppress(Exception):  # it would go on trying
                client.close(timeout=1)
            raise RuntimeError(
                f"the Dask scheduler at {where} is gone. What finished is in the store: start the same again "
                "to go on from there"
            )
        if self._looked(client) == 0 and time.monotonic() - self._seen > PATIENCE:
            raise RuntimeError(
                f"the Dask scheduler at {self._where(client)} has had no worker for {PATIENCE:.0f} s. What finished is in "
                "the store: start workers (`dask worker ADDRESS --nthreads 1`) and the same again to go on from there"
            )

    def _looked(self, client: "Client") -> int:
        """The number of workers now; 0 where nobody says it."""
        self._counted, self._count = time.monotonic(), 0
        with suppress(OSError, TimeoutError):
            self._count = len(client.sync(client.scheduler.ncores, callback_timeout=_ANSWER))
        if self._count:
            self._seen = self._counted
        return self._count

    def _where(self, client: "Client") -> str:
        return self.address or client.scheduler_info().get("address", "this machine")


class _Round:
    """Calls that are made together."""

    def __init__(self, workers: DaskWorkers, client: "Client"):
        self.workers, self.client = workers, client
        self.names: dict[str, tuple[Hashable, list[str]]] = {}  # of calls under way, and their parts, by key
        self.futures: dict[str, Future] = {}
        self.parts: dict[str, Future] = {}  # kept as long as a call under way needs them
        self.needed = parcels.InUse()
        self.done: queue.SimpleQueue[Future] = queue.SimpleQueue()

    def made(self, calls: Iterator[tasks.Call]) -> Iterator[tuple[Hashable, Any]]:
        more = True
        try:
            while True:
                while more and len(self.futures) < self.workers.room(self.client):
                    if self.client.status != "running":
                        self.workers.check(self.client)
                    call = next(calls, None)
                    if call is None:
                        more = False
                    else:
                        self._submit(call)
                if not self.futures:
                    return
                future = self._next()
                result = self._result(future)
                name = self._forget(future.key)
                yield name, result
        finally:  # also where nobody wants the rest
            with suppress(Exception):
                if self.futures:
                    self.client.cancel([*self.futures.values()], force=True)

    def _submit(self, call: tasks.Call) -> None:
        import dask

        from_here = parcels.packed(call)
        key = f"mialib-{uuid.uuid4().hex}"
        # what a task is made of stays with the scheduler, so that what died with a worker is made again
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            for name, array in from_here.parts.items():
                if name not in self.parts:
                    part = self.client.submit(
                        _itself, array, key=f"mialib-part-{uuid.uuid4().hex}", pure=False
                    )
                    self.parts[name] = part
            self.needed.update(from_here.parts.keys())
            futures = [self.parts[name] for name in from_here.parts]
            future = self.client.submit(
                _made, from_here.content, [*from_here.parts], *futures, key=key, pure=False
            )
        self.names[key], self.futures[key] = (call.name, [*from_here.parts]), future
        future.add_done_callback(self.done.put)

    def _next(self) -> "Future":
        while True:
            try:
                return self.done.get(timeout=_LOOK)
            except queue.Empty:
                self.workers.check(self.client)

    def _result(self, future: "Future") -> Any:
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        try:
            return future.result()
        except KilledWorker as error:
            raise tasks.killed(
                _KILLED, len(self.futures), "fewer workers on a machine (MIALIB_WORKERS) need less"
            ) from error
        except (FutureCancelledError, OSError) as error:
            if future.status == "error":  # the call's own
                raise
            self.workers.check(self.client)
            raise RuntimeError(
                f"Dask dropped a call ({error}). What finished is in the store: start the same again to go on from there"
            ) from error

    def _forget(self, key: str) -> Hashable:
        name, parts = self.names.pop(key)
        del self.futures[key]
        for part in self.needed.give_back(parts):
            del self.parts[part]
        return name


def _cluster(workers: int | None):
    """Workers of this machine, one thread each; they end with this process, however it ends."""
    import dask
    from distributed import LocalCluster

    with dask.config.set({"distributed.comm.timeouts.connect": f"{CONNECT:.0f}s"}):
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # a limit would be a share of the machine for each, and kill those that need more
            dashboard_address=None,
            silence_logs=logging.CRITICAL,  # what matters is said by an error
        )


def _itself(array: np.ndarray) -> np.ndarray:
    return array


def _made(content: bytes, names: list[str], *arrays: np.ndarray) -> Any:
    """In a worker: make the call of a parcel.

    One at a time: torch's number of threads and the surroundings are the process's, also where a worker has many threads.
    """
    by_name = dict(zip(names, arrays, strict=True))
    with _alone, warnings.catch_warnings():
        # arrays that came over the network cannot be written to, and nobody does
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return parcels.made(content, by_name.__getitem__)


def _check_store(client: "Client") -> None:
    """Raises OSError if a worker does not see the store of this process."""
    if places.LEFT_ALONE.get():
        return
    root = places.cache_root().absolute()
    probe = root / f".probe-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"mialib")
    except OSError:
        return  # a store that nothing can be written to: nobody can find what is not kept
    try:
        seen = client.run(_sees, str(probe), on_error="return")
    finally:
        probe.unlink(missing_ok=True)
    for address, error in seen.items():
        if isinstance(error, Exception) and not isinstance(error, OSError):  # that kind has just died
            raise RuntimeError(
                f"Dask worker {address} cannot be used: {type(error).__name__}: {error}; it needs the same Python and packages"
            ) from error
    blind = sorted(address for address, sees in seen.items() if sees is False)
    if blind:
        raise OSError(
            f"{len(blind)} of {len(seen)} Dask workers do not see the store {root}: {', '.join(blind[:5])}"
            f"{', ...' if len(blind) > 5 else ''}; give all workers one MIALIB_CACHE, a folder that all machines share"
        )


def _sees(path: str) -> bool:
    return Path(path).exists()
