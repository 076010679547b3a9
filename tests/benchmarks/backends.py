"""What it costs to train elsewhere: Dask's workers and SLURM's jobs against processes of this machine, on this machine.

    python tests/benchmarks/backends.py [--quick] [--workers 2] [--repeats 3]        (half an hour on two cores; quick: some minutes)

Trainings of Location's network, each alone and short, so that what surrounds them is seen. For each backend: the seconds of
60 trainings and their ratio to those of processes, in turns of one run, without the start of the workers, which is told
apart; then a model of the cost,

    seconds = a + b * trainings / workers        fitted at 10 and 100, checked at 300

with the coordinator's own CPU time for a training, which bounds how many workers it can keep busy; and what one killed worker
costs. Jobs of SLURM are submitit's local ones: a real queue adds its waiting. Each job starts Python and torch anew, so
there the trainings are fewer, as printed. `--quick` takes fewer of all. Medians over the repeats.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from mialib import models, training
from mialib.data import splits
from mialib.store import Store
from mialib.training import Recipe, tasks
from tests.benchmarks.pruning_audit import location
from tests.training import far

RECIPE = Recipe(3, 128)
BACKENDS = {
    "processes": {},
    "dask": {"MIALIB_BACKEND": "dask"},
    "slurm, local jobs": {"MIALIB_BACKEND": "slurm", "MIALIB_ADDRESS": "local"},
}


class Bench:
    """Trainings of one network on one data set, each in a store of its own."""

    def __init__(self, most: int):
        self.pool = location()
        self.make_model = models.make("columnfc", self.pool)
        self.split = splits.target_shadow(len(self.pool), 1, most, seed=0)

    def seconds(self, count: int, make_model=None) -> tuple[float, float, float]:
        """Of `count` trainings: the wall clock's, this process's CPU time, and a training's own."""
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MIALIB_CACHE"] = folder
            wall, cpu = time.perf_counter(), time.process_time()
            found = training.fit(
                make_model or self.make_model,
                self.pool,
                self.split[:count],
                RECIPE,
                cache=Store(folder),
                batched=False,
            )
            own = statistics.mean(record["seconds"] for record in found.records)
            return time.perf_counter() - wall, time.process_time() - cpu, own

    def killed(self, count: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            make_model = partial(far.fragile, os.getpid(), f"{folder}/mark", self.make_model)
            return self.seconds(count, make_model)[0]


def use(name: str, workers: int) -> None:
    for variable in ("MIALIB_BACKEND", "MIALIB_ADDRESS", "MIALIB_WORKERS"):
        os.environ.pop(variable, None)
    os.environ.update(BACKENDS[name])
    if name not in used:  # the same workers at each turn
        training.use_processes(workers)
        used[name] = tasks.runner()
    tasks.send_to(used[name])


used: dict[str, tasks.Runner | None] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    workers, repeats = options.workers, 1 if options.quick else options.repeats
    many, few, more, check = (20, 4, 24, 48) if options.quick else (60, 10, 100, 300)
    fewer = {"slurm, local jobs": (2, 8, 12) if options.quick else (4, 20, 40)}
    bench = Bench(check)
    print(
        f"{bench.pool.name}, {RECIPE.epochs} epochs a training, {workers} workers, torch {torch.__version__}"
    )
    print(f"load average {os.getloadavg()[0]:.1f} at the start: others' work makes all of this slower\n")

    for name in BACKENDS:
        use(name, workers)
        began = time.perf_counter()
        for _ in tasks.as_finished((tasks.Call(i, far.double, (i, 0.5)) for i in range(workers)), large=True):
            pass
        bench.seconds(2)
        print(f"start, {name}: {time.perf_counter() - began:.1f} s until {workers} workers have trained once")

    taken: dict[str, list[float]] = {name: [] for name in BACKENDS}
    for _ in range(repeats):
        for name in BACKENDS:
            use(name, workers)
            count = min(many, fewer[name][1]) if name in fewer else many
            taken[name].append(bench.seconds(count)[0] / count)
    base = statistics.median(taken["processes"])
    print("\n| backend | seconds a training | ratio to processes |\n|---|---|---|")
    for name, each in taken.items():
        print(f"| {name} | {statistics.median(each):.3f} | {statistics.median(each) / base:.2f} |")

    print(
        "\n| backend | a, s | b, s | checked at | predicted, s | measured, s | coordinator's CPU, s a training |"
    )
    print("|---|---|---|---|---|---|---|")
    limits = []
    for name in BACKENDS:
        use(name, workers)
        small, large, last = fewer.get(name, (few, more, check))
        (first, *_), (second, cpu, own), (measured, *_) = (
            [
                statistics.median(part)
                for part in zip(*(bench.seconds(n) for _ in range(repeats)), strict=True)
            ]
            for n in (small, large, last)
        )
        b = (second - first) * workers / (large - small)
        a = first - b * small / workers
        predicted, coordinator = a + b * last / workers, cpu / large
        print(
            f"| {name} | {a:.2f} | {b:.3f} | {last} | {predicted:.1f} | {measured:.1f} | {coordinator:.4f} |"
        )
        if min(b, coordinator) <= 0:
            limits.append(
                f"{name}: no model of the cost, others' work drowned it; measure again on an idle machine"
            )
            continue
        limits.append(
            f"{name}: of b, {own:.3f} s is training; 10,000 trainings take {(a + 10_000 * b / workers) / 3600:.1f} h with "
            f"{workers} workers; the coordinator keeps at most {b / coordinator:.0f} workers busy, with which they take "
            f"{(a + 10_000 * coordinator) / 60:.0f} min"
        )
    print("\n" + "\n".join(limits) + "\n")

    for name in BACKENDS:
        use(name, workers)
        count = fewer[name][1] if name in fewer else many
        whole, broken = bench.seconds(count)[0], bench.killed(count)
        print(
            f"one killed worker, {name}: {broken - whole:+.1f} s on {whole:.1f} s of {count} trainings",
            flush=True,
        )


if __name__ == "__main__":
    main()
