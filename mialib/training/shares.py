"""A share of the work for each of several processes that execute the same notebook, on one machine or many.

The environment variable `MIALIB_SHARE`, say "2/4", tells a process which share is its own: of each population, every
fourth model from the second on. Those it trains first. Then it helps with the others' models, as long as nobody
holds their turn (`turns`); where turns are not seen it waits for them. So all processes find all models in the store in the end,
and each goes on to the next training. `mialib train --shard 2/4` sets it.
"""

import os
import re
from typing import NamedTuple

VARIABLE = "MIALIB_SHARE"


class Share(NamedTuple):
    """Share `number`, 1 to `of`."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def distance(self, i: int) -> int:
        """How many shares after this one comes that of model i of a population; 0: it is its own."""
        return (i - self.number + 1) % self.of

    def has(self, i: int) -> bool:
        """Whether model i of a population belongs to it."""
        return self.distance(i) == 0

    def ordered(self, models: list[int]) -> list[int]:
        """Its own models first, then those of the next share, and so on."""
        return sorted(models, key=lambda i: (self.distance(i), i))


WHOLE = Share(1, 1)


def own() -> Share:
    """This process's share; the whole where none is set.

    Raises:
        ValueError: the variable holds something else.
    """
    text = os.environ.get(VARIABLE)
    return share(text, VARIABLE) if text else WHOLE


def share(text: str, name: str = "the share") -> Share:
    """The share that a text names, "2/4".

    Raises:
        ValueError: it names none; `name` says where it stood.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    made = Share(int(found[1]), int(found[2])) if found else None
    if made is None or not 1 <= made.number <= made.of:
        raise ValueError(f"{name} is {text!r}; give i/n, share i of n, with i from 1 to n, as 2/4")
    return made
