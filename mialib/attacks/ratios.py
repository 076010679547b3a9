"""BASE and RMIA: how much more likely is the true label to the target than to shadow models?

p_T(x; theta) is the softmax of logits / T at the true class of x. Served answers are log-posteriors, that is, logits
minus one number a row, and softmax(log-posteriors / T) is the same. Behind an output defence it is computed from served
answers.

    online        log r(x) = log p_T(x; theta) - log (mean over all shadows of p_T(x; theta_k))
    BASE offline  log r(x) = log p_T(x; theta) - c log p_out(x)
    RMIA offline  log r(x) = log p_T(x; theta) - log (((1 + a) p_out(x) + 1 - a) / 2)

p_out is the mean of p_T over the shadows that have x as a non-member. RMIA takes a p_out + 1 - a for the mean over
members, and r compares with the mean of both sides. c = a = .33, T = 2, gamma = 2 as in public code. Sources: Lassila
et al. 2025, arXiv:2505.24089 (BASE); Zarifzadeh et al. 2024, arXiv:2312.03262 (RMIA); LeakPro `base.py`, `rmia.py`.

BASE's score is log r(x). RMIA's is the share of other examples z for which r(x) / r(z) > gamma. With the same z for all
x, this share is a step function of r(x) that never falls: *RMIA ranks the candidates of one target as log r does*, and
online as BASE does, up to ties (our observation). It can take only |z| + 1 values. At a false-positive rate of 0.1 %
those ties are the whole difference. So log r breaks the ties here: RMIA's margin is log r(x) - log gamma minus the
order statistic of log r(z) that x has to pass, in nats. Its ranking is that of log r and its decision that of the
share. The two attacks differ in that decision: RMIA measures each target by its own z.

z are the candidates themselves, half of them members; in the paper they are a sample of the population. No ranking
depends on this. `calibrating` has the signature, the zero, and which shadows are left out when one plays the target.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mialib.asking import Views
from mialib.asking.posteriors import checked, true_class
from mialib.attacks.calibrating import Calibrated, Side
from mialib.attacks.threshold import best_threshold, in_order

FAINTEST = (
    -600.0
)  # log p_T: of a class that is served no probability at all, and far from float64's smallest number
ROUNDING = 1e-15  # of a mean from which a shadow was taken out: what may remain of a difference of equals


@dataclass(frozen=True)
class Ratio(Calibrated):
    """What BASE and RMIA share: the signal log p_T, with T > 0 the temperature, and the mean of p_T over shadows."""

    temperature: float = 2.0

    def __post_init__(self):
        _check_temperature(self.temperature)

    def statistic(self, views: Views) -> Tensor:
        return log_softened(views, self.temperature)

    def averaged(self, signal: Tensor) -> Tensor:
        return signal.exp()


@dataclass(frozen=True)
class BASE(Ratio):
    """The attack; `calibrating` says how to call it.

    Args:
        online: compare with all shadows; else with those that have a candidate as a non-member.
        temperature: T > 0.
        exponent: c, offline.

    Raises:
        ValueError: as all of `calibrating`; a temperature that is not above 0.
    """

    exponent: float = 0.33

    def score(self, signal: Tensor, members: Side, others: Side) -> Tensor:
        if self.online:
            return signal - _mean_of_all(members, others).log_()
        return signal - self.exponent * _mean(others).log()


@dataclass(frozen=True)
class RMIA(Ratio):
    """The attack; `calibrating` says how to call it.

    Args:
        online: compare with all shadows; else with those that have a candidate as a non-member.
        temperature: T > 0.
        gamma: how many times as likely as z x must be, at least 1.
        slope: a, offline, in [0, 1].

    Raises:
        ValueError: as all of `calibrating`; an argument outside its range.
    """

    gamma: float = 2.0
    slope: float = 0.33

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.gamma < math.inf:
            raise ValueError(f"RMIA: gamma must be 1 or more and finite, found {self.gamma}")
        if not 0 <= self.slope <= 1:
            raise ValueError(f"RMIA: slope must lie in [0, 1], found {self.slope}")

    def score(self, signal: Tensor, members: Side, others: Side) -> Tensor:
        """log r."""
        if self.online:
            return signal - _mean_of_all(members, others).log_()
        return signal - (((1 + self.slope) * _mean(others) + 1 - self.slope) / 2).log()

    def shares(self, score: Tensor) -> Tensor:
        """RMIA's own scores (n,) in [0, 1) from one target's log r (n,): the share of z with r(x) > gamma r(z)."""
        return _passed(score, in_order(score), self.gamma).double() / len(score)

    def _margins(self, score: Tensor, played: Tensor, answered: Tensor, shadow_member: Tensor) -> Tensor:
        shares = torch.cat(
            [self.shares(one[there]) for one, there in zip(played, answered, strict=True) if there.any()]
        )
        share = best_threshold(shares, shadow_member[answered])
        # share(x) > it wherever log r(x) - log gamma passes the z of this rank
        ordered, rank = in_order(score), math.floor(float(share) * len(score))
        bar = (
            ordered[rank] if rank >= 0 else ordered[0] - 1.0 - math.log(self.gamma)
        )  # below: all are members
        return score - math.log(self.gamma) - bar


def log_softened(views: Views, temperature: float) -> Tensor:
    """log p_T of the true class, float64 (m, n), in [FAINTEST, 0]; the views hold m models."""
    found = []
    for answers, labels in zip(views.log_posteriors, views.labels, strict=True):
        # model by model: no second copy of all answers
        softer = checked(answers, labels) / temperature
        found.append(true_class(softer, labels) - softer.logsumexp(-1))
    return torch.stack(found).clamp(min=FAINTEST)


def _passed(score: Tensor, ordered: Tensor, gamma: float) -> Tensor:
    """The number of z, with log r in `ordered`, for which r(x) > gamma r(z); int64 (n,)."""
    return torch.searchsorted(ordered, score - math.log(gamma))


def _mean(side: Side) -> Tensor:
    """The mean of p_T, kept above what rounding leaves where a shadow was taken out."""
    whole = side if side.whole is None else side.whole
    return torch.maximum(side.mean, ROUNDING * whole.mean).clamp_(min=math.exp(FAINTEST))


def _mean_of_all(members: Side, others: Side) -> Tensor:
    count = members.count + others.count
    of_members, of_others = (_mean(side).mul_(side.count) for side in (members, others))
    return of_members.add_(of_others).div_(count.clamp(min=1))


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be above 0 and finite, found {temperature}")


base_online = BASE()
base_offline = BASE(online=False)
rmia_online = RMIA()
rmia_offline = RMIA(online=False)
