"""How long work takes on this machine: the best of several tries, since disturbances only make a try longer."""

import time
from collections.abc import Callable, Mapping

Work = Callable[[], object]


def seconds(work: Work, tries: int = 3) -> float:
    """The shortest of `tries` runs.

    Raises:
        ValueError: fewer than one try.
    """
    if tries < 1:
        raise ValueError(f"tries is {tries}; it must be 1 or more")
    taken = []
    for _ in range(tries):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def ratios(works: Mapping[str, Work], base: Work, tries: int = 3) -> dict[str, float]:
    """How long each takes, as a multiple of how long `base` takes, which is timed first."""
    of_base = seconds(base, tries)
    return {name: seconds(work, tries) / of_base for name, work in works.items()}
