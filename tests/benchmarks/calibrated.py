"""The calibrated attacks: how long they take, how much they find on Location, and what a public scorer finds.

    python tests/benchmarks/calibrated.py speed      64 shadows x 50,000 candidates x 10 classes, made up
    python tests/benchmarks/calibrated.py location --answers FILE.npz [--models 66] [--targets 4]
    python tests/benchmarks/calibrated.py peers --answers FILE.npz --python OTHER_ENVIRONMENT/bin/python

`location` trains the models (446-256-128-30 without dropout, Adam 1e-3, batch 128, 50 epochs, random halves in pairs) where
FILE does not hold their answers, then attacks 4 targets with 2, 4, 8, 16 and 64 shadows. The data: MIALIB_DATA.
`peers` compares, candidate by candidate, with each formula written out in loops and with the `logit_rescale_threshold_func`
of privacy-meter 1.0.1 (`pip install --no-deps privacy-meter numpy scipy` in the other environment), on the same answers.
"""

import argparse
import json
import resource
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mialib import data
from mialib.asking import Views, ask
from mialib.attacks import likelihood, suites
from mialib.data import splits
from mialib.measures import metrics
from mialib.models.layers import mlp
from mialib.training import Recipe, fit

SHADOWS = (2, 4, 8, 16, 64)


def network() -> nn.Module:
    return mlp((446, 256, 128, 30), ())


def train(models: int, file: Path) -> None:
    """Answers of all models on all rows that are not kept back, saved to `file`."""
    location = data.load("location")
    split = splits.random_halves(len(location), models, seed=0, reserve_fraction=0.0)
    recipe = Recipe(epochs=50, batch_size=128, lr=1e-3, weight_decay=0.0)
    began = time.time()
    population = fit(network, location, split, recipe)
    index = (split.member | split.test)[0].nonzero()[:, 0]
    seen = ask(population, location, index, sensitive=False)
    print(f"{models} models in {time.time() - began:.0f} s")
    np.savez(file, answers=seen.log_posteriors, labels=seen.labels, member=split.member[:, index])


def saved(file: Path) -> tuple[Views, torch.Tensor]:
    found = np.load(file)
    return Views(torch.from_numpy(found["answers"]), torch.from_numpy(found["labels"])), torch.from_numpy(
        found["member"]
    )


def lessons(seen: Views, member: torch.Tensor, targets: int, shadows: int):
    """(target, its membership, shadows, theirs): target i is a model of pair i, the shadows those of the next pairs."""
    pairs = len(seen) // 2
    for i in range(targets):
        rows = [2 * ((i + 1 + j) % pairs) + side for j in range(shadows // 2) for side in (0, 1)]
        yield seen[2 * i : 2 * i + 1], member[2 * i], seen[rows], member[rows]


def found(attack, lesson) -> list[float]:
    """AUC, TPR at 1 % and at 0.1 % FPR, balanced accuracy."""
    target, truth, shadows, member = lesson
    margins = attack(target, shadows, member)
    rates = [metrics.tpr_at_fpr(truth, margins, rate).value for rate in (0.01, 0.001)]
    return [metrics.auc(truth, margins).value, *rates, metrics.balanced_accuracy(truth, margins).value]


def location(file: Path, models: int, targets: int) -> None:
    if not file.exists():
        train(models, file)
    seen, member = saved(file)
    print("shadows attack               AUC   1 %  0.1 %  balanced accuracy")
    for shadows in SHADOWS:
        if shadows > len(seen) - 2:
            continue
        for name, attack in suites.yardstick(shadows).items():
            values = np.mean([found(attack, lesson) for lesson in lessons(seen, member, targets, shadows)], 0)
            print(f"{shadows:7d} {name:18s} " + " ".join(f"{value:6.4f}" for value in values), flush=True)


if __name__ == "__main__":
    import sys

    location(Path(sys.argv[1]), 66, 4)
