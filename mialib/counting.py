"""What a run would compute, counted: trainings, questions and searches have stand-ins here that do none of it.

`counting()` puts them in the place of what takes long, so that a notebook can be followed to its end in seconds:

    training        untrained networks, one for all of an architecture, and what the real ones would have cost
    questions       log-posteriors that are a fixed function of network and input, and say nothing about who is a member
    searches        the first candidate is measured, the others count as much, all of them

Whatever depends on results counts at its upper bound: nobody stops early, no accuracy is reached before the last epoch. What
lies in the cache is loaded, and not counted; nothing is written. How long a step or an answer takes is measured on the way,
once for each kind: real steps of real batches, some tenths of a second of them.
"""

import hashlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace

import joblib
import pandas as pd
import torch
from torch import Tensor

import mialib
from mialib import asking, hashing, reach, store, streams
from mialib.asking import answers, doors
from mialib.attacks import averaging
from mialib.attacks.blindmi import BlindMIDiff
from mialib.attacks.neural import NeuralAttack
from mialib.attacks.threshold import ThresholdAttack
from mialib.compression import bit_search, int8, int8_networks, pruning, recalibration, size
from mialib.compression.bit_search import Found
from mialib.data import Dataset, Splits, datasets, download, outlines
from mialib.defenses import memguard
from mialib.params import checking
from mialib.reporting import files
from mialib.store import Store
from mialib.study import attackers, rows
from mialib.training import Population, Recipe, fitting, loop, pick, population
from mialib.training.precision import arithmetic

SMALL = 1_000_000  # parameters: an output defence
TIMED = 0.5  # seconds of steps that are measured for each kind of training
DEAR = 0.2  # seconds: a step that takes longer stands for other objectives of its architecture too
SCORED = 1000  # candidates that attacks are scored on
QUESTIONS = "questions of attackers"
SEARCHED = 512  # answers that the search for noise is timed on


class NoData(FileNotFoundError):
    """A file of the data is missing."""


@dataclass
class Training:
    """Networks that would be trained: of one name, length and batch size.

    Args:
        networks, cached: to be trained, and in the cache already.
        steps, examples: of the optimiser, and seen by it, over all networks and epochs.
        bytes: that they take in the cache. seconds: on this machine, over all its processes.
    """

    networks: int = 0
    cached: int = 0
    steps: int = 0
    examples: int = 0
    bytes: int = 0
    seconds: float = 0.0


@dataclass
class Questions:
    """Examples that networks would be asked about, each as often as it goes through a network."""

    examples: int = 0
    seconds: float = 0.0


