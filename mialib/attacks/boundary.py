"""How far a candidate is from the decision boundary, measured by asking for labels alone.

A network keeps its boundary away from what it learned, so a member is farther from it than a non-member. Margin: distance
minus a threshold from the shadows, > 0 = "member". The distance is found by walking along the boundary,

    1. line        halve the line to the nearest candidate that the model labels otherwise: a point on the boundary
    2. normal      ask about points around it; the mean of the directions that change the label, minus that of the
                   others, points across the boundary
    3. step        lean the line that way, by far / sqrt(t) in round t, half as much where that comes no closer
    4. line        halve the new line; again from 2.

Sources: HopSkipJump, Chen, Jordan and Wainwright 2020, arXiv:1904.02144 (normal, step sizes, queries that grow with
sqrt(t)); as an attack on membership Choquette-Choo et al. 2021, arXiv:2007.14321, and Li and Zhang 2021,
arXiv:2007.15528. Ours: a start that costs no query; directions that are orthogonal and the same for all candidates and
models; and steps that are taken only if the boundary is closer there, so that a larger budget never finds a larger
distance.

Distances are Euclidean, on normalised inputs. The attacker may ask about any input, even one that no example could be:
pixels are not clipped, and binary features may take any number between their two values (two inputs that differ in f
features are sqrt(f) apart before normalising). For models that take only whole numbers use
`label_only.NoiseRobustness`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mialib import progress, streams
from mialib.asking import Views, doors
from mialib.attacks import averaging, signals
from mialib.attacks.averaging import needs_door
from mialib.attacks.threshold import best_threshold

TRIALS = 4  # sizes of a step that are tried, each half of the one before it
AROUND = 0.5  # how far around the boundary to ask, in units of distance / sqrt(numbers of an input)
TIED = 1e-4  # of distances to the nearest: their last digits depend on how they are computed


class Found(NamedTuple):
    """distance: float64 (m, n), 0 where the model's label is wrong; queries: int64 (m, n), how many each candidate took."""

    distance: Tensor
    queries: Tensor


@dataclass(frozen=True)
class BoundaryDistance:
    """A member is farther from the decision boundary: the distance, minus a threshold from the shadows.

    A candidate that the model labels wrongly has distance 0 and costs nothing; one threshold serves all classes. The
    distance found is an upper bound of the true one, for shadows and target alike. Behind noise that is drawn for each
    answer it may be too small.

    Args:
        budget: the most queries for each candidate; from `least_budget` of the input, dozens, to thousands.
        probes: directions to ask about in the first round; sqrt(t) times as many in round t.
        teachers: how many of the shadows are asked, the first ones: they only set the zero of the margins. None: all.

    Raises:
        ValueError: settings outside these ranges; when called, a target that is not one model, views without inputs or
            without a door, a budget that does not suffice for one line, shadow_member that does not fit the shadows or
            lacks one of the two groups.
    """

    budget: int = 250
    probes: int = 30
    teachers: int | None = 2
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "queries"})

    def __post_init__(self):
        for name in ("budget", "probes", "teachers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")

    def __call__(self, target: Views, shadows: Views, shadow_member: Tensor, seed: int = 0) -> Tensor:
        self._check_target(target)
        return self.learn(shadows, shadow_member, seed)(target)

    def learn(self, shadows: Views, shadow_member: Tensor, seed: int = 0) -> Callable[[Views], Tensor]:
        """The attack on any target, margins(target) -> (n,): the shadows are asked only once for all targets."""
        needs_door(shadows, "shadows")
        signals.check_member(shadow_member, shadows.labels, "shadow_member")
        asked, member = shadows[: self.teachers], shadow_member[: self.teachers]
        threshold = best_threshold(self.search(asked, seed).distance.flatten(), member.flatten())

        def margins(target: Views) -> Tensor:
            self._check_target(target)
            return self.search(target, seed).distance[0] - threshold

        return margins

    @staticmethod
    def _check_target(target: Views) -> None:
        target.check_single()
        needs_door(target, "target")

    def search(self, views: Views, seed: int = 0) -> Found:
        """The distance of each model's candidates to its boundary, and the queries it took: see `Found`."""
        needs_door(views)
        m, n = views.labels.shape
        rounds = self.rounds(math.prod(views.x.shape[2:]))
        # adaptive questions are asked once
        views = replace(views, query=doors.forgetful(views.query))
        with progress.bar(
            m * _most(rounds), f"boundary, up to {m * n * _most(rounds):,} queries", "query"
        ) as bar:
            found = [_Walk.on(views, i, seed, bar).to_the_end(rounds) for i in range(m)]
        return Found(*(torch.stack(part) for part in zip(*found, strict=True)))

    def rounds(self, numbers: int) -> "list[_Round]":
        """The questions about a candidate whose input has `numbers` numbers: the first line, then rounds 1, 2, ...

        A larger budget adds rounds to those of a smaller one.

        Raises:
            ValueError: the budget does not suffice for the first line.
        """
        halvings, planned = least_budget(numbers), []
        if self.budget < halvings:
            raise ValueError(
                f"budget is {self.budget}; inputs of {numbers} numbers need {halvings} queries for the first line: give "
                f"{halvings} or more, hundreds to come close"
            )
        following = _Round(0, 0, 0, halvings)
        while _most([*planned, following]) <= self.budget:
            planned.append(following)
            number = len(planned)
            following = _Round(number, round(self.probes * math.sqrt(number)), TRIALS, halvings)
        return planned


