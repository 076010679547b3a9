"""Noise that belongs to an example: a function of a key, the example's number and the query.

A counter-based generator has no state: number t of a stream is a mix of t and a key. So any part of the stream can be
made alone, in any order, on any device. An example's noise depends on nothing else: not on the block that it is asked
in, not on memory, not on the other examples. Philox is made of integer products and exclusive ors, which are exact: its
words are the same everywhere, bit for bit. The normal numbers made from them are float32 and differ in their last bits
between processors, as logarithm and cosine do.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

WORD = 2**32 - 1
_ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_STEPS = 0x9E3779B9, 0xBB67AE85  # added to the key's two words in each round: golden ratio, sqrt(3) - 1
# counters at a time: on a CPU few enough that a round stays in the cache, elsewhere enough that few calls fill the device
_COUNTERS = {"cpu": 2**15}
_COUNTERS_ELSEWHERE = 2**22


def normal(key: int, examples: Tensor, queries: int, shape: Sequence[int]) -> Tensor:
    """Noise for `queries` queries of each example, from the standard normal distribution.

    Args:
        key: from 0 to 2^63 - 1, a stream's seed (`streams.seed`).
        examples: int64 (n,), the examples' numbers, from 0; its device is where the noise is made.
        shape: of one input.

    Returns:
        (n, queries, *shape) float32, at most 6.8 in absolute value.
    """
    size = math.prod(shape)
    counters = -(-size // 4)  # each gives four numbers
    device = examples.device
    position = torch.arange(counters, device=device)
    query = torch.arange(queries, device=device)[:, None]
    made = torch.empty(len(examples), queries, 4, counters, device=device)
    at_once = max(1, _COUNTERS.get(device.type, _COUNTERS_ELSEWHERE) // max(1, queries * counters))
    for own, out in zip(examples.split(at_once), made.split(at_once), strict=True):
        own = own[:, None, None]
        _box_muller(philox((position, query, own & WORD, own >> 32), (key & WORD, key >> 32)), out)
    return made.flatten(2)[..., :size].unflatten(2, tuple(shape))


def philox(counter: Sequence[Tensor], key: Sequence[int]) -> tuple[Tensor, ...]:
    """Philox 4x32-10: four words for each counter of four words and key of two. Salmon et al. 2011, doi:10.1145/2063384.2063405.

    Args:
        counter: four int64 tensors that broadcast, values from 0 to 2^32 - 1. Equal parts are computed once: give a word
            that is the same for many counters in a shape that says so.
        key: two numbers from 0 to 2^32 - 1.

    Returns:
        Four int64 tensors of the shape that all broadcast to, values from 0 to 2^32 - 1.
    """
    # The product of two words fits into 64 bits and wraps to a negative int64: its low word is right all the same, its
    # high word is right after the mask. Words at odd places are masked only at the end, since products never read them.
    a, b, c, d = counter
    left, right = key
    for _ in range(_ROUNDS):
        of_a, of_c = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, c = _mixed(of_c, b, left), _mixed(of_a, d, right)
        b, d = of_c, of_a
        left, right = (left + _STEPS[0]) & WORD, (right + _STEPS[1]) & WORD
    return a, b & WORD, c, d & WORD


def _mixed(product: Tensor, word: Tensor, key: int) -> Tensor:
    """The exclusive or of a product's high word, another word and a word of the key."""
    high = product >> 32
    high = high.bitwise_xor_(word) if high.shape == word.shape else high ^ word
    return high.bitwise_xor_(key).bitwise_and_(WORD)


def _box_muller(words: Sequence[Tensor], out: Tensor) -> None:
    """Four words (n, queries, counters) each -> standard normal numbers in `out` (n, queries, 4, counters)."""
    for i in (0, 2):
        # in (0, 1]: the half keeps the logarithm finite
        radius = words[i].float().add_(0.5).mul_(2.0**-32).log_().mul_(-2).sqrt_()
        angle = words[i + 1].float().mul_(2 * math.pi * 2.0**-32)
        torch.mul(radius, angle.cos(), out=out[:, :, i])
        torch.mul(radius, angle.sin(), out=out[:, :, i + 1])
