"""DP-SGD: clipped per-example gradients with Gaussian noise, on Poisson-drawn batches, and the guarantee they give.

    g = (sum over the batch of g_i * min(1, clip / ||g_i||) + noise * clip * N(0, I)) / expected batch size

The guarantee, (epsilon, delta), holds for the members of a training that used this from its first step on. If a network
was trained without it, fine-tuning with it gives the members of the first training no guarantee at all: its epsilon is
about the fine-tuning alone. Pruning by a mask computed from private weights is post-processing and costs nothing.
Source: Abadi et al. 2016, arXiv:1607.00133. Opacus does the accounting and replaces BatchNorm; the step is ours, since
opacus refuses the parametrised layers of a pruned network, and is tested equal to opacus's.
"""

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap

from mialib import streams
from mialib.training import Batch, Tensors
from mialib.training.population import skeleton

# Numbers of per-example gradients that are kept at once: as many as stay in a CPU's cache (twice as fast as more), half
# a gigabyte on any accelerator.
AT_ONCE_ON_CPU, AT_ONCE = 2**22, 2**27


@dataclass(frozen=True)
class DPSGD:
    """The `descent` of `training.fit` that makes a training differentially private for its members.

    Works with any objective that is a mean over examples, with masks (`compress`), and with any optimiser, which sees
    only the noisy gradient. An objective that needs whole batches, such as `losses.PPB`, `losses.Mixup` or
    `losses.RelaxLoss`, is refused: no part of its gradient belongs to one example. Each example enters a batch
    independently with probability batch_size / n. So batches differ in size, and models are trained one after the
    other. The noise comes from PyTorch's generator, seeded like all else here: good enough for an experiment, not for a
    release, which needs a cryptographic one.

    Args:
        noise: standard deviation of the noise as a multiple of `clip` (the *noise multiplier*), >= 0. 0 only clips.
        clip: largest L2 norm of one example's gradient over all parameters, > 0.

    Raises:
        ValueError: a value out of range.
    """

    noise: float
    clip: float = 1.0
    alone: ClassVar[bool] = True
    captured: ClassVar[bool] = False  # batches differ in size, and the noise has a stream of its own

    def __post_init__(self):
        if not 0 <= self.noise < math.inf:
            raise ValueError(
                f"DP-SGD: noise is {self.noise}; the noise multiplier must be 0 or more (1 is usual)"
            )
        if not 0 < self.clip < math.inf:
            raise ValueError(
                f"DP-SGD: clip is {self.clip}; the largest gradient norm must be positive (1 is usual)"
            )

    def check(self, make_model: Callable[[], nn.Module]) -> None:
        """Raises ValueError for a model whose layers mix the examples of a batch."""
        mixing = _batch_norms(make_model)
        if mixing:
            more = f" and {len(mixing) - 3} more" if len(mixing) > 3 else ""
            raise ValueError(
                f"DP-SGD: the model has BatchNorm ({', '.join(mixing[:3])}{more}), which mixes the examples of a batch, "
                "so that no gradient belongs to one example; build it with differential_privacy.group_norm(make_model)"
            )

    def begin(self, members: Tensor, batch_size: int, seeds: list[int]):
        (pool,), (seed,) = members.cpu(), seeds
        draws = streams.generator(seed, "Poisson draws")
        # its own stream: noise made from the numbers that drew the batch would tell which examples are in it
        noise = streams.generator(seed, "DP noise", device=members.device)
        rate = sample_rate(len(pool), batch_size)

        def batches():
            steps = range(steps_per_epoch(len(pool), batch_size))
            drawn = [pool[torch.rand(len(pool), generator=draws) < rate] for _ in steps]
            yield from torch.cat(drawn)[None].to(members.device).split([len(one) for one in drawn], dim=1)

        return batches, partial(self._private_gradient, expected=rate * len(pool), generator=noise)

    def _private_gradient(
        self, losses_of, params: Tensors, batch: Batch, expected: float, generator: torch.Generator
    ) -> Tensor:
        def loss(params, x, y, index):
            return losses_of(params, Batch(x[None, None], y[None, None], index[None, None]))[0]

        each = vmap(grad_and_value(loss), in_dims=(None, 0, 0, 0), randomness="different")
        detached = {name: tensor.detach() for name, tensor in params.items()}
        total = {name: torch.zeros_like(tensor) for name, tensor in detached.items()}
        at_once = AT_ONCE_ON_CPU if batch.x.device.type == "cpu" else AT_ONCE
        chunk, lost = max(1, at_once // sum(t.numel() for t in total.values())), []
        for x, y, index in zip(
            *(part[0].split(chunk) for part in (batch.x, batch.y, batch.index)), strict=True
        ):
            if len(y) == 0:  # Poisson batches may be empty: then there is only noise
                continue
            gradients, losses = each(detached, x, y, index)
            norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
            weights = (self.clip / (norms + 1e-6)).clamp(max=1.0)  # 1e-6: as opacus
            for name, gradient in gradients.items():
                total[name] += torch.einsum("b,b...->...", weights, gradient)
            lost.append(losses)
        for name, parameter in params.items():
            noise = torch.randn(parameter.shape, generator=generator, device=generator.device).to(parameter)
            parameter.grad = (total[name] + self.noise * self.clip * noise) / expected
        return torch.cat(lost).mean()[None] if lost else torch.zeros(1, device=batch.x.device)


def sample_rate(n_members: int, batch_size: int) -> float:
    """Probability that an example enters a batch."""
    return min(1.0, batch_size / n_members)


def steps_per_epoch(n_members: int, batch_size: int) -> int:
    """Batches that make up one expected pass over the members."""
    return max(1, round(n_members / batch_size))


@dataclass(frozen=True)
class Phase:
    """One private training: noise multiplier, expected batch size, number of members, epochs."""

    noise: float
    batch_size: int
    n_members: int
    epochs: int


def epsilon(phases: Iterable[Phase], delta: float) -> float:
    """The epsilon of the (epsilon, delta) guarantee of several private trainings, one after another, on the same members.

    Renyi accounting of the Poisson-subsampled Gaussian mechanism (Mironov et al. 2019, arXiv:1908.10530) by opacus.
    Stopping early, or keeping the epoch that is best on reserve data, can only lower it. inf without noise.

    Raises:
        ValueError: delta outside (0, 1), no phase.
    """
    phases = list(phases)
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}; it must lie in (0, 1), well below 1 / number of members")
    if not phases:
        raise ValueError("phases is empty; at least one private training is needed")
    if any(phase.noise == 0 for phase in phases):
        return math.inf
    from opacus.accountants import RDPAccountant  # here, since it takes a second to import

    accountant = RDPAccountant()
    accountant.history = [
        (
            phase.noise,
            sample_rate(phase.n_members, phase.batch_size),
            phase.epochs * steps_per_epoch(phase.n_members, phase.batch_size),
        )
        for phase in phases
    ]
    # an order beyond opacus's could only lower an epsilon that is tiny already
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order is the (largest|smallest) alpha")
        return float(accountant.get_epsilon(delta))


def group_norm(make_model: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """The same architecture with GroupNorm instead of BatchNorm (at most 32 groups a layer), by opacus's rule.

    `make_model` itself if it has no BatchNorm.
    """
    return partial(_with_group_norm, make_model) if _batch_norms(make_model) else make_model


def _with_group_norm(make_model: Callable[[], nn.Module]) -> nn.Module:
    from opacus.validators import ModuleValidator

    return ModuleValidator.fix(make_model())


def _batch_norms(make_model: Callable[[], nn.Module]) -> list[str]:
    layers = skeleton(make_model).named_modules()
    return [name for name, layer in layers if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
