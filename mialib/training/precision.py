"""The number formats that networks are trained in: what "float32", "tf32" and "bf16" switch on and off.

    float32   float32 everywhere; TF32 is off, also in convolutions, where cuDNN would use it by default
    tf32      matrix products and convolutions read their inputs with 10 bits of mantissa, sums are float32; CUDA only
    bf16      the forward pass under autocast (7 bits of mantissa); parameters, optimiser, normalisation, losses and the
              choice of the best epoch in float32

Networks are always asked in float32, however they were trained.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

PRECISIONS = ("float32", "tf32", "bf16")


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Allow TF32 for "tf32" and for nothing else, whatever the caller has set; the old setting returns at the end."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    _allow(precision == "tf32", "high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        _allow(*before)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Put around a forward pass: rounds it for "bf16", else does nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def float32_norms(module: nn.Module) -> nn.Module:
    """Every BatchNorm computes in float32 on the bf16 values that autocast gives it; in place, and returned.

    The kernels of a single network do so by themselves. Under vmap BatchNorm wants activations and running statistics
    of one type, and running statistics in bf16 would soon stop moving.
    """
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.forward = partial(_in_float32, layer.forward)
    return module


def _in_float32(forward, x: Tensor) -> Tensor:
    return forward(x.float()).to(x.dtype)


def _allow(convolutions: bool, products: str) -> None:
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision(products)
