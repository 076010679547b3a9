"""A recipe as a user would write it, in plain PyTorch: digits, a small network, and what is shipped instead of it.

The notebook `audit_your_model` runs it. A module of your own with the same three functions takes its place; nothing here
knows of the rest of mialib.
"""

import copy

import torch
from sklearn.datasets import load_digits
from sklearn.utils import shuffle
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader, Dataset, TensorDataset

MEMBERS = 300


def examples() -> tuple[Dataset, Dataset]:
    """What the network is trained on, and other examples of the same origin and preprocessing."""
    x, y = shuffle(*load_digits(return_X_y=True), random_state=0)
    x, y = torch.tensor(x).float().reshape(-1, 1, 8, 8) / 16, torch.tensor(y)
    return TensorDataset(x[:MEMBERS], y[:MEMBERS]), TensorDataset(x[MEMBERS:], y[MEMBERS:])


def train(data: Dataset) -> nn.Module:
    """The network, trained from scratch."""
    network = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 16, 128)
    )
    network.extend([nn.ReLU(), nn.Linear(128, 10)])
    return _trained(network, data, epochs=20, lr=3e-3)


def compress(network: nn.Module, data: Dataset) -> dict[str, nn.Module]:
    """What might be shipped: 70 % of the weights pruned, and then trained on; rounded to 3 bits; and a control for the first,
    trained on for as long without pruning."""
    return {
        "pruned": _trained(_pruned(copy.deepcopy(network), 0.7), data, epochs=10, lr=1e-3),
        "control": _trained(copy.deepcopy(network), data, epochs=10, lr=1e-3),
        "3 bits": _rounded(copy.deepcopy(network), 3),
    }


def _trained(network: nn.Module, data: Dataset, epochs: int, lr: float) -> nn.Module:
    adam = torch.optim.Adam(network.parameters(), lr)
    network.train()
    for _ in range(epochs):
        for x, y in DataLoader(data, batch_size=32, shuffle=True):
            adam.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            adam.step()
    return network.eval()


def _pruned(network: nn.Module, share: float) -> nn.Module:
    layers = [(layer, "weight") for layer in network if hasattr(layer, "weight")]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=share)
    return network


@torch.no_grad()
def _rounded(network: nn.Module, bits: int) -> nn.Module:
    for layer in network:
        if hasattr(layer, "weight"):
            step = layer.weight.abs().max() / (2 ** (bits - 1) - 1)
            layer.weight.copy_((layer.weight / step).round() * step)
    return network
