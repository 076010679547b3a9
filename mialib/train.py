"""Train populations: what is cached is loaded, what is missing is trained in shards and stored model by model.

The loop itself is in `loop.py`; this file decides which models need it and where they run.
"""

from collections.abc import Callable
from functools import partial

import joblib
import torch
from joblib import Parallel, delayed, effective_n_jobs
from torch import nn

from mialib import loop, models, population, progress, splits, store
from mialib.data import Dataset
from mialib.loop import Recipe, cross_entropy
from mialib.population import Population, pick
from mialib.splits import Splits
from mialib.store import Store

__all__ = ["Recipe", "cross_entropy", "fit", "use_processes"]


def fit(
    make_model: Callable[[], nn.Module],
    data: Dataset,
    split: Splits,
    recipe: Recipe,
    *,
    objective=cross_entropy,
    compress=None,
    constraint=None,
    opponent=None,
    descent=None,
    augment=None,
    watch: tuple[str, ...] = (),
    start: Population | None = None,
    cache: Store | None = None,
    what: str = "training",
    batched: bool | None = None,
) -> Population:
    """Train one model for each row of `split`; models already in the cache are loaded, not trained.

    Args:
        objective: objective(forward, params, batch, step) -> losses (k,).
        compress: compress(params) -> params, pure, applied before every forward pass and baked into the result.
        constraint: what the raw parameters are led to while they learn (ADMM, gradual pruning).
            `constraint.begin(params)` gives the state of one training, with penalty(params, step) -> (k,), added to the
            losses; follow(params, step) -> params, which replaces the ones it names after each optimiser step; and
            curves, name -> [(k,), ...], noted in the records.
        opponent: the other player of a min-max game. `opponent.begin(seeds, device)` gives a function
            play(forward, params, batch, reference, step) -> penalty (k,), which may update the opponent and whose
            value is added to the losses; `reference` is a batch of reserve examples of the same size.
        descent: how batches are drawn and gradients found; default `loop.Shuffling()`. DP-SGD is one. One that has
            `alone` set gets its models one after the other, one that has `check(make_model)` is asked before any work.
        augment: augment(x, generator) -> x on the normalised inputs.
        watch: names of sets ("member", "test", "reserve") on which each epoch's accuracy is noted in the records, as
            `member_accuracy` and so on. The weights are the same either way; a cached model whose record lacks one
            of these curves is trained once more.
        start: weights to begin from (fine-tuning); default: fresh ones from each model's own seed.
        cache: default: the store at its default place.
        what: name on the progress bar.
        batched: all models at once under vmap, or one after the other (in as many processes as
            `joblib.parallel_config(n_jobs=...)` allows); default: the engine's choice.

        Objectives, compressions and the like that hold one state a model are indexed by model (`pick`).

    Returns:
        The trained models on the data's device, in eval-ready form.

    Raises:
        ValueError: sizes that do not fit, best-checkpoint selection or an opponent without reserve examples, a
            constraint together with best-checkpoint selection, an opponent or a constraint together with DP-SGD,
            DP-SGD of a model with BatchNorm.
        FloatingPointError: a loss that is not finite, with model, epoch and learning rate.
    """
    _check(make_model, data, split, recipe, constraint, opponent, descent, start)
    cache = cache or Store()
    hooks = dict(
        objective=objective,
        compress=compress,
        constraint=constraint,
        opponent=opponent,
        descent=descent,
        augment=augment,
    )
    code = store.sources(loop, models, population, splits, Dataset, make_model, *hooks.values())
    keys = [
        store.key(
            data=data.fingerprint,
            member=split.member[i],
            reserve=split.reserve[i] if recipe.select_best or opponent is not None else None,
            seed=int(split.seeds[i]),
            architecture=make_model,
            recipe=recipe,
            start=_origin(start, i),
            code=code,
            **{name: pick(hook, [i]) for name, hook in hooks.items()},
        )
        for i in range(len(split))
    ]
    done = {i: entry for i, k in enumerate(keys) if (entry := cache.get(k)) is not None}
    curves = {f"{name}_accuracy" for name in watch}
    done = {i: entry for i, entry in done.items() if curves <= entry[1].keys()}
    missing = [i for i in range(len(split)) if i not in done]
    if missing:
        together = _batched(make_model, data.x.device, split) if batched is None else batched
        together = together and not getattr(descent, "alone", False)
        shards = [missing] if together else [[i] for i in missing]
        run = partial(loop.train, make_model, data, recipe)
        jobs = [
            dict(
                split=split[shard],
                watch=watch,
                start=pick(start, shard),
                **{n: pick(hook, shard) for n, hook in hooks.items()},
            )
            for shard in shards
        ]
        with progress.bar(len(missing) * recipe.epochs, what, "epoch") as bar:
            inside = effective_n_jobs(None) == 1 or len(jobs) == 1
            tick = bar.update if inside else None
            results = Parallel(n_jobs=1 if inside else None, return_as="generator_unordered")(
                delayed(_numbered)(number, run, job, tick) for number, job in enumerate(jobs)
            )
            for number, result in results:
                for i, (tensors, record) in zip(shards[number], result, strict=True):
                    cache.put(keys[i], tensors, record)
                    done[i] = (tensors, record)
                if not inside:
                    bar.update(len(shards[number]) * recipe.epochs)
    return _assemble(make_model, [done[i] for i in range(len(split))], keys, data.x.device)


