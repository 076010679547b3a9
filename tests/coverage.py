"""How often each interval that is printed holds the truth, where 95 % are promised, and how often a verdict on noise is wrong.

    python tests/coverage.py [--repetitions 5000]        both tables, some twenty minutes each on two cores

Simulated, with the truth known exactly. Over examples: n members and as many others, whose scores lie `shift` below; normal,
heavy-tailed (Student's t with three degrees of freedom), or tied (normal, rounded to halves). Over targets: values of 3, 5 and
10, normal, heavy-tailed and tied (rounded to halves of their spread). Three tied values are often alike, and then Student's t
is sure of what it does not know: up to 4 % a side. `tests/measures/test_intervals.py` holds the tables to 0.93 and 3 % a side,
in a short form and (slow) in this one.
"""

import argparse
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import stats

from mialib import study
from mialib.measures import Estimate, decisions, extremes, metrics
from mialib.reporting import Claim, claims

KINDS = ("normal", "heavy-tailed", "tied")
EXAMPLES, TARGETS = (25, 100, 1000, 10_000), (3, 5, 10)
SHIFTS = (1.0, 2.5)  # AUC 0.76 and 0.96 where normal
# those that are to be no wider than they need be wherever they are resolved; the others are conservative, and say so
NEITHER_WIDE = ("AUC", "difference of AUCs", "difference of balanced accuracies", "mean over targets")
SHARED = 0.5  # of the examples that two compared attacks see alike


