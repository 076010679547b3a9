"""What a user saved of a network, made into log-posteriors: logits, posteriors or log-posteriors, recognised by their rows."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mialib.measures import metrics

FLOAT32 = 1e-6  # more than what rounds a number below one to 32 bits
TOLERANCE = 1e-3  # of a row's sum, as `posteriors.TOLERANCE`
LOGITS, POSTERIORS, LOG_POSTERIORS = "logits", "posteriors", "log-posteriors"


class Recognised(NamedTuple):
    """log_posteriors: float64 (n, c). kind: what the values were taken for. note: what was lost in saving them, if anything."""

    log_posteriors: Tensor
    kind: str
    note: str = ""


def recognised(values, name: str) -> Recognised:
    """Log-posteriors of logits, posteriors or log-posteriors, whichever `values` are.

    Rows without negative numbers that sum to one are posteriors, also if they are rounded to one digit or more, or in per
    cent; rows without positive numbers whose exponentials sum to one are log-posteriors; all else is logits. It must be true
    of all rows.

    Args:
        values: array, list or tensor (n, c); (n,) or (n, 1) of a network with a single output, the second of two classes.
        name: of the network, for errors.

    Raises:
        ValueError: no numbers, another shape, a nan, or infinite logits.
    """
    array = numbers_of(values, f"{name}: answers", "(n, classes)")
    if array.ndim == 1 or array.ndim == 2 and array.shape[1] == 1:
        array = _of_single_output(array.reshape(-1))
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name}: answers must be (n, classes), found {array.shape}")
    if np.isnan(array).any():
        rows = np.isnan(array).any(1)
        raise ValueError(
            f"{name}: {rows.sum()} of {len(rows)} answers hold nan, the first that of example {rows.argmax()}; leave these "
            "examples out of all networks, or mend the network"
        )
    with np.errstate(divide="ignore"):
        for unit in (1, 100):
            digits = _digits(array / unit)
            if (array >= 0).all() and (
                np.abs(array.sum(1) / unit - 1) <= _error(digits, array.shape[1])
            ).all():
                note = (
                    ""
                    if digits is None
                    else f"the posteriors are rounded to {digits} digits, which hides part of a leak; give logits."
                )
                shares = array / array.sum(1, keepdims=True) if digits is not None or unit > 1 else array
                return Recognised(torch.from_numpy(np.log(shares)), POSTERIORS, note)
        if (array <= TOLERANCE).all() and (np.abs(np.exp(array).sum(1) - 1) <= TOLERANCE).all():
            return Recognised(torch.from_numpy(np.minimum(array, 0)), LOG_POSTERIORS)
    if np.isinf(array).any():
        raise ValueError(
            f"{name}: {np.isinf(array).any(1).sum()} of {len(array)} answers hold infinite logits; valid are finite ones"
        )
    note = ""
    if array.min() >= 0 and array.max() <= 1:
        sums = array.sum(1)
        note = (
            f"all its answers lie in 0 to 1, their rows sum to {sums.min():.3g} to {sums.max():.3g}, and they were taken for "
            "logits. If they are probabilities, the numbers below mean nothing: pass them unrounded, one row summing to 1."
        )
    return Recognised(torch.from_numpy(array).log_softmax(1), LOGITS, note)


def numbers_of(values, name: str, shape: str) -> np.ndarray:
    """Numbers in any form as a float64 array.

    Args:
        name, shape: what they are, and the shape that they should have, for errors.

    Raises:
        ValueError: anything else.
    """
    try:
        return np.ascontiguousarray(metrics.numbers(values))  # torch takes no reversed rows or columns
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers {shape}, found {type(values).__name__}") from error


def _digits(array: np.ndarray) -> int | None:
    """The number of digits, 1 to 4, that all posteriors are rounded to; None: more, or none are posteriors.

    Whole numbers, such as one-hot answers, are not taken for rounded.
    """
    if not ((array >= 0) & (array <= 1)).all() or (array == array.round()).all():
        return None
    return next(
        (digits for digits in (1, 2, 3, 4) if np.abs(array - array.round(digits)).max() < FLOAT32), None
    )


def _error(digits: int | None, classes: int) -> float:
    """How far a row's sum may be from one: each class is off by half a last digit at most."""
    return TOLERANCE if digits is None else max(TOLERANCE, classes * 0.5 * 10.0**-digits)


def _of_single_output(values: np.ndarray) -> np.ndarray:
    """Posteriors of two classes from the second one's, or logits from the second one's against the first."""
    if ((values >= 0) & (values <= 1)).all():
        return np.stack([1 - values, values], 1)
    return np.stack([np.zeros_like(values), values], 1)


def labels_of(labels, n: int, classes: int) -> Tensor:
    """True classes int64 (n,) from an array, list or tensor of them, or one-hot (n, classes).

    Raises:
        ValueError: another number of them, no whole numbers, or classes that the networks do not have.
    """
    array = metrics.numbers(labels)
    if array.shape == (n, classes) and np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all():
        array = array.argmax(1)
    array = array.reshape(-1) if array.shape == (n, 1) else array
    if array.shape != (n,):
        raise ValueError(
            f"labels must be one class for each of the {n} examples, or one-hot ({n}, {classes}), found {array.shape}"
        )
    if not (array == np.floor(array)).all():
        raise ValueError(f"labels must be whole numbers, found {array[array != np.floor(array)][0]:g}")
    if not (0 <= array.min() and array.max() < classes):
        raise ValueError(
            f"labels lie in {array.min():g} to {array.max():g}, and the networks answer for classes 0 to {classes - 1}; count "
            "classes from 0, in the order of the networks' outputs"
        )
    return torch.from_numpy(array.astype(np.int64))


def membership(member, n: int) -> Tensor:
    """Bool (n,) from booleans or 0 and 1, 1 = was trained on.

    Raises:
        ValueError: another number of them, other values, or one side with fewer than four examples.
    """
    array = metrics.numbers(member)
    array = array.reshape(-1) if array.shape == (n, 1) else array
    if array.shape != (n,) or not np.isin(array, (0, 1)).all():
        raise ValueError(
            f"member must be 1 (was trained on) or 0 for each of the {n} examples, found {array.shape}"
        )
    counts = int(array.sum()), int(n - array.sum())
    if min(counts) < FEWEST:
        raise ValueError(
            f"member marks {counts[0]} members and {counts[1]} others; {FEWEST} of each are the least, and hundreds are needed "
            "to say anything"
        )
    return torch.from_numpy(array.astype(bool))


FEWEST = 4
