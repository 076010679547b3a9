"""What would make the host wait for a device, counted on a CPU, with the line of the package that asks for it.

A *read* is a value, or a shape that depends on values, that the host wants to know: it stands still until the device has
done all that was asked of it before. A *move* is a copy to a device that is named: on a CPU nobody can tell whether the
tensor lay there already. *calls* are operations, what a GPU would be launched for.
"""

import collections
import sys
import traceback
from contextlib import ExitStack

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode

import mialib

PACKAGE = str(mialib.REPO_ROOT / "mialib") + "/"
READS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "bincount"}
READS |= {"_unique2", "unique_dim", "unique_consecutive"}
# on a CPU no operations: seen as calls of a tensor's methods only
READ_ABOVE = {"cpu", "numpy", "tolist", "__array__"}


class Waits(ExitStack):
    """Within it everything is counted: `reads` and `moves` by (what, file:line), `calls` by operation."""

    def __init__(self):
        super().__init__()
        self.reads, self.moves, self.calls = (collections.Counter() for _ in range(3))

    def __enter__(self):
        self.enter_context(_Below(self))
        self.enter_context(_Above(self))
        return super().__enter__()


def by_mask(name: str, args: tuple) -> bool:
    """Whether the operation picks rows by a bool mask, so that the size of what comes out depends on values."""
    picks = name in ("index", "index_put", "index_put_", "_index_put_impl_") and len(args) > 1
    return picks and any(
        i.dtype in (torch.bool, torch.uint8) for i in tree.tree_leaves(args[1]) if i is not None
    )


class _Below(TorchDispatchMode):
    def __init__(self, waits: Waits):
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.waits.calls[name] += 1
        if name in READS or by_mask(name, args):
            self.waits.reads[name, _line()] += 1
        return func(*args, **(kwargs or {}))


class _Above(TorchFunctionMode):
    def __init__(self, waits: Waits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in READ_ABOVE:
            self.waits.reads[name, _line()] += 1
        elif name == "to" and any(
            isinstance(a, torch.device | str) for a in [*args[1:], *(kwargs or {}).values()]
        ):
            self.waits.moves[name, _line()] += 1
        return func(*args, **(kwargs or {}))


def _line() -> str:
    frames = reversed(traceback.extract_stack(sys._getframe(2)))
    own = (f for f in frames if f.filename.startswith(PACKAGE))
    return next((f"{f.filename.removeprefix(PACKAGE)}:{f.lineno}" for f in own), "elsewhere")
