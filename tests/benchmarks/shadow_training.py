"""How fast are shadow models trained, and what does each cost? Ours against a plain loop and against ART; ratios from one run.

    python tests/benchmarks/shadow_training.py [--quick] [--repeats 3] [--processes 2] [--art PYTHON]

ART is in an environment of its own, which may use the torch of this one (the second line; without it, install torch too):

    python -m venv art && art/bin/pip install adversarial-robustness-toolbox==1.20.1
    python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > art/lib/python3.11/site-packages/beside.pth
    python tests/benchmarks/shadow_training.py --art art/bin/python

Compared: 16 shadow models as in Yuan & Zhang 2022 on Location (`params/yuan2022_pruning/location.yaml`): ColumnFC, 1,126
members each, 50 epochs of Adam (1e-3, decay 5e-4, batches of 128), on the CPU. The run's early stopping is off, so that all
take the same 450 steps a model. All three sides run in turns, repeated; the table holds medians.

    ours         `training.fit` with a fresh store, in `--processes` one-thread processes, and in one
    plain loop   what one writes by hand: a DataLoader of a TensorDataset, `public_design.ColumnFC`, one model after the other
    ART          `ShadowModels` of a `PyTorchClassifier` with the same network. Two things are mended, or it would train
                 others: `fit` takes 50 epochs, for ShadowModels leaves it at its default, 10; a clone starts from ColumnFC's
                 own weights, for ART resets them to torch's defaults. It draws members itself, as many of the same half
                 of the data. Only its `fit` is timed, not the answers that it asks for afterwards.

The last two run with torch's default number of threads or with one, whichever a short trial of the plain loop finds faster at
the moment, and the trial is printed: threads that wait for a core that somebody else has taken are many times slower, and
would flatter us. The seconds of ours contain the store's keys and files; those of nobody contain importing torch. What it
takes to start our processes, once a session, is printed, and the ratio without it and with it. Nothing is scaled; --quick
trains 4 models instead of 16.
CPU seconds count all processes, and tell more than wall seconds on a busy machine. Test accuracy is that on each model's
own non-members: mean and standard error over the models of all repeats, which draw members and seeds anew, and the 95 %
interval (Student's t) of the difference to ours: paired for the plain loop, which trains on the same members; "same" means
that the interval holds 0. It tells differences of half a point from chance with some 200 models: 14 repeats.

The second table is what a model costs as their number k grows: each k in a fresh process with fresh workers, 5 epochs, so
that all that is done besides training shows. The parent's growth is its peak less what it held before `fit`. Memory and the
CPU time of workers are read from /proc, and are nan where there is none.

Data: Location from MIALIB_DATA, else from ../shared/data; where it is in neither, random binary data of the same shape.
This is no test: nothing passes or fails. Quick takes up to two minutes of CPU time (measured), the whole about ten minutes
on two idle cores (reckoned from that).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import public_design as public
import torch
from scipy import stats
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

# mialib is imported where it is used: ART's environment has none

SHADOWS, EPOCHS, SEED = 16, 50, 7
COST_EPOCHS, COUNTS = 5, (1, 4, 16, 64, 256)
AIMS = {"plain loop": "4x", "ART": "2x"}
HOW = "needs --art PYTHON, the interpreter of an environment with ART (the docstring tells how to make one)"
PROC = Path("/proc")


@dataclass(frozen=True)
class Run:
    """Seconds of all models together, and the test accuracy of each."""

    wall: float
    cpu: float
    accuracy: list[float]


@dataclass(frozen=True)
class Cost:
    """Of `count` models together: seconds; of memory, bytes."""

    count: int
    wall: float
    cpu: float
    networks: int
    parent: float
    growth: float
    worker: float


# --- what processes take -------------------------------------------------------------------------------------------


def children() -> Iterator[Path]:
    """The folders of this process's living children in /proc."""
    for folder in PROC.glob("[0-9]*"):
        try:
            if int(status(folder, "PPid")) == os.getpid():
                yield folder
        except OSError:  # it has ended
            continue


