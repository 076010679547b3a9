"""Asking the same thing many times: copies of candidates with a little noise, and the mean of the answers.

An output defence that draws fresh noise for every answer hides only a single answer. Asking again and taking the mean
removes the noise. This is our criticism of the purifier's stochastic form; no source publishes the attack.

`of_copies` is how every attack of this package asks about changed copies of its candidates. It goes in blocks of rows, so
that memory is bounded, with the same noise for candidate number i of every model, so that differences between models are
not differences of noise. No noise depends on membership.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from mialib import progress, streams
from mialib.asking import Views

# of one question: inputs, and numbers in them; fixed, since noise is drawn by blocks
ROWS, VALUES = 4096, 2**24

# change(x (n, ...), rows int64 (b,), generator) -> copies (queries, b, ...) of x[rows]
Change = Callable[[Tensor, Tensor, torch.Generator], Tensor]


def of_copies(
    views: Views,
    queries: int,
    change: Change,
    summary: Callable[[Tensor, int, Tensor], Tensor],
    seed: int = 0,
) -> Tensor:
    """A summary of each model's answers to `queries` changed copies of each of its candidates: (m, n, ...).

    Args:
        change: change(x (n, ...), rows int64 (b,), generator) -> copies (queries, b, ...) of x[rows]. What it draws for
            a row depends on the rows before it, not on those that follow.
        summary: summary(answers (queries, b, c), model, rows) -> (b, ...).
        seed: of the generator that `change` draws from; it starts anew for each model.

    Raises:
        ValueError: fewer than one query, or views without inputs or without a door.
    """
    if queries < 1:
        raise ValueError(f"queries must be at least 1 a candidate, found {queries}")
    needs_door(views)
    models = progress.follow(range(len(views)), "queries, copies", "model")
    return torch.stack([torch.cat(list(_blocks(views, i, queries, change, summary, seed))) for i in models])


def needs_door(views: Views, name: str = "views") -> None:
    """Raises ValueError, with `name` for the views, where the candidates' inputs or the door to ask are missing."""
    for part in ("x", "query"):
        if getattr(views, part) is None:
            raise ValueError(
                f"changed candidates are asked about: {name}.{part} is needed, found None. Take "
                "asking.ask(..., probes=True) or an arm of a study"
            )
    if views.x.shape[:2] != views.labels.shape:
        raise ValueError(
            f"{name}.x must be {tuple(views.labels.shape)} inputs as the labels, found {tuple(views.x.shape[:2])}"
        )


def gaussian(strengths: Tensor) -> Change:
    """Copy j is the input + strengths[j] * u, u ~ N(0, I): strengths (queries,), in units of the normalised input."""

    def change(x: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        clean = x[rows]
        noise = torch.randn((len(strengths), *clean.shape), generator=generator).to(clean)
        return clean + strengths.view(-1, *[1] * clean.ndim).to(clean) * noise

    return change


def averaged(views: Views, queries: int, epsilon: float, seed: int = 0) -> Views:
    """The views of an attacker who asks about each candidate `queries` times and takes the mean posterior.

    log_posteriors (m, n, c) are the log of the mean, float64. Inputs, labels and the door stay (the door still answers
    once); sensitivity and versions beside are None. Earlier answers are thrown away: it takes `queries` further queries a
    candidate.

    Args:
        epsilon: standard deviation of the Gaussian noise on the normalised inputs; 0: the same input again and again.

    Raises:
        ValueError: fewer than one query, an epsilon below 0, views without inputs or without a door.
    """
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"averaging: epsilon must be 0 or more and finite, found {epsilon}")
    mean = of_copies(
        views,
        queries,
        gaussian(torch.full((max(queries, 0),), epsilon)),
        lambda answers, *_: answers.logsumexp(0) - math.log(queries),
        seed,
    )
    public = None if views.public is None else averaged(views.public, queries, epsilon, seed)
    return replace(views, log_posteriors=mean, sensitivity=None, beside=None, public=public)


def _blocks(views: Views, model: int, queries: int, change: Change, summary, seed: int):
    """The summaries of one model's candidates, block by block."""
    generator = streams.generator(seed, "copies")  # on the CPU, so that every device gets the same noise
    x, query = views.x[model], views[[model]].query
    n = len(x)
    block = max(1, min(ROWS, VALUES // x[0].numel()) // queries)
    for first in range(0, n, block):
        rows = torch.arange(first, min(first + block, n))
        # a whole block is drawn even for the last rows: an example's noise does not depend on what follows it
        whole = torch.arange(first, first + block).clamp(max=n - 1)
        copies = change(x, whole, generator)[:, : len(rows)]
        answers = query(copies.flatten(0, 1)[None])[0].to(views.log_posteriors)
        yield summary(answers.view(queries, len(rows), -1), model, rows)
