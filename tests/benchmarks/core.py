"""What the core costs, in CPU seconds: training, the cache, questions, attacks. Against another checkout, ratios in turns.

    python tests/benchmarks/core.py                               (a minute)
    python tests/benchmarks/core.py --against FOLDER [--turns 3]  (FOLDER: a checkout with the same calls)

CPU time of one thread, so that what else runs on the machine counts little. Six small networks on digits.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def parts() -> dict[str, float]:
    """Seconds of each part, in this process."""
    import torch

    from mialib import asking, data, models, training
    from mialib.attacks import neural, threshold
    from mialib.data import Dataset, splits
    from mialib.study import Given, Study
    from mialib.training import Recipe, population

    torch.set_num_threads(1)
    pool = data.load("digits")
    split = splits.target_shadow(len(pool), 3, 3, 0, 100)
    make_model, recipe = models.make("small_cnn", pool), Recipe(25, 32)
    seconds = {}

    def timed(name, work, times=1):
        began = time.process_time()
        for _ in range(times):
            result = work()
        seconds[name] = time.process_time() - began
        return result

    training.fit(make_model, pool, split[:1], Recipe(1, 32))  # warm-up
    trained = timed("training, one by one", lambda: training.fit(make_model, pool, split, recipe))
    timed("best epoch kept", lambda: training.fit(make_model, pool, split, Recipe(25, 32, select_best=True)))
    timed("all at once", lambda: training.fit(make_model, pool, split, Recipe(8, 32), batched=True))
    timed("from the cache, 20 times", lambda: training.fit(make_model, pool, split, recipe), times=20)
    # a study does nothing twice, so each time is a new one's, of the same answers
    arm = Study(pool, split, 3).arm("asked", trained)
    views = timed("answers and sensitivity", lambda: arm.answers.views(sensitive=True))

    def attack(suite):
        found = Study(pool, split, 3)
        found.arm("asked", Given(*views))
        found.attack(suite)

    timed("threshold attacks, 20 times", lambda: attack(threshold.ATTACKS), times=20)
    samia = neural.attacks(neural.schedule(8, 1e-3, "adam"), trainings=1)["samia"]
    timed("SAMIA, 8 epochs", lambda: attack({"samia": samia}))
    for architecture, shape, count, n in (("resnet18", (3, 32, 32), 2, 16), ("columnfc", (446,), 8, 300)):
        x = torch.randint(0, 256, (2 * n, *shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        random = Dataset(
            "random", x, torch.arange(2 * n) % 10, 10, torch.zeros(shape[0]), torch.ones(shape[0])
        )
        networks = population.initial(models.make(architecture, random), list(range(count)))
        index = torch.stack([torch.randperm(2 * n)[:n] for _ in range(count)])
        ask = partial(asking.ask, networks, random, index)
        timed(f"answers and sensitivity, {count} {architecture}", ask)
    return seconds


def of_checkout(folder: Path) -> dict[str, float]:
    """`parts` of the package in `folder`, in a process and with a cache of its own."""
    with tempfile.TemporaryDirectory() as cache:
        own = {
            "PYTHONPATH": str(folder),
            "MIALIB_CACHE": cache,
            "MIALIB_PROGRESS": os.devnull,
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, __file__, "--json"]
        done = subprocess.run(
            command, env=os.environ | own, cwd=folder, check=True, stdout=subprocess.PIPE, text=True
        )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="the parts of the package that is imported")
    options = parser.parse_args()
    if options.json:
        print(json.dumps(parts()))
        return
    folders = [ROOT, *([options.against.resolve()] if options.against else [])]
    turns = [[of_checkout(folder) for folder in folders] for _ in range(options.turns)]
    for name in turns[0][0]:
        line = f"{name:38} {statistics.median(turn[0][name] for turn in turns):8.2f} s"
        if options.against:
            ratios = [turn[0][name] / turn[1][name] for turn in turns]
            line += f"   ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(line)


if __name__ == "__main__":
    main()