def status(folder: Path, name: str) -> str:
    """The first word of a line of /proc/*/status."""
    lines = (folder / "status").read_text().splitlines()
    return next((line.split()[1] for line in lines if line.startswith(f"{name}:")), "nan")


def memory(name: str, folder: Path = PROC / "self") -> float:
    """Bytes of a process: VmHWM, its peak, or VmRSS, what it holds now."""
    return float(status(folder, name)) * 1024 if PROC.is_dir() else float("nan")


def cpu() -> float:
    """CPU seconds so far of this process and of its children, the living and the ended."""
    if not PROC.is_dir():
        return float("nan")
    own = sum(os.times()[:4])
    # fields 14 and 15; the second, the name, may hold blanks
    ticks = [(child / "stat").read_text().rpartition(")")[2].split()[11:13] for child in children()]
    return own + sum(int(user) + int(system) for user, system in ticks) / os.sysconf("SC_CLK_TCK")


def timed(work: Callable) -> tuple[object, float, float]:
    """What `work` gives, and its wall and CPU seconds."""
    spent, began = cpu(), time.perf_counter()
    result = work()
    return result, time.perf_counter() - began, cpu() - spent


# --- the three sides -----------------------------------------------------------------------------------------------


def plain(
    x: Tensor, y: Tensor, members: Tensor, seeds: list[int], classes: int, epochs: int
) -> list[nn.Module]:
    """One model after the other, the way one writes it by hand; members bool (k, n)."""
    models = []
    for member, seed in zip(members, seeds, strict=True):
        torch.manual_seed(seed)
        model = public.ColumnFC(x.shape[1], classes)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-4)
        batches = DataLoader(TensorDataset(x[member], y[member]), batch_size=public.BATCH, shuffle=True)
        model.train()
        for _ in range(epochs):
            for inputs, labels in batches:
                optimiser.zero_grad()
                loss = nn.functional.cross_entropy(model(inputs), labels)
                loss.backward()
                optimiser.step()
        models.append(model)
    return models


def faster_threads(dataset, split) -> int:
    """torch's default number of threads or one, whichever trains the plain loop faster at the moment."""
    x, y, taken = dataset.x.float(), dataset.y, {}
    for threads in 2 * (torch.get_num_threads(), 1):
        torch.set_num_threads(threads)
        for epochs in (1, 3):  # the first for what torch loads at its first step
            _, wall, _ = timed(lambda e=epochs: plain(x, y, split.member[:1], [0], dataset.num_classes, e))
        taken[threads] = min(taken.get(threads, float("inf")), wall / epochs)
    found = ", ".join(f"{threads} {1000 * wall:.0f} ms" for threads, wall in taken.items())
    print(f"threads of the plain loop and of ART; an epoch of the plain loop takes with {found}", flush=True)
    return min(taken, key=taken.get)


def run_plain(dataset, split, epochs: int, threads: int) -> Run:
    from mialib import streams

    torch.set_num_threads(threads)
    x, y = dataset.x.float(), dataset.y
    seeds = streams.seeds(split.seeds.tolist(), "plain loop")
    plain(x, y, split.member[:1], seeds[:1], dataset.num_classes, 1)  # what torch loads at its first step
    models, wall, spent = timed(lambda: plain(x, y, split.member, seeds, dataset.num_classes, epochs))
    accuracy = []
    with torch.no_grad():
        for model, test in zip(models, split.test, strict=True):
            accuracy.append((model.eval()(x[test]).argmax(1) == y[test]).double().mean().item())
    return Run(wall, spent, accuracy)