@dataclass(frozen=True)
class Scores:
    """Scores of members and of others, `shift` apart, and what is true of them."""

    kind: str
    shift: float

    def draw(self, n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(2, 2n): two attacks' margins of n members, then of n others; the second finds four fifths of the shift."""
        plain = (
            random.standard_t(3, (2, 2 * n))
            if self.kind == "heavy-tailed"
            else random.normal(size=(2, 2 * n))
        )
        plain[1] = np.where(random.random(2 * n) < SHARED, *plain)
        plain[:, :n] += self.shift * np.array([[1], [0.8]])
        if self.kind == "tied":
            plain = np.round(2 * plain) / 2
        return np.arange(2 * n) < n, plain - self._cut

    @property
    def _law(self):
        return stats.t(3) if self.kind == "heavy-tailed" else stats.norm

    @property
    def _cut(self) -> float:
        return self.shift / 2 + 0.01  # a decision that no tie sits on

    def roc(self, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """The population's false- and true-positive rates, from high thresholds to low, at a share of the shift."""
        # rounding to halves puts everything between two odd quarters on one value
        cuts = (
            np.arange(-12, 16, 0.5) + 0.25
            if self.kind == "tied"
            else self._law.isf(np.linspace(1e-7, 1 - 1e-7, 400_001))
        )
        cuts = np.sort(cuts)[::-1]
        ends = np.array([0.0]), np.array([1.0])
        return tuple(
            np.concatenate([ends[0], self._law.sf(cuts - at), ends[1]]) for at in (0.0, share * self.shift)
        )

    def area(self, share: float = 1.0) -> float:
        fpr, tpr = self.roc(share)
        return float(np.trapezoid(tpr, fpr))

    def rates(self, share: float = 1.0) -> tuple[float, float]:
        """False- and true-positive rate of the decision."""
        cut = math.ceil(2 * self._cut) / 2 - 0.25 if self.kind == "tied" else self._cut
        return float(self._law.sf(cut)), float(self._law.sf(cut - share * self.shift))

    def tpr_at(self, fpr: float) -> float:
        false, true = self.roc()
        return float(true[false <= fpr].max())

    def precision_at(self, recall: float) -> float:
        false, true = self.roc()
        return recall / (recall + float(np.interp(recall, true, false)))


Measure = Callable[[np.ndarray, np.ndarray], Estimate]


def over_examples(scores: Scores) -> dict[str, tuple[Measure, float]]:
    """Name -> measure(member, margins (2, 2n)) and what is true of it."""
    (fpr, tpr), (other_fpr, other_tpr) = scores.rates(), scores.rates(0.8)
    balanced = (tpr + 1 - fpr) / 2

    def single(measure, *options):
        return lambda member, margins: measure(member, margins[0], *options)

    def paired(metric):
        return lambda member, margins: metrics.paired_difference(member, *margins, metric)

    return {
        "AUC": (single(metrics.auc), scores.area()),
        "balanced accuracy": (single(metrics.balanced_accuracy), balanced),
        "TPR at 1 % FPR": (single(metrics.tpr_at_fpr, 0.01), scores.tpr_at(0.01)),
        "TPR at 0.1 % FPR": (single(metrics.tpr_at_fpr, 0.001), scores.tpr_at(0.001)),
        "TPR": (single(decisions.tpr), tpr),
        "precision": (single(decisions.precision), tpr / (tpr + fpr)),
        "F1": (single(decisions.f1), 2 * tpr / (1 + tpr + fpr)),
        "precision at recall 0.5": (single(decisions.precision_at_recall, 0.5), scores.precision_at(0.5)),
        "difference of AUCs": (paired("auc"), scores.area() - scores.area(0.8)),
        "difference of balanced accuracies": (
            paired("balanced_accuracy"),
            balanced - (other_tpr + 1 - other_fpr) / 2,
        ),
    }


MEANS = (0.0, 0.0, 0.0, 0.3, 0.3, 0.0)
NOISE = (0.0,) * 6

# name -> rule(values (6, targets)), and what is true of it if their means are MEANS; 0 if they are NOISE
RULES = {
    "mean over targets": (lambda values: metrics.over_targets(values[0]), 0.0),
    "every": (lambda values: extremes.every(values[:4]), 0.0),
    "at least one": (lambda values: extremes.at_least_one(values[:4]), 0.3),
    "best against best": (lambda values: extremes.best_against_best(values[:3], values[3:]), -0.3),
    "best against weakest": (
        lambda values: extremes.best_against_weakest(values[:2], [values[2:4], values[4:]]),
        -0.3,
    ),
    "weakest against best": (
        lambda values: extremes.weakest_against_best([values[:2], values[3:]], values[2:3]),
        0.0,
    ),
}


def holm(values: np.ndarray) -> Estimate:
    """One sided, as an interval: below 0 where one of six noisy claims holds for all claims together."""
    paper = {str(i): Claim(str(i), "", "a > b") for i in range(len(values))}
    found = claims.compare(paper, {str(i): metrics.over_targets(one) for i, one in enumerate(values)})
    return Estimate(0.0, 0.0, 0.0 if ": 0 of " in claims.family(found) else -1.0)


def falls(values: np.ndarray) -> Estimate:
    """As an interval below 0 where one of the steps is called a fall."""
    return Estimate(0.0, 0.0, 0.0 if metrics.rises(values) else -1.0)


def targets_drawn(kind: str, n: int, means: tuple, random: np.random.Generator) -> np.ndarray:
    """(6, n): each target's values share half of their variance."""
    law = random.standard_t if kind == "heavy-tailed" else lambda _, size: random.normal(size=size)
    values = (law(3, (6, n)) + law(3, (1, n))) / math.sqrt(2)
    values = np.round(2 * values) / 2 if kind == "tied" else values
    return values + np.array(means)[:, None]


def misses(rules: dict, draw: Callable, repetitions: int) -> dict[str, tuple[float, float, float]]:
    """Name -> the shares of intervals that lie above the truth, and below it, and how many there were."""
    found = {name: [] for name in rules}
    for repetition in range(repetitions):
        drawn = draw(np.random.default_rng([7, repetition]))
        for name, (rule, truth) in rules.items():
            estimate = rule(*drawn)
            if not math.isnan(estimate.low):
                found[name].append((estimate.low > truth + 1e-9, estimate.high < truth - 1e-9))
    return {name: (*np.mean(of, axis=0), len(of)) for name, of in found.items() if of}


def of_examples(kind: str, shift: float, n: int, repetitions: int, only: tuple = ()) -> dict:
    scores = Scores(kind, shift)
    rules = {name: rule for name, rule in over_examples(scores).items() if not only or name in only}
    return misses(rules, lambda random: scores.draw(n, random), repetitions)


def of_targets(kind: str, n: int, repetitions: int) -> dict:
    return misses(RULES, lambda random: (targets_drawn(kind, n, MEANS, random),), repetitions)


def of_noise(kind: str, n: int, repetitions: int) -> dict:
    """Shares of verdicts that are wrong on each side where nothing is to be found: six equal means."""
    rules = {name: (rule, 0.0) for name, (rule, _) in RULES.items()}
    rules |= {"one of six claims (Holm)": (holm, 0.0), "a step falls": (falls, 0.0)}
    return misses(rules, lambda random: (targets_drawn(kind, n, NOISE, random),), repetitions)


# noise of the classes (2, targets, classes), in which targets agree on nothing -> what `agreement` is given. "unequal": a fifth
# of the classes is measured on few examples. "skewed": not symmetric, but alike in all classes.
CLASSES = {
    "own": lambda noise: noise[:1],
    "two quantities": lambda noise: noise,
    "unequal": lambda noise: noise[:1] * _few(noise),
    "two quantities, unequal": lambda noise: noise.cumsum(0) * _few(noise),
    "skewed": lambda noise: np.exp(noise[:1]),
}


def _few(noise: np.ndarray) -> np.ndarray:
    return np.where(np.arange(noise.shape[-1]) % 5, 1, 10)


def of_classes(kind: str, targets: int, classes: int, repetitions: int) -> dict:
    """`of_noise` of the agreement between targets on which classes leak."""
    rules = {f"classes agree ({kind})": (lambda noise: study.agreement(*CLASSES[kind](noise)), 0.0)}
    return misses(rules, lambda random: (random.normal(size=(2, targets, classes)),), repetitions)


def wrong(repetitions: int, n_jobs: int = 1) -> pd.DataFrame:
    """A line for each rule of decision, number of targets and kind of noise: shares of wrong verdicts, above and below."""
    calls = {
        (kind, n): delayed(of_noise)(kind, n, repetitions) for n, kind in itertools.product(TARGETS, KINDS)
    }
    calls |= {
        (f"{classes} classes", n): delayed(_together)(n, classes, repetitions)
        for n, classes in ((3, 10), (5, 10), (10, 10), (3, 30))
    }
    found = Parallel(n_jobs=n_jobs)(calls.values())
    rows = [
        (name, *setting, round(above, 4), round(below, 4))
        for setting, of in zip(calls, found, strict=True)
        for name, (above, below, _) in of.items()
    ]
    return pd.DataFrame(rows, columns=["rule", "noise", "targets", "above", "below"])


def _together(targets: int, classes: int, repetitions: int) -> dict:
    found = [of_classes(kind, targets, classes, repetitions) for kind in CLASSES]
    return {name: rates for one in found for name, rates in one.items()}


def table(repetitions: int, examples=EXAMPLES, targets=TARGETS, n_jobs: int = 1) -> pd.DataFrame:
    """A line for each interval, number and kind: share of intervals that hold the truth, lie above it, lie below it."""
    lines = [
        (delayed(of_examples)(kind, shift, n, repetitions), (kind, f"shift {shift:g}", n))
        for n, kind, shift in itertools.product(sorted(examples, reverse=True), KINDS, SHIFTS)
    ]
    lines += [
        (delayed(of_targets)(kind, n, repetitions), (kind, "", n))
        for n, kind in itertools.product(targets, KINDS)
    ]
    found = Parallel(n_jobs=n_jobs)(call for call, _ in lines)
    rows = [
        (name, *setting, round(1 - above - below, 4), round(above, 4), round(below, 4), number)
        for (_, setting), of in zip(lines, found, strict=True)
        for name, (above, below, number) in of.items()
    ]
    return pd.DataFrame(rows, columns=["interval", "scores", "", "n", "held", "above", "below", "intervals"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repetitions", type=int, default=5000)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    print("Wrong verdicts on noise, share on each side\n")
    found = wrong(options.repetitions, options.jobs)
    print(found.pivot_table(index=["rule", "noise"], columns="targets", sort=False).to_string(na_rep=""))
    print(
        f"\nlargest {found[['above', 'below']].max().max():.4f}\n\nShare of intervals that hold the truth\n"
    )
    found = table(options.repetitions, n_jobs=options.jobs)
    wide = found.pivot_table(index=["interval", "scores", ""], columns="n", values="held", sort=False)
    print(wide.reindex(columns=sorted(wide)).round(3).to_string(na_rep=""))
    print(
        f"\nlowest {found['held'].min():.4f}, of {len(found)} cells; one of 5,000 has a standard error of 0.003"
    )


if __name__ == "__main__":
    main()
