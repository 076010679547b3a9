"""Train populations: what is cached is loaded, what is missing is trained in shards and stored model by model.

The loop itself is in `loop.py`; this file decides which models need it and where they run.
"""

from collections.abc import Callable
from functools import partial

import joblib
import torch
from joblib import Parallel, delayed, effective_n_jobs
from torch import nn

from mialib import progress, store
from mialib.data import Dataset, Splits, splits
from mialib.models import classifiers, layers
from mialib.store import Store
from mialib.training import checkpoints, loop, population
from mialib.training.descent import Shuffling
from mialib.training.hooks import Augment, Compress, Constraint, Descent, Hooks, Objective, Opponent
from mialib.training.objectives import cross_entropy
from mialib.training.population import Population, pick
from mialib.training.recipe import Recipe

Entry = tuple[dict[str, torch.Tensor], dict]  # what the store keeps of a model: its tensors, and its record


def fit(
    make_model: Callable[[], nn.Module],
    data: Dataset,
    split: Splits,
    recipe: Recipe,
    *,
    objective: Objective = cross_entropy,
    compress: Compress | None = None,
    constraint: Constraint | None = None,
    opponent: Opponent | None = None,
    descent: Descent | None = None,
    augment: Augment | None = None,
    watch: tuple[str, ...] = (),
    start: Population | None = None,
    cache: Store | None = None,
    what: str = "training",
    batched: bool | None = None,
) -> Population:
    """Train one model for each row of `split`; models already in the cache are loaded, not trained.

    Args:
        objective, compress, constraint, opponent, descent, augment: the hooks, whose shapes stand in `hooks`. What
            `compress` makes of the parameters is baked into the result. Default of `descent`: `descent.Shuffling()`.
            Those that hold one state a model are indexed by model (`population.pick`).
        watch: names of sets ("member", "test", "reserve") on which each epoch's accuracy is noted in the records, as
            `member_accuracy` and so on. The weights are the same either way; a cached model whose record lacks one
            of these curves is trained once more.
        start: weights to begin from (fine-tuning); default: fresh ones from each model's own seed.
        cache: default: the store at its default place.
        what: name on the progress bar.
        batched: all models at once under vmap, or one after the other (in as many processes as
            `joblib.parallel_config(n_jobs=...)` allows); default: the engine's choice.

    Returns:
        The trained models on the data's device, in eval-ready form.

    Raises:
        ValueError: sizes that do not fit, best-checkpoint selection or an opponent without reserve examples, a
            constraint together with best-checkpoint selection, an opponent or a constraint together with DP-SGD,
            DP-SGD of a model with BatchNorm.
        FloatingPointError: a loss that is not finite, with model, epoch and learning rate.
    """
    hooks = Hooks(objective, descent or Shuffling(), compress, constraint, opponent, augment)
    _check(make_model, data, split, recipe, hooks, start)
    cache = cache or Store()
    keys = _keys(make_model, data, split, recipe, hooks, start)
    curves = {f"{name}_accuracy" for name in watch}
    done = {i: entry for i, key in enumerate(keys) if (entry := cache.get(key)) and curves <= entry[1].keys()}
    missing = [i for i in range(len(split)) if i not in done]
    if missing:
        together = _batched(make_model, data.x.device, split) if batched is None else batched
        shards = [missing] if together and not hooks.descent.alone else [[i] for i in missing]
        jobs = [
            dict(split=split[shard], hooks=hooks[shard], watch=watch, start=pick(start, shard))
            for shard in shards
        ]
        run = partial(loop.train, make_model, data, recipe)
        with progress.bar(len(missing) * recipe.epochs, what, "epoch") as bar:
            for number, trained in _trained(run, jobs, bar, recipe.epochs):
                for i, entry in zip(shards[number], trained, strict=True):
                    cache.put(keys[i], *entry)
                    done[i] = entry
    return _assemble(make_model, [done[i] for i in range(len(split))], keys, data.x.device)


