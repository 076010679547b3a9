"""The numbers that networks are trained in: what "float32", "tf32" and "bf16" switch on and off.

    float32   float32 everywhere: TF32 is off, in convolutions too, where cuDNN would take it by itself
    tf32      matrix products and convolutions read their inputs with 10 bits of mantissa, sums are float32; CUDA only
    bf16      the forward pass under autocast (7 bits of mantissa); parameters, optimiser, normalisation, losses and the
              choice of the best epoch in float32

Networks are asked in float32, however they were trained.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

PRECISIONS = ("float32", "tf32", "bf16")


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """TF32 allowed for "tf32" and for nothing else, whatever the caller has set; put back at the end."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    _allow(precision == "tf32", "high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        _allow(*before)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Around a forward pass: rounds it for "bf16", does nothing else."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def float32_norms(module: nn.Module) -> nn.Module:
    """Every BatchNorm computes in float32 what autocast hands it in bf16; in place, and returned.

    The kernels of a single network do so by themselves. Under vmap BatchNorm wants activations and running statistics of
    one type, and statistics in bf16 would soon stand still.
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
