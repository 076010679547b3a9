"""What the defender of k networks knows of them and builds an output defence from.

An output defence with state is built by `fit(defender, ...)` and then serves: serve(log_posteriors (m, n, c) float64)
-> (m, n, c), -inf allowed. It holds one state a network and is indexed by network (`training.pick`), so it can stand
before targets and shadow models alike (`study.Study.arm`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mialib import asking, streams
from mialib.asking import Views
from mialib.data import Dataset, Splits, splits
from mialib.training import Population, pick


@dataclass(frozen=True)
class Defender:
    """The answers of k networks to the examples that each one's defender holds.

    Args:
        members: Views (k, n1, c) of each network's training set, D1 in Yang et al. 2020.
        reference: Views (k, n2, c) of its reserve, non-members that are never attacked: their D2. With the inputs.
        seeds: int64 (k,), one for each network.
    """

    members: Views
    reference: Views
    seeds: Tensor

    def __len__(self) -> int:
        return len(self.seeds)


def defender(population: Population, data: Dataset, split: Splits) -> Defender:
    """Ask every network about its own members and reserve examples.

    Raises:
        ValueError: the networks have different numbers of members or reserve examples, or no reserve.
    """
    if not bool(split.reserve.any(1).all()):
        raise ValueError("an output defence learns from reserve examples, and a network has none")
    known = [
        asking.ask(population, data, splits.indices(mask), sensitive=False, probes=True)
        for mask in (split.member, split.reserve)
    ]
    return Defender(*known, split.seeds)


def rows(answers: Views, seeds: Tensor, held_out: float = 0.0) -> tuple[Dataset, Splits]:
    """A training set for networks that learn from answers: posteriors (k * n, c), labelled with the predicted class.

    Network i learns from its own n rows (`splits.blocks`); a share `held_out` of them, drawn by its seed, is its reserve.
    """
    k, n, c = answers.log_posteriors.shape
    member = _learned(n, seeds, held_out)
    posteriors = answers.log_posteriors.exp().float().flatten(0, 1)
    data = Dataset.of_features("answers", posteriors, posteriors.argmax(1), c)
    return data, splits.blocks(member, torch.tensor(streams.seeds(seeds.tolist(), "output defence")))


def learned_from(split: Splits, held_out: float) -> Tensor:
    """Which examples each network's output defence learned from: its reserve without the part that `rows` holds out.

    Args:
        split: that of the `defender`; held_out: as in `rows`, `purifier.HELD_OUT` for purifiers and reformers.

    Returns:
        bool (k, n examples). For `splits.as_members`.

    Raises:
        ValueError: the networks have different numbers of reserve examples.
    """
    index = splits.indices(split.reserve)
    learned = _learned(index.shape[1], split.seeds, held_out)
    return torch.zeros_like(split.reserve).scatter(1, index, learned)


def _learned(n: int, seeds: Tensor, held_out: float) -> Tensor:
    """Which of n answers each network's defence learns from, bool (k, n): all but a share drawn by the network's seed."""
    learned = torch.ones(len(seeds), n, dtype=torch.bool)
    for own, seed in zip(learned, seeds.tolist(), strict=True):
        order = torch.randperm(n, generator=streams.generator(seed, "held-out answers"))
        own[order[: round(held_out * n)]] = False
    return learned


@dataclass(frozen=True)
class Chain:
    """Output defences one after the other, with or without a state for each network; a defence itself."""

    defenses: tuple

    def __getitem__(self, models: slice | list[int]) -> "Chain":
        return Chain(tuple(pick(one, models) for one in self.defenses))

    def __call__(self, log_posteriors: Tensor) -> Tensor:
        for one in self.defenses:
            log_posteriors = one(log_posteriors)
        return log_posteriors


@dataclass(frozen=True)
class Each:
    """One output defence for each network, for those whose secret key must not be shared: (m, n, c) -> (m, n, c)."""

    defenses: tuple

    def __getitem__(self, models: slice | list[int]) -> "Each":
        return Each(pick(self.defenses, models))

    def __call__(self, log_posteriors: Tensor) -> Tensor:
        return torch.stack([one(own) for one, own in zip(self.defenses, log_posteriors, strict=True)])