def ours(dataset, split, epochs: int, processes: int) -> tuple:
    """A population, and the seconds of its training."""
    from mialib import models, training
    from mialib.store import Store
    from mialib.training import Recipe

    training.use_processes(processes)
    make_model, recipe = (
        models.make("columnfc", dataset),
        Recipe(epochs),
    )  # the recipe's defaults are the paper's
    with tempfile.TemporaryDirectory() as folder:
        cache = Store(folder)
        return timed(lambda: training.fit(make_model, dataset, split, recipe, cache=cache))


def run_ours(dataset, split, epochs: int, processes: int) -> Run:
    from mialib import asking

    population, *seconds = ours(dataset, split, epochs, processes)
    return Run(*seconds, asking.accuracy(population, dataset, split.test).tolist())


def start(processes: int) -> float:
    """Start the processes and let each load what training loads at its first step: the seconds that takes."""
    from pruning_audit import random_data

    from mialib.data import splits

    rows = random_data(256, 30, seed=0)
    return ours(rows, splits.everyone(len(rows), list(range(2 * processes))), 1, processes)[1]


def shadows_of(count: int, seed: int = SEED) -> tuple:
    """The data, and the split of `count` shadow models."""
    from pruning_audit import location

    from mialib.data import splits

    dataset = location()
    return dataset, splits.target_shadow(len(dataset), 1, count, seed)[1:]


def run_art(python: str, dataset, split, epochs: int, threads: int) -> Run:
    """ShadowModels on the half of the data that all shadow models share, in a process of ART's environment."""
    from mialib import streams

    half = (split.member | split.test | split.reserve)[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "half.npz"
        numbers = dict(members=int(split.member[0].sum()), models=len(split), classes=dataset.num_classes)
        seed = streams.seed(SEED, "ART")
        x, y = dataset.x[half].float().numpy(), dataset.y[half].numpy()
        np.savez(path, x=x, y=y, epochs=epochs, threads=threads, seed=seed, **numbers)
        return Run(**own_process("--art-side", path, python=python, CUDA_VISIBLE_DEVICES=""))


def art_side(path: Path) -> Run:
    """What runs in ART's environment."""
    from art.attacks.inference.membership_inference import ShadowModels
    from art.estimators.classification import PyTorchClassifier

    given = dict(np.load(path))
    classes, epochs, seed = (int(given[name]) for name in ("classes", "epochs", "seed"))
    x, y, features = given["x"], np.eye(classes, dtype=np.float32)[given["y"]], given["x"].shape[1]
    torch.set_num_threads(int(given["threads"]))
    torch.manual_seed(seed)
    seconds = []  # wall and CPU, of each fit

    class Classifier(PyTorchClassifier):
        def fit(self, x, y, **options):
            fit = super().fit
            seconds.append(timed(lambda: fit(x, y, nb_epochs=epochs, **options))[1:])

        def reset(self):
            self.model.load_state_dict(public.ColumnFC(features, classes).state_dict())

    network = public.ColumnFC(features, classes)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=5e-4)
    template = Classifier(network, nn.CrossEntropyLoss(), (features,), classes, optimizer=adam)
    PyTorchClassifier.fit(
        template.clone_for_refitting(), x, y, nb_epochs=1
    )  # what torch loads at its first step
    shadows = ShadowModels(template, num_shadow_models=int(given["models"]), random_state=seed)
    ratio = (int(given["members"]) + 0.5) / len(x)  # it rounds down
    _, (_, labels, answers) = shadows.generate_shadow_dataset(x, y, member_ratio=ratio)
    trained_on = {len(rows) for rows, _ in shadows.get_shadow_models_train_sets()}
    if trained_on != {int(given["members"])}:
        raise RuntimeError(f"ART trained on {trained_on} members, {given['members']} were meant")
    right = (labels.argmax(1) == answers.argmax(1)).reshape(int(given["models"]), -1)
    return Run(*map(sum, zip(*seconds, strict=True)), right.mean(1).tolist())


