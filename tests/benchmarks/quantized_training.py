"""What quantisers cost in training: a step with each of them against a step in full precision, in one run.

    python tests/benchmarks/quantized_training.py [--cuda]          (about a minute on two cores)

Prints ratios of the median seconds of an epoch, settings in turns; and of a bit search's evaluation, its parts.
"""

import argparse
import statistics
import time

import torch

from mialib import data, models
from mialib.compression import schemes
from mialib.data import splits
from mialib.store import Store
from mialib.training import Recipe

ROUNDS = 5
NETWORKS = {"small_cnn": "digits", "lenet5": "digits", "columnfc": "location"}
SETTINGS = {
    "dorefa, 4 bits": {},
    "affine, 4 bits": {"method": "affine"},
    "dorefa, 1 bit": {"bits": 1},
    "ternary": {"bits": 1.58},
    "dorefa and activations, 4 bits": {"activations": 4},
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuda", action="store_true")
    device = "cuda" if parser.parse_args().cuda else "cpu"
    torch.set_num_threads(1)
    for name, dataset in NETWORKS.items():
        pool = data.load(dataset).to(device)
        split = splits.target_shadow(len(pool), 1, 1, 0, 400 if dataset == "digits" else None)
        make_model = models.make(name, pool)
        schemes = {
            what: schemes.scheme(make_model, **{"bits": 4} | options) for what, options in SETTINGS.items()
        }
        schemes = {"full precision": schemes.scheme(make_model, 32)} | schemes
        seconds: dict[str, list[float]] = {what: [] for what in schemes}
        for turn in range(ROUNDS + 1):
            for what, scheme in schemes.items():
                began = time.perf_counter()
                schemes.aware(make_model, pool, split, Recipe(2, 64), scheme, cache=_Forgets())
                if turn:  # the first warms up
                    seconds[what].append(time.perf_counter() - began)
        base = statistics.median(seconds["full precision"])
        for what, found in seconds.items():
            print(f"{name:10} {what:32} {statistics.median(found) / base:5.2f}")


class _Forgets(Store):
    """A store that keeps nothing, so that every round trains."""

    def get(self, key):
        return None

    def put(self, key, tensors, record, **made):
        pass


if __name__ == "__main__":
    main()
