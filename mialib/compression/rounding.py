"""Weights rounded up or down, whichever disturbs their layer's output least: after training, better than to the nearest.

    w^ = lower + h (upper - lower),   h = clip(1.2 sigmoid(V) - 0.1, 0, 1)
    minimised over V:   n |W x - W^ x^|^2 / e + strength * sum(1 - |2h - 1|^beta)

lower and upper are w's neighbours on its grid. x are the layer's inputs on calibration data, x^ the same in the network
whose earlier layers are rounded already; e is the error of rounding to the nearest, n the number of weights. The second
term pulls each h to 0 or 1, harder as beta falls from 20 to 2; it is off for the first fifth of the steps. At the end h
is rounded. A layer on which this errs more than the nearest keeps the nearest.

Source: Nagel et al. 2020, arXiv:2004.10568 (AdaRound). There the first term is the plain error and the strength .01, a
unit that no two layers share; the error is taken after the ReLU; and scales are searched for. Our unit, our error
before the ReLU, and the last comparison with the nearest are our own. Our scales are those of `quantization`, so both
ways share a grid.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from mialib import hashing, progress, streams, turns
from mialib.compression import quantization
from mialib.compression.quantization import FULL, TERNARY, Quantizer
from mialib.data import Dataset
from mialib.store import Store
from mialib.training import Population, Tensors
from mialib.training.population import in_batches
from mialib.training.precision import arithmetic

BETA = 20.0, 2.0  # at the start and at the end
WARM = 0.2  # share of the steps without the second term


@dataclass(frozen=True)
class LearnedRounding:
    """How the rounding is learned; the module's first lines have the equations.

    Args:
        steps, batch_size, lr: of Adam, for each layer; all models learn at once.
        strength: of the pull to 0 or 1.
        examples: how many calibration examples are used, the first ones.
        seed: of the batches' order, the same for all models.

    Raises:
        ValueError: no step, no example in a batch or in all, a rate or strength that is not above 0.
    """

    steps: int = 1000
    batch_size: int = 64
    lr: float = 1e-2
    strength: float = 0.1
    examples: int = 256
    seed: int = 0

    def __post_init__(self):
        for name in ("steps", "batch_size", "lr", "strength", "examples"):
            if not getattr(self, name) > 0:
                raise ValueError(f"learned rounding: {name} is {getattr(self, name)}; it must be above 0")

    def __call__(
        self,
        models: Population,
        data: Dataset,
        index: Tensor,
        quantizer: Quantizer,
        cache: Store | None = None,
    ) -> Tensors:
        """The models' parameters with their weights on the quantiser's grids; what was learned is kept in the store.

        index: calibration examples, int64 (k, n), each model's own.
        cache: default: the store at its default place.

        Raises:
            ValueError: a quantiser whose grid has no neighbours of w (DoReFa's is a grid of tanh(w)).
        """
        index, cache = index[:, : self.examples], cache or Store()
        names = [name for name, width in quantizer.bits.items() if width != FULL]
        for name in names:
            neighbours(models.params[name][:1], quantizer.method, quantizer.bits[name])
        key = hashing.key(
            what=self,
            code=hashing.sources(_learn_all, models.make_model),
            made_of=[models.make_model, models.params, models.buffers, quantizer],
            data=[data.fingerprint, index],
        )
        shapes = {name: tuple(models.params[name].shape) for name in names}

        def found() -> Tensors | None:
            entry = cache.get(key, shapes)
            return entry and entry[0]

        def make() -> Tensors:
            keeps = cache.ready()
            made = _learn_all(self, models, data, index, quantizer, names)
            if keeps:
                words = f"{len(models)} networks on {data.name}, {quantizer.method}, {len(names)} tensors"
                cache.put(key, made, {}, kind="rounded weights", words=words)
            return made

        rounded = turns.once(cache, key, found, make)
        return models.params | {name: rounded[name].to(models.device) for name in names}


def neighbours(w: Tensor, method: str, bits: float) -> tuple[Tensor, Tensor]:
    """The values of w's grid below and above it, w (k, *shape) -> two of that shape; at the grid's ends they may be equal.

    If the grid has only two or three values in all, they are the two nearest to w.

    Raises:
        ValueError: DoReFa, whose grid is one of tanh(w), or what `quantization.check` refuses.
    """
    quantization.check(method, bits)
    if method == "dorefa":
        raise ValueError('learned rounding: dorefa rounds tanh(w), not w; take "affine" or "affine_tensor"')
    if bits in (1, TERNARY):
        size = quantization.quantize(w, method, bits).abs()
        if bits == 1:
            return -size, size
        size = size.flatten(1).amax(1).view(-1, *[1] * (w.ndim - 1)).expand_as(w)
        return torch.where(w > 0, 0.0, -size), torch.where(w > 0, size, 0.0)
    scale, zero, flat = quantization.grid(w, int(bits), per_channel=method == "affine")
    below = (w / scale).floor() + zero
    ends = [scale * (integers.clamp(0, 2 ** int(bits) - 1) - zero) for integers in (below, below + 1)]
    return torch.where(flat, w, ends[0]), torch.where(flat, w, ends[1])


def errors(layer: nn.Module, weight: Tensor, x: Tensor, wanted: Tensor) -> Tensor:
    """Mean over examples of |layer(x) - wanted|^2, of each model: (k,).

    Args:
        weight, x: (k, *shape) and (k, n, ...), each model's own; without bias, as `wanted` is.
    """
    return (_output(layer, weight, x) - wanted).square().flatten(2).sum(2).mean(1)


@torch.no_grad()
def seen_by(models: Population, data: Dataset, index: Tensor, path: str) -> Tensor:
    """A layer's inputs on the calibration examples, (k, n, ...)."""
    found = []
    for module, rows in zip(models, index.to(data.x.device), strict=True):
        parts: list[Tensor] = []
        hook = module.get_submodule(path).register_forward_pre_hook(
            lambda _, inputs, parts=parts: parts.append(inputs[0])
        )
        in_batches(module, data.inputs(rows))
        hook.remove()
        found.append(torch.cat(parts))
    return torch.stack(found)


def _learn_all(
    how: LearnedRounding,
    models: Population,
    data: Dataset,
    index: Tensor,
    quantizer: Quantizer,
    names: list[str],
) -> Tensors:
    """The rounded weights, layer after layer, each learned behind the rounded earlier ones."""
    rounded = models
    with arithmetic("float32"), progress.bar(len(names), "learned rounding", "layer") as bar:
        for name in names:
            path = name.rpartition(".")[0]
            layer, w = models[0].get_submodule(path), models.params[name].detach()
            wanted = _output(layer, w, seen_by(models, data, index, path)).detach()
            x = seen_by(rounded, data, index, path)
            ends = neighbours(w, quantizer.method, quantizer.bits[name])
            nearest = quantization.quantize(w, quantizer.method, quantizer.bits[name])
            best = _learn(how, layer, w, ends, nearest, x, wanted)
            rounded = replace(rounded, params=rounded.params | {name: best}, keys=[])
            bar.update()
    return {name: rounded.params[name] for name in names}


def _learn(
    how: LearnedRounding,
    layer: nn.Module,
    w: Tensor,
    ends: tuple[Tensor, Tensor],
    nearest: Tensor,
    x: Tensor,
    wanted: Tensor,
) -> Tensor:
    """The weights of one layer of each model, (k, *shape)."""
    lower, width = ends[0], ends[1] - ends[0]
    generator = streams.generator(how.seed, "learned rounding")
    with torch.no_grad():
        usual = errors(layer, nearest, x, wanted)
        unit = usual.clamp(min=torch.finfo(usual.dtype).tiny) / w[0].numel()
        share = ((w - lower) / torch.where(width > 0, width, 1.0)).clamp(0, 1)
    v = ((share + 0.1) / 1.2).logit().requires_grad_()
    optimizer = torch.optim.Adam([v], lr=how.lr)
    warm = int(WARM * how.steps)
    for step in range(how.steps):
        rows = torch.randint(x.shape[1], (how.batch_size,), generator=generator).to(x.device)
        h = _up(v)
        losses = errors(layer, lower + h * width, x[:, rows], wanted[:, rows]) / unit
        if step >= warm:
            beta = BETA[1] + (BETA[0] - BETA[1]) * (1 - (step - warm) / (how.steps - warm))
            losses = losses + how.strength * (1 - (2 * h - 1).abs() ** beta).flatten(1).sum(1)
        (v.grad,) = torch.autograd.grad(losses.sum(), v)
        optimizer.step()
    with torch.no_grad():
        learned = torch.where(_up(v) >= 0.5, *reversed(ends))
        better = errors(layer, learned, x, wanted) < usual
        return torch.where(better.view(-1, *[1] * (w.ndim - 1)), learned, nearest)


def _up(v: Tensor) -> Tensor:
    """h, how far up a weight is rounded, 0 to 1."""
    return (1.2 * v.sigmoid() - 0.1).clamp(0, 1)


def _output(layer: nn.Module, weight: Tensor, x: Tensor) -> Tensor:
    """The output of a layer for x (k, n, ...) with each model's own weight, without bias: (k, n, ...)."""
    zeros = {} if layer.bias is None else {"bias": torch.zeros_like(layer.bias)}

    def call(weight: Tensor, x: Tensor) -> Tensor:
        return functional_call(layer, {"weight": weight, **zeros}, (x,))

    return call(weight[0], x[0])[None] if len(weight) == 1 else vmap(call)(weight, x)
