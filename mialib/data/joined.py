"""Data sets joined one after another, so that models of different data train as one population, each on its own part.

A model depends on its own part alone, and so does its name in the store: `own_part` gives what it would have seen without
the other parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from mialib.data.datasets import Dataset
from mialib.data.splits import Splits


@dataclass(frozen=True)
class Joined(Dataset):
    """Data sets of one kind one after another, by `Joined.of`. Indices and masks count through all of them.

    sizes: how many examples each part has. fingerprints: of each part, as if it were alone.
    """

    sizes: tuple[int, ...] = ()
    fingerprints: tuple[str, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[Dataset]) -> "Joined":
        """The parts' examples, copied once into one piece; identities (`groups`) are dropped.

        Raises:
            ValueError: no parts, or parts of different kinds.
        """
        if not parts:
            raise ValueError("parts is empty; at least one data set is needed")
        first, kinds = parts[0], [_kind(part) for part in parts]
        for number, kind in enumerate(kinds):
            if kind != kinds[0]:
                raise ValueError(
                    f"part {number} is {kind}, part 0 is {kinds[0]}; only data sets that are alike in name, classes, "
                    "shape, type, mean and std can be joined"
                )
        return cls(
            first.name,
            torch.cat([part.x for part in parts]),
            torch.cat([part.y for part in parts]),
            first.num_classes,
            first.mean,
            first.std,
            sizes=tuple(map(len, parts)),
            fingerprints=tuple(part.fingerprint for part in parts),
        )

    def everyone(self, seeds: list[int]) -> Splits:
        """One model for each seed, part after part: all examples of its part are its members, nothing is held out."""
        k = len(seeds)
        member = torch.zeros(len(self.sizes) * k, len(self), dtype=torch.bool)
        for number, (start, end) in enumerate(self._ends()):
            member[number * k : (number + 1) * k, start:end] = True
        nothing = torch.zeros(1, 1, dtype=torch.bool).expand_as(member)
        return Splits(member, nothing, nothing, torch.tensor(seeds * len(self.sizes)))

    def _ends(self) -> list[tuple[int, int]]:
        ends = [*accumulate(self.sizes)]
        return list(zip([0, *ends], ends, strict=False))


def own_part(data: Dataset, split: Splits) -> tuple[str, Splits]:
    """What one model sees of the data: the fingerprint, and the model's masks over that part only.

    For joined data that is the part in which the model's masks lie, for other data everything.

    Args:
        split: of a single model.

    Raises:
        ValueError: the model sees examples of several parts.
    """
    if not isinstance(data, Joined):
        return data.fingerprint, split
    seen = (split.member | split.test | split.reserve)[0]
    for (start, end), fingerprint in zip(data._ends(), data.fingerprints, strict=True):
        inside = int(seen[start:end].sum())
        if inside == int(seen.sum()):
            masks = (mask[:, start:end] for mask in (split.member, split.test, split.reserve))
            return fingerprint, Splits(*masks, split.seeds)
    raise ValueError(
        f"{data.name}: a model sees examples of several of the {len(data.sizes)} joined data sets; each has one of its own"
    )


def _kind(data: Dataset) -> tuple:
    mean, std = data.mean.tolist(), data.std.tolist()
    return data.name, data.num_classes, tuple(data.x.shape[1:]), str(data.x.dtype), mean, std
