"""One-shot pruning of a population: which weights are kept, as masks that multiply the parameters.

A mask is bool, True = kept, and has the model axis of the parameters it belongs to: (k, *shape). Nothing is physically
removed. Sparsity is the share removed, in [0, 1): of each layer's weights (`l1_unstructured`) or of all of a model's
(`l1_global`), of each layer's filters (`l1_filter`, `l2_filter`), or of all BatchNorm channels of a model (`slimming`).
Equal sparsity under two methods is therefore not equal size; see `mialib.compression.size`.

Exactly round(sparsity * n) of n entries are pruned, but never all of them. Of equally ranked entries those with the
smaller index are pruned first, so that the count is exact and a higher sparsity always prunes a superset. (The pruning
library behind the code released with Yuan & Zhang 2022 prunes every entry that ties with the threshold.)
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mialib.training import Batch, Forward, Population, Tensors, cross_entropy
from mialib.training.population import initial, skeleton

METHODS = ("l1_unstructured", "l1_global", "l1_filter", "l2_filter", "slimming", "slimming_l1")


@dataclass(frozen=True)
class Masks:
    """What is kept of each masked parameter of k models: parameter name -> bool (k, *shape). True = kept.

    Calling it on stacked parameters gives the pruned ones, so that it is a `compress` of `fit`: the dictionary and its
    tensors are left as they are, parameters without a mask pass through, and a pruned weight gets gradient zero.
    """

    kept: Tensors

    def __call__(self, params: Tensors) -> Tensors:
        # where, not a product: a pruned weight that became inf or nan must still count as zero.
        return params | {
            name: torch.where(kept.to(params[name].device), params[name], 0.0)
            for name, kept in self.kept.items()
        }

    def __getitem__(self, models: slice | list[int]) -> "Masks":
        """The masks of some of the models; a slice or a list, so that the model axis stays."""
        if isinstance(models, int):
            raise TypeError(f"masks are selected by slice or list; use [{models}:{models + 1}] for one model")
        return Masks({name: kept[models] for name, kept in self.kept.items()})

    def __len__(self) -> int:
        return len(next(iter(self.kept.values())))

    def to(self, device: torch.device | str) -> "Masks":
        return Masks({name: kept.to(device) for name, kept in self.kept.items()})


def mask(population: Population, method: str, sparsity: float) -> Masks:
    """Masks for every model of `population`, ranked on its current parameters.

    Args:
        population: k models.
        method: one of `METHODS`.
            l1_unstructured: abs(weight), each Conv* and Linear layer on its own, first and last included.
            l1_global: the same weights, all ranked together, so that layers end up unequally sparse (not in the paper;
                global magnitude pruning). The largest weight of each layer is always kept.
            l1_filter, l2_filter: L1 or L2 norm of each output filter, each Conv2d layer on its own. Only the filter's
                weights are zeroed: a bias or BatchNorm behind it is not masked, so a pruned filter still emits a
                constant, as in the released code.
            slimming: abs(gamma) of BatchNorm, one threshold over all BatchNorm layers of a model. Gamma *and* beta of
                a pruned channel are zeroed, so that the channel is dead: with its beta it would emit a constant and
                could not be cut out. The channel with the largest abs(gamma) of each layer is always kept, since an
                empty layer would end the network; instead the next smallest of the others is pruned.
            slimming_l1: the same, for networks trained with `SparseGamma`: slimming as it was published.
        sparsity: share removed, 0 <= sparsity < 1. 0.0 keeps everything: the control.

    Returns:
        Masks over the affected parameters only.

    Raises:
        ValueError: unknown method; sparsity outside [0, 1); no Conv2d for filter pruning, no BatchNorm with gamma for
            slimming; slimming or l1_global so sparse that some layer would be left empty.

    Sources: methods and scopes of Yuan & Zhang 2022 (section 4 of the released code's configuration); filters Li et al.
    2017, arXiv:1608.08710; slimming Liu et al. 2017, arXiv:1708.06519.
    """
    if method not in METHODS:
        raise ValueError(f"method: unknown {method!r}; valid are {', '.join(METHODS)}")
    if not 0.0 <= sparsity < 1.0:
        raise ValueError(f"sparsity: {sparsity!r} is outside [0, 1); it is the share of weights removed")
    module = skeleton(population.make_model)
    weights = {name: w.detach() for name, w in population.params.items()}
    if method in ("slimming", "slimming_l1"):
        return _slimming(weights, gammas(module), sparsity)
    if method in ("l1_unstructured", "l1_global"):
        names = weights_of(module, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
        if not names:
            raise ValueError(f"method: {method} needs a convolution or Linear layer, the model has none")
        if method == "l1_global":
            scores = {name: weights[name].abs().flatten(1) for name in names}
            kept = _ranked_together(scores, sparsity, "weights")
            return Masks({name: kept[name].view(weights[name].shape) for name in names})
        return Masks(
            {n: as_weight(keep_largest(weights[n].abs().flatten(1), sparsity), weights[n]) for n in names}
        )
    names = weights_of(module, nn.Conv2d)
    if not names:
        raise ValueError(
            f"method: {method} removes filters of Conv2d layers, the model has none; use l1_unstructured"
        )
    order = 1 if method == "l1_filter" else 2
    return Masks(
        {
            n: as_weight(keep_largest(weights[n].flatten(2).norm(order, dim=2), sparsity), weights[n])
            for n in names
        }
    )


def check(make_model: Callable[[], nn.Module], settings: Iterable[tuple[str, float]]) -> None:
    """Raise the ValueError of `mask` if it would refuse one of these pairs (method, sparsity) for this architecture.

    Call it before anything is trained.
    """
    fresh = initial(make_model, [0])
    for method, sparsity in settings:
        mask(fresh, method, sparsity)


def gammas(module: nn.Module) -> list[str]:
    """Names of the BatchNorm scales (gamma) of a module, in the order of its layers."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return [f"{n}.weight".lstrip(".") for n, m in module.named_modules() if isinstance(m, norms) and m.affine]


def gamma_penalty(params: Tensors, names: Iterable[str]) -> Tensor:
    """Sum of abs(gamma) over the named parameters (k, channels) -> (k,), to be added to the loss times a strength.

    Source: Liu et al. 2017 (Network Slimming), equation 1 with g(s) = |s|; 1e-4 and 1e-5 are the paper's strengths.
    Slimming without this training ranks gammas that nothing has pushed apart.
    """
    return torch.cat([params[name].flatten(1) for name in names], dim=1).abs().sum(1)


@dataclass(frozen=True)
class SparseGamma:
    """Objective of network slimming: cross-entropy + strength * sum of abs(gamma); Liu et al. 2017, equation 1."""

    strength: float
    names: tuple[str, ...]

    def __call__(self, forward: Forward, params: Tensors, batch: Batch, step: int) -> Tensor:
        return cross_entropy(forward, params, batch, step) + self.strength * gamma_penalty(params, self.names)


@dataclass(frozen=True)
class Sparsity:
    """Shares of zeros of k models: `layers` parameter name -> (k,) float64, `overall` (k,) float64 over all of them."""

    layers: Tensors
    overall: Tensor


def achieved_sparsity(tensors: Masks | Tensors) -> Sparsity:
    """Share of zeros, of masks (over the masked parameters) or of parameters (k, *shape) (over those given)."""
    tensors = tensors.kept if isinstance(tensors, Masks) else tensors
    zeros = {name: (tensor == 0).flatten(1).sum(1).double() for name, tensor in tensors.items()}
    sizes = {name: tensor[0].numel() for name, tensor in tensors.items()}
    return Sparsity(
        {name: zeros[name] / sizes[name] for name in tensors}, sum(zeros.values()) / sum(sizes.values())
    )


def weights_of(module: nn.Module, *kinds: type[nn.Module]) -> list[str]:
    return [f"{n}.weight".lstrip(".") for n, layer in module.named_modules() if isinstance(layer, kinds)]


def prune_smallest(scores: Tensor, count: int) -> Tensor:
    """Scores (k, n) -> kept bool (k, n), False for the `count` smallest of each row, ties by index."""
    if count == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    # a selection, several times faster than sorting
    threshold = scores.kthvalue(count, dim=1, keepdim=True).values
    below, tied = scores < threshold, scores == threshold
    wanted = count - below.sum(1, keepdim=True)
    return ~(below | (tied & (tied.cumsum(1, dtype=torch.int32) <= wanted)))


def removed(sparsity: float, n: int) -> int:
    """How many of n entries are pruned: round(sparsity * n), but at least one always stays."""
    return min(round(sparsity * n), n - 1)


def keep_largest(scores: Tensor, sparsity: float) -> Tensor:
    """Scores (k, n) -> kept bool (k, n): all of each row but the smallest, see `removed`; ties by index."""
    return prune_smallest(scores, removed(sparsity, scores.shape[1]))


def as_weight(kept: Tensor, weight: Tensor) -> Tensor:
    """kept bool (k, n), of a layer's n entries or of its n filters, in the shape of its weight (k, *shape)."""
    if kept.numel() == weight.numel():
        return kept.view(weight.shape)
    return kept.view(*kept.shape, *[1] * (weight.dim() - 2)).expand(weight.shape).clone()


def _slimming(weights: Tensors, names: list[str], sparsity: float) -> Masks:
    if not names:
        raise ValueError(
            "method: slimming ranks BatchNorm scales, the model has no BatchNorm; use l1_unstructured"
        )
    gamma = _ranked_together({name: weights[name].abs() for name in names}, sparsity, "BatchNorm channels")
    beta = {name.removesuffix("weight") + "bias": k.clone() for name, k in gamma.items()}
    return Masks(gamma | beta)


def _ranked_together(scores: Tensors, sparsity: float, what: str) -> Tensors:
    """Layer name -> scores (k, n) of all layers gives layer name -> kept bool (k, n); each layer keeps its largest."""
    sizes = [s.shape[1] for s in scores.values()]
    count = removed(sparsity, sum(sizes))
    if count > sum(sizes) - len(sizes):
        raise ValueError(
            f"sparsity: {sparsity} removes {count} of {sum(sizes)} {what}, which would leave one of the "
            f"{len(sizes)} layers empty; at most {(sum(sizes) - len(sizes)) / sum(sizes):.4f} is possible"
        )
    protected = [s.scatter(1, s.argmax(1, keepdim=True), float("inf")) for s in scores.values()]
    kept = prune_smallest(torch.cat(protected, dim=1), count).split(sizes, dim=1)
    return {name: k.contiguous() for name, k in zip(scores, kept, strict=True)}
