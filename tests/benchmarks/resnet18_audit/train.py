"""A ResNet18 on a part of CIFAR-10, and three copies of it: pruned, trained further for as long, and in int8.

A script as a user of torch and torchvision would have it: it knows nothing of audits. `python train.py` trains the four
networks and writes their files. int8 needs torchao, `pip install torchao`.
"""

import argparse
import copy
import os
import pickle
from pathlib import Path

import torch
import torchvision
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import TensorDataset
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

ROOT = Path(os.environ.get("MIALIB_DATA", ".")) / "cifar-10-batches-py"
EXAMPLES = 1000  # few, so that it learns them by heart
EPOCHS, FURTHER, BATCH = 15, 3, 128
LR, LR_FURTHER = 0.05, 0.01
SPARSITY = 0.7


def load(batch: str) -> TensorDataset:
    """The first pictures of a file of CIFAR-10, such as "data_batch_1": float32 (n, 3, 32, 32), and int64 (n,)."""
    content = pickle.loads((ROOT / batch).read_bytes(), encoding="latin1")
    x = torch.tensor(content["data"][:EXAMPLES]).reshape(-1, 3, 32, 32).float() / 255
    mean, deviation = torch.tensor([[0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]])[:, :, None, None]
    return TensorDataset((x - mean) / deviation, torch.tensor(content["labels"][:EXAMPLES]))


def resnet() -> nn.Module:
    """torchvision's ResNet18; its first layer has a smaller window, as the pictures are small."""
    network = torchvision.models.resnet18(num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
    return network


def learn(network: nn.Module, data: TensorDataset, epochs: int, lr: float) -> nn.Module:
    x, y = data.tensors
    optimizer = torch.optim.SGD(network.parameters(), lr, momentum=0.9, weight_decay=5e-4)
    steps = epochs * -(-len(y) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(y)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def train(data: TensorDataset) -> nn.Module:
    return learn(resnet(), data, EPOCHS, LR)


def pruned(network: nn.Module, data: TensorDataset) -> nn.Module:
    """The smallest weights of all layers are 0, and stay so while the others learn further; the masks stay on."""
    network = copy.deepcopy(network)
    weights = [(part, "weight") for part in network.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(weights, prune.L1Unstructured, amount=SPARSITY)
    return learn(network, data, FURTHER, LR_FURTHER)


def further(network: nn.Module, data: TensorDataset) -> nn.Module:
    return learn(copy.deepcopy(network), data, FURTHER, LR_FURTHER)


def int8(network: nn.Module, data: TensorDataset) -> nn.Module:
    """Weights and activations of all convolutions and the last layer in 8 bits, calibrated on one batch."""
    x = data.tensors[0][:BATCH]
    any_size = ({0: torch.export.Dim("batch")},)
    # strict: otherwise the quantizer does not find its way through layers that work in place
    graph = torch.export.export(network.eval(), (x,), dynamic_shapes=any_size, strict=True).module()
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(graph, quantizer)
    with torch.no_grad():
        prepared(x)
    return convert_pt2e(prepared)


def compress(network: nn.Module, data: TensorDataset) -> dict[str, nn.Module]:
    return {
        "pruned": pruned(network, data),
        "control": further(network, data),
        "int8": int8(network, data),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("."), help="for the files, here by default")
    folder = parser.parse_args().folder
    torch.manual_seed(0)
    data = load("data_batch_1")
    network = train(data)
    compressed = compress(network, data)
    any_size = ({0: torch.export.Dim("batch")},)
    graph = torch.export.export(compressed.pop("int8"), (data.tensors[0][:2],), dynamic_shapes=any_size)
    torch.export.save(graph, folder / "int8.pt2")
    for name, each in {"original": network, **compressed}.items():
        torch.save(each.state_dict(), folder / f"{name}.pt")


if __name__ == "__main__":
    main()
