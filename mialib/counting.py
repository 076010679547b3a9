"""Count what a run would compute: what is trained, which networks are asked, what is searched. None of it is done.

All work goes through three doors, which `counting()` holds:

    training    `fitting.INSTEAD`: untrained networks come back, and the cost of real ones is counted
    asking      `answers.INSTEAD`: made-up answers come back (`made_up`), and the examples are counted
    writing     `places.LEFT_ALONE`: nothing is written; nothing is downloaded either (`download.offline`)

All else runs as it is, on the made-up answers. What would take minutes or cannot run has a stand-in,
`_Counter.stand_ins`.

Whatever depends on results counts at its upper bound: no training stops early, no accuracy is reached before the last
epoch, searches try everything. What lies in the cache is loaded and not counted.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from types import ModuleType

import joblib
import pandas as pd
import torch
from torch import Tensor

from mialib import asking, data, made_up, places
from mialib.asking import answers, doors
from mialib.attacks import averaging
from mialib.compression import bit_search, int8_networks, pruning, recalibration, size
from mialib.compression.bit_search import Found
from mialib.data import Dataset, datasets, download, outlines
from mialib.defenses import memguard
from mialib.pace import Answer, Pace, clock
from mialib.store import Store
from mialib.training import Population, Recipe, fitting

QUESTIONS = "questions of attackers"
SEARCHED = 512  # answers that the search for noise is timed on


class NoData(FileNotFoundError):
    """A file of the data is missing."""


@dataclass
class Training:
    """Networks that would be trained, of one name, length and batch size.

    Args:
        networks, cached: how many are to be trained, and how many are in the cache already.
        steps, examples: optimiser steps, and examples they see, over all networks and epochs.
        bytes: room they take in the cache. seconds: on this machine, over all its processes.
    """

    networks: int = 0
    cached: int = 0
    steps: int = 0
    examples: int = 0
    bytes: int = 0
    seconds: float = 0.0


@dataclass
class Questions:
    """Examples that networks would be asked about, each counted as often as it goes through a network."""

    examples: int = 0
    seconds: float = 0.0


@dataclass
class Counted:
    """What was counted.

    Args:
        trainings: by (what, epochs, batch size), in the order of their first training.
        questions: by what is asked.
        missing: data files that are not at hand; noise of the published size stands in for them.
        pace: how long a step and an answer take.
    """

    trainings: dict[tuple[str, int, int], Training] = field(default_factory=dict)
    questions: dict[str, Questions] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)

    def training(self, what: str, recipe: Recipe) -> Training:
        return self.trainings.setdefault((what, recipe.epochs, recipe.batch_size), Training())

    def ask(self, what: str, examples: int, seconds: float) -> None:
        asked = self.questions.setdefault(what, Questions())
        asked.examples += examples
        asked.seconds += seconds

    def copy(self) -> "Counted":
        return Counted(*({key: replace(one) for key, one in of.items()} for of in self._parts))

    def since(self, before: "Counted") -> "Counted":
        """What was counted after `before`, which was a copy."""
        later = self.copy()
        later.add(before, -1)
        for part in later._parts:
            for key in [key for key, one in part.items() if not any(vars(one).values())]:
                del part[key]
        return later

    def add(self, other: "Counted", times: int = 1) -> None:
        for mine, others in zip(self._parts, other._parts, strict=True):
            for key, one in others.items():
                sums = mine.setdefault(key, type(one)())
                for name, value in vars(one).items():
                    setattr(sums, name, getattr(sums, name) + times * value)

    @property
    def _parts(self) -> tuple[dict, dict]:
        return self.trainings, self.questions


@contextmanager
def counting(jobs: int = 1) -> Iterator[Counted]:
    """Within it nothing is trained, asked, downloaded or written; all of it is counted.

    Args:
        jobs: processes that would share the work. Within it only one is used.
    """
    counter, threads = _Counter(jobs), torch.get_num_threads()
    with ExitStack() as stack:
        for variable, value in (
            (fitting.INSTEAD, counter.fit),
            (answers.INSTEAD, counter),
            (places.LEFT_ALONE, True),
        ):
            stack.callback(variable.reset, variable.set(value))
        for module, name, stand_in in counter.stand_ins():
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, stand_in)
        stack.enter_context(download.offline())
        stack.enter_context(joblib.parallel_config(n_jobs=1))
        stack.callback(torch.set_num_threads, threads)
        torch.set_num_threads(1)  # as in the processes that would share the work
        yield counter.counted


class _Counter:
    """Counts the work; an `answers.Answering`."""

    def __init__(self, jobs: int):
        self.jobs, self.counted, self.networks = jobs, Counted(), made_up.Networks()
        self.pace = self.counted.pace
        self.seen: dict[
            str, set[str]
        ] = {}  # what was counted, key -> curves: the run would find it in the cache
        self.allocation: Counted | None = None  # what one allocation of a bit search costs
        self.of_search = 0.0  # seconds for the noise of one answer
        self.load_real, self.clips_real = datasets.load, recalibration.clips
        self.search_real, self.noise_real = bit_search.search, memguard.noise_search

    def stand_ins(self) -> list[tuple[ModuleType, str, Callable]]:
        """(module, name, what stands there meanwhile). All callers look these names up in their module, at each call."""
        return [
            # of missing data the size is enough
            (datasets, "load", self.load),
            (data, "load", self.load),
            # how long it runs depends on what it finds: it counts at its bound
            (bit_search, "search", self.search),
            # dozens of copies of ten thousands of pictures are made for every network: minutes
            (averaging, "of_copies", self.of_copies),
            # makes dozens of copies of tens of thousands of pictures for every network: minutes
            (memguard, "noise_search", self.noise_search),
            # takes 2 ms of descent for each answer of every network: minutes
            (pruning, "mask", made_up.once(pruning.mask, lambda networks: networks.params)),
            (pruning, "achieved_sparsity", made_up.once(pruning.achieved_sparsity, _kept)),
            (size, "sizes", made_up.once(size.sizes)),
            # real forward passes over the reserve of every network and setting: minutes
            (recalibration, "batchnorm", self.batchnorm),
            (recalibration, "clips", self.clips),
            (int8_networks, "to_int8", lambda networks, *_: networks),
        ]

    def load(self, name: str, root: str | None = None, **options) -> Dataset:
        """The data that are at hand; else noise of the published size, and a note of what is missing."""
        try:
            return self.load_real(name, root, **options)
        except FileNotFoundError as error:
            noise = outlines.published(name, **options)
            if noise is None:
                raise NoData(f"{error}\nHow large {name} is cannot be known without it") from error
            self.counted.missing.append(str(error).partition("\n")[0])
            return noise

    def fit(
        self, order: fitting._Order, cache: Store, watch: tuple[str, ...], what: str, batched: bool | None
    ) -> Population:
        """Instead of training: untrained networks, or those in the cache if all are there."""
        recipe, keys = order.recipe, order.keys()
        wanted = {f"{name}_accuracy" for name in watch}
        shapes = order.shapes() if cache.root.is_dir() else None
        found = {i: entry for i, key in enumerate(keys) if shapes and (entry := cache.get(key, shapes))}
        found = {i: entry for i, entry in found.items() if wanted <= entry[1].keys()}
        missing = [i for i, key in enumerate(keys) if i not in found and not self._is_seen(key, wanted)]
        if missing or any(keys[i] not in self.seen for i in found):
            counted = self.counted.training(what, recipe)
            counted.cached += sum(keys[i] not in self.seen for i in found)
            self._count(counted, order, missing, watch, batched)
        made = None
        if len(found) == len(keys):
            made = order.assemble([found[i] for i in range(len(keys))], keys)
        else:
            made = self.networks.untrained(order, keys, watch)
            new = [i for i in missing if keys[i] not in self.seen]  # the others replace older entries
            if new and cache.root == Store().root:  # other caches are thrown away
                tensors = (made.params | made.buffers).values()
                counted.bytes += len(new) * sum(t[0].numel() * t.element_size() for t in tensors)
        noted = {"reserve_accuracy"} if recipe.select_best else set()
        for key in keys:
            self.seen[key] = wanted | noted if not self._is_seen(key, wanted) else self.seen[key]
        return made

    def _is_seen(self, key: str, curves: set[str]) -> bool:
        return key in self.seen and curves <= self.seen[key]

    def _count(
        self,
        counted: Training,
        order: fitting._Order,
        missing: list[int],
        watch: tuple[str, ...],
        batched: bool | None,
    ) -> None:
        if not missing:
            return
        epochs = order.recipe.epochs
        for i in missing:
            steps, examples = _epoch(order, i)
            counted.networks += 1
            counted.steps += epochs * steps
            counted.examples += epochs * examples
        together = order.launch_bound() if batched is None else batched
        shards = [missing] if together and not order.hooks.descent.alone else [[i] for i in missing]
        seconds = self.pace.training(order, shards[0], watch)
        counted.seconds += seconds * math.ceil(len(shards) / self.jobs)

    def logits(self, networks: Population, data: Dataset, index: Tensor) -> Tensor:
        asked = self._asked(networks, data.inputs(index[0, :2]), index.numel(), "answers")
        where = made_up.places(data)
        each = enumerate(index.cpu())
        return torch.stack([made_up.logits(networks, i, where[own], asked.shape) for i, own in each])

    def sensitivity(self, networks: Population, data: Dataset, index: Tensor, queries: int) -> Tensor:
        x, what = data.inputs(index[0, :2]), f"sensitivity, {queries} further answers each"
        asked = self._asked(networks, x, queries * index.numel(), what)
        where = made_up.places(data) + 1  # numbers other than those of the answers
        each = enumerate(index.cpu())
        said = [made_up.logits(networks, i, where[own], asked.shape) for i, own in each]
        return torch.stack(said).double().abs() / 10

    def of_inputs(self, network: Population, x: Tensor) -> Tensor:
        asked = self._asked(network, x[:2], len(x), QUESTIONS, alone=True)
        return made_up.logits(network, 0, made_up.place(x.cpu()), asked.shape)

    def of_copies(
        self, views: asking.Views, queries: int, change: Callable, summary: Callable, seed: int = 0
    ) -> Tensor:
        """Instead of `averaging.of_copies`: copies of a candidate get the candidate's own answer."""
        averaging.needs_door(views)
        m, n = views.labels.shape
        door = views.query
        while isinstance(door, doors.Guarded):
            door = door.door
        if isinstance(door, doors.Door):
            # the same question to the same networks is remembered, behind whatever defence
            drawn = [cell.cell_contents for cell in change.__closure__ or ()]
            question = repr((n, queries, change.__qualname__, drawn, seed))
            memory = door.memory or [{} for _ in range(m)]
            new = sum(question not in one for one in memory)
            for one in memory:
                one[question] = None
            if new:
                two = views[[0]].rows(torch.arange(2)[None] % n).x[0]
                self._asked(door.population, two, new * n * queries, QUESTIONS, alone=True)
        own = torch.arange(n)
        every = [views.log_posteriors[i].expand(queries, -1, -1) for i in range(m)]
        return torch.stack([summary(one, i, own) for i, one in enumerate(every)])

    def batchnorm(self, models: Population, data: Dataset, index: Tensor) -> Population:
        self._asked(models, data.inputs(index[0, :2]), index.numel(), "calibration", alone=True)
        return replace(models, keys=[])

    def clips(
        self, models: Population, data: Dataset, index: Tensor, bits: float, last: float | None = None
    ) -> Population:
        self._asked(models, data.inputs(index[0, :2]), index.numel(), "calibration", alone=True)
        with self.pace.timed():  # two examples of one network are enough: it is untrained
            made = self.clips_real(models[0:1], data, index[:1, :2], bits, last)
        ranges = {name: made.buffers[name] for name in made.buffers.keys() - models.buffers.keys()}
        buffers = models.buffers | made_up.of_all(ranges, len(models))
        return replace(models, make_model=made.make_model, buffers=buffers, keys=[])

    def noise_search(self, score: Callable, log_posteriors: Tensor) -> Tensor:
        if not self.of_search:
            few = log_posteriors[:SEARCHED]
            with self.pace.timed():
                began = clock(few.device)
                self.noise_real(score, few)
                self.of_search = (clock(few.device) - began) / len(few)
        n = len(log_posteriors)
        self.counted.ask("noise of MemGuard, searched", n, n * self.of_search)
        return log_posteriors.clone()

    def search(self, layers, choices, measure: Callable, tolerance: float) -> Found:
        """Measure the widest allocation and count all others like it; a search that is cached is followed as it went."""
        before, widest = self.counted.copy(), dict.fromkeys(layers, choices[0])
        leak, accuracy, _ = bit_search.Measured(*measure(widest))
        one = self.counted.since(before)
        if one.trainings:
            self.allocation = one
        elif self.allocation is None:
            return self.search_real(layers, choices, measure, tolerance)
        self.counted.add(self.allocation, bit_search.at_most(len(layers), len(choices)) - 1)
        line = dict(round=0, layer=None, bits=choices[0], leak=leak, accuracy=accuracy, gain=None, kept=True)
        return Found(dict.fromkeys(layers, choices[-1]), pd.DataFrame([line | {"seconds": 0.0}]))

    def _asked(
        self, networks: Population, x: Tensor, examples: int, what: str, alone: bool = False
    ) -> Answer:
        """Count the examples; x (1 or 2, ...) are some of them. alone: in one process, however many there are."""
        answer = self.pace.answer(networks, x)
        workers = min(len(networks), self.jobs) if x.device.type == "cpu" and not alone else 1
        self.counted.ask(what, examples, examples * answer.seconds / workers)
        return answer


def _kept(tensors: pruning.Masks | dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors.kept if isinstance(tensors, pruning.Masks) else tensors


def _epoch(order: fitting._Order, i: int) -> tuple[int, int]:
    """Steps and examples of one epoch of model number i, found by drawing its batches."""
    members = order.split.member[[i]].nonzero()[:, 1][None]
    batches, _ = order.hooks.descent.begin(members, order.recipe.batch_size, order.split.seeds[[i]].tolist())
    sizes = [index.shape[1] for index in batches()]
    return len(sizes), sum(sizes)