def least_budget(numbers: int) -> int:
    """Halvings of a line until the point is close enough to the boundary for questions around it to tell the two sides.

    Those are off the boundary by about distance * AROUND / numbers; an eighth of that is left.
    """
    return math.ceil(math.log2(8 / AROUND * max(numbers, 2)))


class _Round(NamedTuple):
    number: int
    probes: int
    trials: int
    halvings: int


def _most(rounds: list[_Round]) -> int:
    return sum(one.probes + one.trials + one.halvings for one in rounds)


@dataclass
class _Walk:
    """One model's candidates on their way: the candidates `rows` stand at x + far * way.

    x float32 (n, d); labels int64 (n,); far float64 (n,); way float32 (n, d), of length 1; queries int64 (n,).
    """

    x: Tensor
    labels: Tensor
    rows: Tensor
    far: Tensor
    way: Tensor
    queries: Tensor
    query: Callable[[Tensor], Tensor]
    shape: torch.Size
    seed: int
    bar: progress.Bar

    @classmethod
    def on(cls, views: Views, model: int, seed: int, bar: progress.Bar) -> "_Walk":
        x, labels = views.x[model], views.labels[model]
        flat, said = x.flatten(1), views.log_posteriors[model].argmax(-1)
        right = (said == labels).nonzero()[:, 0]
        start = _nearest_other(flat, labels, said, right, seed)
        there = start >= 0
        rows, far, way = right[there], torch.zeros(len(x), dtype=torch.float64), torch.zeros_like(flat)
        # one label for all, and no boundary between candidates: farther than any two of them
        far[right[~there]] = 2 * (flat - flat.mean(0)).double().norm(dim=1).max() if len(x) else 0
        far[rows], way[rows] = _length_and_way(flat[start[there]] - flat[rows])
        query = views[[model]].query
        nobody = torch.zeros(len(x), dtype=torch.int64)
        return cls(flat, labels, rows, far, way, nobody, query, x.shape[1:], seed, bar)

    def to_the_end(self, rounds: list[_Round]) -> tuple[Tensor, Tensor]:
        """Distances and queries, (n,) each."""
        for one in rounds:
            rows, way = self.rows, self.way[self.rows]
            if one.number:
                rows, way = self._closer(one)
            self.far[rows], self.way[rows] = self._halved(rows, way, one.halvings), way
        return self.far, self.queries

    def _closer(self, one: _Round) -> tuple[Tensor, Tensor]:
        """The rows for which the boundary is closer along a line that leans towards its normal; and these lines."""
        normal = self._normal(one)
        left, lean = torch.arange(len(self.rows)), 1 / math.sqrt(one.number)
        better, ways = torch.zeros(len(left), dtype=torch.bool), self.way[self.rows]
        for _ in range(one.trials):
            rows = self.rows[left]
            leaning = _length_and_way(self.way[rows] + lean * normal[left])[1]
            crossed = self._crossed(rows, leaning, self.far[rows])
            better[left[crossed]], ways[left[crossed]] = True, leaning[crossed]
            left, lean = left[~crossed], lean / 2
            self.bar.update()
        return self.rows[better], ways[better]

    def _normal(self, one: _Round) -> Tensor:
        """For each row, the direction in which its label changes, from its probes: (rows, d), of length 1."""
        d = self.x.shape[1]
        around = _directions(one.probes, d, streams.generator(self.seed, "boundary", one.number))
        found = []
        for rows in _blocks(self.rows, one.probes, d):
            far = self.far[rows, None]
            reach = (AROUND / math.sqrt(d) * far).float()
            middle = self.x[rows] + far.float() * self.way[rows]
            copies = middle[:, None] + reach[:, None] * around
            crossed = self._asked(copies.flatten(0, 1), rows.repeat_interleave(one.probes))
            sign = crossed.view(len(rows), one.probes).float() * 2 - 1
            mean = sign.mean(1, keepdim=True)
            # without what all probes have in common the mean is less noisy, unless nothing else is left
            found.append(torch.where(mean.abs() == 1, sign, sign - mean) @ around)
            self.queries[rows] += one.probes
        self.bar.update(one.probes)
        return _length_and_way(torch.cat(found))[1] if found else self.x[:0]

    def _halved(self, rows: Tensor, way: Tensor, times: int) -> Tensor:
        """The least distance (rows,) found along lines that cross the boundary within `far`."""
        high, low = self.far[rows], torch.zeros(len(rows), dtype=torch.float64)
        for _ in range(times):
            middle = (low + high) / 2
            crossed = self._crossed(rows, way, middle)
            high, low = torch.where(crossed, middle, high), torch.where(crossed, low, middle)
            self.bar.update()
        return high

    def _crossed(self, rows: Tensor, way: Tensor, far: Tensor) -> Tensor:
        """Whether rows get another label at x + far * way, bool: one query each."""
        self.queries[rows] += 1
        d, places = self.x.shape[1], torch.arange(len(rows))
        said = [
            self._asked(self.x[rows[i]] + far[i, None].float() * way[i], rows[i])
            for i in _blocks(places, 1, d)
        ]
        return torch.cat(said) if said else torch.zeros(0, dtype=torch.bool)

    def _asked(self, x: Tensor, rows: Tensor) -> Tensor:
        answers = self.query(x.view(1, len(x), *self.shape))[0]
        return answers.argmax(-1).to(self.labels.device) != self.labels[rows]


