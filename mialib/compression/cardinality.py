"""How many weights each layer may keep, and which: the projection onto card(W_i) <= l_i that ADMM needs.

A *projection* is called with stacked parameters, name -> (k, *shape), and gives `Masks` of what it keeps; multiplying by
them is the nearest point that satisfies the constraint. One-shot magnitude pruning does this projection once; gradual
pruning and ADMM (`gradual.py`, `admm.py`) go there step by step. So all three can be compared at equal size.

Compression is counted over the *weights* of convolutions and Linear layers: all of them / those kept. Biases and
normalisation are not pruned and not counted; `size.table` counts everything.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from mialib.compression.pruning import Masks, as_weight, keep_largest, weights_of
from mialib.training import Tensors
from mialib.training.population import skeleton


@dataclass(frozen=True)
class LargestWeights:
    """Keep the l_i largest magnitudes of each named layer: all but round((1 - density) * n_i), at least one.

    Each of the k models is ranked on its own; of equal magnitudes those with the smaller index are pruned first.

    Args:
        densities: parameter name -> share of its weights kept, in (0, 1].

    Raises:
        ValueError: no layer, or a density outside (0, 1].
    """

    densities: Mapping[str, float]

    def __post_init__(self):
        if not self.densities:
            raise ValueError("densities: empty; name at least one layer")
        for name, density in self.densities.items():
            if not 0 < density <= 1:
                raise ValueError(
                    f"densities: {density} for {name} is outside (0, 1]; it is the share of weights kept"
                )

    def __call__(self, params: Tensors) -> Masks:
        weights = {name: params[name].detach() for name in self.densities}
        scores = {name: weight.abs().flatten(1) for name, weight in weights.items()}
        return Masks(
            {n: as_weight(keep_largest(scores[n], 1 - d), weights[n]) for n, d in self.densities.items()}
        )

    def partly(self, share: float) -> "LargestWeights":
        """The projection at `share` (0 to 1) of the way from keeping everything to these densities."""
        return replace(self, densities={n: 1 - share * (1 - d) for n, d in self.densities.items()})


def layers(make_model: Callable[[], nn.Module]) -> dict[str, int]:
    """The weights that count, of every convolution and Linear layer in order: name -> number."""
    module = skeleton(make_model)
    params = dict(module.named_parameters())
    return {
        name: params[name].numel() for name in weights_of(module, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    }


def everywhere(make_model: Callable[[], nn.Module], compression: float) -> LargestWeights:
    """Keep the same share, 1 / compression, of every layer.

    Raises:
        ValueError: a compression below 1.
    """
    if not compression >= 1:
        raise ValueError(f"compression: {compression} is below 1; it is all weights / kept weights")
    return LargestWeights(dict.fromkeys(layers(make_model), 1 / compression))


def by_layer(make_model: Callable[[], nn.Module], densities: Sequence[float]) -> LargestWeights:
    """One share for each layer, in the order of `layers`.

    Raises:
        ValueError: another number of shares than of layers, or one outside (0, 1].
    """
    names = list(layers(make_model))
    if len(densities) != len(names):
        raise ValueError(
            f"densities: {len(densities)} given, the model has {len(names)} layers: {', '.join(names)}"
        )
    return LargestWeights(dict(zip(names, densities, strict=True)))


def compression(masks: Masks) -> Tensor:
    """All masked weights / kept weights of each model, (k,) float64."""
    total = sum(kept[0].numel() for kept in masks.kept.values())
    return total / sum(kept.flatten(1).sum(1) for kept in masks.kept.values()).double()
