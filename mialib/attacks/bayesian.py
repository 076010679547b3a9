"""BaVarIA: LiRA's question, with a prior on each candidate's mean and variance that is learned from all candidates.

    online   margin = log predictive(phi; in) - log predictive(phi; out)
    offline  margin = how far phi lies above the value expected of non-members, as a normal deviate

phi is the log-odds of the true class. Few shadows say little about one candidate's mean and variance, but there are many
candidates. What is usual among them is a normal-inverse-gamma prior, one for each side of membership. From the abstract
of arXiv:2603.11799: that prior, the Student-t predictive (-t) and the stabilised Gaussian (-n). No code is public;
**everything below is our derivation**. n shadows of a side have the mean m and the sum of squares q around it, and

    kappa = kappa0 + n        mu = (kappa0 mu0 + n m) / kappa
    alpha = alpha0 + n / 2    beta = beta0 + q / 2 + kappa0 n (m - mu0)^2 / (2 kappa)

    -t  Student's t with 2 alpha degrees of freedom, location mu, scale^2 = beta (kappa + 1) / (alpha kappa)
    -n  the normal distribution with mean mu and variance beta / (alpha - 1)

The prior is set by empirical Bayes, by moments, minus the effect of the number of shadows: v the mean of the candidates'
variances s^2, R = Var(s^2) / v^2, c = 2 / (n - 1):

    alpha0 = 2 + (1 + c) / (R - c), infinite where R <= c      beta0 = v (alpha0 - 1)
    mu0 = the mean of m                                        kappa0 = v / (Var(m) - v / n), infinite likewise

(`Prior.variance` is v, so that an infinite alpha0 needs no infinite beta0.) With ever more shadows it tends to LiRA
with a variance for each candidate. With kappa0 = 0 and an infinite alpha0, -n is LiRA with one variance for all, and -t
has each variance times (n + 1) / n.

If no candidate has two shadows on a side, nothing on that side tells v apart from how candidates differ. Then v is half
the variance, over candidates, of the difference of the two sides' means, offline too: this assumes that all members
gain alike.

Offline is one-sided, like LiRA: (phi - mu) / scale of the non-members, and for -t the normal deviate of the same tail, by
Wallace's approximation (1959, doi:10.1214/aoms/1177706093, good to a few thousandths), which does not saturate. If all
candidates have equally many shadows, as in random halves, -t and -n have the same ranking offline.
`calibrating` has the signature, the zero of the margins, and which shadows are left out when one plays the target. In
those games the priors are those with no shadow left out.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mialib.attacks.calibrating import FLOOR, Calibrated, Side


@dataclass(frozen=True)
class BaVarIA(Calibrated):
    """The attack; `calibrating` says how to call it.

    Args:
        online: compare members with non-members; else ask only how unusual the target is among non-members.
        student: Student's t (-t); else the normal distribution (-n).

    Raises:
        ValueError: as all of `calibrating`.
    """

    student: bool = True

    def score(self, signal: Tensor, members: Side, others: Side) -> Tensor:
        """The module's equations, (..., n)."""
        sides = [members, others] if self.online else [others]
        spare = _unexplained(members.whole or members, others.whole or others)
        beliefs = [Belief.of(side, Prior.of(side.whole or side, spare), self.student) for side in sides]
        if not self.online:
            return beliefs[0].deviate(signal)
        return beliefs[0].log_density(signal) - beliefs[1].log_density(signal)


class Prior(NamedTuple):
    """The prior of a candidate's mean and variance on one side: normal-inverse-gamma."""

    mean: float  # mu0
    weight: float  # kappa0, in shadows; infinite: all candidates have one mean
    shape: float  # alpha0, above 2; infinite: all candidates have one variance
    variance: float  # v = beta0 / (alpha0 - 1), the mean of the variances

    @classmethod
    def of(cls, side: Side, spare: float = FLOOR) -> "Prior":
        """From one side of all candidates, (n,); spare: the variance if no candidate has two shadows."""
        there, two = side.count > 0, side.count > 1
        shape, v = math.inf, spare
        if two.any():
            free = (side.count[two] - 1).double()
            each = side.squares[two] / free
            v, noise = float(each.mean()), float((2 / free).mean())
            spread = float(each.var(correction=0)) / max(v, FLOOR) ** 2
            if spread > noise:
                shape = 2 + (1 + noise) / (spread - noise)
        v, means = max(v, FLOOR), side.mean[there]
        apart = float(means.var(correction=0)) - v * float((1 / side.count[there].double()).mean())
        return cls(float(means.mean()), v / apart if apart > 0 else math.inf, shape, v)


class Belief(NamedTuple):
    """What the next shadow of a side is expected to say about each candidate, (..., n)."""

    location: Tensor
    variance: Tensor  # of the normal, or the squared scale of Student's t
    freedom: Tensor | None  # degrees of freedom; None: normal

    @classmethod
    def of(cls, side: Side, prior: Prior, student: bool) -> "Belief":
        n = side.count.double()
        # 1 / kappa, so that an infinite weight is 0; without shadows and without a prior there is no belief
        unsure = (prior.weight + n).reciprocal()
        away = side.mean - prior.mean
        seen = n * unsure
        if math.isinf(prior.shape):  # one variance for all, whatever was seen of it
            wider = 1 + unsure if student else torch.ones_like(unsure)
            return cls(away.mul_(seen).add_(prior.mean), prior.variance * wider, None)
        # in place from here on: otherwise the games of all shadows would take fresh memory for each step
        between = away.square().mul_((1 - seen) * n)
        beta = between.add_(side.squares).div_(2).add_(prior.variance * (prior.shape - 1))
        location, alpha = away.mul_(seen).add_(prior.mean), prior.shape + n / 2
        if not student:
            return cls(location, beta.div_(alpha - 1), None)
        return cls(location, beta.div_(alpha).mul_(1 + unsure), 2 * alpha)

    def log_density(self, signal: Tensor) -> Tensor:
        """Without the constant that all normal distributions share."""
        squared = (signal - self.location).square_().div_(self.variance)
        if self.freedom is None:
            return squared.add_(self.variance.log()).div_(-2)
        half = self.freedom / 2
        scale = _of_each(
            lambda nu: torch.lgamma(nu / 2 + 0.5) - torch.lgamma(nu / 2) - (nu / 2).log() / 2, self.freedom
        )
        tail = squared.div_(self.freedom).log1p_().mul_(half + 0.5)
        return torch.sub(scale, tail, out=tail).sub_(self.variance.log().div_(2))

    def deviate(self, signal: Tensor) -> Tensor:
        """The normal deviate whose upper tail is that of the signal."""
        t = (signal - self.location).div_(self.variance.sqrt())
        if self.freedom is None:
            return t
        nu = self.freedom
        far = t.square().div_(nu).log1p_().mul_(nu).sqrt_()
        return far.mul_(t.sign_()).mul_(8 * nu + 1).div_(8 * nu + 3)


def _of_each(function, freedom: Tensor) -> Tensor:
    """function(freedom), computed once for each value: there are few, one for each number of shadows."""
    values, index = freedom.unique(return_inverse=True)
    return function(values)[index]


def _unexplained(members: Side, others: Side) -> float:
    """The variance when each candidate has one shadow on each side; both sides (n,)."""
    both = (members.count > 0) & (others.count > 0)
    apart = (members.mean - others.mean)[both]
    return float(apart.var(correction=0)) / 2 if len(apart) else FLOOR


bavaria_t = BaVarIA()
bavaria_n = BaVarIA(student=False)
bavaria_t_offline = BaVarIA(online=False)
bavaria_n_offline = BaVarIA(online=False, student=False)
