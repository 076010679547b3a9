"""Calls made in other processes, wherever joblib is set to, with their results as they finish.

A worker that dies (killed, most often for want of memory) takes only the calls with it that it was making: those are made
again. Calls that kill their workers again and again end in an error.
"""

import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple

from joblib import Parallel, delayed
from joblib.externals.loky import BrokenProcessPool

from mialib.data import sending  # noqa: F401  so that data sets travel once

TRIES = 3  # times in a row that workers may die with no call finished between


class Call(NamedTuple):
    """A call to be made: `name`, by which its result is known, then function and arguments."""

    name: Hashable
    function: Callable
    args: tuple = ()
    kwargs: dict = {}


def as_finished(calls: Iterable[Call], n_jobs: int | None = None) -> Iterator[tuple[Hashable, Any]]:
    """(name, result) of each call, in the order in which they finish.

    Args:
        calls: taken one after the other, a few ahead of the workers.
        n_jobs: 1 makes them here; default: as joblib is set.

    Raises:
        RuntimeError: workers died `TRIES` times, and no call finished between. What the calls themselves raise is passed on.
    """
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
                raise RuntimeError(
                    f"workers were killed {TRIES} times in a row with {len(made)} calls begun and none finished, most "
                    "likely for want of memory; fewer processes (n_jobs, or --jobs) need less. What finished is in the store"
                ) from error
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


def _named(name: Hashable, function: Callable, *args, **kwargs) -> tuple[Hashable, Any]:
    return name, function(*args, **kwargs)
