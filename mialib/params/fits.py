"""Whether parameters fit the data, the network and the machine: failures that would take hours are reported at once.

Data that are not at hand are not looked at, and nothing is downloaded; the notebook reports what does not fit after
loading them.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

from mialib import models
from mialib.data import Dataset, Splits, outlines, splits
from mialib.params import machine, networks, relations
from mialib.params.vocabulary import FEWEST_CLASSES, FEWEST_MEMBERS
from mialib.training.population import skeleton

Values = Mapping[str, Any]
Problem = tuple[str, str]  # the parameter to change, and what is wrong

# bytes of SAMIA's attention in training, for a pair of classes of an example and a head; it keeps little else: measured
# at 300 classes on a CPU; and its batch times its heads
_A_PAIR, _BATCH_AND_HEADS = 25, 128 * 4
_SIZES = {"dataset", "data_root", "subset", "image_side", "seed", "n_train", "n_reserve", "private_classes"}
_AUXILIARY = 0.2  # share of the examples that the attacker has if no classes are private; see `data.apart`


def problems(values: Values, names: Collection[str]) -> dict[str, list[str]]:
    """Which of `values`, in range and fit for each other, do not fit: name of a parameter -> problems.

    Your own data sets and networks are made, so their modules are imported.

    Args:
        names: all parameters of the notebook, including those that are not sound and so not among the values. If one of
            those is a size, the data are not looked at.
    """
    found: dict[str, list[str]] = {}
    compared = not (_SIZES & set(names)) - values.keys()
    for rule in (machine.problems, _of_data) if compared else (machine.problems,):
        # a missing device has no memory to compare with
        for name, problem in rule({one: value for one, value in values.items() if one not in found}):
            found.setdefault(name, []).append(problem)
    return found


def apart(values: Values, names: Collection[str]) -> dict[str, list[str]]:
    """`problems`, found by another process if code of your own is run: two files may name two modules alike."""
    mine = [name for name in ("dataset", "model") if _is_own(str(values.get(name, "")))]
    if not mine:
        return problems(values, names)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            return process.submit(problems, dict(values), set(names)).result()
        except BrokenExecutor:
            code = " or ".join(values[name] for name in mine)
            return {mine[0]: [f"{mine[0]} is {values[mine[0]]!r}: the code of {code} ends Python itself"]}


def _is_own(address: str) -> bool:
    return ":" in address and not address.startswith("folder:")


def _of_data(values: Values) -> Iterator[Problem]:
    name = values.get("dataset")
    if name is None:
        return
    chosen = {"subset": values.get("subset"), "side": values.get("image_side"), "seed": values.get("seed", 0)}
    try:
        pool = outlines.of(name, values.get("data_root"), **chosen)
    except _errors(name) as error:
        yield "dataset", f"dataset is {name!r}: {_said(error)}"
        return
    if pool is None:
        return
    private = values.get("private_classes")
    yield from _of_classes(values, pool)
    if private is not None and private >= pool.num_classes:
        return
    classes = private or pool.num_classes
    split, problem = _split(values, pool)
    yield from problem
    yield from _of_network(values, pool, classes)
    if split is not None:
        yield from _of_members(values, split, pool)


def _of_classes(values: Values, pool: Dataset) -> Iterator[Problem]:
    private = values.get("private_classes")
    if private is not None and private >= pool.num_classes:
        yield (
            "private_classes",
            f"private_classes is {private}: {pool.name} has {pool.num_classes} classes, so {FEWEST_CLASSES} to "
            f"{pool.num_classes - 1} can be private",
        )
    if pool.num_classes < FEWEST_CLASSES and ("attack_epochs" in values or "private_classes" in values):
        yield (
            "dataset",
            f"dataset is {pool.name!r}: it has {pool.num_classes} classes, and this notebook looks at the "
            f"{FEWEST_CLASSES} largest posteriors; take data with {FEWEST_CLASSES} classes or more",
        )
    if values.get("augment") and not pool.is_image:
        yield (
            "augment",
            f"augment is True: {pool.name} holds features, and only pictures are mirrored and shifted",
        )


def _split(values: Values, pool: Dataset) -> tuple[Splits | None, list[Problem]]:
    """The members of the first networks, as the notebook cuts the data; and why it cannot be cut."""
    n, n_train = len(pool), values.get("n_train")
    try:
        if "private_classes" in values:
            private = values["private_classes"]
            # equal examples stay together, so a random share is not exact
            n = math.ceil((1.01 - _AUXILIARY) * n) if private is None else int((pool.y < private).sum())
            return splits.d1_d2_d3(n, n_train, values["n_reserve"], n_train, 0), []
        if "reserve_share" in values:
            ordinary = n - (values.get("n_canaries") or 0)
            if ordinary < 2 * FEWEST_MEMBERS:
                return None, [
                    (
                        "n_canaries",
                        f"n_canaries is {values['n_canaries']}: {pool.name} has {n} examples, and {2 * FEWEST_MEMBERS} others "
                        "are the fewest; plant fewer, or take more examples (subset)",
                    )
                ]
            return splits.random_halves(ordinary, 2, 0, values["reserve_share"]), []
        if "n_models" in values:
            return splits.official(n, n_train, 1, 0), []
        if "n_shadows" in values:
            return splits.target_shadow(n, 1, 1, 0, n_train), []
    except ValueError as error:
        said = f"{pool.name} has {len(pool)} examples to take, {n} of them for members and others: {error}"
        return None, [("n_train", f"n_train is {n_train}: {said}")]
    return None, []


def _of_members(values: Values, split: Splits, pool: Dataset) -> Iterator[Problem]:
    members = int(split.member[0].sum())
    reserves = {count["reserve"] for count in split.counts()}
    if "bits" in values and len(reserves) > 1:
        yield (
            "subset",
            f"subset is {values.get('subset')}: the halves of {len(pool)} examples leave targets and shadows reserves of "
            f"{min(reserves)} and {max(reserves)}, and ranges are measured on equally many; take one example less",
        )
    if values.get("n_train") is None:
        if members < FEWEST_MEMBERS and "n_train" in values:
            yield (
                "n_train",
                f"n_train is None: of {len(pool)} examples 45 % of a half are {members} members, and "
                f"{FEWEST_MEMBERS} are the fewest; take more examples (subset)",
            )
        yield from relations.batches(values, members)
        yield from relations.left_out(values, members)


def _of_network(values: Values, pool: Dataset, classes: int) -> Iterator[Problem]:
    name = values.get("model")
    if name is None:
        return
    with torch.random.fork_rng(devices=[]):  # a notebook draws the same, checked or not
        found = list(_of_untrained(values, pool, classes, name))
    yield from found


def _of_untrained(values: Values, pool: Dataset, classes: int, name: str) -> Iterator[Problem]:
    seen = Dataset(pool.name, pool.x[:1], pool.y[:1] * 0, classes, pool.mean, pool.std)
    try:
        make_model = models.make(name, seen)
        size = sum(one.numel() for one in skeleton(make_model).parameters())
    except _errors(name) as error:
        yield "model", f"model is {name!r}: {_said(error)}"
        return
    yield from networks.problems(values, make_model, tuple(pool.x.shape[1:]), classes, own=_is_own(name))
    yield from _of_memory(values, pool, size)


def _of_memory(values: Values, pool: Dataset, size: int) -> Iterator[Problem]:
    """Whether what is kept at once has room; the count here is less than what a notebook keeps.

    Args:
        size: parameters of a network.
    """
    counts = {name: values.get(name) or 0 for name in ("n_targets", "n_shadows", "n_models", "lira_models")}
    k, n = sum(counts.values()), len(pool)
    most = max(counts, key=counts.get)
    if k > n:
        yield (
            most,
            f"{most} is {counts[most]}: more networks ({k}) than {pool.name} has examples ({n})",
        )
    device = machine.device(values.get("device", "cpu"))
    available, where = machine.memory(device), "this machine" if device == "cpu" else "its CUDA device"
    if available is None:
        return
    numbers = 4 if not pool.is_image else 1
    candidates = 2 * min(values.get("n_train") or n // 10, n)
    wanted = {
        "image_side": n * math.prod(pool.x.shape[1:]) * numbers,
        # masks, two sets of weights, two sets of answers
        most: k * (3 * n + 2 * 4 * size + 2 * 8 * candidates * pool.num_classes),
    }
    if "samia_epochs" in values:
        at_once = min(values.get("n_jobs", 1), values.get("trainings", 1) * 2)
        wanted["dataset"] = at_once * _A_PAIR * _BATCH_AND_HEADS * pool.num_classes**2
    reasons = {
        "image_side": f"{n} examples of shape {tuple(pool.x.shape[1:])}",
        most: f"{k} networks with {size} weights each, and their answers",
        "dataset": f"SAMIA, which compares each of {pool.num_classes} classes with each, in n_jobs processes at once",
    }
    for name, bytes_ in wanted.items():
        if bytes_ > available:
            yield (
                name,
                f"{name} is {values.get(name)}: {reasons[name]} need {bytes_ / 2**30:.0f} GiB of memory at least, and "
                f"{where} has {available / 2**30:.0f}",
            )


def _errors(address: str) -> tuple[type[BaseException], ...]:
    """What may go wrong with a data set or a network; with your own code, everything."""
    return (Exception, SystemExit) if _is_own(address) else (ValueError, OSError, RuntimeError)


def _said(error: BaseException) -> str:
    """An error on one line; with its kind if it is none of ours."""
    said = " ".join(str(error).split()) or "no reason given"
    return said if isinstance(error, ValueError) else f"{type(error).__name__}: {said}"
