"""Structured pruning: whole channels are removed, so that an ordinary, smaller network is left.

A mask as in `mialib.compression.pruning` zeroes everything that a channel consists of: its slices of the weights of
convolutions and Linear layers, their biases, and gamma and beta of the BatchNorms behind them. Such a channel emits
exactly 0 through ReLU-like activations and pools. So training and attacks can go on with masks, k models at a time, and
afterwards `smaller` cuts the same channels out of a single module without changing its logits.

Tracing the network with torch_pruning finds which channels have to go together (the branches of a residual addition, a
depthwise convolution and the layer that feeds it): Fang et al. 2023 (DepGraph), arXiv:2301.12900.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch_pruning
from torch import Tensor, nn

from mialib.compression.pruning import Masks, as_weight, keep_largest
from mialib.training import Tensors
from mialib.training.population import skeleton

# Operations without parameters; `smaller` checks that they turn zeros into zeros.
_PASSING = (
    torch_pruning.ops.OPTYPE.ELEMENTWISE,
    torch_pruning.ops.OPTYPE.RESHAPE,
    torch_pruning.ops.OPTYPE.CONCAT,
)


@dataclass(frozen=True)
class Group:
    """Channels 0 to `size` - 1 that run through several layers; each can only be removed from all of them together.

    `outputs` are the parameters (named as in `named_parameters`, in that order) whose dimension 0 counts these
    channels: weights and biases of the layers that emit them, gamma and beta of their BatchNorms.
    """

    outputs: tuple[str, ...]
    size: int


def groups(make_model: Callable[[], nn.Module], example: Tensor) -> tuple[Group, ...]:
    """All groups of channels that can be removed from this architecture; they share no parameter.

    Left out are the logits, and channels that would not be silent or not separable after masking. Those are channels that
    meet LayerNorm, GroupNorm or a BatchNorm without gamma and beta; those of grouped convolutions (depthwise ones are
    fine) and transposed ones; parameters outside of layers; and channels that a BatchNorm (or an addition) meets at
    other indices, as behind the concatenations of DenseNet, where only the inner channels of the bottlenecks are found.

    Args:
        make_model: constructor of the architecture, without arguments; it is only traced, no weights are made.
        example: a batch of inputs (b, ...) of the right shape; its values do not matter.

    Raises:
        ValueError: nothing can be removed.
    """
    traced = _trace(skeleton(make_model).to("meta"), example.to("meta"))
    if not traced:
        raise ValueError("make_model: this network has no channels that can be removed (logits excepted)")
    return tuple(group for group, _ in traced)


@dataclass(frozen=True)
class LargestChannels:
    """Masks that keep the channels with the largest weights; each group and each model is ranked on its own.

    A channel's rank is the L2 norm of its slices of all the group's weights with two or more dimensions (convolutions and
    Linear layers; neither BatchNorm nor biases). Of n channels all but round((1 - density) * n) stay; of equal ones those
    with the smaller index are pruned first. Source: magnitude of coupled channels, Fang et al. 2023.

    Args:
        groups: as `groups` finds them.
        density: share of each group's channels that stay, in (0, 1].

    Raises:
        ValueError: density outside its range.
    """

    groups: tuple[Group, ...]
    density: float

    def __post_init__(self):
        if not 0 < self.density <= 1:
            raise ValueError(
                f"density: {self.density} is not in (0, 1]; it is the share of channels that stay"
            )

    def __call__(self, params: Tensors) -> Masks:
        """Stacked parameters (k, *shape), which stay as they are -> masks of all parameters of all groups."""
        kept = {}
        for group in self.groups:
            slices = [params[n].detach().flatten(2) for n in group.outputs if params[n].dim() > 2]
            norms = torch.cat(slices, dim=2).norm(dim=2)  # (k, size)
            stay = keep_largest(norms, 1 - self.density)
            for name in group.outputs:
                kept[name] = as_weight(stay, params[name])
        return Masks(kept)

    def at(self, density: float) -> "LargestChannels":
        """The same groups at another density."""
        return replace(self, density=density)


def smaller(module: nn.Module, example: Tensor) -> nn.Module:
    """A copy of `module`, in eval mode, without its dead channels; same logits up to rounding.

    A channel is dead if all `outputs` of its group are exactly zero, as in `population[i]` of pruned parameters. One
    channel of each group stays even if all are dead, since an empty layer would end the network.

    Args:
        module: stays as it is.
        example: a batch of inputs (b, ...) on the module's device, for tracing and for comparing the logits.

    Raises:
        ValueError: the logits differ, so a dead channel was not silent (for example behind a sigmoid).
    """
    result = copy.deepcopy(module).eval().requires_grad_(True)  # tracing follows the gradients
    before = _logits(result, example)
    params = dict(result.named_parameters())
    cuts = {}  # all of a layer's inputs at once: behind a concatenation they belong to several groups
    for group, coupled in _trace(result, example):
        dead = _dead(params, group)
        for dep, channels, roots in ((item.dep, item.idxs, item.root_idxs) for item in coupled.items):
            if dep.target.type not in _PASSING:
                _, gone = cuts.setdefault((dep.target, dep.handler), (dep, set()))
                gone.update(channel for channel, root in zip(channels, roots, strict=True) if root in dead)
    for dep, gone in cuts.values():
        if gone:
            dep(sorted(gone))
    after = _logits(result, example)
    scale = float(before.abs().nan_to_num().max())
    if not torch.allclose(after, before, rtol=1e-6, atol=1e-6 * scale, equal_nan=True):
        raise ValueError(
            f"module: without its dead channels its logits change by up to {(after - before).abs().max():.3g}; "
            "an activation does not turn 0 into 0, so these channels were not silent"
        )
    return result


def _trace(module: nn.Module, example: Tensor) -> list[tuple[Group, torch_pruning.dependency.Group]]:
    """The groups of a module, each with torch_pruning's group, which says which inputs of other layers go with it.

    They come in the order of `named_parameters`. Puts the module into eval mode.
    """
    with torch.enable_grad():
        graph = torch_pruning.DependencyGraph().build_dependency(
            module,
            example,
            forward_fn=nn.Module.__call__,  # its default unpacks the batch into one argument an input
            verbose=False,
        )
    names = {parameter: name for name, parameter in module.named_parameters()}
    order = {name: i for i, name in enumerate(names.values())}
    logits = next(iter(graph.module2node.values()))  # the trace starts at the end of the network
    removable = []
    for coupled in graph.get_all_groups():
        size = graph.get_out_channels(coupled[0].dep.target)
        outputs = []
        for item in coupled.items:
            node, emits = item.dep.target, graph.is_out_channel_pruning_fn(item.dep.handler)
            if emits and node is logits or not _separable(node, emits):
                break
            if emits and node.type not in _PASSING:
                parameters = list(node.module.parameters(recurse=False))
                aligned = item.idxs == item.root_idxs and len(item.idxs) == size
                if not (parameters and aligned and all(len(parameter) == size for parameter in parameters)):
                    break
                outputs += [names[parameter] for parameter in parameters]
        else:
            removable.append((Group(tuple(sorted(outputs, key=order.get)), size), coupled))
    return sorted(removable, key=lambda pair: order[pair[0].outputs[0]])


def _separable(node, emits: bool) -> bool:
    """Can this node of the graph lose channels, of its outputs or else of its inputs, without changing the others?"""
    layer = node.module
    if node.type in _PASSING:
        return True
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return layer.groups == 1 or layer.groups == layer.in_channels == layer.out_channels
    return isinstance(layer, nn.Linear) or (
        emits and isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    )


def _dead(params: Tensors, group: Group) -> set[int]:
    """Channels that are zero in all outputs of the group, without the first one if that is all of them."""
    nonzero = [params[name].detach().reshape(group.size, -1).any(1) for name in group.outputs]
    alive = torch.stack(nonzero).any(0)
    if not alive.any():
        alive[0] = True
    return set((~alive).nonzero().flatten().tolist())


def _logits(module: nn.Module, example: Tensor) -> Tensor:
    """Logits in float64, where rounding is too small to be taken for a channel that was not silent."""
    with torch.inference_mode():
        return copy.deepcopy(module).double()(example.double() if example.is_floating_point() else example)
