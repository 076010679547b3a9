"""LiRA: is the target's confidence in a candidate that of models which learned it, or of models which did not?

    online   margin = log N(phi; mu_in, var_in) - log N(phi; mu_out, var_out)
    offline  margin = (phi - mu_out) / sigma_out

phi is the log-odds of the true class (`signals.confidence`), mu and var the mean and variance of phi over those
shadow models that have the candidate as a member (in) or have not (out). Source: Carlini et al. 2022,
arXiv:2112.03570; public code tensorflow/privacy `research/mi_lira_2021`. The signature, the zero of the margins and who
is left out when a shadow plays the target: `calibrating`.

The offline score of the paper is Pr[N(mu_out, var_out) <= phi]. The z-value has the same order and does not saturate
(from z = 8.3 that probability is 1 in float64); its unit is a standard deviation. It is one-sided: a
candidate with less confidence than usual is no member. The public code's `-logpdf` is two-sided and takes such
candidates for members.

Shadows drawn from the finite pool that the target is drawn from: their members overlap with the target's, which is said to
bias LiRA (arXiv:2605.25819, abstract). Simulated (ours): 400 candidates in 100 dimensions, a model is the mean of its
members, phi = <x, mean> + N(0, 0.2^2), one variance for all, 40 draws; shadows from the target's pool against shadows that
never saw any of it but x itself. With no leak AUC .508, .502 and .505 at 2, 4 and 16 pairs (+-.005), as fresh shadows' .508,
.503, .497. With a small leak AUC .634, .670 and .726 against .592, .621 and .671, TPR at 1 % FPR 4.2, 4.8 and 5.9 %
against 2.6, 3.1 and 3.6 % (+-.4). In both the offline score of non-members has the mean 0 (+-.015) and exceeds 1.645 equally
often: 9, 7 and 5.5 % (few shadows; 5 % with many). So non-members are called members no more often, and nothing is
corrected. But who shares the target's pool has the stronger attack: these figures are for an attacker who does.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mialib.attacks.calibrating import Calibrated, Side

FEW = 64  # shadow models; below, the paper finds one variance for all candidates better than one for each


@dataclass(frozen=True)
class LiRA(Calibrated):
    """The attack; how it is called stands in the first lines of `calibrating`.

    Args:
        online: compare members with non-members; else ask only how unusual the target is among non-members.
        fixed_variance: one variance for all candidates (one of members, one of non-members), or one for each
            candidate; None: one for all with fewer than 64 shadow models. A candidate that has one shadow model on a
            side gets the variance of all in any case.

    Raises:
        ValueError: as all of `calibrating`, with fewer than 4 shadows; or no candidate has two on a side.
    """

    fixed_variance: bool | None = None
    fewest: ClassVar[int] = 4

    def score(self, signal: Tensor, members: Side, others: Side) -> Tensor:
        """The module's equations, (..., n)."""
        fixed = members.shadows < FEW if self.fixed_variance is None else self.fixed_variance
        # each side's variance from its own models: the public plot.py, where it fixes the variance, takes that of the
        # members for both (`std_out = np.std(dat_in)`), and of all candidates together without their means
        if not self.online:
            return (signal - others.mean) / others.variance(fixed).sqrt()
        return _log_density(signal, members, fixed) - _log_density(signal, others, fixed)

    def _check_sides(self, members: Side, others: Side) -> None:
        super()._check_sides(members, others)
        needed = {"members": members, "non-members": others} if self.online else {"non-members": others}
        for name, side in needed.items():
            if not (side.count > 1).any():
                raise ValueError(f"no candidate has two shadows among whose {name} it is: variance unknown")


def _log_density(signal: Tensor, side: Side, fixed: bool) -> Tensor:
    """log N(signal; mean, variance), without the constant that both sides share."""
    variance = side.variance(fixed)
    # -(distance^2 / variance + log variance) / 2, in place
    return (signal - side.mean).square_().div_(variance).add_(variance.log()).div_(-2)


lira_online = LiRA()
lira_offline = LiRA(online=False)
