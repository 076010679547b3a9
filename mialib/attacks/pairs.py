"""The pair attack: an attacker holds several versions of a model, say the original and the compressed one, and uses all.

    both    margin = log N(phi; mu_in, Sigma_in) - log N(phi; mu_out, Sigma_out)
    added   the same for the first version's signal *given* those of the others: what it tells beyond them

phi (d,) holds the log-odds of the true class (`signals.confidence`) by each of d versions: those of `Views.beside`, and last
the one under attack. mu and Sigma are mean and covariance of phi over the shadow models that have the candidate as a
member (in) or lack it (out). The versions of shadows are made the same way: each is compressed as the target was. Since
log N(phi) = log N(others) + log N(first | others), `added` is `both` minus the attack on the others alone: a factor of
the same triangular form.

The setting is that of CompLeak (arXiv:2507.16872), which names it; we know only its abstract, and the equations here are
ours. Attacks have the contract's one signature

    attack(target, shadows, shadow_member, seed) -> margins (n,) float64

and need Views that hold versions. Nothing here is random except the network.

With few shadows a candidate's covariance is badly known, or not at all. It is shrunk to that of all candidates:

    Sigma = (S + nu Sigma_all) / (f + nu)      S: sum of squares about the candidate's mean, f its degrees of freedom

the mean of the posterior under an inverse-Wishart prior. Its strength nu is read from the spread of the candidates'
variances after their sampling noise is taken out: with the signal in units of Sigma_all, R the variance over candidates
of their variances and c = 2 / f, nu = 2 + 2 (1 + c) / (R - c), and infinite where R <= c (inverse gamma of shape 1 + nu
/ 2; ours).

The means are shrunk too. Four shadows a side tell them to half a standard deviation, in all directions, even in those
in which no candidate differs: between two versions that say the same, their difference would be noise that counts like
a signal. Over candidates, (mu_in, mu_out) together are taken to be normal around a common mean. Their covariance K is
that of their estimates m minus the sampling noise N (Sigma_in / n_in and Sigma_out / n_out), and

    mu = mean(m) + G (m - mean(m)),  G = K (K + N)^-1,     Sigma grows by what of mu stays unknown, (I - G) K

(ours). Where versions differ only by chance, this leaves what the average of their signals says, and no more.

The zero of the margins is set on the shadows as in `likelihood`: each plays the target against the others, without its
partner.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mialib.asking import Views
from mialib.asking.posteriors import with_label
from mialib.attacks import calibrating, neural, signals
from mialib.attacks.calibrating import FLOOR, partners
from mialib.attacks.neural import NeuralAttack
from mialib.attacks.threshold import best_threshold
from mialib.models import attack_networks
from mialib.training import Recipe

VERSIONS = frozenset({"versions"})
# share of the first version's variance that the others leave open: below it both say the same, and only rounding differs
ALIKE = 1e-4


@dataclass(frozen=True)
class PairLiRA:
    """Judges each candidate by its own normal distributions; the module's first lines say how to call it.

    Args:
        added: what the first version tells beyond the others; else what all tell together.
        freedom: nu, the degrees of freedom with which the covariance of all candidates counts beside a candidate's own,
            > 0; inf: one covariance for all; None: estimated from the shadows' answers.

    Raises:
        ValueError: views without versions or of other candidates, fewer than 4 shadows, candidates that are members of
            all or of none of them, a freedom that is not above 0.
    """

    added: bool = False
    freedom: float | None = None
    needs: ClassVar[frozenset[str]] = VERSIONS | {"same candidates"}
    fewest: ClassVar[int] = 4  # shadows

    def __post_init__(self):
        if self.freedom is not None and not self.freedom > 0:
            raise ValueError(
                f"freedom must be above 0 (inf: one covariance for all; None: estimated), found {self.freedom}"
            )

    def __call__(self, target: Views, shadows: Views, shadow_member: Tensor, seed: int = 0) -> Tensor:
        calibrating.check("the pair attack", self.fewest, target, shadows, shadow_member)
        own, signal = confidences(target)[0], confidences(shadows)
        _check_versions(own, signal)
        sides = [_Moments.of(signal, side) for side in (shadow_member, ~shadow_member)]
        spoken_of = (sides[0].count > 0) & (sides[1].count > 0)
        calibrating.check_sides(spoken_of, len(shadows), "the pair attack needs both")
        for name, side in zip(("members", "non-members"), sides, strict=True):
            if not (side.count > 1).any():
                raise ValueError(f"no candidate is among the {name} of two shadows: its variance is unknown")
        score = self._score(own, sides, self._freedoms(sides))
        return score - best_threshold(*self.played(signal, shadow_member))

    def played(self, signal: Tensor, shadow_member: Tensor) -> tuple[Tensor, Tensor]:
        """Scores float64 (g,), no zero subtracted, of shadows that play the target, each without its partner; and bool (g,),
        which of these scores are about a player's members.

        Args:
            signal: float64 (s, n, d), `confidences`.
            shadow_member: bool (s, n).
        """
        there, partner = partners(shadow_member)
        members = (shadow_member, ~shadow_member)
        everyone = [_Moments.of(signal, side) for side in members]
        freedoms = self._freedoms(everyone)
        scores, truth = [], []
        for player in range(len(signal)):
            gone = [player, int(partner[player])] if there[player] else [player]
            rest = [
                whole.without(_Moments.of(signal[gone], side[gone], whole.centre))
                for whole, side in zip(everyone, members, strict=True)
            ]
            answered = (rest[0].count > 0) & (rest[1].count > 0)
            scores.append(self._score(signal[player], rest, freedoms)[answered])
            truth.append(shadow_member[player][answered])
        return torch.cat(scores), torch.cat(truth)

    def _freedoms(self, sides: "list[_Moments]") -> list[float]:
        return [side.freedom() if self.freedom is None else self.freedom for side in sides]

    def _score(self, signal: Tensor, sides: "list[_Moments]", freedoms: list[float]) -> Tensor:
        """The module's equations, signal (n, d) -> (n,)."""
        covariances = [side.covariance(nu) for side, nu in zip(sides, freedoms, strict=True)]
        normals = _shrunk_means(sides, covariances)
        inside, outside = (log_density(signal, *normal, self.added) for normal in normals)
        return inside - outside


