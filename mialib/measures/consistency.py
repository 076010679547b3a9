"""What the published changes of an attack's figures say about rates that were not published.

If half of the candidates are members, accuracy and F1 follow from two rates: accuracy = (1 + TPR - FPR) / 2, and the F1
of the members = 2 TPR / (1 + TPR + FPR). So changes of accuracy, TPR and F1 leave one number free, the FPR before.
"""

from typing import NamedTuple

from scipy.optimize import brentq


class Rates(NamedTuple):
    """Rates of one attack, half of whose candidates are members; `Rates.of` makes them."""

    fpr: float
    tpr: float
    accuracy: float
    f1: float

    @classmethod
    def of(cls, fpr: float, tpr: float) -> "Rates":
        """All four from the first two."""
        return cls(fpr, tpr, (1 + tpr - fpr) / 2, 2 * tpr / (1 + tpr + fpr))


def rates_behind(d_accuracy: float, d_tpr: float, d_f1: float, fpr: float) -> tuple[Rates, Rates]:
    """The rates before and after, from the changes of accuracy, TPR and F1 and the FPR before; shares, not points.

    Raises:
        ValueError: no TPR from 0 to 1, before and after, fits these changes.
    """
    d_fpr = d_tpr - 2 * d_accuracy

    def pair(tpr):
        return Rates.of(fpr, tpr), Rates.of(fpr + d_fpr, tpr + d_tpr)

    def too_much(tpr):
        before, after = pair(tpr)
        return after.f1 - before.f1 - d_f1

    ends = max(0.0, -d_tpr), min(1.0, 1.0 - d_tpr)
    if too_much(ends[0]) * too_much(ends[1]) > 0:
        raise ValueError(
            f"no rates change so: accuracy by {d_accuracy:+g}, TPR by {d_tpr:+g} and F1 by {d_f1:+g} from an FPR of {fpr:g}"
        )
    return pair(brentq(too_much, *ends))
