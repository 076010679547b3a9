"""Defences of the answer alone: log-posteriors (..., c) float64 in, log-posteriors out. The model stays as it is."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rounding:
    """Posteriors rounded to `bits` bits each, round((2^bits - 1) p) / (2^bits - 1), and scaled to sum to one again.

    Where all of them round to zero (many classes, few bits) nothing is said: the answer is uniform. Classes that round
    to zero have log-posterior -inf.

    Raises:
        ValueError: bits that are no whole number from 1 to 32.
    """

    bits: int

    def __post_init__(self):
        if self.bits not in range(1, 33):
            raise ValueError(f"rounding: {self.bits!r} bits; it must be a whole number from 1 to 32")

    def __call__(self, log_posteriors: Tensor) -> Tensor:
        steps = 2 ** int(self.bits) - 1
        rounded = (log_posteriors.exp() * steps).round()
        total = rounded.sum(-1, keepdim=True)
        return (rounded.where(total > 0, 1.0)).log() - total.where(total > 0, float(rounded.shape[-1])).log()
