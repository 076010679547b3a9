"""Doors: ways to ask models about inputs that the attacker makes, directly or behind an output defence."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from mialib.asking import posteriors
from mialib.asking.answers import INSTEAD, ROWS
from mialib.training import Population, pick
from mialib.training.hooks import OutputDefense
from mialib.training.population import in_batches
from mialib.training.precision import arithmetic


@dataclass
class Tally:
    """inputs: how many inputs networks were asked about through doors; an answer that a door remembered counts once."""

    inputs: int = 0


_TALLIES: ContextVar[tuple[Tally, ...]] = ContextVar("tallies", default=())


@contextmanager
def tally() -> Iterator[Tally]:
    """Counts the questions of attackers within it, in this process:

    with asking.tally() as asked:
        study.attack(suite)
    asked.inputs
    """
    mine = Tally()
    before = _TALLIES.set((*_TALLIES.get(), mine))
    try:
        yield mine
    finally:
        _TALLIES.reset(before)


@dataclass(frozen=True)
class Door:
    """Asks each model of a population about inputs that the attacker makes, (m, b, ...) -> log-posteriors (m, b, c).

    Args:
        memory: one dictionary a model, in which answers are remembered by a hash of the inputs: asking the same model the
            same again, behind any output defence, costs nothing. It grows with every question.

    Raises:
        ValueError: a model answers with nan; raised when it is asked.
    """

    population: Population
    memory: list[dict] | None = None

    def __getitem__(self, models: slice | list[int]) -> "Door":
        return Door(self.population[models], pick(self.memory, models))

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        memory = self.memory or [None] * len(self.population)
        asked = zip(range(len(self.population)), x, memory, strict=True)
        answers = torch.stack([self._answer(*one) for one in asked]).double().log_softmax(-1)
        posteriors.check_rows(answers, "door")
        return answers

    def _answer(self, model: int, x: Tensor, memory: dict | None) -> Tensor:
        if memory is None:
            return self._ask(model, x)
        question = hashlib.blake2b(x.cpu().contiguous().numpy(), digest_size=16).digest()
        if question not in memory:
            memory[question] = self._ask(model, x)
        return memory[question]

    def _ask(self, model: int, x: Tensor) -> Tensor:
        for one in _TALLIES.get():
            one.inputs += len(x)
        if (instead := INSTEAD.get()) is not None:
            return instead.of_inputs(self.population[model : model + 1], x)
        module = self.population[model]
        device = next(module.parameters(), x).device  # a deployed network has no parameters
        with arithmetic("float32"):
            return torch.cat([in_batches(module, part.to(device)).cpu() for part in x.split(ROWS)])


@dataclass(frozen=True)
class Guarded:
    """A door behind an output defence. Raises ValueError, when asked, where the defence serves no log-posteriors."""

    door: Callable[[Tensor], Tensor]
    defense: OutputDefense

    def __getitem__(self, models: slice | list[int]) -> "Guarded":
        return Guarded(pick(self.door, models), pick(self.defense, models))

    def __call__(self, x: Tensor) -> Tensor:
        answers = self.defense(self.door(x))
        posteriors.check_rows(answers, served_by(self.defense))
        return answers


def forgetful(door: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same door, which remembers nothing: for questions that nobody asks twice."""
    if isinstance(door, Guarded):
        return Guarded(forgetful(door.door), door.defense)
    return Door(door.population) if isinstance(door, Door) else door


def served_by(defense: OutputDefense) -> str:
    """The name of a defence in errors."""
    return f"what {getattr(defense, '__name__', type(defense).__name__)} serves"


def one_at_a_time(door: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The answers to inputs (m, n, ...) that are asked about one by one, as by a user: (m, n, c).

    The last bits of an answer depend on what else is in its batch.
    """
    return torch.cat([door(x[:, j : j + 1]) for j in range(x.shape[1])], dim=1)
