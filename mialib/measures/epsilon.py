"""Audited epsilons: given what attackers found out, a training is not (epsilon, delta)-private for any smaller epsilon.

The result is a lower bound, wrong in at most a share `level` of audits (one-sided). It is no upper bound: an attack that
finds nothing proves no privacy. Compare it with an accountant's epsilon, for adding or removing one example, of the
training that the canaries were members of. There are two ways to it:

- one run: many canaries, each a member of one model by an independent fair coin. The auditor makes r guesses whether a
  canary is a member, v of them right, and abstains on the others. An epsilon is refuted if that many right guesses are
  too unlikely,

      P[B >= v] + 2 m delta max over i = 1..v of P[v > B >= v - i] / i < level,      B ~ Binomial(r, e^eps / (1 + e^eps))

  Source: Steinke, Nasr & Jagielski 2023, arXiv:2305.08846. The number of guesses is fixed without looking at the coins.
- many models: one canary. Count in how many models that have it (hits), and in how many that lack it (alarms), its signal
  exceeds a threshold that was fixed on other models. A trial is a model: several canaries of one model would share its
  luck. With the ends of Clopper & Pearson's intervals, each at level / 2,

      eps >= log((TPR_low - delta) / FPR_high),      eps >= log((1 - FPR_high - delta) / (1 - TPR_low))

  the second from the same two ends, so that both hold at once. Source: Jagielski, Ullman & Oprea 2020, arXiv:2006.07709.
"""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple

import numpy as np
import scipy

from mialib.measures import metrics

LEVEL = 0.05
SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)  # of the canaries, the surest first: how many guesses are made


class Guesses(NamedTuple):
    """The number of guesses made, how many of them are right, and the number of canaries to guess about."""

    made: int
    right: int
    canaries: int


class ManyModels(NamedTuple):
    """bound: of epsilon. canary, threshold: the canary that is watched, and the signal above which a model is a hit."""

    bound: float
    canary: int
    threshold: float