@dataclass(frozen=True)
class PairOfAll:
    """One normal distribution for all members and one for all others, over all candidates: no shadow needs the target's.

    Args:
        added: as in `PairLiRA`.

    Raises:
        ValueError: views without versions; target and shadows with different numbers of versions; shadow_member that does
            not fit; fewer than 2 shadows; or hardly any rows on one side of membership.
    """

    added: bool = False
    needs: ClassVar[frozenset[str]] = VERSIONS

    def __call__(self, target: Views, shadows: Views, shadow_member: Tensor, seed: int = 0) -> Tensor:
        target.check_single()
        signals.check_member(shadow_member, shadows.labels, "shadow_member")
        own, signal = confidences(target)[0], confidences(shadows)
        _check_versions(own, signal)
        if min(int(shadow_member.sum()), int((~shadow_member).sum())) <= signal.shape[-1]:
            raise ValueError(
                f"the shadows have {int(shadow_member.sum())} members and {int((~shadow_member).sum())} others; a covariance "
                f"of {signal.shape[-1]} versions needs more of either"
            )
        sides = [_Moments.of_all(signal, side) for side in (shadow_member, ~shadow_member)]
        scores = []
        for player in range(len(signal)):
            gone = [player] if len(signal) > 1 else []  # the only one stays: without it nothing would be left
            rest = [
                whole.without(_Moments.of_all(signal[gone], side[gone], whole.centre))
                for whole, side in zip(sides, (shadow_member, ~shadow_member), strict=True)
            ]
            scores.append(self._score(signal[player], rest))
        return self._score(own, sides) - best_threshold(torch.cat(scores), shadow_member.flatten())

    def _score(self, signal: Tensor, sides: list["_Moments"]) -> Tensor:
        """Signal (n, d) -> (n,)."""
        inside, outside = (
            log_density(signal, side.mean, side.covariance(math.inf), self.added) for side in sides
        )
        return inside - outside


