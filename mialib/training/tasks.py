"""Calls made in other processes, wherever joblib is set to, with their results as they finish.

A worker that dies (killed, most often for want of memory) takes only the calls with it that it was making: those are made
again. Calls that kill their workers again and again end in an error.

Large calls (trainings) go to workers elsewhere where there are any, see `elsewhere`; small ones stay on this machine.
"""

import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from joblib import Parallel, delayed
from joblib.externals.loky import BrokenProcessPool

from mialib import places
from mialib.data import sending  # noqa: F401  so that data sets travel once

TRIES = 3  # times in a row that workers may die with no call finished between


class Call(NamedTuple):
    """A call to be made: `name`, by which its result is known, then function and arguments.

    keep: called with the result by a worker that may outlive this process, so that the result is not lost with it.
    """

    name: Hashable
    function: Callable
    args: tuple = ()
    kwargs: dict = {}
    keep: Callable[[Any], None] | None = None


class Runner(Protocol):
    """Makes calls on workers elsewhere: other processes, machines, or a cluster's queue."""

    @property
    def workers(self) -> int:
        """How many calls it makes at a time."""
        ...

    def __call__(self, calls: Iterable[Call]) -> Iterator[tuple[Hashable, Any]]:
        """As `as_finished`."""
        ...


_runner: Runner | None = None  # no context variable: a notebook's next cell would not see it


def send_to(runner: Runner | None) -> None:
    """From here on, make large calls there; None: on this machine, as joblib is set."""
    global _runner
    _runner = runner


def runner() -> Runner | None:
    """Where large calls are made; None: on this machine. Who only counts the work sends none away."""
    return None if places.LEFT_ALONE.get() else _runner


def as_finished(
    calls: Iterable[Call], n_jobs: int | None = None, large: bool = False
) -> Iterator[tuple[Hashable, Any]]:
    """(name, result) of each call, in the order in which they finish.

    Args:
        calls: taken one after the other, a few ahead of the workers.
        n_jobs: 1 makes them here; default: as joblib is set.
        large: the calls are worth a way to another machine.

    Raises:
        RuntimeError: workers died `TRIES` times, and no call finished between; or there are none any more.
            What the calls themselves raise is passed on.
    """
    if large and n_jobs is None and (elsewhere := runner()) is not None:
        yield from elsewhere(calls)
        return
    calls, made, deaths = iter(calls), {}, 0
    lost: list[Call] = []

    def taken() -> Iterator:
        for source in (lost, calls):
            for call in source:
                made[call.name] = call
                yield delayed(_named)(call.name, call.function, *call.args, **call.kwargs)

    while True:
        try:
            for name, result in Parallel(n_jobs=n_jobs, return_as="generator_unordered", mmap_mode="c")(
                taken()
            ):
                del made[name]
                deaths = 0
                yield name, result
            return
        except BrokenProcessPool as error:
            deaths += 1
            if deaths == TRIES:
                raise killed(TRIES, len(made), "fewer processes (n_jobs, or --jobs) need less") from error
            warnings.warn(f"a worker was killed; {len(made)} calls are made again", stacklevel=2)
            lost = list(made.values())


def in_order(calls: Iterable[Call], n_jobs: int | None = None) -> Iterator[Any]:
    """The results alone, in the order of the calls, whose names must be 0, 1, 2, ..."""
    waiting, due = {}, 0
    for number, result in as_finished(calls, n_jobs):
        waiting[number] = result
        while due in waiting:
            yield waiting.pop(due)
            due += 1


def killed(times: int, begun: int, advice: str) -> RuntimeError:
    """The error where workers die again and again."""
    return RuntimeError(
        f"workers were killed {times} times in a row with {begun} calls begun and none finished, most likely for want of "
        f"memory; {advice}. What finished is in the store"
    )


def _named(name: Hashable, function: Callable, *args, **kwargs) -> tuple[Hashable, Any]:
    return name, function(*args, **kwargs)
