"""Which layers can do with fewer bits: a greedy search that puts resistance to attacks first.

Our reading of "resistance is the main objective" in Famili & Lao 2023 (doi:10.3390/s23187722), whose algorithm is not
available to us: a **reconstruction**. It starts from the widest allocation. Each round tries the next narrower width of
every layer and keeps the step that lowers the leak most for its accuracy, until every further step would cost too much
accuracy in all. The answer is the allocation on this path that leaked least.

The caller measures how much an allocation leaks and how accurate it is, on shadow models: the target has no part in it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from mialib import hashing, progress, turns
from mialib.compression import quantization
from mialib.store import Store
from mialib.training import loop

SMALLEST_COST = 0.005  # accuracy; a step that seems to cost less is ranked as if it cost that


class Measured(NamedTuple):
    """Leak and accuracy of one allocation, 0 to 1, and the seconds that measuring took."""

    leak: float
    accuracy: float
    seconds: float = 0.0


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Args:
        bits: parameter name -> bit-width, the allocation on the path that leaked least.
        log: a row for every allocation that was measured: round, layer, bits (that were tried), leak, accuracy, gain
            (leak lowered in that step per accuracy lost), kept (the step was taken), seconds. Round 0 is the start.
    """

    bits: dict[str, float]
    log: pd.DataFrame

    @property
    def evaluations(self) -> int:
        """Allocations measured."""
        return len(self.log)

    @property
    def path(self) -> pd.DataFrame:
        """The steps that were taken, as in `log`, and which of them led to the answer (chosen "<-")."""
        taken = self.log[self.log["kept"]].drop(columns=["kept", "seconds"])
        return taken.assign(chosen=["<-" if i == taken["leak"].idxmin() else "" for i in taken.index])

    @property
    def seconds(self) -> float:
        """The time that measuring them took, whenever that was."""
        return float(self.log["seconds"].sum())


def at_most(layers: int, choices: int) -> int:
    """The largest number of allocations that a search over `layers` layers and `choices` widths measures."""
    return 1 + layers**2 * (choices - 2) + layers * (layers + 1) // 2


def search(
    layers: Sequence[str],
    choices: Sequence[float],
    measure: Callable[[Mapping[str, float]], tuple],
    tolerance: float,
) -> Found:
    """Search bit-widths of `layers` among `choices`.

    Args:
        layers: parameter names.
        choices: bit-widths from the widest, where all layers start, to the narrowest.
        measure: measure(bits) -> (leak, accuracy) or `Measured` of an allocation. Called once for each.
        tolerance: accuracy that may be lost against the start, in all; a share, 0 or more.

    Raises:
        ValueError: no layer, fewer than two choices or choices that do not fall, a negative tolerance.
    """
    if not layers:
        raise ValueError("bit search: layers is empty; name at least one")
    if len(choices) < 2 or list(choices) != sorted(set(choices), reverse=True):
        raise ValueError(
            f"bit search: choices are {list(choices)}; at least two, from the widest to the narrowest"
        )
    if tolerance < 0:
        raise ValueError(
            f"bit search: tolerance is {tolerance}; it must be 0 or more (0.01 is a point of accuracy)"
        )
    narrower = dict(zip(choices, choices[1:], strict=False))
    with progress.bar(at_most(len(layers), len(choices)), "bit search, at most", "allocation") as bar:
        current = dict.fromkeys(layers, choices[0])
        leak, accuracy, seconds = Measured(*measure(current))
        bar.update(1)
        floor = accuracy - tolerance - 1e-9  # accuracies are shares, a tolerance a round number
        log = [
            dict(
                round=0,
                layer=None,
                bits=choices[0],
                leak=leak,
                accuracy=accuracy,
                gain=None,
                kept=True,
                seconds=seconds,
            )
        ]
        path = [(leak, current)]
        for number in range(1, len(layers) * (len(choices) - 1) + 1):
            steps = []
            for layer in (layer for layer in layers if current[layer] in narrower):
                tried = current | {layer: narrower[current[layer]]}
                new_leak, new_accuracy, seconds = Measured(*measure(tried))
                bar.update(1)
                gain = (leak - new_leak) / max(accuracy - new_accuracy, SMALLEST_COST)
                step = dict(
                    round=number,
                    layer=layer,
                    bits=tried[layer],
                    leak=new_leak,
                    accuracy=new_accuracy,
                    gain=gain,
                    kept=False,
                    seconds=seconds,
                )
                log.append(step)
                if new_accuracy >= floor:
                    steps.append((gain, step, tried))
            if not steps:
                break
            _, step, current = max(steps, key=lambda one: one[0])
            step["kept"] = True
            leak, accuracy = step["leak"], step["accuracy"]
            path.append((leak, current))
    best = min(path, key=lambda one: one[0])[1]
    return Found(best, pd.DataFrame(log))


def remembered(
    measure: Callable[[Mapping[str, float]], tuple[float, float]], cache: Store | None = None, **made_of
) -> Callable[[Mapping[str, float]], Measured]:
    """`measure`, timed, with its answers remembered, so that a stopped search can be resumed.

    Only the two numbers are kept. A network for each allocation would fill disks: give the trainings inside `measure` a
    store that is thrown away.

    Args:
        cache: default: the store at its default place.
        made_of: everything besides the bit-widths that the answer depends on, except code that is reached: the models
            that are tried, their data, the recipe (see `hashing.describe`).
    """
    cache = cache or Store()
    code = hashing.sources(measure, loop.train, quantization.Quantizer)

    def ask(bits: Mapping[str, float]) -> Measured:
        key = hashing.key(what="bit search", bits=dict(bits), code=code, **made_of)

        def found() -> Measured | None:
            entry = cache.get(key)
            whole = entry is not None and entry[1].keys() == set(Measured._fields)
            return Measured(**entry[1]) if whole else None

        def make() -> Measured:
            keeps = cache.ready()
            began = time.perf_counter()
            leak, accuracy = measure(bits)
            made = Measured(leak, accuracy, time.perf_counter() - began)
            if keeps:
                widths = ", ".join(f"{name} {width:g}" for name, width in bits.items())
                cache.put(key, {}, made._asdict(), kind="leaks at bit-widths", words=widths)
            return made

        return turns.once(cache, key, found, make)

    return ask
