"""How long training takes in one process, and how long an answer takes: real steps of real batches, timed once a kind."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from mialib import hashing, reach
from mialib.data import Splits
from mialib.training import Population, loop, pick, population
from mialib.training.fitting import _Order
from mialib.training.precision import arithmetic

TIMED = 0.5  # seconds of steps that are timed for each kind of training
ONE_BY_ONE = 16  # examples in a batch whose examples are treated one by one: each takes equally long, however many there are
VERY_DEAR = 10.0  # seconds: a step that takes longer is timed once
DEAR = 0.2  # seconds: a step that takes longer also stands for other objectives of its architecture


class Training(NamedTuple):
    """Seconds of one kind of training: to set it up, and for one example in one epoch."""

    set_up: float
    example: float


class Answer(NamedTuple):
    """The shape of a network's answer to one example, and the seconds that it takes."""

    shape: torch.Size
    seconds: float


class Pace:
    """What was measured; `measuring`: the seconds that measuring took."""

    def __init__(self):
        self.measuring = 0.0
        self._trainings: dict[str, Training] = {}
        self._dear: dict[str, Training] = {}  # those that take long, by architecture and batch
        self._answers: dict[str, Answer] = {}

    def training(self, order: _Order, shard: list[int], watch: tuple[str, ...]) -> float:
        """Seconds for a shard over all its epochs."""
        recipe, hooks = order.recipe, order.hooks
        members = int(order.split.member[shard[0]].sum())
        plain = [hashing.describe(order.make_model), tuple(order.data.x.shape[1:]), recipe.batch_size]
        plain = str([*plain, recipe.precision, recipe.optimizer, type(hooks.descent).__name__, len(shard)])
        reserve = int(order.split.reserve[shard[0]].sum()) if recipe.select_best else 0
        kind = str([plain, *map(_kind, vars(hooks).values()), members, reserve, watch])
        if kind not in self._trainings:
            with self.timed():
                self._trainings[kind] = self._dear.get(plain) or self._measured(order, shard, watch, plain)
        found = self._trainings[kind]
        return found.set_up + recipe.epochs * members * found.example

    def answer(self, networks: Population, x: Tensor) -> Answer:
        """The answer of such networks to one example, and its time; x (1 or more, ...) are some examples."""
        make_model = getattr(networks, "make_model", type(networks))  # deployed networks have none
        kind = str([hashing.describe(make_model), tuple(x.shape[1:])])
        if kind not in self._answers:
            with self.timed(), torch.no_grad(), arithmetic("float32"):
                module, many = networks[0], population.at_once(x)
                device = next(module.parameters(), x).device
                x = population.channels_last(x.float()[torch.arange(many) % len(x)].to(device))
                said = module(x)
                began = clock(device)
                module(x)
                self._answers[kind] = Answer(said.shape[1:], (clock(device) - began) / many)
        return self._answers[kind]

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time within it counts as measuring."""
        began = time.process_time()
        yield
        self.measuring += time.process_time() - began

    def _measured(self, order: _Order, shard: list[int], watch: tuple[str, ...], plain: str) -> Training:
        recipe, split, device = order.recipe, order.split[shard], order.data.x.device
        members = int(split.member[0].sum())
        if order.hooks.descent.alone:
            recipe = replace(recipe, batch_size=min(recipe.batch_size, ONE_BY_ONE))
        steps = max(1, recipe.steps_per_epoch(members))

        def run(epochs: int, share: float) -> float:
            began = clock(device)
            short = replace(recipe, epochs=epochs, milestones=(), patience=None)
            options = {"hooks": order.hooks[shard], "watch": watch, "start": pick(order.start, shard)}
            try:
                loop.train(order.make_model, order.data, short, split=share_of(split, share), **options)
            except FloatingPointError:  # the rate is too high for untrained networks; the steps were made
                pass
            return clock(device) - began

        set_up = run(0, 1.0)
        if recipe.epochs == 0:
            return Training(set_up, 0.0)
        one = min(1.0, recipe.batch_size / members)
        step = max(run(1, one) - set_up, 1e-4)
        if step < VERY_DEAR:  # the first step of a kind prepares kernels for its shapes, in bf16 above all
            step = min(step, max(run(1, one) - set_up, 1e-4))
        if step > TIMED:
            return self._dear.setdefault(plain, Training(set_up, step / math.ceil(one * members)))
        wanted = max(1, round(TIMED / step))
        epochs, share = (wanted // steps, 1.0) if wanted >= steps else (1, min(1.0, wanted * one))
        set_up = min(set_up, run(0, 1.0))
        seconds = max(run(epochs, share) - set_up, 1e-6) / (epochs * math.ceil(share * members))
        found = Training(set_up, seconds)
        if step > DEAR:
            self._dear[plain] = found
        return found


def clock(device: torch.device) -> float:
    """Seconds of work: on a CPU those of this process alone, whatever else runs beside it."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def share_of(split: Splits, share: float) -> Splits:
    """The same split with the first `share` of the examples of each set."""
    masks = (split.member, split.test, split.reserve)
    kept = [mask & (mask.cumsum(1) <= torch.ceil(share * mask.sum(1, keepdim=True))) for mask in masks]
    return Splits(*kept, split.seeds)


def _kind(hook) -> str:
    """What a hook is made of: hooks of one kind take equally long, however strong they are."""
    made_of = {getattr(part, "__qualname__", type(part).__qualname__) for part in reach.parts(hook)}
    return str(sorted(made_of))
