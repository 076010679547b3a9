"""Random streams: each has a seed of its own, derived from a seed and the stream's name.

Two generators with one seed give the same numbers, whatever they are used for. A batch order would come from the numbers
that made the initial weights, and noise from the very draws that chose the examples that it hides. Accounting for DP-SGD
assumes that its noise is independent of its batches. So every use of randomness names its stream, and no name is used
twice.
"""

from collections.abc import Iterable

import numpy as np
import torch


def seed(*of: int | str) -> int:
    """The seed of a stream, from 0 to 2^63 - 1, by `numpy.random.SeedSequence`.

    Args:
        of: a seed, the stream's name, and what tells streams of that name apart: seed(7, "candidates", 2).
    """
    entropy = [int.from_bytes(part.encode()) if isinstance(part, str) else int(part) % 2**64 for part in of]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seeds(of_models: Iterable[int], *name: int | str) -> list[int]:
    """The `seed` of each of several models, from their seeds."""
    return [seed(one, *name) for one in of_models]


def generator(*of: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one stream, seeded by `seed`."""
    return torch.Generator(device).manual_seed(seed(*of))
