"""How good the attacker's decisions are: rates, precision, recall and F1, with intervals.

The conventions are those of `metrics`: `member` (n,) with 1 = member, `margin` (n,), and margin > 0 is the
decision "member"; the result is an `Estimate` in 0..1 with the 95% interval over examples; what cannot be
resolved is nan; bad input raises ValueError. Members are the positive class, except in the names that end in
`_nonmember`.

Shares have the interval of `intervals.share`, with the denominator taken as fixed. For precision and F1 it varies, while
the numbers of members and non-members are fixed: these intervals are too wide rather than too narrow. Precision and F1
depend on the base rate: compare them only between candidates with the same share of members.
"""

import numpy as np

from mialib.measures import intervals, metrics
from mialib.measures.metrics import Estimate


def tpr(member, margin) -> Estimate:
    """Share of the members that are called members: the recall of members."""
    tp, fn, _, _ = _counts(member, margin)
    return metrics.share(tp, tp + fn)


def fpr(member, margin) -> Estimate:
    """Share of the non-members that are called members."""
    _, _, fp, tn = _counts(member, margin)
    return metrics.share(fp, fp + tn)


def advantage(member, margin) -> Estimate:
    """TPR - FPR, in -1..1 (Youden's J): 2 * balanced accuracy - 1, and so for the ends of its interval."""
    return Estimate(*(2 * part - 1 for part in metrics.balanced_accuracy(member, margin)))


def precision(member, margin) -> Estimate:
    """Share of members among those called members; nan if none is."""
    tp, _, fp, _ = _counts(member, margin)
    return metrics.share(tp, tp + fp)


def f1(member, margin) -> Estimate:
    """Harmonic mean of the precision and the recall of members; 0 if none is called a member.

    Interval: F1 = 2 s / (1 + s), where s is the share of true positives among all but the true negatives. The interval
    of s gives the ends, as in Lam, Gopal & Qian 2023, arXiv:2309.14621, who take Wilson's.
    """
    tp, fn, fp, _ = _counts(member, margin)
    return _f1(tp, fn + fp)


def precision_nonmember(member, margin) -> Estimate:
    """Share of non-members among those called non-members; nan if none is."""
    _, fn, _, tn = _counts(member, margin)
    return metrics.share(tn, tn + fn)


def recall_nonmember(member, margin) -> Estimate:
    """Share of the non-members that are called non-members: the true-negative rate, 1 - FPR."""
    _, _, fp, tn = _counts(member, margin)
    return metrics.share(tn, tn + fp)


def f1_nonmember(member, margin) -> Estimate:
    """`f1` with the non-members as the positive class."""
    _, fn, fp, tn = _counts(member, margin)
    return _f1(tn, fn + fp)


def precision_at_recall(member, margin, recall: float) -> Estimate:
    """Precision at the threshold where exactly the share `recall`, in (0, 1], of the members is called members.

    The decision margin > 0 plays no part; only the ranking counts. Where margins tie at the threshold, the same share of
    the tied members and non-members is called members (a straight piece of the ROC), so that their order does not matter
    and constant margins give the base rate. The threshold is chosen on these very examples, exactly at a member, which
    flatters the value where only a handful of members are to be found. The interval allows for that: it is the interval
    of the false-positive rate at the threshold (`intervals.rate_at_quantile`), turned into precision.
    """
    if not 0 < recall <= 1:
        raise ValueError(f"recall is {recall}; it must be in (0, 1]")
    members, others = metrics.groups(member, margin)
    false, true = metrics.roc(member, margin)
    # the first point that finds that many; 1e-9, since 3 * 0.1 of ten members are three and not a bit more
    i = np.searchsorted(true, max(recall - 1e-9, 0.0), side="right")
    share = min((recall - true[i - 1]) / (true[i] - true[i - 1]), 1.0)
    hits = recall * len(members)
    mistakes = (false[i - 1] + share * (false[i] - false[i - 1])) * len(others)
    value = float(hits / (hits + mistakes))
    most, fewest = (
        hits / (hits + rate * len(others))
        for rate in intervals.rate_at_quantile(others, members, recall, share_ties=True)
    )
    return Estimate(value, min(fewest, value), max(most, value))


# By their names in the results table, to be added to `metrics.STANDARD`
DECISIONS = {
    measure.__name__: measure
    for measure in (tpr, fpr, advantage, precision, f1, precision_nonmember, recall_nonmember, f1_nonmember)
}


def _counts(member, margin) -> tuple[int, int, int, int]:
    """True positives, false negatives, false positives and true negatives; positive = member."""
    members, nonmembers = metrics.groups(member, margin)
    tp, fp = np.count_nonzero(members > 0), np.count_nonzero(nonmembers > 0)
    return tp, len(members) - tp, fp, len(nonmembers) - fp


def _f1(hits: int, mistakes: int) -> Estimate:
    return Estimate(*(2 * part / (1 + part) for part in metrics.share(hits, hits + mistakes)))
