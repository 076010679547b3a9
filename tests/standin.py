"""A stand-in for an accelerator, for machines without one: torch.device("standin").

Its tensors keep their numbers on the CPU and behave like those of a GPU: NumPy cannot read them, they mix with no tensor of
the CPU, and come back by `.cpu()`. As on CUDA, a number (0 dimensions) and an index may lie on the CPU. So a device mistake
is an error without a GPU, and what runs gives the CPU's numbers to the last bit. bf16 runs without casts, as float32.

    python -m pytest --standin -m cuda tests    what is marked `cuda`, on it

`enable` changes the process for good, private parts of torch are used (`TRIED`), and all takes three to four times as long.
"""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import return_and_correct_aliasing

NAME = "standin"
TRIED = ((2, 14),)  # versions of torch
MOVES = ("copy_", "_to_copy")  # operations that may read one device and write to another
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
# operations that make a tensor of nothing; all others are made of these
MAKERS = ("empty.memory_format", "empty_strided", "randperm", "randperm.generator", "eye", "eye.m")
MAKERS += ("arange", "arange.start", "arange.start_step")


def works() -> bool:
    """Whether this torch is one that the stand-in was tried with."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) in TRIED


class OnDevice(torch.Tensor):
    """A tensor that says it is on the device, around one on the CPU."""

    @staticmethod
    def __new__(cls, raw: torch.Tensor):
        layout = dict(strides=raw.stride(), storage_offset=raw.storage_offset())
        return torch.Tensor._make_wrapper_subclass(
            cls, raw.size(), **layout, dtype=raw.dtype, device=f"{NAME}:0", requires_grad=False
        )

    def __init__(self, raw: torch.Tensor):
        self.raw = raw

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, **_):
        return f"{self.raw!r} on {NAME}"

    def numpy(self, **_):
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, dtype=None, copy=None):
        return self.numpy()

    def tolist(self):
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), operation.overloadpacket.__name__
        if name not in MOVES:
            _refuse_mixing(name, args, kwargs)
        device = kwargs.get("device")
        away = device is not None and torch.device(device).type != NAME
        if device is not None:
            kwargs["device"] = device if away else "cpu"
        result = operation(*_raw(args), **_raw(kwargs))
        if away:
            return result
        if name == "copy_" and not isinstance(args[0], cls):
            return args[0]
        wrapped = tree.tree_map_only(torch.Tensor, cls, result)
        return return_and_correct_aliasing(operation, args, kwargs, wrapped)


def _refuse_mixing(name: str, args: tuple, kwargs: dict) -> None:
    """Raises RuntimeError where CUDA does."""
    given = tree.tree_leaves((args, kwargs))
    strange = [one for one in given if isinstance(one, torch.Tensor) and not isinstance(one, OnDevice)]
    if name in INDEXING and isinstance(args[0], OnDevice):
        strange = [one for one in strange if all(one is not index for index in args[1])]
    strange = [one for one in strange if one.dim() > 0 or name == "stack"]
    if strange and any(isinstance(one, OnDevice) for one in given):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got {NAME}:0 and cpu")


def _raw(given):
    return tree.tree_map_only(OnDevice, lambda tensor: tensor.raw, given)


class _Generator(torch.Generator):
    """A backend in Python has no generators: one of the CPU serves, and says what it was made for."""

    def __new__(cls, device="cpu"):
        here = torch.device(device).type == NAME
        made = super().__new__(cls, "cpu" if here else device)
        made.made_for = torch.device(NAME, 0) if here else made.of_torch
        return made

    of_torch = torch.Generator.device
    device = property(lambda self: self.made_for)


class _Draws(TorchFunctionMode):
    """Refuses a generator of another device than the draw's, which the dispatch does not see."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result, generator = function(*args, **(kwargs or {})), (kwargs or {}).get("generator")
        if isinstance(generator, _Generator) and generator.device.type != result.device.type:
            raise RuntimeError(f"a generator of {generator.device} was given to a draw on {result.device}")
        return result


def _copy(source, target, non_blocking=False):
    """Reached where torch has switched the dispatch to Python off, as in torch.tensor(..., device=)."""
    _raw(target).copy_(_raw(source))
    return target


def enable() -> None:
    """Make torch know the device, for the rest of this process."""
    from torch.utils import backend_registration

    class Module(backend_registration._DummyBackendModule):
        def get_amp_supported_dtype(self):
            return [torch.bfloat16, torch.float16]

        def get_rng_state(self, device=None):
            return torch.empty(0, dtype=torch.uint8)

        def set_rng_state(self, state, device=None):
            pass

    def made(maker):
        def make(*args, device=None, pin_memory=None, **options):
            return OnDevice(maker(*args, device="cpu", **options))

        return make

    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    library = torch.library.Library("aten", "IMPL")
    for maker in MAKERS:
        library.impl(maker, made(getattr(torch.ops.aten, maker.split(".")[0])), "PrivateUse1")
    library.impl("_copy_from", _copy, "PrivateUse1")
    autocast = torch.library.Library("_", "IMPL")
    autocast.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    enable.libraries = library, autocast  # kernels live as long as they do
    torch.Generator = _Generator
    _Draws().__enter__()
    torch.__future__.set_swap_module_params_on_conversion(True)  # module.double() must not assign to .data
