"""The table of answers in what a model returned: an array, a tensor, lists, or one output among several."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mialib.data.tensors import kind_of

NAMES = (
    "logits",
    "posteriors",
    "probabilities",
    "probs",
    "scores",
    "out",
)  # of outputs, the first that is there counts


def rows(said, n: int, where: str) -> np.ndarray:
    """The answers to n inputs, float32 or float64 (n, c), out of what the model returned.

    Of several outputs it is `.logits`, one named like one of `NAMES`, or the first with a row for each input.

    Args:
        where: which model and batch, for errors.

    Raises:
        ValueError: no numbers, not a row for each input, or classes instead of logits or posteriors.
    """
    values = _numbers(_unwrapped(said, n, where), where)
    if values.ndim not in (1, 2) or len(values) != n or not values.size:
        raise ValueError(
            f"{where} got an answer of shape {values.shape}, must be ({n}, classes), a row for each input"
        )
    values = values.reshape(n, -1)
    if values.shape[1] == 1 and values.dtype.kind in "iub":
        raise ValueError(
            f"{where} got whole numbers ({values.dtype}), one for each input, such as the numbers of classes; what can be "
            "audited are logits or posteriors (n, classes)"
        )
    return values.astype(np.result_type(values, np.float32))


def _unwrapped(said, n: int, where: str):
    """The one output of several."""
    if _is_array(said):
        return said
    if (logits := getattr(said, "logits", None)) is not None:
        return logits
    if isinstance(said, Mapping):
        names = [key for key in NAMES if key in said] or (list(said) if len(said) == 1 else [])
        if not names:
            raise ValueError(
                f"{where} got outputs {', '.join(map(str, said))}, none of them named {', '.join(NAMES)}; pass a function "
                "that gives the right one"
            )
        return said[names[0]]
    if isinstance(said, tuple | list) and any(map(_is_array, said)):
        arrays = [each for each in said if _is_array(each)]
        tables = [each for each in arrays if each.ndim == 2 and len(each) == n]
        if tables:
            return tables[0]
        if len(said) == n and {each.ndim for each in arrays} == {1}:  # its rows
            return [_numbers(each, where) for each in said]
        return arrays[0]
    return said


def _is_array(value) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _numbers(value, where: str) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().dequantize() if value.is_quantized else value.detach()
        small = value.is_floating_point() and value.dtype not in (torch.float32, torch.float64)
        return (value.float() if small else value).cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{where} got a {kind_of(value)} that is no array of numbers: {error}") from error
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{where} got a {kind_of(value)} of {array.dtype}, must be numbers (n, classes)")
    return array
