"""Examples that two sets share, exactly or nearly. Inputs are tensors (n, ...), compared as float32, never changed."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mialib import streams

SIDE = 16  # pictures are compared at this height and width at most: it smooths away what compression leaves
DIRECTIONS = 32  # along which the nearest is looked for
NEAR = 1 / 3  # of the usual distance to the nearest other example of one's own set
BLOCK = 2**18  # numbers handled at once; they fit the cache
FEWEST = 8  # distinct examples of each set, below which "usual distance" means nothing


class Nearly(NamedTuple):
    """Pairs of different examples that are nearly equal, each example with its nearest.

    across: (k, 2) indices into the first and the second set, the nearest pairs first.
    within: how many such pairs lie within one set.
    chance: the share of all pairs of examples that lie across; so many would, if membership were drawn at random.
    """

    across: Tensor
    within: int
    chance: float


def hashes(x: Tensor) -> np.ndarray:
    """A number int64 for each example (n,): equal for equal examples (0 and -0 are equal), else different.

    Two examples collide with a chance of 2^-62: two sums of 32-bit words, each with random 64-bit weights, of which the
    upper half counts (multiply-add hashing, strongly universal).
    """
    rows = x.reshape(len(x), -1)
    width = rows.shape[1]
    weights = np.random.default_rng(streams.seed(0, "hashes of examples")).integers(
        0, 2**64, (width, 2), dtype=np.uint64
    )
    found = np.empty(len(rows), np.uint64)
    for part in np.array_split(np.arange(len(rows)), max(1, rows.numel() // BLOCK)):
        # + 0.0 turns -0.0 into 0.0, which are equal but have other bits
        words = (rows[part].float() + 0.0).numpy().view(np.uint32).astype(np.uint64)
        high, low = ((words @ weights[:, k]) >> np.uint64(32) for k in (0, 1))
        found[part] = high << np.uint64(32) | low
    return found.view(np.int64)


def shared(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the elements of a that are in b, and of those of b that are in a; both are `hashes`."""
    return np.flatnonzero(np.isin(a, b)), np.flatnonzero(np.isin(b, a))


def nearly(a: Tensor, b: Tensor, hash_a: np.ndarray, hash_b: np.ndarray, seed: int = 0) -> Nearly:
    """Pairs that differ by little: by rounding, brightness and contrast, or the traces of lossy compression.

    Pictures (n, channels, height, width) are compared without their brightness and contrast, rows after standardising
    each column. Near is what is much nearer than an example's nearest usually is within its own set. So examples of a
    set of near duplicates have none. Exactly equal ones are left out.
    """
    kept = [_once(one, other) for one, other in ((hash_a, hash_b), (hash_b, hash_a))]
    sizes = [len(one) for one in kept]
    n = sum(sizes)
    chance = 2 * sizes[0] * sizes[1] / (n * (n - 1)) if n > 1 else 0.0
    if min(sizes) < FEWEST:
        return Nearly(torch.empty(0, 2, dtype=torch.int64), 0, chance)
    chosen = (x if len(of) == len(x) else x[torch.from_numpy(of)] for x, of in zip((a, b), kept, strict=True))
    rows = _comparable(*chosen)
    rng = np.random.default_rng(streams.seed(seed, "near copies"))
    near = NEAR * np.median([d for part in rows.split(sizes) for d in _to_nearest(part, rng)])
    pairs, distance = _pairs(rows, near, rng)
    crossing = (pairs[:, 0] < sizes[0]) & (pairs[:, 1] >= sizes[0])  # the lower index stands first
    a_of, b_of = pairs[crossing][distance[crossing].argsort(stable=True)].unbind(1)
    across = np.stack([kept[0][a_of.numpy()], kept[1][b_of.numpy() - sizes[0]]], 1)
    return Nearly(torch.from_numpy(across), int((~crossing).sum()), chance)


def _once(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Sorted indices of the examples that the other set lacks, each value once."""
    _, first = np.unique(one, return_index=True)
    return np.sort(first[~np.isin(one[first], other)])


def _comparable(a: Tensor, b: Tensor) -> Tensor:
    """Rows (n, d) float32 of both sets, one below the other, whose distance is that of what is compared."""
    if a.ndim == 4:
        small = [_small(x) for x in (a, b)]
        rows = torch.cat(small)
        rows = rows - rows.mean(1, keepdim=True)
        length = rows.norm(dim=1, keepdim=True)
        # a picture of one colour has no contrast to undo: what is left of it is noise
        return rows / length.clamp(min=max(0.1 * float(length.median()), 1e-12))
    rows = torch.cat([x.reshape(len(x), -1).float() for x in (a, b)])
    spread = rows.std(0)
    return (rows - rows.mean(0)) / torch.where(spread > 0, spread, torch.ones_like(spread))


def _small(x: Tensor) -> Tensor:
    """Pictures averaged to `SIDE` at most, as rows; in blocks, since float copies of all of them may not fit."""
    size = [min(SIDE, side) for side in x.shape[2:]]
    blocks = x.split(max(1, BLOCK // x[0].numel()))
    return torch.cat([F.adaptive_avg_pool2d(block.float(), size).flatten(1) for block in blocks])


def _to_nearest(
    rows: Tensor, rng: np.random.Generator, queries: int = 300, among: int = 20_000
) -> list[float]:
    """Distances of some examples of one set to their nearest other example there."""
    pool = rows[torch.from_numpy(rng.permutation(len(rows))[:among])]
    distance = torch.cdist(pool[:queries], pool)
    return distance.fill_diagonal_(float("inf")).min(1).values.tolist()


def _pairs(rows: Tensor, near: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Unordered pairs (k, 2) of an example and its nearest, if nearer than `near`, and their distances (k,).

    The nearest is looked for along the directions of largest variance. A projection shortens distances, so what is near
    in truth is near there, and along the first direction: only examples within `near` along it are compared.
    """
    sample = rows[torch.from_numpy(rng.permutation(len(rows))[:1000])]
    points = rows @ torch.linalg.svd(sample - sample.mean(0), full_matrices=False).Vh[:DIRECTIONS].T
    order = points[:, 0].argsort()
    points = points[order]
    first, square = points[:, 0].contiguous(), (points**2).sum(1)
    nearest = torch.empty(len(points), dtype=torch.int64)
    for start in range(0, len(points), 256):
        block = torch.arange(start, min(start + 256, len(points)))
        begin, end = torch.searchsorted(
            first, torch.stack([first[start] - near, first[block[-1]] + near])
        ).tolist()
        end = max(end, int(block[-1]) + 1)
        # squared distances, but for the block's own squares, which decide nothing
        apart = torch.addmm(
            square[begin:end].expand(len(block), -1), points[block], points[begin:end].T, alpha=-2
        )
        apart[torch.arange(len(block)), block - begin] = float("inf")  # not itself
        nearest[block] = apart.argmin(1) + begin
    pairs = torch.stack([order, order[nearest]], 1).sort(1).values.unique(dim=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]  # nobody else was within reach
    parts = pairs.split(4096)
    distance = torch.cat([(rows[part[:, 0]] - rows[part[:, 1]]).norm(dim=1) for part in parts])
    return pairs[distance < near], distance[distance < near]