def confidences(views: Views) -> Tensor:
    """phi, the log-odds of the true class by every version, the one under attack last: (m, n, d) float64.

    Raises:
        ValueError: there is only one version.
    """
    if views.beside is None:
        raise ValueError(
            "the pair attack needs other versions of each model beside the one under attack, and these views hold none; "
            "take study.arm(..., beside=[original])"
        )
    others = signals.confidence(views.beside, views.labels.expand(views.beside.shape[:-1]))
    return torch.stack([*others, signals.confidence(views.log_posteriors, views.labels)], -1)


def log_density(x: Tensor, mean: Tensor, covariance: Tensor, last: bool = False) -> Tensor:
    """log N(x; mean, covariance) up to a constant, or that of the last number given those before it: (..., d) -> (...)."""
    # x = mean + L z: row j of the triangular L holds what the first j numbers say about number j, and what they leave
    # open
    factor = torch.linalg.cholesky(covariance)
    z = torch.linalg.solve_triangular(factor, (x - mean)[..., None], upper=False)[..., 0]
    terms = -z.square() / 2 - factor.diagonal(dim1=-2, dim2=-1).log()
    if not last:
        return terms.sum(-1)
    left = factor[..., -1, -1].square() / covariance[..., -1, -1]
    return torch.where(left > ALIKE, terms[..., -1], 0.0)


class _Moments(NamedTuple):
    """Moments of the signal over the shadows on one side of membership, for each candidate."""

    count: Tensor  # int64 (n,)
    total: Tensor  # float64 (n, d), sum of the signals, from the centre
    outer: Tensor  # float64 (n, d, d), sum of their products
    centre: Tensor  # float64 (n, d), near the mean, so that the sums lose no digits
    spare: Tensor | None = None  # float64 (d, d), covariance if no candidate has two shadows

    @classmethod
    def of(cls, signal: Tensor, side: Tensor, centre: Tensor | None = None) -> "_Moments":
        """signal float64 (s, n, d), side bool (s, n)."""
        centre = signal.mean(0) if centre is None else centre
        away = (signal - centre) * side[..., None]
        return cls(side.sum(0), away.sum(0), torch.einsum("snd,sne->nde", away, away), centre)

    @classmethod
    def of_all(cls, signal: Tensor, side: Tensor, centre: Tensor | None = None) -> "_Moments":
        """All candidates of all shadows as if they were one candidate."""
        return cls.of(signal.flatten(0, 1)[:, None], side.flatten()[:, None], centre)

    def without(self, gone: "_Moments") -> "_Moments":
        """The same without some shadows that have the same centre."""
        less = (mine - theirs for mine, theirs in zip(self[:3], gone[:3], strict=True))
        # with two pairs a game has one shadow a side and no covariance: then take that with none left out
        return _Moments(*less, self.centre, self.covariance(math.inf)[0])

    @property
    def mean(self) -> Tensor:
        """(n, d)."""
        return self.centre + self.total / self.count.clamp(min=1)[:, None]

    def covariance(self, freedom: float) -> Tensor:
        """Covariance around each candidate's own mean, shrunk: one for all (1, d, d), or one for each (n, d, d)."""
        free, squares = self._free, self._squares
        floor = FLOOR * torch.eye(squares.shape[-1], dtype=squares.dtype)
        some = free > 0
        of_all = squares[some].sum(0) / free.sum() + floor if some.any() else self.spare
        if math.isinf(freedom):
            return of_all[None]
        squares = torch.where(some[:, None, None], squares, 0.0)
        return (squares + freedom * of_all) / (free + freedom)[:, None, None]

    def freedom(self) -> float:
        """nu, see the module's first lines."""
        some = self._free > 0
        squares, free = self._squares[some], self._free[some, None]
        if len(free) < 2:
            return math.inf
        # the symmetric root, so that the order of the versions does not matter
        size, direction = torch.linalg.eigh(self.covariance(math.inf)[0])
        root = direction / size.clamp(min=FLOOR / 2).sqrt() @ direction.T
        own = (root @ squares @ root).diagonal(dim1=-2, dim2=-1) / free
        noise, spread = float((2 / free).mean()), float(own.var() / own.mean().square())
        return 2 + 2 * (1 + noise) / (spread - noise) if spread > noise else math.inf

    @property
    def _free(self) -> Tensor:
        """Degrees of freedom of each candidate, int64 (n,)."""
        return (self.count - 1).clamp(min=0)

    @property
    def _squares(self) -> Tensor:
        """Sums of squares about each candidate's own mean, (n, d, d)."""
        share = self.total / self.count.clamp(min=1)[:, None]
        return self.outer - torch.einsum("nd,ne->nde", self.total, share)