def use_processes(n_jobs: int) -> None:
    """From here on, train in `n_jobs` processes of one thread each.

    Small networks gain nothing from threads, and threads that wait for a busy core cost them ten times their own work.
    For other places (Dask, a cluster) call `joblib.parallel_config(backend=...)` afterwards.
    """
    torch.set_num_threads(1)
    joblib.parallel_config(backend="loky", n_jobs=n_jobs, inner_max_num_threads=1)


def _keys(
    make_model: Callable[[], nn.Module],
    data: Dataset,
    split: Splits,
    recipe: Recipe,
    hooks: Hooks,
    start: Population | None,
) -> list[str]:
    """The store's key of each model: of all that makes it what it is."""
    code = store.sources(
        loop,
        checkpoints,
        classifiers,
        layers,
        population,
        splits,
        Dataset,
        Recipe,
        make_model,
        *vars(hooks).values(),
    )
    reserve_matters = recipe.select_best or hooks.opponent is not None
    return [
        store.key(
            data=data.fingerprint,
            member=split.member[i],
            reserve=split.reserve[i] if reserve_matters else None,
            seed=int(split.seeds[i]),
            architecture=make_model,
            recipe=recipe,
            start=_origin(start, i),
            code=code,
            **vars(hooks[[i]]),
        )
        for i in range(len(split))
    ]


def _trained(run: Callable, jobs: list[dict], bar: progress.Bar, epochs: int):
    """(number of the job, its models' entries) as they are done, in as many processes as joblib is set to."""
    inside = effective_n_jobs(None) == 1 or len(jobs) == 1
    tick = bar.update if inside else None
    results = Parallel(n_jobs=1 if inside else None, return_as="generator_unordered")(
        delayed(_numbered)(number, run, job, tick) for number, job in enumerate(jobs)
    )
    for number, trained in results:
        yield number, trained
        if not inside:
            bar.update(len(trained) * epochs)


def _numbered(number: int, run: Callable, job: dict, tick: Callable | None) -> tuple[int, list[Entry]]:
    return number, run(**job, tick=tick)


def _check(
    make_model: Callable[[], nn.Module],
    data: Dataset,
    split: Splits,
    recipe: Recipe,
    hooks: Hooks,
    start: Population | None,
) -> None:
    if split.member.shape[1] != len(data):
        raise ValueError(f"the split is over {split.member.shape[1]} examples, {data.name} has {len(data)}")
    if start is not None and len(start) != len(split):
        raise ValueError(f"start has {len(start)} models, the split {len(split)}; one row a model is needed")
    if (recipe.select_best or hooks.opponent is not None) and not bool(split.reserve.any(1).all()):
        raise ValueError(
            "best-checkpoint selection and opponents need reserve examples, and a model has none; "
            "give the split a reserve or set select_best=False"
        )
    if hooks.constraint is not None and recipe.select_best:
        raise ValueError(
            "a constraint is met at the end of training, so its best epoch cannot be kept; set select_best=False"
        )
    if (hooks.opponent is not None or hooks.constraint is not None) and hooks.descent.alone:
        raise ValueError(
            "the penalty of an opponent or a constraint belongs to a whole batch, so a descent that treats examples "
            "one by one (DP-SGD) cannot clip it; give one of the two"
        )
    hooks.descent.check(make_model)


def _batched(make_model: Callable[[], nn.Module], device: torch.device, split: Splits) -> bool:
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


def _assemble(
    make_model: Callable[[], nn.Module], entries: list[Entry], keys: list[str], device: torch.device
) -> Population:
    names = [name for name, _ in population.skeleton(make_model).named_parameters()]
    stacked = {
        name: torch.stack([tensors[name] for tensors, _ in entries]).to(device) for name in entries[0][0]
    }
    params = {name: stacked.pop(name) for name in names}
    return Population(make_model, params, stacked, [record for _, record in entries], keys)
