"""Train populations: cached models are loaded, missing ones are trained in shards and stored model by model.

The loop itself is in `loop.py`; this file decides which models need it and where they run.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, cached_property, partial

import joblib
import torch
from joblib import effective_n_jobs
from torch import nn

from mialib import hashing, places, progress
from mialib.data import Dataset, Splits, joined
from mialib.store import Store
from mialib.training import elsewhere, loop, population, tally, tasks, workers
from mialib.training.descent import Shuffling
from mialib.training.gathering import Entry, Gathering
from mialib.training.graphs import Graphs
from mialib.training.hooks import (
    Augment,
    BatchObjective,
    Compress,
    Constraint,
    Descent,
    Hooks,
    Objective,
    Opponent,
)
from mialib.training.objectives import cross_entropy
from mialib.training.population import Population, pick
from mialib.training.recipe import Recipe

# all training goes through these; the code that they reach is part of each model's key
_CODE = (loop.train, Dataset, Splits, Recipe)
# if set, requests to `fit` go to it instead of into training: (order, cache, watch, what, batched)
INSTEAD: ContextVar[Callable[..., Population] | None] = ContextVar("instead of training", default=None)


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
    kind: str = "networks",
    batched: bool | None = None,
    graphs: bool | None = None,
) -> Population:
    """Train one model for each row of `split`; models already in the cache are loaded, not trained.

    Args:
        objective, compress, constraint, opponent, descent, augment: the hooks; `hooks` gives their shapes. `compress` is
            baked into the resulting parameters. Default of `descent`: `descent.Shuffling()`. Hooks that hold one state a
            model are indexed by model (`population.pick`).
        watch: names of sets ("member", "test", "reserve") on which each epoch's accuracy is noted in the records, as
            `member_accuracy` and so on. The weights are the same either way; a cached model whose record lacks one
            of these curves is trained once more.
        start: weights to begin from (fine-tuning); default: fresh ones from each model's own seed.
        cache: default: the store at its default place.
        what: name on the progress bar, and of the models in the cache's list. kind: what they count as there.
        batched: all models at once under vmap (cut into a part for each worker elsewhere, or for each of several GPUs),
            or one after the other (in as many processes as `joblib.parallel_config(n_jobs=...)` allows); default: the
            engine's choice.
        graphs: steps as CUDA graphs (`graphs`), on CUDA only; default: not, until that has been measured. Hooks that
            cannot be captured run as they are written. The weights are the same to rounding, under the same cache keys.

    Returns:
        The trained models on the data's device, in eval-ready form.

    Raises:
        ValueError: TF32 or graphs on a CPU; sizes that do not fit; a start of another architecture; best-checkpoint
            selection or an opponent without reserve examples; a constraint with best-checkpoint selection; DP-SGD with
            an opponent, a constraint or an objective that needs whole batches (`hooks.BatchObjective`); such an objective
            with a single member; DP-SGD of a model with BatchNorm.
        FloatingPointError: a loss that is not finite, with model, epoch and learning rate.
        OSError: a cached model cannot be read, or the cache is no folder and none can be made. A cache that can only
            be read gets nothing written, with a warning.
    """
    hooks = Hooks(objective, descent or Shuffling(), compress, constraint, opponent, augment)
    order = _Order(make_model, data, split, recipe, hooks, start)
    order.check()
    if graphs and data.x.device.type != "cuda":
        raise ValueError(
            f"graphs is True, and the data lie on {data.x.device}; graphs are CUDA's, leave it out"
        )
    cache = cache or Store()
    if (instead := INSTEAD.get()) is not None:
        return instead(order, cache, watch, what, batched)
    keys, shapes, curves = order.keys(), order.shapes(), {f"{name}_accuracy" for name in watch}

    def whole(key: str) -> Entry | None:
        entry = cache.get(key, shapes)
        return entry if entry is not None and curves <= entry[1].keys() else None

    models = Gathering(cache, keys, whole)
    if models.missing:
        together = order.launch_bound() if batched is None else batched
        keep = _Keep(cache, keys, kind, [f"{what}: {order.words(i)}" for i in range(len(split))])
        with progress.bar(len(models.missing) * recipe.epochs, what, "epoch") as bar:
            for shards in models.rounds(
                together and not hooks.descent.alone, lambda count: bar.update(count * recipe.epochs)
            ):
                for i, entry in order.train(shards, watch, bar, Graphs() if graphs else None, keep):
                    models.put(i, entry, kind, keep.words[i])
    population = order.assemble([models.done[i] for i in range(len(split))], keys)
    since = [None if i in models.trained else cache.since(key) for i, key in enumerate(keys)]
    tally.note(keys, population.records, since, recipe.precision)
    return population


def use_processes(n_jobs: int) -> None:
    """From here on, train in `n_jobs` processes with one thread each; or elsewhere, if the environment says so.

    Small networks gain nothing from threads, and threads that wait for a busy core slow them down tenfold. The
    processes end with this one, however it ends. Of several GPUs, each process sees one.

    `MIALIB_BACKEND`, `MIALIB_ADDRESS` and `MIALIB_WORKERS` send trainings to Dask or SLURM (`elsewhere`); what is asked of
    networks stays in the processes of this machine. joblib's own backends for clusters do for calls that are few and long;
    they must give results as they finish (`generator_unordered`), which Ray's refuses.

    Raises:
        ValueError, ModuleNotFoundError: the variables do not fit, see `elsewhere.check`.
        ConnectionError: no scheduler answers at the address.
    """
    place = elsewhere.chosen()
    n_jobs = place.workers or n_jobs if place.backend == "local" else n_jobs
    found = _runner(place, n_jobs)
    if place.backend == "dask" and place.address and not places.LEFT_ALONE.get():
        found.connect()  # now, not after an hour of other work
    torch.set_num_threads(1)
    joblib.parallel_config(
        backend="loky", n_jobs=n_jobs, inner_max_num_threads=1, **workers.tied(torch.cuda.device_count())
    )
    tasks.send_to(found)


@cache  # a cell that is executed again gets the same workers
def _runner(place: elsewhere.Place, n_jobs: int) -> tasks.Runner | None:
    if place.backend == "dask":
        from mialib.training import dask_workers

        return dask_workers.DaskWorkers(place.address, place.workers or (None if place.address else n_jobs))
    if place.backend == "slurm":
        from mialib.training import slurm_arrays

        return slurm_arrays.SlurmArrays(place.workers or n_jobs, *elsewhere.slurm_options(place.address))
    return None


@dataclass(frozen=True)
class _Keep:
    """Puts what was trained into the store; `shard`: which of the models."""

    cache: Store
    keys: list[str]
    kind: str
    words: list[str]

    def __getitem__(self, shard: list[int]) -> "_Keep":
        return _Keep(self.cache, pick(self.keys, shard), self.kind, pick(self.words, shard))

    def __call__(self, entries: list[Entry]) -> None:
        for key, words, entry in zip(self.keys, self.words, entries, strict=True):
            self.cache.put(key, *entry, kind=self.kind, words=words)


@dataclass(frozen=True)
class _Order:
    """The arguments of `fit`."""

    make_model: Callable[[], nn.Module]
    data: Dataset
    split: Splits
    recipe: Recipe
    hooks: Hooks
    start: Population | None

    @property
    def reserve_matters(self) -> bool:
        return self.recipe.select_best or self.hooks.opponent is not None

    def check(self) -> None:
        """Raises ValueError before any work; see `fit`."""
        data, split, hooks = self.data, self.split, self.hooks
        if self.recipe.precision == "tf32" and data.x.device.type == "cpu":
            raise ValueError("precision is 'tf32', and that is CUDA's alone; on a CPU take 'float32'")
        if split.member.shape[1] != len(data):
            raise ValueError(
                f"the split is over {split.member.shape[1]} examples, {data.name} has {len(data)}"
            )
        if self.start is not None:
            self._check_start(self.start)
        if self.reserve_matters and not bool(split.reserve.any(1).all()):
            raise ValueError(
                "best-checkpoint selection and opponents need reserve examples, and a model has none; "
                "give the split a reserve or set select_best=False"
            )
        if hooks.constraint is not None and self.recipe.select_best:
            raise ValueError(
                "a constraint is met at the end of training, so its best epoch cannot be kept; set select_best=False"
            )
        descent = type(hooks.descent).__name__
        charged = [type(one).__name__ for one in (hooks.opponent, hooks.constraint) if one is not None]
        if charged and hooks.descent.alone:
            raise ValueError(
                f"the penalty of an opponent or a constraint ({', '.join(charged)}) belongs to a whole batch, so a "
                f"descent that treats examples one by one ({descent}) cannot clip it; give one of the two"
            )
        if isinstance(hooks.objective, BatchObjective) and hooks.objective.whole_batch:
            name = type(hooks.objective).__name__
            if hooks.descent.alone:
                raise ValueError(
                    f"{name} needs the examples of a whole batch together, and {descent} takes them one by one; give "
                    "one of the two (means over examples, such as cross-entropy and LabelSmoothing, can be trained so)"
                )
            if (fewest := int(split.member.sum(1).min())) < 2:
                raise ValueError(
                    f"{name} needs two members or more in a batch, and a model has {fewest}; give it more members"
                )
        hooks.descent.check(self.make_model)

    def _check_start(self, start: Population) -> None:
        if len(start) != len(self.split):
            raise ValueError(
                f"start has {len(start)} models, the split {len(self.split)}; one row a model is needed"
            )
        module = population.skeleton(self.make_model)
        wanted = {name: tuple(t.shape) for name, t in (*module.named_parameters(), *module.named_buffers())}
        there = {name: tuple(t.shape[1:]) for name, t in (start.params | start.buffers).items()}
        differ = sorted(name for name in wanted | there if wanted.get(name) != there.get(name))
        if differ:
            name = differ[0]
            raise ValueError(
                f"start is of another architecture: {len(differ)} tensors differ, the first is {name!r}, of shape "
                f"{there.get(name, 'none')} in start and {wanted.get(name, 'none')} in the network to be trained. Train "
                "what it starts from as the same network (DP-SGD: differential_privacy.group_norm)"
            )

    def keys(self) -> list[str]:
        """The store's key of each model, made of everything that decides what the model is."""
        code = hashing.sources(*_CODE, self.make_model, *vars(self.hooks).values())
        return [
            hashing.key(
                data=fingerprint,
                member=own.member[0],
                reserve=own.reserve[0] if self.reserve_matters else None,
                seed=int(own.seeds[0]),
                architecture=self.make_model,
                recipe=self.recipe,
                start=_origin(self.start, i),
                code=code,
                **vars(self.hooks[[i]]),
            )
            for i, (fingerprint, own) in enumerate(self.parts)
        ]

    def words(self, i: int) -> str:
        """What a model is, for people: "small_cnn on digits, 100 members, 25 epochs, seed 3"."""
        maker = self.make_model
        while isinstance(maker, partial):
            maker = maker.func
        name = getattr(maker, "__name__", type(maker).__name__)
        members, recipe = int(self.split.member[i].sum()), self.recipe
        return f"{name} on {self.data.name}, {members} members, {recipe.epochs} epochs, seed {int(self.split.seeds[i])}"

    @cached_property
    def parts(self) -> list[tuple[str, Splits]]:
        """What each model sees of the data, see `joined.own_part`: models that train beside it make no difference."""
        return [joined.own_part(self.data, self.split[[i]]) for i in range(len(self.split))]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors that the store keeps of a model."""
        if self.start is not None:
            return {name: t.shape[1:] for name, t in (self.start.params | self.start.buffers).items()}
        module = population.skeleton(self.make_model)
        return {name: t.shape for name, t in (*module.named_parameters(), *module.named_buffers())}

    def launch_bound(self) -> bool:
        """Whether vmap pays: where launch cost dominates (CUDA, small networks), not where arithmetic does (any CPU).

        On two CPU cores vmap was about 10 % faster for small MLPs and half as fast for small convolutional networks;
        one-thread processes beat both. The bound on CUDA, one million parameters, is a guess that waits for a
        measurement.
        """
        if self.data.x.device.type == "cpu":
            return False
        same_size = len(set(self.split.member.sum(1).tolist())) == 1
        size = sum(p.numel() for p in population.skeleton(self.make_model).parameters())
        return same_size and size < 1_000_000

    def train(
        self,
        shards: Iterable[list[int]],
        watch: tuple[str, ...],
        bar: progress.Bar,
        graphs: Graphs | None,
        keep: _Keep,
    ) -> Iterator[tuple[int, Entry]]:
        """Each model of the shards with its entry, as they finish; elsewhere, or in as many processes as joblib is set to.

        A single shard is trained here, where each epoch is seen, unless there are workers elsewhere.
        """
        parts = self._parts_of_a_shard()
        shards = (part for shard in shards for part in _cut(shard, parts))
        away = tasks.runner() is not None
        inside, first = not away and effective_n_jobs(None) == 1, []
        if not (inside or away):
            first = list(itertools.islice(shards, 2))
            inside = len(first) < 2
        calls = (
            tasks.Call(
                tuple(shard),
                _as_many_at_once,
                (self.make_model, self.data, self.recipe),
                dict(
                    watch=watch,
                    graphs=graphs,
                    tick=bar.update if inside else None,
                    split=self.split[shard],
                    hooks=self.hooks[shard],
                    start=pick(self.start, shard),
                ),
                keep[shard],
            )
            for shard in itertools.chain(first, shards)
        )
        for shard, entries in tasks.as_finished(calls, n_jobs=1 if inside else None, large=True):
            yield from zip(shard, entries, strict=True)
            if not inside:
                bar.update(len(entries) * self.recipe.epochs)

    def _parts_of_a_shard(self) -> int:
        """Into how many parts a shard of many models is cut: one for each worker elsewhere, or for each GPU here."""
        if (runner := tasks.runner()) is not None:
            return runner.workers
        if self.data.x.device.type != "cuda":
            return 1
        return min(effective_n_jobs(None), torch.cuda.device_count())

    def assemble(self, entries: list[Entry], keys: list[str]) -> Population:
        names = [name for name, _ in population.skeleton(self.make_model).named_parameters()]
        stacked = {
            name: torch.stack([tensors[name] for tensors, _ in entries]).to(self.data.x.device)
            for name in entries[0][0]
        }
        params = {name: stacked.pop(name) for name in names}
        records = [record for _, record in entries]
        trained_on = [name for _, own in self.parts for name in own.fingerprints()]
        return Population(self.make_model, params, stacked, records, keys, trained_on)


def _cut(shard: list[int], parts: int) -> list[list[int]]:
    """A shard in at most so many parts, whose sizes differ by one at most."""
    parts = max(1, min(parts, len(shard)))
    return [shard[len(shard) * i // parts : len(shard) * (i + 1) // parts] for i in range(parts)]


def _as_many_at_once(*args, split: Splits, hooks: Hooks, start: Population | None, **options) -> list[Entry]:
    """Train all models at once; where the device's memory cannot hold them, one half after the other."""
    try:
        return loop.train(*args, split=split, hooks=hooks, start=start, **options)
    except torch.OutOfMemoryError:  # the first step finds out, so no work is lost
        if len(split) == 1:
            raise
    cut = len(split) // 2  # outside the handler, whose exception still holds what did not fit
    halves = slice(None, cut), slice(cut, None)
    return [
        entry
        for half in halves
        for entry in _as_many_at_once(
            *args, split=split[half], hooks=hooks[half], start=pick(start, half), **options
        )
    ]


def _origin(start: Population | None, i: int):
    if start is None:
        return None
    return start.keys[i] if start.keys else hashing.describe(pick(start.params | start.buffers, [i]))
