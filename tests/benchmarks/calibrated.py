"""The calibrated attacks: how long they take, how much they find on Location, and what a public scorer finds.

    python tests/benchmarks/calibrated.py speed      64 shadows x 50,000 candidates x 10 classes, made up
    python tests/benchmarks/calibrated.py location --answers FILE.npz [--models 66] [--targets 4]
    python tests/benchmarks/calibrated.py peers --answers FILE.npz --python OTHER_ENVIRONMENT/bin/python

`location` trains the models (446-256-128-30 without dropout, Adam 1e-3, batch 128, 50 epochs, random halves in pairs) where
FILE does not hold their answers, then attacks 4 targets with 2, 4, 8, 16 and 64 shadows. The data: MIALIB_DATA.
`peers` compares, by the AUC of each target, with each formula written out in loops and with the `logit_rescale_threshold_func`
of privacy-meter 1.0.1 (`pip install --no-deps privacy-meter numpy scipy` in the other environment), on the same answers.
"""

import argparse
import json
import resource
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mialib import data
from mialib.asking import Views, ask
from mialib.attacks import suites
from mialib.attacks.likelihood import LiRA
from mialib.attacks.ratios import log_softened
from mialib.attacks.signals import confidence
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


def speed(candidates: int, turns: int) -> None:
    """CPU seconds of a call, which on two idle cores are no fewer than its seconds; memory above that of the answers."""
    generator = torch.Generator().manual_seed(0)
    member = splits.random_halves(candidates, 66, 0, reserve_fraction=0.0).member
    labels = torch.randint(10, (candidates,), generator=generator).expand(66, -1)
    logits = torch.randn(66, candidates, 10, generator=generator, dtype=torch.float64)
    logits.scatter_add_(-1, labels[..., None], 2 + 3 * member[..., None].double())
    seen = Views(logits.log_softmax(-1), labels)
    del logits
    for name, attack in suites.yardstick().items():
        spent, waited = [], []
        for _ in range(turns):
            began = time.process_time(), time.time()
            attack(seen[:1], seen[2:], member[2:])
            spent.append(time.process_time() - began[0])
            waited.append(time.time() - began[1])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{name:18s} {min(waited):6.2f} s, {min(spent):6.2f} s of CPU, peak so far {peak:.2f} GiB",
            flush=True,
        )


def by_formulas(name: str, own, p, member, phi_own, phi) -> list[float]:
    """Scores of an attack as its paper writes it, candidate by candidate; p_T and log-odds (s, n)."""
    found = []
    for x in range(p.shape[1]):
        inside, outside = p[member[:, x], x], p[~member[:, x], x]
        if name == "base_online":
            found.append(np.log(own[x]) - np.log(np.concatenate([inside, outside]).mean()))
        elif name == "base_offline":
            found.append(np.log(own[x]) - 0.33 * np.log(outside.mean()))
        elif name == "rmia_online":
            found.append(own[x] / np.concatenate([inside, outside]).mean())
        elif name == "rmia_offline":
            found.append(own[x] / ((1.33 * outside.mean() + 0.67) / 2))
        else:  # LiRA, one Gaussian a side of each candidate
            a, b = phi[member[:, x], x], phi[~member[:, x], x]
            va, vb = max(a.var(ddof=1), 1e-6), max(b.var(ddof=1), 1e-6)
            likelihoods = [-((phi_own[x] - m.mean()) ** 2 / v + np.log(v)) / 2 for m, v in ((a, va), (b, vb))]
            found.append(likelihoods[0] - likelihoods[1])
    if name.startswith("rmia"):  # the share of z that x beats by gamma = 2
        ratio = np.array(found)
        return [float(np.mean(one > 2 * ratio)) for one in ratio]
    return found


# of the losses of non-member shadows: the level at which a candidate is first called a member, by bisection of levels
PEER = """
import json, sys
import numpy as np
from privacy_meter.hypothesis_test import logit_rescale_threshold_func as threshold
own, losses = (np.array(x) for x in json.load(sys.stdin))
levels = np.logspace(-12, 0, 2000)[:-1]
bars = threshold(losses, levels)
called = own <= bars.T if bars.shape[0] == len(own) else own <= bars
json.dump([float(x) for x in called.sum(0)], sys.stdout)
"""


def peers(file: Path, python: str | None, shadows: int = 16) -> None:
    seen, member = saved(file)
    scored = {name: [] for name in (*BY_FORMULA, "privacy-meter")}
    ours = {name: [] for name in suites.yardstick() | {"lira_online_each": LiRA(True, False)}}
    for target, truth, others, inside in lessons(seen, member, 4, shadows):
        own, p = (log_softened(one, 2.0).exp().numpy() for one in (target, others))
        phi_own, phi = (confidence(one.log_posteriors, one.labels).numpy() for one in (target, others))
        for name in BY_FORMULA:
            scores = by_formulas(name, own[0], p, inside.numpy(), phi_own[0], phi)
            scored[name].append(metrics.auc(truth, torch.tensor(scores)).value)
        for name, attack in (suites.yardstick() | {"lira_online_each": LiRA(True, False)}).items():
            ours[name].append(metrics.auc(truth, attack(target, others, inside)).value)
        if python is not None:
            losses = [-log_softened(one, 1.0).numpy() for one in (target, others)]
            outside = [losses[1][~inside[:, x].numpy(), x].tolist() for x in range(losses[1].shape[1])]
            done = subprocess.run(
                [python, "-c", PEER], input=json.dumps([losses[0][0].tolist(), outside]), text=True,
                capture_output=True, check=True,
            )  # fmt: skip
            scored["privacy-meter"].append(metrics.auc(truth, torch.tensor(json.loads(done.stdout))).value)
    for title, table in (("theirs", scored), ("ours", ours)):
        for name, values in table.items():
            if values:
                print(f"{title:6s} {name:18s} " + " ".join(f"{value:.4f}" for value in values))


BY_FORMULA = ("lira_online_each", "base_online", "base_offline", "rmia_online", "rmia_offline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=("speed", "location", "peers"))
    parser.add_argument("--answers", type=Path, default=Path("answers.npz"))
    parser.add_argument("--models", type=int, default=66)
    parser.add_argument("--targets", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=50_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--python", help="of the environment that has privacy-meter")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "speed":
        speed(options.candidates, options.turns)
    elif options.what == "location":
        location(options.answers, options.models, options.targets)
    else:
        peers(options.answers, options.python)


if __name__ == "__main__":
    main()
