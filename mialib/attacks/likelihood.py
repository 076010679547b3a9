"""LiRA: is the target's confidence in a candidate that of models that learned it, or of models that did not?

    online   margin = log N(phi; mu_in, var_in) - log N(phi; mu_out, var_out)
    offline  margin = (phi - mu_out) / sigma_out

phi is the log-odds of the true class (`signals.confidence`); mu and var are the mean and variance of phi over the shadow
models that have the candidate as a member (in) or lack it (out). Source: Carlini et al. 2022, arXiv:2112.03570; public
code tensorflow/privacy `research/mi_lira_2021`. `calibrating` has the signature, the zero of the margins, and which
shadows are left out when one plays the target.

The paper's offline score is Pr[N(mu_out, var_out) <= phi]. The z-value has the same order and does not saturate (from
z = 8.3 that probability is 1 in float64); its unit is a standard deviation. It is one-sided: a candidate with less
confidence than usual is no member. The public code's `-logpdf` is two-sided and takes such candidates for members.

Shadows are drawn from the same finite pool as the target, so their members overlap with the target's, which is said to
bias LiRA (arXiv:2605.25819, abstract). Simulated (ours): 400 candidates in 100 dimensions, a model is the mean of its
members, phi = <x, mean> + N(0, 0.2^2), one variance for all, 40 draws; shadows from the target's pool against shadows
that never saw any of it but x itself. Without a leak the AUC is .508, .502 and .505 at 2, 4 and 16 pairs (+-.005), like
fresh shadows' .508, .503, .497. With a small leak it is .634, .670 and .726 against .592, .621 and .671, and TPR at 1 %
FPR 4.2, 4.8 and 5.9 % against 2.6, 3.1 and 3.6 % (+-.4). In both cases the offline score of non-members has the mean 0
(+-.015) and exceeds 1.645 equally often: 9, 7 and 5.5 % (few shadows; 5 % with many). So non-members are not called
members more often, and nothing is corrected. But an attacker who shares the target's pool has the stronger attack:
these figures are for that attacker.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mialib.attacks.calibrating import Calibrated, Side

FEW = (
    64  # shadow models; with fewer, the paper finds one variance for all candidates better than one for each
)


@dataclass(frozen=True)
class LiRA(Calibrated):
    """The attack; `calibrating` says how to call it.

    Args:
        online: compare members with non-members; else ask only how unusual the target is among non-members.
        fixed_variance: one variance for all candidates (one of members, one of non-members), or one for each candidate;
            None: one for all with fewer than 64 shadow models. A candidate with only one shadow model on a side gets the
            variance of all in any case.

    Raises:
        ValueError: as all of `calibrating`, with fewer than 4 shadows; or if no candidate has two on a side.
    """

    fixed_variance: bool | None = None
    fewest: ClassVar[int] = 4

    def score(self, signal: Tensor, members: Side, others: Side) -> Tensor:
        """The module's equations, (..., n)."""
        fixed = members.shadows < FEW if self.fixed_variance is None else self.fixed_variance
        # each side's variance from its own models: where the public plot.py fixes the variance, it takes the members'
        # variance for both (`std_out = np.std(dat_in)`), over all candidates together without subtracting their means
        if not self.online:
            return (signal - others.mean) / others.variance(fixed).sqrt()
        return _log_density(signal, members, fixed) - _log_density(signal, others, fixed)

    def _check_sides(self, members: Side, others: Side) -> None:
        super()._check_sides(members, others)
        needed = {"members": members, "non-members": others} if self.online else {"non-members": others}
        for name, side in needed.items():
            if not (side.count > 1).any():
                raise ValueError(f"no candidate is among the {name} of two shadows: its variance is unknown")


def _log_density(signal: Tensor, side: Side, fixed: bool) -> Tensor:
    """log N(signal; mean, variance), without the constant that both sides share."""
    variance = side.variance(fixed)
    # -(distance^2 / variance + log variance) / 2, in place
    return (signal - side.mean).square_().div_(variance).add_(variance.log()).div_(-2)


lira_online = LiRA()
lira_offline = LiRA(online=False)