@dataclass
class Counted:
    """What was counted.

    Args:
        trainings: by (what, epochs, batch size), in the order of their first training.
        questions: by what is asked.
        measuring: seconds that were spent on real steps and answers, to know how long they take.
        missing: files of the data that are not at hand, noise of the published size standing in for them.
        spared: seconds that scoring all candidates would have taken longer than scoring some.
    """

    trainings: dict[tuple[str, int, int], Training] = field(default_factory=dict)
    questions: dict[str, Questions] = field(default_factory=dict)
    measuring: float = 0.0
    spared: float = 0.0
    missing: list[str] = field(default_factory=list)

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
    """Within it nothing is trained, asked, downloaded or written, and all of it is counted.

    Args:
        jobs: processes that the work would be shared out to.
    """
    counter = _Counter(jobs)
    threads, figures = torch.get_num_threads(), mialib.figures
    token = fitting.INSTEAD.set(counter.fit)
    stand_ins = {
        answers.logits: counter.logits,
        answers.sensitivity: counter.sensitivity,
        averaging.of_copies: counter.of_copies,
        attackers.train: partial(counter.pooled, attackers.train),
        bit_search.search: partial(counter.search, bit_search.search),
        checking.check: _declared,
        datasets.load: partial(counter.load, datasets.load),
        files.save: partial(_nothing),
        fitting.use_processes: partial(_nothing),  # a stand-in of its own each, so that each finds back
        int8.compare: lambda *_: pd.DataFrame(),
        int8_networks.to_int8: lambda networks, *_: networks,
        rows.attack_rows: partial(counter.of_some, rows.attack_rows),
        memguard.noise_search: partial(counter.noise_search, memguard.noise_search),
        population.pick: partial(_picked, population.pick),
        pruning.achieved_sparsity: partial(_achieved, pruning.achieved_sparsity),
        pruning.mask: partial(_alike, pruning.mask),
        recalibration.batchnorm: counter.batchnorm,
        recalibration.clips: partial(counter.clips, recalibration.clips),
        size.sizes: partial(_sizes, size.sizes),
        store._set_aside: lambda *_: "a plan leaves it where it is",
    }
    methods = [
        (doors.Door, "__call__", lambda door, x: counter.door(door, x)),
        (NeuralAttack, "judge", lambda attack, *asked: counter.judge(attack, *asked)),
        (BlindMIDiff, "__call__", lambda attack, target, *_: counter.blindly(attack, target)),
        (ThresholdAttack, "__call__", _method(counter.thresholds, ThresholdAttack.__call__)),
        (Store, "ready", lambda _: False),
        (Store, "put", _nothing),
    ]
    torch.set_num_threads(1)  # as in the processes that the work is shared out to
    try:
        with ExitStack() as stack:
            stack.enter_context(joblib.parallel_config(n_jobs=1))
            for owner, name, stand_in in methods:
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, stand_in)
            stack.callback(setattr, mialib, "figures", figures)
            mialib.figures = _Undrawn()
            stack.enter_context(_instead(stand_ins))
            yield counter.counted
    finally:
        fitting.INSTEAD.reset(token)
        torch.set_num_threads(threads)


@contextmanager
def _instead(stand_ins: dict[Callable, Callable]) -> Iterator[None]:
    """Within it every module of the package that names one of these functions finds its stand-in there."""
    _rename(stand_ins)
    try:
        yield
    finally:  # also in modules that were imported meanwhile
        _rename({stand_in: function for function, stand_in in stand_ins.items()})


def _rename(functions: dict[Callable, Callable]) -> None:
    new = {id(old): function for old, function in functions.items()}
    for module in [one for name, one in sys.modules.items() if name.split(".")[0] == mialib.__name__]:
        for name, value in list(vars(module).items()):
            if id(value) in new:
                setattr(module, name, new[id(value)])