def use_processes(n_jobs: int) -> None:
    """From here on, train in `n_jobs` processes of one thread each.

    Small networks gain nothing from threads, and threads that wait for a busy core cost them ten times their own work.
    For other places (Dask, Ray, a cluster) call `joblib.parallel_config(backend=...)` afterwards.
    """
    torch.set_num_threads(1)
    joblib.parallel_config(backend="loky", n_jobs=n_jobs, inner_max_num_threads=1)


def _numbered(number, run, job, tick):
    return number, run(**job, tick=tick)


def _check(
    make_model,
    data: Dataset,
    split: Splits,
    recipe: Recipe,
    constraint,
    opponent,
    descent,
    start: Population | None,
) -> None:
    if split.member.shape[1] != len(data):
        raise ValueError(f"the split is over {split.member.shape[1]} examples, {data.name} has {len(data)}")
    if start is not None and len(start) != len(split):
        raise ValueError(f"start has {len(start)} models, the split {len(split)}; one row a model is needed")
    if (recipe.select_best or opponent is not None) and not bool(split.reserve.any(1).all()):
        raise ValueError(
            "best-checkpoint selection and opponents need reserve examples, and a model has none; "
            "give the split a reserve or set select_best=False"
        )
    if constraint is not None and recipe.select_best:
        raise ValueError(
            "a constraint is met at the end of training, so its best epoch cannot be kept; set select_best=False"
        )
    if (opponent is not None or constraint is not None) and getattr(descent, "alone", False):
        raise ValueError(
            "the penalty of an opponent or a constraint belongs to a whole batch, so a descent that treats examples "
            "one by one (DP-SGD) cannot clip it; give one of the two"
        )
    if hasattr(descent, "check"):
        descent.check(make_model)


def _batched(make_model, device: torch.device, split: Splits) -> bool:
    """vmap where launch cost dominates (CUDA, small networks), one by one where arithmetic does (any CPU).

    On two CPU cores vmap was about 10 % faster for small MLPs and half as fast for small convolutional networks, and
    one-thread processes beat both; one million parameters as the bound on CUDA is a guess that waits for a measurement.
    """
    same_size = len(set(split.member.sum(1).tolist())) == 1
    size = sum(p.numel() for p in population.skeleton(make_model).parameters())
    return device.type == "cuda" and same_size and size < 1_000_000


def _origin(start: Population | None, i: int):
    if start is None:
        return None
    return start.keys[i] if start.keys else store.describe(pick(start.params | start.buffers, [i]))


def _assemble(make_model, entries, keys: list[str], device) -> Population:
    names = [name for name, _ in population.skeleton(make_model).named_parameters()]
    stacked = {
        name: torch.stack([tensors[name] for tensors, _ in entries]).to(device) for name in entries[0][0]
    }
    params = {name: stacked.pop(name) for name in names}
    return Population(make_model, params, stacked, [record for _, record in entries], keys)
