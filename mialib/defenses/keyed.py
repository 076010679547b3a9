"""Randomness that belongs to an answer: the same answer and the same key always give the same numbers.

If an output defence draws anew for each query, asking often and taking the mean undoes it. Here the numbers are a
function of the answer and of a secret key, so they are drawn once for all. The function sees only a fingerprint of the
answer: the predicted class and the log-odds of the largest posterior in steps of 0.01. So the last bits, which differ
between batches and devices, hardly ever change the numbers, and tiny noise on the input mostly does not. Answers with
one fingerprint share their numbers; whoever moves the input until the log-odds cross a step sees new ones.

This is a mixing function for experiments, not cryptography: an attacker who sees enough numbers may find the key. A
deployment needs a keyed hash made for the purpose.
"""

import torch
from torch import Tensor

from mialib import streams
from mialib.asking.posteriors import log_odds

STEP = 0.01  # of the log-odds: float32 logits are rounded to about 1e-6 of their size
LARGEST = 100.0  # log-odds beyond it count as equal, those of a one-hot answer among them
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2^64 over the golden ratio, wrapped to int64 as all arithmetic here


def uniform(log_posteriors: Tensor, key: int, count: int) -> Tensor:
    """`count` numbers for each answer, independent between counters, keys and fingerprints: uniform in (0, 1), open.

    Args:
        log_posteriors: (..., n, c) float64, -inf allowed.
        key: from 0 to 2^63 - 1, the defender's secret.

    Returns:
        (..., n, count) float64.

    Raises:
        ValueError: a key out of range, or a negative count.
    """
    check(key)
    if count < 0:
        raise ValueError(f"keyed noise: count is {count}; it must be 0 or more")
    predicted, odds = fingerprint(log_posteriors)
    state = _mix(torch.full_like(predicted, key))
    state = _absorb(_absorb(state, predicted), odds)
    bits = _absorb(state[..., None], torch.arange(count, device=state.device))
    # 52 bits and a half: with one bit more the largest number would round to 1
    return (_shifted(bits, 12).double() + 0.5) * 2.0**-52


def normal(log_posteriors: Tensor, key: int, count: int) -> Tensor:
    """As `uniform`, but from the standard normal distribution: (..., n, c) -> (..., n, count), finite."""
    return torch.special.ndtri(uniform(log_posteriors, key, count))


def fingerprint(log_posteriors: Tensor) -> tuple[Tensor, Tensor]:
    """The predicted class (the first of equals) and its log-odds in steps of 0.01, (..., c) -> two int64 (...)."""
    predicted = log_posteriors.argmax(-1)
    return predicted, (log_odds(log_posteriors, predicted, LARGEST) / STEP).round().long()


def own_keys(key: int, seeds: Tensor) -> tuple[int, ...]:
    """A key for each network, made from one secret and the networks' seeds; raises ValueError as `check` does."""
    check(key)
    return tuple(streams.seed(key, "key", seed) for seed in seeds.tolist())


def check(key: int) -> None:
    """Raises ValueError for a key that is no whole number from 0 to 2^63 - 1."""
    if not isinstance(key, int) or not 0 <= key < 2**63:
        raise ValueError(f"keyed noise: key is {key!r}; it must be a whole number from 0 to 2^63 - 1")


def _absorb(state: Tensor, value: Tensor) -> Tensor:
    """Mix another number into a state; from one state, different numbers give different states."""
    return _mix(state + (value + 1) * _GOLDEN)


def _mix(x: Tensor) -> Tensor:
    """A bijection of int64 that lets every bit of `x` reach every bit: the last steps of SplitMix64.

    Source: Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195, with the constants of Stafford's variant 13.
    """
    x = (x ^ _shifted(x, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ _shifted(x, 27)) * (0x94D049BB133111EB - 2**64)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shifted to the right with zeros coming in: int64's own shift repeats the sign."""
    return (x >> bits) & (2 ** (64 - bits) - 1)
