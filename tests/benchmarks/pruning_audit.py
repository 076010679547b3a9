"""How much faster is a pruning audit with mialib than with the design of the public scripts? Ratios from one run.

    python tests/benchmarks/pruning_audit.py [--quick] [--repeats 3] [--processes 2] [--cuda]

The audit is that of Yuan & Zhang 2022 on Location: one target and five shadow models, trained, pruned to 70 %,
fine-tuned, queried, and attacked by thresholds (three signals, per class and global) and four neural networks.
`public_design.py` re-enacts the public scripts; both sides run here, on the same splits, one after the other, repeated,
and the table holds medians. So the ratios mean something on a noisy machine, the seconds little; the load average is
printed beside them. This is no test: nothing passes or fails.

What is linear is shortened on the slow side and scaled up: the public side trains some of the models for some of the
epochs, and attack networks on both sides take a few of their 100 epochs. Every printed line says what was run and by
what it is multiplied. Both sides take a fixed number of epochs, early stopping off, choosing the best epoch on reserve
data. The public side uses its four loading processes and all cores, or one thread where a short trial finds that faster
(threads that wait for a core that somebody else has taken would flatter us); ours uses `--processes` one-thread processes.
The cache is a fresh folder for each repeat. Our overhead in shortened trainings is scaled up with them; starting our
processes is counted once, in the whole audit. The short schedules of ours are other trainings than the public ones, not
the same in less time: they run once, and their balanced accuracy on the target is printed.

Data: Location from MIALIB_DATA, else from ../shared/data; where it is in neither, random binary data of the same shape.
With --cuda, or where CUDA is available, our side is also timed there: models one by one against all under vmap.

Quick: one repeat, fewer epochs; about two minutes. The whole run takes about ten minutes on two idle cores.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import public_design as public
import torch
from joblib import Parallel, delayed

from mialib import asking, data, models, training
from mialib.attacks import neural, threshold
from mialib.compression import pruning
from mialib.data import Dataset, splits
from mialib.store import Store
from mialib.training import Recipe, loop, population
from mialib.training.descent import Shuffling
from mialib.training.hooks import Hooks

NETWORKS = ("nn", "top3_nn", "nn_class", "samia")
EPOCHS, FINE_TUNING, ATTACK_EPOCHS, SPARSITY, SHADOWS = 50, 25, 100, 0.7, 5
ORIGINAL = Recipe(EPOCHS, select_best=True)  # Adam, 1e-3, decay 5e-4, batches of 128: the recipe's defaults
PRUNED = replace(ORIGINAL, epochs=FINE_TUNING)
FLOAT32 = "four attack networks, float32"
BF16 = "four attack networks, bf16"
BUSY = "four attack networks, bf16, two of each at once, for one"
SHORT = {  # schedules for the multilayer perceptrons and for SAMIA
    "short SGD (10 epochs), bf16": (Recipe(10, lr=1e-2, optimizer="sgd", milestones=(5, 7)),) * 2,
    "short Adam (10 epochs), bf16": (Recipe(10, milestones=(5, 7)),) * 2,
}
THRESHOLDS = [
    f"{signal}{kind}" for signal in ("confidence", "entropy", "modified_entropy") for kind in ("", "_global")
]


class Clock:
    """Seconds of each stage, one entry a repeat, already scaled to the whole schedule."""

    def __init__(self):
        self.seconds = defaultdict(list)

    def __call__(self, stage: str, work, scale: float = 1.0, synchronise=None):
        began = time.perf_counter()
        result = work()
        if synchronise is not None:
            synchronise()
        taken = time.perf_counter() - began
        self.seconds[stage].append(taken * scale)
        scaled = f" x {scale:.4g} = {taken * scale:.2f} s" if scale != 1 else ""
        print(f"  {stage:<58} {taken:8.2f} s{scaled}", flush=True)
        return result

    def __getitem__(self, stage: str) -> float:
        return statistics.median(self.seconds[stage])


def location() -> Dataset:
    """Location-30, or random binary data of its shape."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    for root in (os.environ.get("MIALIB_DATA"), beside):
        if root and (Path(root) / "location" / "dataset_location.tgz").exists():
            return data.load("location", root)
    print("Location was found in neither MIALIB_DATA nor ../shared/data: random data of the same shape")
    return random_data(5010, 30, seed=0)


