"""SAMIA networks together under vmap against one after another, and what a step of one takes.

    python tests/benchmarks/attack_population.py [--turns 3] [--epochs 1]     (about a minute)

CPU seconds of one thread, ratio of the two in turns. Then the operations and bytes of a step, counted, and what follows for
the official schedule: no arithmetic or memory can be faster than that, and nothing here was measured on a GPU.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mialib.asking import Views
from mialib.attacks import neural
from mialib.attacks.neural import NeuralAttack
from mialib.data import Dataset, splits
from mialib.models import attack_networks
from mialib.store import Store
from mialib.training import Recipe, cross_entropy, loop
from mialib.training.descent import Shuffling
from mialib.training.hooks import Hooks

LESSONS, TRAININGS, CLASSES, BATCH = 9, 3, 10, 128
ROWS = 135_000  # CIFAR-10: 27,000 candidates of five shadow models
EPOCHS = 100


def lesson(seed: int, rows: int) -> tuple[Views, torch.Tensor]:
    """Answers and membership of one shadow model, made up."""
    generator = torch.Generator().manual_seed(seed)
    member = torch.arange(rows)[None] % 2 == 0
    logits = torch.randn(1, rows, CLASSES, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (1, rows), generator=generator)
    moved = torch.rand(1, rows, CLASSES, generator=generator, dtype=torch.float64)
    return Views((logits * (1 + member[..., None])).log_softmax(-1), labels, moved), member


def seconds(attack: NeuralAttack, lessons: list, batched: bool) -> float:
    with tempfile.TemporaryDirectory() as root:
        began = time.process_time()
        replace(attack, batched=batched, cache=Store(Path(root))).fit_all(lessons)
        return time.process_time() - began


class Counted(TorchDispatchMode):
    """Calls, and the bytes of the tensors that they read and write, where each is a kernel of its own."""

    def __init__(self):
        super().__init__()
        self.calls = self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if not function.is_view:
            tensors = [one for one in tree_leaves((args, kwargs, made)) if isinstance(one, torch.Tensor)]
            self.calls += 1
            self.bytes += sum(one.numel() * one.element_size() for one in tensors)
        return made


def a_step(recipe: Recipe) -> tuple[int, int, int]:
    """Operations (a multiplication and an addition are two), bytes and calls of a network's training step."""

    def epoch(steps: int) -> tuple[int, int, int]:
        x, y = torch.rand(steps * BATCH, 3 * CLASSES), torch.arange(steps * BATCH) % 2
        rows, split = Dataset.of_features("rows", x, y, 2), splits.everyone(steps * BATCH, [0])
        make = neural.attacks()["samia"].network(3 * CLASSES)
        with FlopCounterMode(display=False) as flops, Counted() as counted:
            loop.train(make, rows, recipe, split=split, hooks=Hooks(cross_entropy, Shuffling()))
        return flops.get_total_flops(), counted.bytes, counted.calls

    return tuple(two - one for two, one in zip(epoch(2), epoch(1), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rows", type=int, default=512, help="of each lesson")
    options = parser.parse_args()
    torch.set_num_threads(1)
    schedule = neural.schedule(options.epochs, 1e-3, "sgd", BATCH)
    attack = neural.attacks(schedule, trainings=TRAININGS)["samia"]
    lessons = [lesson(seed, options.rows) for seed in range(LESSONS)]
    seconds(attack, lessons[:1], True)  # warm-up
    turns = [[seconds(attack, lessons, batched) for batched in (False, True)] for _ in range(options.turns)]
    k = LESSONS * TRAININGS
    apart, together = (statistics.median(turn[i] for turn in turns) for i in (0, 1))
    ratios = [turn[0] / turn[1] for turn in turns]
    print(
        f"{k} networks, {options.epochs} epochs of {options.rows} rows: one after another {apart:.2f} s, ",
        end="",
    )
    print(
        f"together {together:.2f} s, ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )

    steps = EPOCHS * -(-ROWS // BATCH)
    print(
        f"official schedule: {steps:,} steps of {k} networks; in two minutes {120e3 / steps:.2f} ms for all {k}"
    )
    for precision in ("float32", "bf16"):
        operations, size, calls = a_step(replace(schedule, epochs=1, precision=precision))
        print(
            f"{precision}: a step of one network {operations / 1e9:.2f} GFLOP, {size / 1e6:.0f} MB in {calls} calls; "
            f"all {steps * k * operations / 1e15:.2f} PFLOP, {steps * k * size / 1e15:.2f} PB, "
            f"{steps * calls / 1e6:.0f} million calls together, {steps * calls * k / 1e6:.0f} one after another"
        )
    parameters = sum(p.numel() for p in attack_networks.samia_network(CLASSES).parameters())
    features = LESSONS * ROWS * 3 * CLASSES * 4
    print(
        f"{parameters:,} parameters a network; rows {features / 1e6:.0f} MB, their order {k * ROWS * 8 / 1e6:.0f} MB, "
        f"masks {3 * k * LESSONS * ROWS / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
