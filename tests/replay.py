"""Whether a step could be captured, on a CPU: its operations are recorded, and played back on the same tensors.

As in a CUDA graph the addresses, the shapes and Python's numbers are those of the recording, and the host's code does not
run again. What the device would refuse to record is refused: a value that the host wants to know.
"""

import torch
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode

from tests import syncs


class Tape(TorchDispatchMode):
    """Records what is done within it.

    Raises RuntimeError at an operation that cannot be captured.
    """

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in syncs.READS or syncs.by_mask(name, args):
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, out in self.operations:
            new = func(*args, **kwargs)
            for old, fresh in zip(tree.tree_leaves(out), tree.tree_leaves(new), strict=True):
                if (
                    isinstance(old, torch.Tensor) and old.data_ptr() != fresh.data_ptr()
                ):  # neither in place nor a view
                    old.copy_(fresh)


def on_tape(function, generators):
    """A `graphs.Record`. Here the step is done while it is recorded, so the first playing does nothing."""
    tape = Tape()
    with tape:
        function()
    plays = iter([lambda: None])
    return lambda: next(plays, tape.replay)()
