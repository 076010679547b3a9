"""The design of the public scripts mia_prune (Yuan & Zhang 2022), re-enacted in our own words, to be timed.

What decides about time is kept as it is there:

- every pass over data (an epoch's training, each evaluation, each prediction) starts 4 worker processes anew, which
  fetch one example at a time from a data set object;
- models are trained one after the other, each evaluated on dev and test data after every epoch, with loss and accuracy
  read back after every batch; a better dev accuracy writes a checkpoint;
- a pruned layer multiplies its weights by the mask in each forward pass;
- a threshold search tries every observed value and counts both groups anew for it;
- attack networks are trained on 4-worker loaders too, and evaluated on the victim after every epoch; SAMIA is built of
  `nn.TransformerEncoder`, tokens first.

Left out, since a CPU run has no use for it or it costs nothing: pinned memory, printing, saved index files. Workers are
forked (Python's default on Linux up to 3.13). Early stopping is off, so that both sides of a comparison take the same
steps. Nothing here is a recommendation, and nothing of it is imported by the package.

Models' posteriors and sensitivities: (n, c) float32. Membership: 1 = member.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

BATCH, WORKERS = 128, 4


class Examples(Dataset):
    """One example at a time, the way torch's loaders ask for it."""

    def __init__(self, x: Tensor, y: Tensor):
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i], self.y[i]


def loader(x: Tensor, y: Tensor, shuffle: bool = False) -> DataLoader:
    return DataLoader(
        Examples(x, y), BATCH, shuffle=shuffle, num_workers=WORKERS, multiprocessing_context="fork"
    )


@dataclass(frozen=True)
class Part:
    """A model's own data: its members, dev and test examples behind loaders."""

    train: DataLoader
    dev: DataLoader
    test: DataLoader


class ColumnFC(nn.Module):
    """in -> 256 -> 128 -> classes with dropout 0.1; Xavier-normal weights, zero biases."""

    def __init__(self, features: int, num_classes: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, 256), nn.ReLU(), nn.Dropout(0.1),
            nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.1),
            nn.Linear(128, num_classes),
        )  # fmt: skip
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Masked(nn.Module):
    """A linear layer whose weights are multiplied by a mask, in place, before it is used."""

    def __init__(self, layer: nn.Linear, sparsity: float):
        super().__init__()
        self.layer = layer
        magnitude = layer.weight.detach().abs()
        threshold = magnitude.flatten().topk(int(sparsity * magnitude.numel()), largest=False).values.max()
        self.register_buffer("mask", (magnitude > threshold).float())

    def forward(self, x: Tensor) -> Tensor:
        self.layer.weight.data.mul_(self.mask)
        return self.layer(x)


def train_pass(model: nn.Module, optimiser, batches: DataLoader) -> None:
    model.train()
    total, correct = 0.0, 0
    for x, y in batches:
        optimiser.zero_grad()
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        loss.backward()
        optimiser.step()
        total += loss.item() * len(y)
        correct += (logits.argmax(1) == y).sum().item()


@torch.no_grad()
def evaluation_pass(model: nn.Module, batches: DataLoader) -> float:
    model.eval()
    total, correct, count = 0.0, 0, 0
    for x, y in batches:
        logits = model(x)
        total += F.cross_entropy(logits, y).item() * len(y)
        correct += (logits.argmax(1) == y).sum().item()
        count += len(y)
    return correct / count