def own_process(*arguments, python: str = sys.executable, **environment: str) -> dict:
    """This file run by `python` with these arguments; the JSON of its last line."""
    command = [python, __file__, *map(str, arguments)]
    done = subprocess.run(
        command, env=os.environ | environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


# --- what a model costs --------------------------------------------------------------------------------------------


def cost(count: int, processes: int) -> Cost:
    """Of `count` models, in a process that has trained nothing before."""
    start(processes)
    dataset, split = shadows_of(count)
    held = memory("VmRSS")
    population, *seconds = ours(dataset, split, COST_EPOCHS, processes)
    peak = memory("VmHWM")
    worker = max((memory("VmHWM", child) for child in children()), default=float("nan"))
    networks = sum(tensor.nbytes for tensor in (population.params | population.buffers).values())
    return Cost(count, *seconds, networks, peak, peak - held, worker)


def cost_table(found: dict[int, list[Cost]]) -> str:
    lines = [
        "| k | wall a model (ms) | CPU a model (ms) | networks (MB) | parent: peak (MB) | its growth (MB) | largest worker: peak (MB) |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    middle = {
        count: {name: statistics.median(getattr(one, name) for one in costs) for name in asdict(costs[0])}
        for count, costs in found.items()
    }
    for count, one in middle.items():
        seconds = " | ".join(f"{1000 * one[name] / count:.0f}" for name in ("wall", "cpu"))
        sizes = " | ".join(f"{one[name] / 1e6:.1f}" for name in ("networks", "parent", "growth", "worker"))
        lines.append(f"| {count} | {seconds} | {sizes} |")
    few, many = middle[COUNTS[1]], middle[max(middle)]
    parent, networks, worker = (many[name] - few[name] for name in ("growth", "networks", "worker"))
    lines.append(
        f"\nfrom k = {few['count']} to {many['count']}: the parent's peak grows by {parent / networks:.2f} bytes for each byte of "
        f"the networks, the largest worker's by {worker / 1e6:+.1f} MB"
    )
    return "\n".join(lines)


# --- the table -----------------------------------------------------------------------------------------------------


def middle(runs: list[Run], name: str = "wall") -> float:
    return statistics.median(getattr(run, name) for run in runs)


def accuracies(runs: list[Run]) -> np.ndarray:
    """Of the models of all repeats."""
    return np.concatenate([run.accuracy for run in runs])


def compared(side: str, runs: dict[str, list[Run]], best: str, starting: float) -> str:
    """A line of the table of ratios: `side` against `best` of ours."""
    mine, theirs = runs[best], runs[side]
    each = [b.wall / a.wall for a, b in zip(mine, theirs, strict=True)]
    ratio, cold = (middle(theirs) / (middle(mine) + more) for more in (0, starting))
    test = stats.ttest_rel if side == "plain loop" else stats.ttest_ind
    options = {} if side == "plain loop" else {"equal_var": False}
    a, b = accuracies(mine), accuracies(theirs)
    low, high = test(a, b, **options).confidence_interval()
    return (
        f"| {side} | {ratio:.2f}x ({min(each):.2f} to {max(each):.2f}) | {AIMS[side]} | {cold:.2f}x "
        f"| {middle(theirs, 'cpu') / middle(mine, 'cpu'):.2f}x "
        f"| {a.mean() - b.mean():+.4f} ({low:+.4f} to {high:+.4f}) | {'same' if low <= 0 <= high else 'not the same'} |"
    )


def table(runs: dict[str, list[Run]], best: str, starting: float, sides: list[str]) -> str:
    lines = ["| side | wall (s) | CPU (s) | test accuracy |", "|---|--:|--:|--:|"]
    for name, each in runs.items():
        accuracy = accuracies(each)
        error = accuracy.std(ddof=1) / len(accuracy) ** 0.5
        lines.append(
            f"| {name} | {middle(each):.2f} | {middle(each, 'cpu'):.2f} | {accuracy.mean():.4f} +- {error:.4f} |"
        )
    lines.append(f"\nstarting {best.removeprefix('ours, ')}, once: {starting:.1f} s\n")
    lines.append(
        f"| against {best} | ratio of medians (repeats) | aim | with the start | CPU | accuracy, ours - theirs | within noise |"
    )
    lines.append("|---|--:|--:|--:|--:|--:|---|")
    lines += [compared(side, runs, best, starting) for side in sides]
    if "ART" not in sides:
        lines.append(f"| ART | {HOW} | {AIMS['ART']} | | | | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="4 models, one repeat")
    parser.add_argument("--repeats", type=int, help="all sides this often, in turn (default: 3)")
    parser.add_argument("--processes", type=int, default=2, help="one-thread processes of our side")
    parser.add_argument("--art", metavar="PYTHON", help="the interpreter of an environment with ART")
    parser.add_argument("--art-side", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cost-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["MIALIB_PROGRESS"] = os.devnull  # no bars between the printed lines
    if options.art_side or options.cost_of:
        done = art_side(options.art_side) if options.art_side else cost(options.cost_of, options.processes)
        print(json.dumps(asdict(done)))
        return
    repeats = (1 if options.quick else 3) if options.repeats is None else options.repeats
    for name, value in (("--repeats", repeats), ("--processes", options.processes)):
        if value < 1:
            parser.error(f"{name} is {value}; it must be 1 or more")
    art = art_version(options.art, parser) if options.art else HOW

    count, counts = (4, COUNTS[:3]) if options.quick else (SHADOWS, COUNTS)
    dataset, split = shadows_of(count)
    print(
        f"{dataset.name}: {len(dataset):,} x {dataset.x.shape[1]}, {dataset.num_classes} classes; {count} shadow models, "
        f"each {split.counts()[0]}; {EPOCHS} epochs\n"
        f"torch {torch.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()}\nART: {art}",
        flush=True,
    )
    runs = defaultdict(list)

    def run(name: str, side: Callable, *given) -> None:
        runs[name].append(side(*given))
        print(f"  {name:<20} {runs[name][-1].wall:8.2f} s", flush=True)

    best = f"ours, {options.processes} processes"
    threads = faster_threads(dataset, split)
    starting = start(options.processes)
    for repeat in range(repeats):
        start(options.processes)  # they end after five minutes without work
        _, split = shadows_of(count, SEED + repeat)
        print(f"repeat {repeat + 1} of {repeats}, load {os.getloadavg()}", flush=True)
        for number in sorted({options.processes, 1}, reverse=True):
            name = best if number == options.processes else "ours, 1 process"
            run(name, run_ours, dataset, split, EPOCHS, number)
        run("plain loop", run_plain, dataset, split, EPOCHS, threads)
        if options.art:
            run("ART", run_art, options.art, dataset, split, EPOCHS, threads)
    sides = ["plain loop", *(["ART"] if options.art else [])]
    print(f"load {os.getloadavg()}\n\n" + table(runs, best, starting, sides), flush=True)

    found = defaultdict(list)
    for _ in range(repeats):
        for number in counts:
            arguments = "--cost-of", number, "--processes", options.processes
            found[number].append(Cost(**own_process(*arguments)))
    print(f"\n{COST_EPOCHS} epochs, {best}, load {os.getloadavg()}\n\n" + cost_table(found))


def art_version(python: str, parser: argparse.ArgumentParser) -> str:
    """The versions of ART and torch that `python` imports; where it cannot, the command ends with an error."""
    asked = "import art, torch; print('ART', art.__version__, 'with torch', torch.__version__)"
    try:
        done = subprocess.run([python, "-c", asked], capture_output=True, text=True)
    except OSError as error:
        parser.error(f"--art is {python!r}, which does not run ({error.strerror}); {HOW}")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no word"])[-1]
        parser.error(f"--art is {python!r}, which does not import ART and torch ({said}); {HOW}")
    return done.stdout.splitlines()[-1]


if __name__ == "__main__":
    main()
