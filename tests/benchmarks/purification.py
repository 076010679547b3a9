"""What an output defence costs: seconds for the same answers of F, F + purifier, F + swapper, F + MemGuard, in one run.

    python tests/benchmarks/purification.py [--cuda]          (about two minutes on two cores)

Prints ratios to F, of the median of several turns; and the most memory that answering ten times as many inputs takes,
against once as many (defences answer in batches of bounded size). F is a ResNet-18 as first initialised on random
32x32 pictures: what it has learned does not change its cost, and MemGuard's search runs its course all the same.
"""

import argparse
import statistics
import time

import torch

from mialib import asking, defenses, models
from mialib.data import Dataset, splits
from mialib.defenses import memguard, purifier, reformer, swapper
from mialib.training import Recipe, population

ROUNDS = 5
ANSWERS = 512


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuda", action="store_true")
    device = "cuda" if parser.parse_args().cuda else "cpu"
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (2000, 3, 32, 32), dtype=torch.uint8, generator=generator)
    y = torch.randint(0, 10, (2000,), generator=generator)
    pool = Dataset("noise", x, y, 10, torch.zeros(3), torch.ones(3)).to(device)
    split = splits.d1_d2_d3(2000, 500, 500, 500, seed=0)
    network = population.initial(models.make("resnet18", pool), [0]).to(device)
    known = defenses.defender(network, pool, split)
    short = Recipe(2, 64)
    guards = {
        "F + purifier": purifier.fit(known, (20, 7, 4, 7), 0.2, recipe=short),
        "F + reformer": reformer.fit(known, (32, 64, 128), 2, 0.2, 1e-3, recipe=short),
        "F + swapper": swapper.fit(known, seed=0),
        "F + MemGuard": memguard.fit(known, 1.0, recipe=short),
    }
    index = split.test.nonzero()[:ANSWERS, 1][None]
    raw = asking.log_posteriors(network, pool, index)
    works = {"F": lambda: asking.log_posteriors(network, pool, index)}
    works |= {name: lambda guard=guard: guard(raw) for name, guard in guards.items()}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(ROUNDS + 1):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - began)
    of_f = statistics.median(seconds.pop("F"))
    print(f"F, ResNet-18: {1e3 * of_f / index.shape[1]:.2f} ms an answer")
    for name, found in seconds.items():
        print(f"{name:14} {1 + statistics.median(found) / of_f:8.4f} times F")
    own = {name: statistics.median(found) for name, found in seconds.items()}
    print(f"MemGuard / purifier, alone: {own['F + MemGuard'] / own['F + purifier']:,.0f}")

    many = raw.repeat(1, 200, 1)  # 100,000 answers
    for name in ("F + purifier", "F + swapper"):
        print(f"{name:14} memory beyond what comes in and out, {peak(guards[name], many[:, :10_000]):.0f} MiB"
              f" for 10,000 answers, {peak(guards[name], many):.0f} MiB for {many.shape[1]:,}")  # fmt: skip


def peak(guard, answers) -> float:
    """Rise of the process's highest resident memory while it answers, MiB, less the answers themselves."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    guard(answers)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max(0.0, (after - before) / 1024)


if __name__ == "__main__":
    main()