def train(model: nn.Module, part: Part, epochs: int, checkpoint: Path) -> nn.Module:
    """`epochs` of Adam; the weights of the best dev accuracy are written to `checkpoint` and loaded at the end."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-4)
    best = -1.0
    for _ in range(epochs):
        train_pass(model, optimiser, part.train)
        accuracy = evaluation_pass(model, part.dev)
        evaluation_pass(model, part.test)
        if accuracy > best:
            best = accuracy
            torch.save(model.state_dict(), checkpoint)
    model.load_state_dict(torch.load(checkpoint))
    return model


def prune(model: ColumnFC, sparsity: float) -> ColumnFC:
    """Every linear layer gets its mask: the smallest weights of each layer, once."""
    for i, layer in enumerate(model.layers):
        if isinstance(layer, nn.Linear):
            model.layers[i] = Masked(layer, sparsity)
    return model


@torch.no_grad()
def predict(
    model: nn.Module, batches: DataLoader, queries: int = 10, epsilon: float = 1e-3
) -> tuple[Tensor, ...]:
    """Posteriors, labels and sensitivities: one clean and `queries` noisy forward passes."""
    model.eval()
    posteriors, labels, sensitivities = [], [], []
    for x, y in batches:
        clean = model(x).softmax(1)
        repeated = x.repeat(queries, 1)
        noisy = model(repeated + epsilon * torch.randn_like(repeated)).softmax(1)
        moved = (noisy - clean.repeat(queries, 1)).abs().view(queries, *clean.shape).mean(0) / epsilon
        posteriors.append(clean)
        labels.append(y)
        sensitivities.append(moved)
    return torch.cat(posteriors), torch.cat(labels), torch.cat(sensitivities)


@dataclass(frozen=True)
class Answers:
    """What models said about some examples: posteriors and sensitivities (n, c), labels and membership (n,)."""

    posteriors: Tensor
    labels: Tensor
    sensitivities: Tensor
    member: Tensor


def query(models: list[nn.Module], parts: list[tuple[DataLoader, DataLoader]]) -> Answers:
    """Every model on its own members and test examples, after an evaluation of both."""
    found = []
    for model, loaders in zip(models, parts, strict=True):
        for batches in loaders:
            evaluation_pass(model, batches)
        for batches, member in zip(loaders, (1, 0), strict=True):
            answers = predict(model, batches)
            found.append((*answers, torch.full_like(answers[1], member)))
    return Answers(*(torch.cat(column) for column in zip(*found, strict=True)))


def threshold_attacks(shadows: Answers, victim: Answers, num_classes: int) -> dict[str, float]:
    """Balanced accuracy on the victim of three signals, each with a threshold a class and with one for all."""
    accuracy = {}
    for (name, known), asked in zip(signals(shadows).items(), signals(victim).values(), strict=True):
        one = np.full(num_classes, search(known, shadows.member.numpy()))
        each = np.array(
            [
                search(known[rows], shadows.member.numpy()[rows])
                for rows in (shadows.labels.numpy() == c for c in range(num_classes))
            ]
        )
        for kind, thresholds in (("per class", each), ("global", one)):
            said = asked >= thresholds[victim.labels.numpy()]
            member = victim.member.numpy() == 1
            accuracy[f"{name}, {kind}"] = (said[member].mean() + 1 - said[~member].mean()) / 2
    return accuracy


def signals(answers: Answers) -> dict[str, np.ndarray]:
    """Confidence, minus entropy and minus modified entropy, (n,) each."""
    p, labels = answers.posteriors.numpy(), answers.labels.numpy()
    true = np.arange(len(labels)), labels
    log_p, log_rest = np.log(np.maximum(p, 1e-30)), np.log(np.maximum(1 - p, 1e-30))
    modified = p * log_rest
    modified[true] = (1 - p[true]) * log_p[true]
    return {"confidence": p[true], "entropy": (p * log_p).sum(1), "modified entropy": modified.sum(1)}


def search(values: np.ndarray, member: np.ndarray, tried: np.ndarray | None = None) -> float:
    """Every value as a threshold (or those in `tried`), both rates counted from the start each time: quadratic."""
    inside, outside = values[member == 1], values[member == 0]
    best, threshold = -1.0, 0.0
    for value in values if tried is None else tried:
        tpr = np.sum(inside >= value) / max(len(inside), 1)
        tnr = np.sum(outside < value) / max(len(outside), 1)
        if tpr + tnr > best:
            best, threshold = tpr + tnr, value
    return threshold


def mlp(features: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, 512), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(256, 128), nn.ReLU(),
        nn.Linear(128, 2),
    )  # fmt: skip


class Samia(nn.Module):
    """Batch norm, one token a class, three of torch's encoder layers (class first, then batch), two linear layers."""

    def __init__(self, features: int):
        super().__init__()
        self.norm, self.embed = nn.BatchNorm1d(features), nn.Linear(3, 64)
        layer = nn.TransformerEncoderLayer(64, 4, dim_feedforward=128, dropout=0.2, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Linear(64 * features // 3, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.stack(self.norm(x).chunk(3, dim=1), dim=-1).transpose(0, 1)
        encoded = self.encoder(F.gelu(self.embed(tokens)))
        return self.head(encoded.transpose(0, 1).flatten(1))


def features(name: str, answers: Answers) -> Tensor:
    """What attack network `name` (nn, top3_nn, nn_class, samia) is fed."""
    label = F.one_hot(answers.labels, answers.posteriors.shape[1]).float()
    return {
        "nn": answers.posteriors,
        "top3_nn": answers.posteriors.topk(3, dim=1).values,
        "nn_class": torch.cat([answers.posteriors, label], 1),
        "samia": torch.cat([answers.posteriors, answers.sensitivities, label], 1),
    }[name]


def attack_network(name: str, shadows: Answers, victim: Answers, epochs: int) -> float:
    """Train it with SGD for `epochs`, evaluate it on the victim after each; the last accuracy."""
    rows, asked = features(name, shadows), features(name, victim)
    model = (Samia if name == "samia" else mlp)(rows.shape[1])
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [50, 75], gamma=0.1)
    known, judged = loader(rows, shadows.member, shuffle=True), loader(asked, victim.member, shuffle=True)
    accuracy = 0.5
    for _ in range(epochs):
        train_pass(model, optimiser, known)
        schedule.step()
        accuracy = evaluation_pass(model, judged)
    return accuracy