def guess(member, margin, made: int) -> Guesses:
    """The surest guesses: the candidates with the largest margins are members, equally many with the smallest are not.

    If `made` is odd, one more is called a member. Margins count by their order alone. Of equal margins the first come
    first, which says nothing where candidates are shuffled.

    Args:
        member: bool (m,), which canaries are members; margin: float (m,), larger = more likely a member.
        made: the number of guesses, from 0 to m.

    Raises:
        ValueError: more guesses than canaries, or what `metrics.groups` refuses.
    """
    metrics.groups(member, margin)
    member, margin = (metrics.vector(*one) for one in (("member", member), ("margin", margin)))
    _whole("made", made, 0, len(member), "the number of canaries")
    order, members = np.argsort(-margin, kind="stable"), (made + 1) // 2
    right = member[order[:members]].sum() + (1 - member[order[len(order) - made // 2 :]]).sum()
    return Guesses(int(made), int(right), len(member))


def p_value(guesses: Guesses, epsilon: float, delta: float = 0.0) -> float:
    """The largest probability of that many right guesses or more, if the training is (epsilon, delta)-private.

    Raises:
        ValueError: numbers of guesses that do not fit, a negative epsilon, a delta outside [0, 1].
    """
    _check(guesses, delta)
    if not epsilon >= 0:
        raise ValueError(f"epsilon is {epsilon}; it must be 0 or more")
    return _p_value(guesses, float(epsilon), delta)


def one_run(guesses: Guesses, delta: float = 0.0, level: float = LEVEL) -> float:
    """The bound from guesses about the canaries of one model, 0 where nothing is refuted.

    Raises:
        ValueError: numbers of guesses that do not fit, a delta outside [0, 1], a level outside (0, 1).
    """
    _check(guesses, delta)
    _check_level(level)

    def lacking(epsilon):
        return _p_value(guesses, epsilon, delta) - level

    if lacking(0.0) >= 0:
        return 0.0
    low, high = 0.0, 1.0
    while lacking(high) < 0:
        low, high = high, 2 * high
    return float(scipy.optimize.brentq(lacking, low, high, xtol=1e-9))


def of_one_run(
    member, margin, shares: Sequence[float] = SHARES, delta: float = 0.0, level: float = LEVEL
) -> float:
    """The largest bound over several numbers of guesses, each at the level divided by how many there are (Bonferroni).

    Args:
        member: bool (m,), the coins; margin: float (m,).
        shares: shares of the canaries to make guesses about, each in (0, 1].

    Raises:
        ValueError: a share out of range or none; what `guess` and `one_run` refuse.
    """
    if not len(shares) or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares are {shares}; one or more are needed, each in (0, 1]")
    _check_level(level)
    made = sorted({max(1, round(share * len(metrics.vector("member", member)))) for share in shares})
    return max(one_run(guess(member, margin, number), delta, level / len(made)) for number in made)


def many_models(
    hits: int, members: int, alarms: int, others: int, delta: float = 0.0, level: float = LEVEL
) -> float:
    """The bound from models: `hits` of the `members` (with the canary) and `alarms` of the `others` exceed the threshold.

    It is 0 if nothing is refuted, for example if one of the sides has no model.

    Raises:
        ValueError: more hits than models, a delta outside [0, 1], a level outside (0, 1).
    """
    _whole("members", members, 0)
    _whole("others", others, 0)
    _whole("hits", hits, 0, members, "the number of models that have the canary")
    _whole("alarms", alarms, 0, others, "the number of models that lack it")
    _check_delta(delta)
    _check_level(level)
    return float(_many_models(np.array(hits), members, np.array(alarms), others, delta, level))


def of_many_models(signal, member, delta: float = 0.0, level: float = LEVEL) -> ManyModels:
    """The bound on the second half of the models, for the canary and the threshold that the first half chooses.

    Args:
        signal: float (k, m), of k models on m canaries, larger = more likely a member (`signals.confidence`).
        member: bool (k, m), which models have which canaries.

    Raises:
        ValueError: shapes that differ, fewer than 4 models, nan, a delta outside [0, 1], a level outside (0, 1), or a first
            half where every canary is a member of all models or of none.
    """
    signal, member = metrics.numbers(signal), metrics.numbers(member) == 1
    if signal.ndim != 2 or signal.shape != member.shape or len(signal) < 4:
        raise ValueError(
            f"signal and member must be of one shape (models, canaries), 4 models or more, found {signal.shape} and "
            f"{member.shape}"
        )
    if np.isnan(signal).any():
        raise ValueError(
            f"signal holds nan for {np.isnan(signal).sum()} of {signal.size} answers; mend the models"
        )
    _check_delta(delta)
    _check_level(level)
    cut = len(signal) // 2
    canary, threshold = _chosen(signal[:cut], member[:cut], delta, level)
    above, has = signal[cut:, canary] > threshold, member[cut:, canary]
    counts = (int((above & has).sum()), int(has.sum()), int((above & ~has).sum()), int((~has).sum()))
    return ManyModels(many_models(*counts, delta, level), canary, threshold)


def _chosen(signal: np.ndarray, member: np.ndarray, delta: float, level: float) -> tuple[int, float]:
    """The canary and the threshold with the highest bound; of equal ones those with the widest gap at the threshold."""
    members, others = member.sum(0), (~member).sum(0)
    if not (both := (members > 0) & (others > 0)).any():
        raise ValueError(
            f"no canary is a member of some of the first {len(signal)} models and not of others; take more models"
        )
    order = np.argsort(signal, axis=0)
    values, has = (np.take_along_axis(one, order, axis=0) for one in (signal, member))
    # above the i-th smallest
    hits = members - has.cumsum(0)
    alarms = others - (~has).cumsum(0)
    bounds = _many_models(hits[:-1], members, alarms[:-1], others, delta, level)
    gaps = np.diff(values, axis=0)
    bounds = np.where(both & (gaps > 0), bounds, -1.0)
    best = np.lexsort((gaps.ravel(), bounds.ravel()))[-1]
    row, canary = (int(one) for one in np.unravel_index(best, gaps.shape))
    return canary, float(values[row, canary] + gaps[row, canary] / 2)


def _many_models(hits, members, alarms, others, delta: float, level: float):
    """The module's second bound, for arrays."""
    tail = level / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        low = np.where(hits > 0, scipy.stats.beta.ppf(tail, hits, members - hits + 1), 0.0)
        high = np.where(alarms < others, scipy.stats.beta.ppf(1 - tail, alarms + 1, others - alarms), 1.0)
        ratios = np.stack([(low - delta) / high, (1 - high - delta) / (1 - low)])
    return np.log(np.maximum(ratios, 1.0)).max(0)


def _p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    made, right, canaries = guesses
    # in terms of wrong guesses: their probability keeps its digits where that of right ones is almost 1
    wrong, rate = made - right, float(scipy.special.expit(-epsilon))
    enough = scipy.stats.binom.cdf(wrong, made, rate)
    if not delta or not right:
        return float(min(enough, 1.0))
    fewer = np.arange(1, right + 1)
    between = scipy.stats.binom.cdf(wrong + fewer, made, rate) - enough
    return float(min(enough + 2 * canaries * delta * (between / fewer).max(), 1.0))


def _check(guesses: Guesses, delta: float) -> None:
    _whole("guesses.canaries", guesses.canaries, 0)
    _whole("guesses.made", guesses.made, 0, guesses.canaries, "the number of canaries")
    _whole("guesses.right", guesses.right, 0, guesses.made, "the number of guesses")
    _check_delta(delta)


def _check_delta(delta: float) -> None:
    if not 0 <= delta <= 1:
        raise ValueError(f"delta is {delta}; it must lie in [0, 1], well below 1 / number of members")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(
            f"level is {level}; it must lie in (0, 1), 0.05 for a bound that holds in 95 % of audits"
        )


def _whole(name: str, value, low: int, high: float = math.inf, of: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:
        most = f" to {high}, {of}" if of else " or more"
        raise ValueError(f"{name} is {value!r}; it must be a whole number, {low}{most}")
