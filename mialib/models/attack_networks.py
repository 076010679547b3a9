"""Attack networks, as plain `nn.Module`s: attack features (b, d) float32 -> logits (b, 2), column 1 = member.

They start from `layers.initialise`, attention's projections excepted, and run alone and under
`torch.func.functional_call` + `vmap` as the classifiers of `models` do.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mialib.models.layers import dropout, initialise, mlp


def attack_mlp(in_features: int) -> nn.Module:
    """in -> 512 -> 256 -> 128 -> 2, ReLU, dropout 0.2 after the first two hidden layers.

    Source: Yuan & Zhang 2022, released code (`attackers.py`), after the BlindMI repository.
    """
    return initialise(mlp((in_features, 512, 256, 128, 2), dropouts=(0.2, 0.2)))


def nsh_network(num_classes: int, width: float = 1.0) -> nn.Module:
    """The attack network of the min-max game: (b, 2C) -> (b, 2), with C = `num_classes`.

    The input is [posterior (C), one-hot label (C)]. Source: Nasr, Shokri & Houmansadr 2018, arXiv:1807.05852; the
    layers are recalled from memory and not checked against the paper. Theirs ends in one sigmoid, ours in two logits.

    width: factor on the hidden units; below 1 for small runs.
    """
    return initialise(Nsh(num_classes, width))


class Nsh(nn.Module):
    """Branches C -> 1024 -> 512 -> 64 for the posterior and C -> 512 -> 64 for the label, joined 128 -> 256 -> 64 -> 2.

    ReLU after every layer but the last.
    """

    def __init__(self, num_classes: int, width: float = 1.0):
        super().__init__()
        d1024, d512, d256, d64 = (max(1, round(units * width)) for units in (1024, 512, 256, 64))
        self.prediction = nn.Sequential(mlp((num_classes, d1024, d512, d64), dropouts=()), nn.ReLU())
        self.label = nn.Sequential(mlp((num_classes, d512, d64), dropouts=()), nn.ReLU())
        self.joint = mlp((2 * d64, d256, d64, 2), dropouts=())

    def forward(self, x: Tensor) -> Tensor:
        posterior, label = x.chunk(2, dim=1)
        return self.joint(torch.cat([self.prediction(posterior), self.label(label)], dim=1))


def samia_network(num_classes: int, drop: float = 0.2) -> nn.Module:
    """The self-attention attack network: (b, 3C) -> (b, 2), with C = `num_classes`.

    The input is [confidence (C), sensitivity (C), one-hot label (C)]. Source: Yuan & Zhang 2022, released code
    (`transformer.py`).
    """
    return initialise(Samia(num_classes, drop=drop))


class Samia(nn.Module):
    """BatchNorm over the 3C inputs, one token (confidence, sensitivity, label) for each class, three encoder layers.

    No positional encoding: a class is known only by its place in the batch norm and in the last flattened layer.
    """

    def __init__(
        self,
        num_classes: int,
        width: int = 64,
        heads: int = 4,
        hidden: int = 128,
        depth: int = 3,
        drop: float = 0.2,
    ):
        super().__init__()
        self.norm = nn.BatchNorm1d(3 * num_classes)
        self.embed = nn.Linear(3, width)
        layer = EncoderLayer(width, heads, hidden, drop)
        # nn.TransformerEncoder copies its layer, so all layers start from the same weights; so do ours.
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(depth))
        self.head = nn.Sequential(nn.Linear(num_classes * width, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).unflatten(1, (3, -1)).transpose(1, 2)  # (b, C, 3)
        tokens = F.gelu(self.embed(tokens))
        for layer in self.layers:
            tokens = layer(tokens)
        return self.head(tokens.flatten(1))


class Projection(nn.Linear):
    """A linear layer that `initialise` leaves alone, since it goes by class names: attention keeps its own weights."""


class EncoderLayer(nn.Module):
    """A post-norm transformer encoder layer with GELU, the function of `nn.TransformerEncoderLayer` exactly.

    Queries, keys and values come from one matrix product. The projections start as those of `nn.MultiheadAttention`.
    """

    def __init__(self, width: int, heads: int, hidden: int, drop: float):
        super().__init__()
        self.heads, self.drop = heads, drop
        self.qkv = Projection(width, 3 * width)
        self.out = Projection(width, width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:  # (b, tokens, width), and back
        x = self.norm1(x + self._drop(self.out(self._attend(x))))
        return self.norm2(x + self._drop(self.down(self._drop(F.gelu(self.up(x))))))

    def _attend(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        size = width // self.heads
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, size).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, batch * self.heads, tokens, size)  # one copy for all three
        attention = self._drop((torch.bmm(q, k.transpose(1, 2)) * size**-0.5).softmax(-1))
        mixed = torch.bmm(attention, v).view(batch, self.heads, tokens, size)
        return mixed.transpose(1, 2).reshape(batch, tokens, width)

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.drop) if self.training else x
