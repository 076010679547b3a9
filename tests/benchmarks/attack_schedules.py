"""Short schedules of the attack networks against the official one, on Location pruned to 70 %, six targets.

    python tests/benchmarks/attack_schedules.py          (about half an hour on two cores)

The official schedule is SGD for 100 epochs at 1e-3, divided by ten at epochs 50 and 75. A short one may stand in for it
where the mean paired difference over the targets, three trainings of each network, has its 95 % interval inside +-1 point.
"""

from dataclasses import replace

from mialib import data, models, training
from mialib.attacks import neural
from mialib.compression import pruning
from mialib.data import splits
from mialib.measures import metrics
from mialib.study import Study
from mialib.training import Recipe

TARGETS = 6
SCHEDULES = {
    "sgd, 10 epochs, 1e-2": neural.schedule(10, 1e-2, "sgd"),
    "sgd, 20 epochs, 5e-3": neural.schedule(20, 5e-3, "sgd"),
    "adam, 10 epochs, 1e-3": neural.schedule(10, 1e-3, "adam"),
}


def main() -> None:
    training.use_processes(2)
    location = data.load("location")
    split = splits.target_shadow(len(location), TARGETS, n_shadows=5, seed=0)
    make_model = models.make("columnfc", location)
    recipe = Recipe(50, select_best=True, patience=5)
    original = training.fit(make_model, location, split, recipe)
    masks = pruning.mask(original, "l1_unstructured", 0.7)
    pruned = training.fit(
        make_model, location, split, replace(recipe, epochs=25), start=original, compress=masks
    )

    values = {}
    for title, schedule in {"official": neural.SCHEDULE, **SCHEDULES}.items():
        suite = {name: one for name, one in neural.attacks(schedule).items() if name in ("nn_class", "samia")}
        found = Study(location, split, TARGETS)
        arm = found.arm("pruned", pruned, compression="l1_unstructured", level=0.7)
        found.attack(suite)
        for name in suite:
            for metric in ("balanced_accuracy", "auc"):
                values[name, metric, title] = found.values(arm, metric, name)
    print("| network | metric | schedule | mean | minus official, points |\n|---|---|---|---|---|")
    for (name, metric, title), found in values.items():
        change = metrics.over_targets(100 * (found - values[name, metric, "official"]))
        shown = "" if title == "official" else f"{change.value:+.2f} [{change.low:+.2f}, {change.high:+.2f}]"
        print(f"| {name} | {metric} | {title} | {found.mean():.4f} | {shown} |")


if __name__ == "__main__":
    main()