def random_data(n: int, num_classes: int, seed: int) -> Dataset:
    """Binary features (n, 446), classes told apart by noisy prototypes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(num_classes, (n,), generator=generator)
    rate = torch.rand(num_classes, 446, generator=generator) * 0.3
    x = torch.bernoulli(rate[y], generator=generator)
    return Dataset.of_features(f"random{num_classes}", x, y, num_classes)


# --- the public design ---------------------------------------------------------------------------------------------


def faster_threads() -> int:
    """One thread or all cores, whichever takes a SAMIA step faster at the moment: to the public side's advantage."""
    model = public.Samia(90)
    x, y, taken = torch.rand(128, 90), torch.zeros(128, dtype=torch.long), {}
    for threads in (1, os.cpu_count(), 1, os.cpu_count()):
        torch.set_num_threads(threads)
        torch.nn.functional.cross_entropy(model(x), y).backward()
        began = time.perf_counter()
        for _ in range(5):
            torch.nn.functional.cross_entropy(model(x), y).backward()
        taken[threads] = min(taken.get(threads, float("inf")), time.perf_counter() - began)
    fastest = min(taken, key=taken.get)
    found = ", ".join(f"{t} threads {s:.2f} s" for t, s in taken.items())
    print(f"  public side with torch.set_num_threads({fastest}); five SAMIA steps: {found}")
    return fastest


def run_public(dataset, split, plan, clock: Clock, folder: Path) -> None:
    """All stages; a shortened training leaves models that are good enough to be queried and attacked."""
    torch.set_num_threads(faster_threads())
    x, y = dataset.x.float(), dataset.y

    def part(i: int) -> public.Part:
        def load(mask, shuffle=False):
            return public.loader(x[mask], y[mask], shuffle)

        return public.Part(load(split.member[i], shuffle=True), load(split.reserve[i]), load(split.test[i]))

    parts = [part(i) for i in range(len(split))]
    some = parts[: plan.models]
    checkpoint = folder / "public.pt"

    def originals():
        made = [public.ColumnFC(x.shape[1], dataset.num_classes) for _ in some]
        return [public.train(m, p, plan.epochs, checkpoint) for m, p in zip(made, some, strict=True)]

    def pruned():
        for model, p in zip(trained, some, strict=True):
            public.evaluation_pass(model, p.test)
        masked = [public.prune(model, SPARSITY) for model in trained]
        return [public.train(m, p, plan.fine_tuning, checkpoint) for m, p in zip(masked, some, strict=True)]

    share = len(split) / plan.models
    trained = clock("public: training", originals, share * EPOCHS / plan.epochs)
    trained = clock("public: pruning, fine-tuning", pruned, share * FINE_TUNING / plan.fine_tuning)

    everyone = [trained[i % plan.models] for i in range(len(split))]
    # in the order of the examples, not shuffled, as the released attack script loads them
    loaders = [
        (public.loader(x[m], y[m]), public.loader(x[t], y[t]))
        for m, t in zip(split.member, split.test, strict=True)
    ]

    def answers():
        return public.query(everyone[:1], loaders[:1]), public.query(everyone[1:], loaders[1:])

    victim, shadows = clock("public: prediction, sensitivity", answers)
    clock("public: thresholds", partial(public.threshold_attacks, shadows, victim, dataset.num_classes))
    for name in NETWORKS:
        work = partial(public.attack_network, name, shadows, victim, plan.attack_epochs)
        clock(f"public: {name}", work, ATTACK_EPOCHS / plan.attack_epochs)


# --- ours ----------------------------------------------------------------------------------------------------------


def warm_up(processes: int) -> None:
    """Start the processes and let each load what training loads at its first step: paid once, not once a network."""
    rows = random_data(256, 30, seed=0)
    fit = partial(
        loop.train,
        models.make("columnfc", rows),
        rows,
        Recipe(1),
        hooks=Hooks(training.cross_entropy, Shuffling()),
    )
    everyone = splits.everyone(len(rows), [0])
    Parallel()(delayed(fit)(split=everyone) for _ in range(2 * processes))


