"""How large a model is before and after compression: parameters, non-zeros and bytes.

Equal nominal sparsity is not equal size: 70% of filters, of weights and of BatchNorm channels are different numbers of
weights. Sizes are of the parameters (buffers are the same for every method), float32 unless `bytes_per_value` says
otherwise.

The sparse format is a bitmask and the non-zero values, for each parameter tensor: ceil(numel / 8) + 4 * non-zeros
bytes, or dense where that is smaller (tensors with hardly a zero). No index compression, no entropy coding.
"""

from dataclasses import asdict, dataclass

import pandas as pd
import torch
from torch import Tensor

from mialib.training import Population


@dataclass(frozen=True)
class Size:
    """Size of one model. `compression_ratio` = dense bytes / sparse bytes, >= 1."""

    parameters: int
    nonzero: int
    dense_bytes: int
    sparse_bytes: int

    @property
    def density(self) -> float:
        """Share of parameters that are not zero, 0 to 1."""
        return self.nonzero / self.parameters

    @property
    def compression_ratio(self) -> float:
        return self.dense_bytes / self.sparse_bytes


def sizes(params: dict[str, Tensor], bytes_per_value: int = 4) -> list[Size]:
    """One `Size` a model of stacked parameters, name -> (k, *shape), with the pruned weights already zero.

    Raises:
        ValueError: no parameters.
    """
    if not params:
        raise ValueError("params: empty; a size needs at least one parameter tensor")
    numel = torch.tensor([tensor[0].numel() for tensor in params.values()])
    # (tensors, k)
    nonzero = torch.stack([(tensor != 0).flatten(1).sum(1).cpu() for tensor in params.values()])
    bitmask = (numel[:, None] + 7) // 8
    stored = torch.minimum(bitmask + bytes_per_value * nonzero, bytes_per_value * numel[:, None])
    total = int(numel.sum())
    return [
        Size(total, int(nonzero[:, i].sum()), bytes_per_value * total, int(stored[:, i].sum()))
        for i in range(nonzero.shape[1])
    ]


def table(population: Population, compress=None) -> pd.DataFrame:
    """One row a model: model, parameters, nonzero, density, dense_bytes, sparse_bytes, compression_ratio.

    `compress` (masks, for example) is applied first; None for parameters that are already compressed.
    """
    params = compress(population.params) if compress is not None else population.params
    rows = [
        asdict(s) | {"density": s.density, "compression_ratio": s.compression_ratio} for s in sizes(params)
    ]
    return pd.DataFrame(rows).rename_axis("model").reset_index()
