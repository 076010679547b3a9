"""Networks as they are deployed; they can be asked wherever a population can be."""

from dataclasses import dataclass

from torch import Tensor, nn

from mialib import progress
from mialib.compression import int8
from mialib.compression.int8 import OnnxNetwork
from mialib.data import Dataset
from mialib.training import Population, pick


@dataclass(frozen=True)
class Int8Networks:
    """k deployed networks. `asking.ask` and `study.Study.arm` take them like a Population; they cannot be trained."""

    models: list[OnnxNetwork]

    def __len__(self) -> int:
        return len(self.models)

    def __getitem__(self, models: int | slice | list[int]) -> "nn.Module | Int8Networks":
        """Network number `models` as a module without parameters, x (n, ...) -> logits (n, c), or some of them."""
        if isinstance(models, int):
            return _Network(self.models[models])
        return Int8Networks(pick(self.models, models))


class _Network(nn.Module):
    def __init__(self, deployed: OnnxNetwork):
        super().__init__()
        self.deployed = deployed

    def forward(self, x: Tensor) -> Tensor:
        return self.deployed.logits(x)


def to_int8(population: Population, data: Dataset, index: Tensor) -> Int8Networks:
    """Every model of the population as a real int8 network, see `int8.int8_model`.

    Args:
        index: int64 (k, n), each model's own calibration examples.
    """
    modules = progress.follow(list(zip(population, index, strict=True)), "int8 export", "model")
    return Int8Networks(
        [OnnxNetwork(int8.int8_model(module, data.inputs(rows).cpu())) for module, rows in modules]
    )
