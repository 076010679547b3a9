"""Rounding after training: what nearest and learned rounding cost in accuracy, and what either leaves of the leak.

    python tests/benchmarks/rounding.py [--data location] [--models 16] [--targets 4] [--bits 8 4 3 2]

Every network is trained once, rounded at each width both ways, with the last layer left in full and rounded like all
others, and attacked by LiRA with the shadows rounded alike. A line for each: test accuracy, and the AUC and the TPR at 1 % and
0.1 % FPR. Intervals are over targets, 95 %. The data: MIALIB_DATA. Calibration examples are the
reserve, which no model has learned.
"""

import argparse
import time

import torch

from mialib import data, models, training
from mialib.attacks import suites
from mialib.compression import LearnedRounding, schemes
from mialib.compression.quantization import FULL
from mialib.data import splits
from mialib.measures import metrics
from mialib.study import Study, utility
from mialib.training import Recipe

NETWORKS = {
    "location": ("columnfc", Recipe(50, 128, 1e-3, 0.0)),
    "digits": ("small_cnn", Recipe(25, 32, 1e-3, 5e-4)),
}
METRICS = ("auc", "tpr_at_0.01", "tpr_at_0.001")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", choices=NETWORKS, default="location")
    parser.add_argument("--models", type=int, default=16)
    parser.add_argument("--targets", type=int, default=4)
    parser.add_argument("--bits", type=float, nargs="+", default=[8, 4, 3, 2])
    options = parser.parse_args()
    training.use_processes(2)
    model, recipe = NETWORKS[options.data]
    pool = data.load(options.data)
    split = splits.random_halves(len(pool), options.models, seed=0, reserve_fraction=0.15)
    make_model = models.make(model, pool)
    full = training.fit(make_model, pool, split, recipe, what="networks")
    study = Study(pool, split, options.targets, protocol="random_halves", model=model)
    study.arm("full", full)
    took = {}
    for bits in options.bits:
        for last in (FULL, None):
            for name, rounding in {"nearest": None, "learned": LearnedRounding()}.items():
                key = f"{bits:g} bits, last layer {last or bits:g}, {name}"
                scheme = schemes.scheme(make_model, bits, method="affine", edge=None, last=last)
                began = time.time()
                rounded = schemes.post_training(full, pool, splits.indices(split.reserve), scheme, rounding)
                took[key] = time.time() - began
                study.arm(key, rounded, compression="affine", level=bits)
    study.measure(utility)
    study.attack({"lira": suites.yardstick(options.models - 2)["lira_online"]})
    print(f"{'':34s} {'test accuracy':23s} " + " ".join(f"{name:23s}" for name in METRICS) + " seconds")
    for key, arm in study.arms.items():
        of = [study.values(arm, "test_accuracy"), *(study.values(arm, name, "lira") for name in METRICS)]
        shown = [metrics.over_targets(values) for values in of]
        cells = " ".join(f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]" for one in shown)
        print(f"{key:34s} {cells} {took.get(key, 0):7.1f}")


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
