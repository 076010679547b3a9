"""Check that a value is a tensor; else say what was found instead and how to turn it into one."""

import torch

_TURNS = {torch.int64: "long", torch.float32: "float", torch.float64: "double", torch.bool: "bool"}


def must_be_tensor(name: str, value: object, dtype: torch.dtype | None = None, where: str = "") -> None:
    """Does nothing where `value` is a tensor (of `dtype`, where that is given).

    name: what the caller calls the value; where: what an error begins with.
    Raises ValueError: which type was found, which is wanted, and what to pass instead.
    """
    if not isinstance(value, torch.Tensor):
        held = f" of {value.dtype}" if hasattr(value, "dtype") else ""
        wanted, option = ("", "") if dtype is None else (f" of {dtype}", f", dtype={dtype}")
        raise ValueError(
            f"{where}{name} is a {kind_of(value)}{held}, must be a torch.Tensor{wanted}; pass torch.as_tensor({name}{option})"
        )
    if dtype is not None and value.dtype != dtype:
        turn = f"; pass {name}.{_TURNS[dtype]}()" if dtype in _TURNS else ""
        raise ValueError(f"{where}{name} is {value.dtype}, must be {dtype}{turn}")


def kind_of(value: object) -> str:
    """The name of a value's type, as written after importing its library."""
    return f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