def run_ours(dataset, split, plan, clock: Clock, folder: Path, short: bool) -> None:
    torch.set_num_threads(1)
    cache = Store(folder)
    make_model = models.make("columnfc", dataset)
    original = clock(
        "ours: training", lambda: training.fit(make_model, dataset, split, ORIGINAL, cache=cache)
    )

    def prune():
        masks = pruning.mask(original, "l1_unstructured", SPARSITY)
        return training.fit(make_model, dataset, split, PRUNED, start=original, compress=masks, cache=cache)

    pruned = clock("ours: pruning, fine-tuning", prune)

    def answers():
        index, member = splits.candidates(split, 0)
        target = asking.ask(pruned[:1], dataset, index[:1])
        return target, asking.ask(pruned[1:], dataset, index[1:]), member

    target, shadows, member = clock("ours: prediction, sensitivity", answers)
    clock(
        "ours: thresholds",
        lambda: [threshold.ATTACKS[name](target, shadows, member[1:], 0) for name in THRESHOLDS],
    )

    def networks(recipes, cache, trainings=1):
        suite = {
            name: replace(attack, recipe=recipes[name], trainings=trainings, cache=cache)
            for name, attack in neural.attacks().items()
        }
        jobs = [(name, seed) for name in reversed(NETWORKS) for seed in range(trainings)]  # the longest first
        fits = Parallel()(delayed(suite[name].fit)(shadows, member[1:], [seed]) for name, seed in jobs)
        margins = {name: suite[name](target, shadows, member[1:], 0) for name in NETWORKS}
        return {name: fit for (name, _), fit in zip(jobs, fits, strict=True)}, margins

    scale = ATTACK_EPOCHS / plan.attack_epochs
    few = dict.fromkeys(NETWORKS, replace(neural.SCHEDULE, epochs=plan.attack_epochs, precision="float32"))
    fast = {name: replace(recipe, precision="bf16") for name, recipe in few.items()}
    fitted, _ = clock(f"ours: {FLOAT32}", lambda: networks(few, cache), scale)
    for name, network in fitted.items():
        clock.seconds[f"ours: {name}, float32"].append(network.records[0]["seconds"] * scale)
    fitted, _ = clock(f"ours: {BF16}", lambda: networks(fast, Store(folder / "bf16")), scale)
    clock.seconds["ours: samia, bf16"].append(fitted["samia"].records[0]["seconds"] * scale)
    clock(f"ours: {BUSY}", lambda: networks(fast, Store(folder / "two"), 2), scale / 2)

    for kind, (mlp, samia) in SHORT.items() if short else ():
        recipes = dict.fromkeys(NETWORKS, mlp) | {"samia": samia}
        recipes = {
            name: replace(recipe, epochs=max(1, recipe.epochs // plan.cut_short), precision="bf16")
            for name, recipe in recipes.items()
        }
        _, margins = clock(
            f"ours: {kind}", lambda r=recipes: networks(r, Store(folder / "short")), plan.cut_short
        )
        correct = {n: ((m > 0) == member[0]).double().mean().item() for n, m in margins.items()}
        print("    balanced accuracy: " + ", ".join(f"{name} {share:.3f}" for name, share in correct.items()))


def many_rows(clock: Clock) -> list[str]:
    """Table rows: posteriors of five ColumnFC on 27,000 rows each, and six thresholds on those 135,000 rows."""
    lines = []
    for num_classes in (10, 100):
        dataset = random_data(60_000, num_classes, seed=1)
        shadows = population.initial(models.make("columnfc", dataset), list(range(SHADOWS)))
        index, member = splits.candidates(splits.target_shadow(len(dataset), 1, SHADOWS, 0), 0)
        index, member = index[1:], member[1:]
        label = f"{index.numel():,} rows, {num_classes} classes"
        ask = partial(asking.ask, shadows, dataset, index, sensitive=False)
        for _ in range(3):
            seen = clock(f"ours: {label}, posteriors", ask)
            cuts = [partial(threshold.ATTACKS[name], seen[:1], seen, member, 0) for name in THRESHOLDS]
            clock(f"ours: {label}, six thresholds", lambda cuts=cuts: [cut() for cut in cuts])

        # a quadratic search takes as long for each value, so a hundred values tell
        confidence = seen.log_posteriors.exp().gather(-1, seen.labels[..., None]).flatten().numpy()
        first = seen.labels.flatten().numpy() == 0
        searches = {"global": (np.ones_like(first), 3), "per class": (first, 3 * num_classes)}
        for kind, (rows, times) in searches.items():
            values = confidence[rows]
            work = partial(public.search, values, member.flatten().numpy()[rows], values[:100])
            clock(f"public: {label}, {kind}, 100 values", work, times * len(values) / 100)
        shadow_answers = public.Answers(
            seen.log_posteriors.exp().float().flatten(0, 1), seen.labels.flatten(), None, None
        )
        clock(f"public: {label}, signals", lambda a=shadow_answers: public.signals(a))
        before = sum(
            clock[f"public: {label}, {kind}"] for kind in ("signals", *(f"{k}, 100 values" for k in searches))
        )
        asked, cut = clock[f"ours: {label}, posteriors"], clock[f"ours: {label}, six thresholds"]
        lines.append(f"| six thresholds, {label} | {before:.0f} | {cut:.2f} | {before / cut:.0f}x | 50x |")
        lines.append(f"| posteriors + six thresholds, {label} | | {asked:.2f} + {cut:.2f} | | < 1 s |")
    return lines


def run_cuda(dataset, split, plan, folder: Path) -> None:
    """Our side on CUDA: all models at once under vmap against one after the other."""
    dataset = dataset.to("cuda")
    make_model, clock = models.make("columnfc", dataset), Clock()
    views = {}
    for repeat in range(plan.repeats + 1):  # the first one warms up and is not counted
        if repeat == 1:
            clock.seconds.clear()
        for batched in (False, True):
            kind = "batched" if batched else "one by one"
            fit = partial(training.fit, cache=Store(folder / f"{kind} {repeat}"), batched=batched)

            def audit(fit=fit):
                original = fit(make_model, dataset, split, ORIGINAL)
                masks = pruning.mask(original, "l1_unstructured", SPARSITY)
                return fit(make_model, dataset, split, PRUNED, start=original, compress=masks)

            pruned = clock(f"cuda: training and pruning {kind}", audit, synchronise=torch.cuda.synchronize)
            if not views:
                index, member = splits.candidates(split, 0)
                seen = clock(
                    "cuda: prediction, sensitivity", lambda p=pruned, i=index: asking.ask(p, dataset, i)
                )
                views = {"shadows": seen[1:], "member": member[1:]}
            for precision in ("float32", "bf16"):
                recipe = replace(neural.SCHEDULE, epochs=plan.attack_epochs, precision=precision)
                for name, attack in neural.attacks().items():
                    x = attack.features(views["shadows"]).flatten(0, 1)
                    y = views["member"].flatten().long()
                    rows = Dataset.of_features(name, x, y, 2).to("cuda")
                    three = splits.everyone(len(rows), [0, 1, 2])
                    clock(
                        f"cuda: {name}, {precision}, three trainings {kind}",
                        partial(fit, attack.network(x.shape[1]), rows, three, recipe),
                        ATTACK_EPOCHS / plan.attack_epochs,
                        torch.cuda.synchronize,
                    )
    print("\n| CUDA, ours | one by one (s, scaled) | batched (s, scaled) | ratio |\n|---|--:|--:|--:|")
    for stage in [s.removesuffix(" batched") for s in clock.seconds if s.endswith(" batched")]:
        one, all_ = clock[f"{stage} one by one"], clock[f"{stage} batched"]
        print(f"| {stage.removeprefix('cuda: ')} | {one:.2f} | {all_:.2f} | {one / all_:.2f}x |")


# --- the table -----------------------------------------------------------------------------------------------------


def table(clock: Clock, start_up: float, rows: list[str]) -> str:
    fitting = ("training", "pruning, fine-tuning")
    rest = (*fitting, "prediction, sensitivity", "thresholds")
    nets = sum(clock[f"public: {name}"] for name in NETWORKS)
    ours = {kind: clock[f"ours: {kind}"] for kind in (FLOAT32, BF16, BUSY, *SHORT)}

    def both(stages):
        return tuple(sum(clock[f"{side}: {stage}"] for stage in stages) for side in ("public", "ours"))

    lines = [(stage, *both([stage]), "") for stage in fitting]
    lines.append(("**training + pruning**", *both(fitting), "25x"))
    lines.append(("prediction, sensitivity", *both(["prediction, sensitivity"]), ""))
    lines.append(("**thresholds**", *both(["thresholds"]), "50x"))
    for name in NETWORKS:
        lines.append(
            (
                f"{name}, float32, in its process",
                clock[f"public: {name}"],
                clock[f"ours: {name}, float32"],
                "",
            )
        )
    lines.append(("samia, bf16, in its process", clock["public: samia"], clock["ours: samia, bf16"], ""))
    lines += [(kind, nets, seconds, "") for kind, seconds in ours.items()]
    for kind, seconds in ours.items():
        before = both(rest)
        target = "10x" if kind.startswith("short") else "3x (aim 5x)"
        lines.append((f"**whole audit**: {kind}", before[0] + nets, before[1] + seconds + start_up, target))
    text = [
        "| stage | public design (s, scaled) | ours (s, scaled) | ratio | target |",
        "|---|--:|--:|--:|--:|",
    ]
    text += [f"| {stage} | {a:.1f} | {b:.2f} | {a / b:.1f}x | {target} |" for stage, a, b, target in lines]
    return "\n".join([*text, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one repeat, fewer epochs")
    parser.add_argument(
        "--repeats", type=int, help="both sides this often, in turn; the table holds medians (default: 3)"
    )
    parser.add_argument("--processes", type=int, default=2, help="one-thread processes of our side")
    parser.add_argument(
        "--cuda", action="store_true", help="time our side on CUDA too; fails where there is none"
    )
    plan = parser.parse_args()
    quick = plan.quick
    plan.repeats = plan.repeats or (1 if quick else 3)
    plan.models, plan.epochs, plan.fine_tuning = (1, 2, 2) if quick else (2, 5, 5)
    plan.attack_epochs, plan.cut_short = (1, 5) if quick else (3, 1)

    os.environ["MIALIB_PROGRESS"] = os.devnull  # no bars between the printed lines
    warnings.filterwarnings("ignore", message="This DataLoader will create 4 worker")
    dataset = location()
    split = splits.target_shadow(len(dataset), 1, SHADOWS, 7)
    print(
        f"{dataset.name}: {len(dataset):,} x {dataset.x.shape[1]}, {dataset.num_classes} classes; {split.counts()[0]}"
    )
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()}"
    )
    print(
        f"public side: {plan.models} of {len(split)} models, {plan.epochs} of {EPOCHS} epochs of training and "
        f"{plan.fine_tuning} of {FINE_TUNING} of fine-tuning, scaled; prediction and thresholds in full\n"
        f"our side: training, fine-tuning, prediction and thresholds in full, {plan.processes} processes\n"
        f"both: {plan.attack_epochs} of {ATTACK_EPOCHS} epochs of each attack network, scaled; short schedules "
        + ("in full, once" if plan.cut_short == 1 else f"1/{plan.cut_short} of their epochs, scaled")
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if plan.cuda or torch.cuda.is_available():
            run_cuda(dataset, split, plan, folder / "cuda")
        clock = Clock()
        training.use_processes(plan.processes)
        clock("ours: processes started, once", lambda: warm_up(plan.processes))
        for repeat in range(plan.repeats):
            print(f"repeat {repeat + 1} of {plan.repeats}, load {os.getloadavg()}")
            run_public(dataset, split, plan, clock, folder)
            run_ours(dataset, split, plan, clock, folder / f"ours {repeat}", short=repeat == 0)
        torch.set_num_threads(1)
        rows = many_rows(clock)
    print(f"load {os.getloadavg()}\n\n" + table(clock, clock["ours: processes started, once"], rows))


if __name__ == "__main__":
    main()