def _shrunk_means(sides: list[_Moments], covariances: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """For both sides, mean (n, d) and covariance of what a further model would say; see the module's first lines."""
    d = covariances[0].shape[-1]
    means = torch.cat([side.mean for side in sides], -1)
    if len(means) <= 2 * d + 1:  # too few candidates to say how they differ
        return [(side.mean, one) for side, one in zip(sides, covariances, strict=True)]
    noise = torch.zeros(len(means), 2 * d, 2 * d, dtype=means.dtype)
    for start, side, one in zip((0, d), sides, covariances, strict=True):
        own = slice(start, start + d)
        noise[:, own, own] = one / side.count.clamp(min=1)[:, None, None]
    common, spread = means.mean(0), torch.cov(means.T) - noise.mean(0)
    size, direction = torch.linalg.eigh(spread)
    spread = direction * size.clamp(min=0) @ direction.T
    if (noise == noise[:1]).all():  # for example when each candidate has equally many shadows on a side
        noise = noise[:1]
    gain = torch.linalg.solve(spread + noise, spread).mT
    means = common + (gain @ (means - common)[..., None])[..., 0]
    left = spread - gain @ spread
    parts = zip((slice(d), slice(d, None)), covariances, strict=True)
    return [(means[:, own], one + left[:, own, own]) for own, one in parts]


def _check_versions(own: Tensor, signal: Tensor) -> None:
    if own.shape[-1] != signal.shape[-1]:
        raise ValueError(
            f"target and shadows must have the same number of versions, found {own.shape[-1]} and {signal.shape[-1]}"
        )


def all_log_posteriors_and_label(views: Views) -> Tensor:
    """Log-posteriors in tens of nats, each other version's differences from them in nats, and the label: (m, n, (2 + v)c).

    None below -50 nats. The differences are cut at 5, since small ones tell versions apart.
    """
    if views.beside is None:
        confidences(views)
    first, others = views.log_posteriors.clamp(min=-50.0), views.beside.clamp(min=-50.0)
    away = (others - first).clamp(-5.0, 5.0)
    return torch.cat([*away.float(), with_label(first.float() / 10, views.labels)], dim=-1)


def _mlp(features: int) -> Callable[[], nn.Module]:
    return partial(attack_networks.attack_mlp, features)


def pair_nn(recipe: Recipe = neural.SCHEDULE, **options) -> NeuralAttack:
    """A network on the answers of all versions and the label; `options` are further fields of NeuralAttack."""
    return NeuralAttack("pair_nn", all_log_posteriors_and_label, _mlp, recipe, needs=VERSIONS, **options)


pair = PairLiRA()
pair_added = PairLiRA(added=True)
pair_of_all = PairOfAll()
