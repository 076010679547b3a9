"""Keys of results: two results share a key only if everything that made them agrees, the code that they reach included.

`describe` turns values into JSON. `sources` hashes the code that `reach` finds; comments, layout, docstrings and
annotations do not count. Of the libraries only torch's version counts; the others are taken to compute what they did.

No key depends on the machine: not on its paths, names, processor, device, threads or number of processes, so a store that is
copied or shared serves other machines. What makes a key another one:

    what was asked for      examples, members, seed, architecture, recipe (its precision too: "bf16" is another training), hooks
    code that is reached    see `reach`; a user's modules whole
    torch                   its version up to the minor one
    Python                  its minor version: syntax trees are written differently in 3.11, 3.12 and 3.13
    answers as data         attack networks, decoders and defences are named after the very bits that they learn from. The
                            bits come from networks that are asked anew; another processor, device or number of threads
                            may give other last bits, and the attack is then trained again
    weights without keys    of models made by hand, rounded or calibrated: their bits likewise
"""

import ast
import dataclasses
import functools
import hashlib
import inspect
import json
import textwrap
from types import FunctionType

import torch
from torch import Tensor

from mialib import reach


def key(**made_of) -> str:
    """Hash of everything that made a result, and of torch's version up to the minor one."""
    torch_version = ".".join(torch.__version__.split(".")[:2])
    content = json.dumps([torch_version, describe(made_of)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:40]


def describe(thing):
    """A JSON-able description that differs whenever the thing does.

    Tensors become the hash of their bytes, functions their qualified name, partials and dataclasses their parts.

    Raises:
        TypeError: something without a stable description (a lambda, a local function, an unknown object).
    """
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if isinstance(thing, Tensor):
        content = thing.detach().cpu().contiguous()
        digest = hashlib.sha256(content.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        return ["tensor", str(content.dtype), list(content.shape), digest]
    if isinstance(thing, dict):
        return {str(name): describe(value) for name, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [describe(value) for value in thing]
    if isinstance(thing, functools.partial):
        return ["partial", describe(thing.func), describe(thing.args), describe(thing.keywords)]
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        parts = {f.name: describe(getattr(thing, f.name)) for f in dataclasses.fields(thing) if f.compare}
        return [f"{type(thing).__module__}.{type(thing).__qualname__}", parts]
    name = getattr(thing, "__qualname__", None)
    if name and "<" not in name:
        return f"{thing.__module__}.{name}"
    raise TypeError(
        f"{thing!r} has no stable description, so its results could not be cached; use a module-level function, "
        "a functools.partial of one, or a frozen dataclass with __call__"
    )


def sources(*things) -> str:
    """Hash of the code that the things reach: modules, functions, classes, instances, partials and dataclasses.

    Partials and dataclasses count with all their parts; values (numbers, tensors, None) do not count.
    """
    digest = hashlib.sha256()
    for definition in sorted(reach.reached(*things)):
        digest.update(repr((definition, reach.written(*definition))).encode())
    for function in _unnamed_in(things):
        digest.update(repr(_own_text(function)).encode())
    return digest.hexdigest()[:16]


def _unnamed_in(things) -> list[FunctionType]:
    """Functions that cannot be found by name: those of a notebook or a prompt, local ones and lambdas."""
    functions = [part for thing in things for part in reach.parts(thing) if inspect.isfunction(part)]
    return [one for one in functions if one.__module__ == "__main__" or "<" in one.__qualname__]


def _own_text(function: FunctionType) -> list:
    """What can be read of a function that has no name to find it by: its text, and the values that it closes over."""
    try:
        text = reach.dump(ast.parse(textwrap.dedent(inspect.getsource(function))))
    except (OSError, SyntaxError):  # no file to read, or a lambda in the middle of a line
        text = repr((function.__code__.co_code, function.__code__.co_names))
    return [text, *(_described(cell.cell_contents) for cell in function.__closure__ or ())]


def _described(thing):
    """As `describe`; whatever has no stable description gives the name of its type."""
    try:
        return describe(thing)
    except TypeError:
        return type(thing).__qualname__