def _nearest_other(x: Tensor, labels: Tensor, said: Tensor, rows: Tensor, seed: int) -> Tensor:
    """For each row, the nearest candidate that the model gives another label than the row's own; -1 if there is none.

    Among several at the same distance the choice depends on what the candidate is, not on its place.
    """
    n, d = x.shape
    order = torch.randn(d, dtype=torch.float64, generator=streams.generator(seed, "boundary ties"))
    rank = (x.double() @ order).expand(1, n)
    found = []
    for some in rows.split(max(1, averaging.VALUES // max(n, d))):
        distance = torch.cdist(x[some], x)
        distance = distance.masked_fill(labels[some, None] == said[None], math.inf)
        least = distance.amin(1, keepdim=True)
        tied = distance <= least * (1 + TIED)
        place = rank.masked_fill(~tied, math.inf).argmin(1)
        found.append(torch.where(least[:, 0] < math.inf, place, -1))
    return torch.cat(found) if found else rows


def _directions(count: int, d: int, generator: torch.Generator) -> Tensor:
    """Random directions (count, d) of length 1, orthogonal within every d of them, so that no query repeats another."""
    sizes = [min(d, count - first) for first in range(0, count, d)]
    return torch.cat([torch.linalg.qr(torch.randn(d, size, generator=generator))[0].T for size in sizes])


def _length_and_way(difference: Tensor) -> tuple[Tensor, Tensor]:
    length = difference.double().norm(dim=1)
    return length, difference / length.clamp(min=1e-30).float()[:, None]


def _blocks(rows: Tensor, copies: int, d: int) -> Iterator[Tensor]:
    """Rows whose copies are asked about in one question."""
    size = max(1, min(averaging.ROWS, averaging.VALUES // d) // copies)
    return iter(rows.split(size)) if len(rows) else iter(())