class _Counter:
    """The stand-ins that count."""

    def __init__(self, jobs: int):
        self.jobs, self.counted, self.pace = jobs, Counted(), _Pace()
        self.seen: set[str] = set()  # keys of what was counted: the run would find it in the cache
        self.fresh: dict[str, Population] = {}  # by architecture
        self.shared = False  # whether the trainings of several calls share out the processes
        self.allocation: Counted | None = None  # what one of a bit search costs
        self.of_search = 0.0  # seconds for the noise of one answer

    def load(self, load: Callable, name: str, root: str | None = None, **options) -> Dataset:
        """What is at hand; else noise of the published size, and a note of what is missing."""
        try:
            with download.offline():
                return load(name, root, **options)
        except FileNotFoundError as error:
            noise = outlines.published(name, **options)
            if noise is None:
                raise NoData(f"{error}\nHow large {name} is cannot be known without it") from error
            self.counted.missing.append(str(error).partition("\n")[0])
            return noise

    def fit(
        self, order: fitting._Order, cache: Store, watch: tuple[str, ...], what: str, batched: bool | None
    ) -> Population:
        """In place of training: untrained networks, or those in the cache if all are there."""
        recipe, keys = order.recipe, order.keys()
        wanted = {f"{name}_accuracy" for name in watch}
        shapes = order.shapes() if cache.root.is_dir() else None
        found = {i: entry for i, key in enumerate(keys) if shapes and (entry := cache.get(key, shapes))}
        found = {i: entry for i, entry in found.items() if wanted <= entry[1].keys()}
        missing = [i for i, key in enumerate(keys) if i not in found and key not in self.seen]
        if missing or any(keys[i] not in self.seen for i in found):
            counted = self.counted.training(what, recipe)
            counted.cached += sum(keys[i] not in self.seen for i in found)
            self._count(counted, order, missing, watch, batched)
            self.seen |= set(keys)
        if len(found) == len(keys):
            return order.assemble([found[i] for i in range(len(keys))], keys)
        made = self._untrained(order, keys, watch)
        if missing and cache.root == Store().root:  # others are thrown away
            tensors = (made.params | made.buffers).values()
            counted.bytes += len(missing) * sum(t[0].numel() * t.element_size() for t in tensors)
        return made

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
        on_cpu = order.data.x.device.type == "cpu"  # where networks learn one by one, whatever they are
        together = batched if batched is not None else not on_cpu and order.launch_bound()
        shards = [missing] if together and not order.hooks.descent.alone else [[i] for i in missing]
        with self._measuring():
            seconds = self.pace.training(order, shards[0], watch)
        parts = len(shards) / self.jobs
        counted.seconds += seconds * (parts if self.shared else math.ceil(parts))

    def _untrained(self, order: fitting._Order, keys: list[str], watch: tuple[str, ...]) -> Population:
        """As many networks as the split has rows, all in the same memory."""
        name, k = str(hashing.describe(order.make_model)), len(keys)
        if order.start is None and name not in self.fresh:
            self.fresh[name] = population.initial(order.make_model, [0])
        first = (order.start or self.fresh[name])[0:1].to(order.data.x.device)
        hooks = order.hooks[[0]]
        params = first.params if hooks.compress is None else hooks.compress(first.params)
        if (
            sum(t.numel() for t in params.values()) < SMALL
        ):  # these answer themselves, and no two trainings alike
            nudge = 1 + int(keys[0][:4], 16) / 1e7
            params = {name: tensor * nudge for name, tensor in params.items()}
        params, buffers = (
            {name: _of_all(tensor.detach(), k) for name, tensor in tensors.items()}
            for tensors in (params, first.buffers)
        )
        bound = None if hooks.constraint is None else hooks.constraint.begin(first.params)
        record = _record(order.recipe, watch, bound)
        return Population(
            order.make_model, params, buffers, [dict(record) for _ in keys], keys, order.split.fingerprints()
        )

    def pooled(self, train: Callable, *args) -> None:
        self.shared = True
        try:
            train(*args)
        finally:
            self.shared = False

    def logits(self, networks: Population, data: Dataset, index: Tensor) -> Tensor:
        index = index.expand(len(networks), -1).cpu()
        asked = self._asked(networks, data.inputs(index[0, :2]), index.numel(), "answers")
        where = _places(data)
        return torch.stack([_said(networks, i, where[own], asked.shape) for i, own in enumerate(index)])

    def sensitivity(
        self,
        networks: Population,
        data: Dataset,
        index: Tensor,
        *,
        queries: int = 10,
        epsilon: float = 1e-3,
        seed: int = 0,
        clean: Tensor | None = None,
    ) -> Tensor:
        index = index.expand(len(networks), -1).cpu()
        what = f"sensitivity, {queries + 1} answers each"
        asked = self._asked(networks, data.inputs(index[0, :2]), (queries + 1) * index.numel(), what)
        where = _places(data) + 1
        said = [_said(networks, i, where[own], asked.shape) for i, own in enumerate(index)]
        return torch.stack(said).double().abs() / 10

    def door(self, door: doors.Door, x: Tensor) -> Tensor:
        """In place of `Door.__call__`; what is remembered costs nothing here either."""
        asked, said = None, []
        for i, own in enumerate(x):
            memory = None if door.memory is None else door.memory[i]
            question = None if memory is None else hashlib.blake2b(own.cpu().contiguous().numpy()).digest()
            if memory is None or question not in memory:
                asked = self._asked(door.population, own[:2], len(own), QUESTIONS, alone=True)
                answer = _said(door.population, i, _place(own.cpu()), asked.shape)
                if memory is None:
                    said.append(answer)
                    continue
                memory[question] = answer
            said.append(memory[question])
        return torch.stack(said).double().log_softmax(-1)

    def of_copies(
        self, views: asking.Views, queries: int, change: Callable, summary: Callable, seed: int = 0
    ) -> Tensor:
        """Copies of a candidate are answered as the candidate itself."""
        averaging.needs_door(views)
        m, n = views.labels.shape
        door = views.query
        while isinstance(door, doors.Guarded):
            door = door.door
        if isinstance(door, doors.Door):
            # what is asked again of the same networks, behind whatever defence, is remembered
            drawn = [cell.cell_contents for cell in change.__closure__ or ()]
            question = repr((n, queries, change.__qualname__, drawn, seed))
            memory = door.memory or [{} for _ in range(m)]
            new = sum(question not in one for one in memory)
            for one in memory:
                one[question] = None
            if new:
                self._asked(door.population, _two(views), new * n * queries, QUESTIONS, alone=True)
        own = torch.arange(n)
        every = [views.log_posteriors[i].expand(queries, -1, -1) for i in range(m)]
        return torch.stack([summary(one, i, own) for i, one in enumerate(every)])

    def judge(self, attack: NeuralAttack, networks: Population, targets: asking.Views) -> Tensor:
        """In place of `NeuralAttack.judge`."""
        m, n = targets.labels.shape
        two = torch.arange(2).expand(m, -1) % n
        x = attack.features(targets.rows(two)).flatten(0, 1)[:2]
        asked = self._asked(networks, x, len(networks) * m * n, "answers")
        places = targets.log_posteriors.clamp(min=-1e3).sum(-1).float()
        said = [[_said(networks, i, own, asked.shape) for i in range(len(networks))] for own in places]
        logits = torch.stack([torch.stack(own) for own in said]).double()
        return logits[..., 1] - logits[..., 0]

    def blindly(self, attack: BlindMIDiff, target: asking.Views) -> Tensor:
        """In place of `BlindMIDiff.__call__`: whoever is surer of the label than of most is a member."""
        attack._check(target)
        if isinstance(target.query, doors.Door):
            self._asked(target.query.population, _two(target), attack.probes, QUESTIONS, alone=True)
        sure = target.log_posteriors[0].amax(-1)
        return torch.where(sure > sure.median(), 1.0, -1.0).double()

    def thresholds(
        self,
        margins: Callable,
        attack: ThresholdAttack,
        target: asking.Views,
        shadows: asking.Views,
        member: Tensor,
        seed: int = 0,
    ) -> Tensor:
        """The thresholds that some of the shadows' candidates say."""
        began, n = time.process_time(), member.shape[1]
        if n > SCORED:
            own = torch.arange(SCORED).expand(len(member), -1)
            shadows, member = replace(shadows, x=None).rows(own), member[:, :SCORED]
        found = margins(attack, target, shadows, member, seed)
        self.counted.spared += (time.process_time() - began) * max(0, n / SCORED - 1)
        return found

    def of_some(self, rows_of: Callable, member, margin, *args, **columns) -> list[dict]:
        """In place of `attack_rows`: those of some of the candidates."""
        began, n = time.process_time(), len(member)
        few = slice(SCORED) if len(set(member[:SCORED])) == 2 else slice(None)
        found = rows_of(member[few], margin[few], *args, **columns)
        self.counted.spared += (time.process_time() - began) * (n / len(member[few]) - 1)
        return found

    def batchnorm(self, models: Population, data: Dataset, index: Tensor) -> Population:
        self._asked(models, data.inputs(index[0, :2]), index.numel(), "calibration", alone=True)
        return replace(models, keys=[])

    def clips(
        self,
        measured: Callable,
        models: Population,
        data: Dataset,
        index: Tensor,
        bits: float,
        last: float | None = None,
    ) -> Population:
        self._asked(models, data.inputs(index[0, :2]), index.numel(), "calibration", alone=True)
        with self._measuring():  # two examples of one network: the ranges are its own, and untrained anyway
            made = measured(models[0:1], data, index[:1, :2], bits, last)
        ranges = made.buffers.keys() - models.buffers.keys()
        alike = {name: _of_all(made.buffers[name], len(models)) for name in ranges}
        return replace(models, make_model=made.make_model, buffers=models.buffers | alike, keys=[])

    def noise_search(self, search: Callable, score: Callable, log_posteriors: Tensor) -> Tensor:
        if not self.of_search:
            few = log_posteriors[:SEARCHED]
            with self._measuring():
                began = _clock(few.device)
                search(score, few)
                self.of_search = (_clock(few.device) - began) / len(few)
        n = len(log_posteriors)
        self.counted.ask("noise of MemGuard, searched", n, n * self.of_search)
        return log_posteriors.clone()

    def search(self, search: Callable, layers, choices, measure: Callable, tolerance: float) -> Found:
        """The widest allocation is measured, all others count as much; what is cached is followed as it was."""
        before, widest = self.counted.copy(), dict.fromkeys(layers, choices[0])
        leak, accuracy, _ = bit_search.Measured(*measure(widest))
        one = self.counted.since(before)
        if one.trainings:
            self.allocation = one
        elif self.allocation is None:
            return search(layers, choices, measure, tolerance)
        self.counted.add(self.allocation, bit_search.at_most(len(layers), len(choices)) - 1)
        line = dict(round=0, layer=None, bits=choices[0], leak=leak, accuracy=accuracy, gain=None, kept=True)
        return Found(dict.fromkeys(layers, choices[-1]), pd.DataFrame([line | {"seconds": 0.0}]))

    def _asked(
        self, networks: Population, x: Tensor, examples: int, what: str, alone: bool = False
    ) -> SimpleNamespace:
        """Counts the examples; tells the shape of an answer to x (2, ...)."""
        with self._measuring():
            asked = self.pace.asking(networks, x)
        workers = min(len(networks), self.jobs) if x.device.type == "cpu" and not alone else 1
        self.counted.ask(what, examples, examples * asked.seconds / workers)
        return asked

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        began = time.process_time()
        yield
        self.counted.measuring += time.process_time() - began


