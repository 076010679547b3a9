"""Parts of all networks: initial weights, multi-layer perceptrons, a fast dropout."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def initialise(module: nn.Module) -> nn.Module:
    """Xavier-normal weights for every Conv* and Linear layer, zero biases, norms 1 / 0; in place, and returned.

    Source: Yuan & Zhang 2022, released code (`utils.py`), which also selects layers by class name.
    """
    for layer in module.modules():
        kind = type(layer).__name__
        if getattr(layer, "weight", None) is None:
            continue  # also containers with such a name, for example torchvision's Conv2dNormActivation
        if kind.startswith("Conv") or kind == "Linear":
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif "Norm" in kind:
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    return module


def mlp(widths: tuple[int, ...], dropouts: tuple[float, ...]) -> nn.Sequential:
    """Linear layers with ReLU between, each of the first len(dropouts) hidden layers followed by dropout."""
    layers: list[nn.Module] = []
    for i in range(len(widths) - 2):
        layers += [nn.Linear(widths[i], widths[i + 1]), nn.ReLU()]
        if i < len(dropouts):
            layers.append(Dropout(dropouts[i]))
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


class Dropout(nn.Dropout):
    """nn.Dropout with the faster `dropout` below."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training else x


def dropout(x: Tensor, p: float) -> Tensor:
    """`x` with a share `p` (to 2**-16) of its values set to 0; the others are scaled up so that the mean stays.

    Drawing one random number for each value takes two fifths of a training step on a CPU. So there one 64-bit draw
    decides about four values. Elsewhere this is `F.dropout`.
    """
    if p in (0.0, 1.0) or x.device.type != "cpu":
        return F.dropout(x, p)
    kept = round((1 - p) * 2**16)
    draws = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // 4),), device=x.device)
    uniform = draws.view(torch.int16)[: x.numel()].view(x.shape)
    return x * ((uniform < kept - 2**15).to(x.dtype) * (2**16 / kept))