class _Pace:
    """How long a training takes in one process, and an answer: measured once for each kind."""

    def __init__(self):
        self.steps: dict[str, tuple[float, float]] = {}  # kind -> seconds to set up, seconds an example
        self.dear: dict[
            str, tuple[float, float]
        ] = {}  # the same of what takes long, by architecture and batch
        self.answers: dict[str, SimpleNamespace] = {}

    def training(self, order: fitting._Order, shard: list[int], watch: tuple[str, ...]) -> float:
        """Seconds for a shard, all epochs."""
        recipe, hooks = order.recipe, order.hooks
        members = int(order.split.member[shard[0]].sum())
        plain = [hashing.describe(order.make_model), tuple(order.data.x.shape[1:]), recipe.batch_size]
        plain = str([*plain, recipe.precision, recipe.optimizer, type(hooks.descent).__name__, len(shard)])
        reserve = int(order.split.reserve[shard[0]].sum()) if recipe.select_best else 0
        kind = str([plain, *map(_kind, vars(hooks).values()), members, reserve, watch])
        if kind not in self.steps:
            self.steps[kind] = self.dear.get(plain) or self._measured(order, shard, watch, plain)
        set_up, of_example = self.steps[kind]
        return set_up + recipe.epochs * members * of_example

    def _measured(self, order, shard: list[int], watch: tuple[str, ...], plain: str) -> tuple[float, float]:
        recipe, split = order.recipe, order.split[shard]
        members = int(split.member[0].sum())
        steps = max(1, recipe.steps_per_epoch(members))

        def run(epochs: int, share: float) -> float:
            began = _clock(order.data.x.device)
            short = replace(recipe, epochs=epochs, milestones=(), patience=None)
            few, start = _share(split, share), pick(order.start, shard)
            try:
                loop.train(
                    order.make_model,
                    order.data,
                    short,
                    split=few,
                    hooks=order.hooks[shard],
                    watch=watch,
                    start=start,
                )
            except FloatingPointError:  # a rate that is too high for untrained networks: the steps were made
                pass
            return _clock(order.data.x.device) - began

        set_up = run(0, 1.0)
        if recipe.epochs == 0:
            return set_up, 0.0
        one = min(1.0, recipe.batch_size / members)
        step = max(run(1, one) - set_up, 1e-4)  # the first of its kind: a bound
        wanted = max(1, round(TIMED / step))
        epochs, share = (wanted // steps, 1.0) if wanted >= steps else (1, min(1.0, wanted * one))
        set_up = min(set_up, run(0, 1.0))
        seconds = max(run(epochs, share) - set_up, 1e-6) / (epochs * math.ceil(share * members))
        if step > DEAR:
            self.dear[plain] = set_up, seconds
        return set_up, seconds

    def asking(self, networks: Population, x: Tensor) -> SimpleNamespace:
        """The shape of an answer to one example, and seconds for it; x (1 or 2, ...) are examples."""
        kind = str([hashing.describe(networks.make_model), tuple(x.shape[1:])])
        if kind not in self.answers:
            module, many = networks[0], population.at_once(x)
            x = x.float()[torch.arange(many) % len(x)].to(networks.device)
            with torch.no_grad(), arithmetic("float32"):
                said = module(population.channels_last(x))
                began = _clock(x.device)
                module(population.channels_last(x))
                seconds = (_clock(x.device) - began) / many
            self.answers[kind] = SimpleNamespace(shape=said.shape[1:], seconds=seconds)
        return self.answers[kind]


def _epoch(order: fitting._Order, i: int) -> tuple[int, int]:
    """Steps and examples of one epoch of model number i: its batches are drawn."""
    members = order.split.member[[i]].nonzero()[:, 1][None]
    batches, _ = order.hooks.descent.begin(members, order.recipe.batch_size, order.split.seeds[[i]].tolist())
    sizes = [index.shape[1] for index in batches()]
    return len(sizes), sum(sizes)


def _record(recipe: Recipe, watch: tuple[str, ...], bound) -> dict:
    """What the loop would note, were every epoch as bad as the others: who waits for an accuracy waits to the end."""
    epochs = recipe.epochs
    # below any accuracy, and best before the last: whoever stops there trains anew what all epochs would have had cached
    waiting = [-1e-3 * (epochs - epoch % max(1, epochs - 1)) / epochs for epoch in range(epochs)]
    record = {"loss": [1.0] * epochs} | {f"{name}_accuracy": waiting for name in watch}
    if bound is not None:
        record |= dict.fromkeys(bound.curves, [1.0] * max(1, epochs))
    if recipe.select_best and epochs:
        record |= {"best_epoch": epochs - 1, "reserve_accuracy": waiting}
    return record | {"seconds": 0.0}


def _clock(device: torch.device) -> float:
    """Seconds of work: on a CPU those of this process, whoever else computes beside it."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _share(split: Splits, share: float) -> Splits:
    """The first examples of each set, that share of them."""
    masks = (split.member, split.test, split.reserve)
    kept = [mask & (mask.cumsum(1) <= torch.ceil(share * mask.sum(1, keepdim=True))) for mask in masks]
    return Splits(*kept, split.seeds)


def _two(views: asking.Views) -> Tensor:
    """The inputs of two candidates of the first model, (2, ...)."""
    return views[[0]].rows(torch.arange(2)[None] % views.labels.shape[1]).x[0]


def _kind(hook) -> str:
    """What it is made of: hooks of one kind take equally long, however strong they are."""
    made_of = {getattr(part, "__qualname__", type(part).__qualname__) for part in reach.parts(hook)}
    return str(sorted(made_of))


def _places(data: Dataset) -> Tensor:
    """`_place` of all examples of a data set, (n,)."""
    if "_places" not in data.__dict__:
        parts = torch.arange(len(data)).split(answers.ROWS)
        data.__dict__["_places"] = torch.cat([_place(data.inputs(part).cpu()) for part in parts])
    return data.__dict__["_places"]


def _place(x: Tensor) -> Tensor:
    """A number for each input x (n, ...), about -1 to 1: the same whatever batch it comes in, but for rounding."""
    flat = x.flatten(1).float()
    direction = torch.randn(flat.shape[1], generator=streams.generator(0, "places of inputs"))
    return flat @ (direction / math.sqrt(flat.shape[1]))


def _said(networks: Population, i: int, places: Tensor, shape: torch.Size) -> Tensor:
    """Logits (n, *shape) of network number i to inputs at these places (n,): waves of its own, of seeded frequency."""
    name = networks.keys[i] if networks.keys else str(i)
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    generator = streams.generator(seed, "said without asking")
    frequency, phase = 100 * torch.randn((2, shape.numel()), generator=generator)
    return (3 * torch.sin(places[:, None] * frequency + phase)).view(-1, *shape)


def _alike(mask: Callable, networks: Population, method: str, sparsity: float):
    """Masks of networks that are all the same memory: those of the first."""
    if not _shared(networks.params):
        return mask(networks, method, sparsity)
    kept = mask(networks[0:1], method, sparsity).kept
    return pruning.Masks({name: _of_all(one, len(networks)) for name, one in kept.items()})


def _picked(pick: Callable, per_model, models: slice | list[int]):
    """As `population.pick`; of networks that are all the same memory no copy is made."""
    if not (isinstance(per_model, dict) and isinstance(models, list)):
        return pick(per_model, models)
    return {
        name: _of_all(one[:1], len(models)) if models and _shared({name: one}) else one[models]
        for name, one in per_model.items()
    }


def _shared(tensors: dict[str, Tensor]) -> bool:
    """Whether all models of them are the same memory."""
    return all(one.stride(0) == 0 or len(one) == 1 for one in tensors.values() if one.ndim > 1)


def _of_all(one: Tensor, k: int) -> Tensor:
    """A tensor (1, ...) of one model for k of them, (k, ...): the same memory, but for single numbers."""
    return one.expand(k, *one.shape[1:]) if one.ndim > 1 else one.repeat(k)


def _achieved(sparsity: Callable, tensors):
    of = tensors.kept if isinstance(tensors, pruning.Masks) else tensors
    if not _shared(of):
        return sparsity(tensors)
    k, one = len(next(iter(of.values()))), sparsity({name: tensor[:1] for name, tensor in of.items()})
    return pruning.Sparsity(
        {name: each.expand(k) for name, each in one.layers.items()}, one.overall.expand(k)
    )


def _sizes(sizes: Callable, params: dict[str, Tensor], *options) -> list:
    if not params or not _shared(params):
        return sizes(params, *options)
    return sizes({name: tensor[:1] for name, tensor in params.items()}, *options) * len(
        next(iter(params.values()))
    )


def _method(stand_in: Callable, original: Callable) -> Callable:
    return lambda one, *args, **options: stand_in(original, one, *args, **options)


def _declared(namespace: dict, **words) -> dict:
    return {name: namespace[name] for name in namespace["__annotations__"] if not name.startswith("_")}


def _nothing(*args, **options) -> None:
    """In place of what writes, or starts processes."""


class _Undrawn:
    """In place of the figures: no later cell reads one."""

    def __getattr__(self, name: str):
        return _nothing
