"""How often the audit of saved answers is right, and how long it takes: `python -m tests.benchmarks.audit [--seeds 100] [--n 2000] [--shadows 8]`.

Answers are drawn: normal logits with a larger true class where the example is a member. Truth is what the same audit finds in
many examples. For each pair of networks: how often each verdict is given, how often the interval of the difference holds the
truth, how often the difference is found, and how often it would be by the stated power.

The second part has imitations of two networks, which know what they learned better than others that are as easy. It prints how
often the intervals hold the truth, that of the networks at hand and that of networks trained anew, and how often the bound on
epsilon is above 0 where nothing leaks.

The third part audits 50,000 examples of four networks and prints the seconds, beside those of scikit-learn's AUC of one signal.
"""

import argparse
import time

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

from mialib.auditing import Report, Shadows, audit_answers

CLASSES, TRUTH = 10, 200_000
# leak of the baseline, of the other: none, alike, a little more, much more, less
PAIRS = ((0.0, 0.0), (1.0, 1.0), (1.0, 1.2), (1.0, 1.5), (1.0, 0.6))


def logits(leak: float, labels, member, rng) -> np.ndarray:
    """Answers whose log-odds of the true class grow by `leak` for members."""
    return np.eye(CLASSES)[labels] * (2 + leak * member[:, None]) + rng.normal(size=(len(labels), CLASSES))


def audit(n: int, leaks, seed: int, **options) -> Report:
    rng = np.random.default_rng(seed)
    labels, member = rng.integers(0, CLASSES, n), np.arange(n) < n // 2
    answers = {f"{i}: {leak:g}": logits(leak, labels, member, rng) for i, leak in enumerate(leaks)}
    return audit_answers(answers, labels, member, seed=seed, **options)


def imitated(leaks, shadows: int, n: int, seed: int) -> Report:
    """An audit of networks with imitations: logits of easy and hard examples; each training leaks a little more or less."""
    rng = np.random.default_rng(seed)
    labels, member = (
        rng.integers(0, CLASSES, n),
        np.stack([rng.permutation(n) < n // 2 for _ in range(1 + shadows)]),
    )
    member[2::2] = ~member[1::2]
    easy, own = rng.normal(2, 2, n), rng.normal(size=(1 + shadows, n, CLASSES))
    of_training = 1 + 0.2 * rng.normal(size=(1 + shadows, 1))
    answers = {}
    for i, leak in enumerate(leaks):
        right = easy + leak * of_training * member
        noise = np.sqrt(0.5) * (own + rng.normal(size=own.shape))  # versions of a network err alike
        answers[f"{i}: {leak:g}"] = np.eye(CLASSES)[labels] * right[:, :, None] + noise
    saved = Shadows.from_answers({name: one[1:] for name, one in answers.items()}, member[1:])
    return audit_answers(
        {name: one[0] for name, one in answers.items()}, labels, member[0], shadows=saved, seed=seed
    )


def with_imitations(seeds: int, n: int, shadows: int) -> None:
    print(f"\n{seeds} seeds, {n} examples, {shadows} imitations; truth: the mean over all seeds\n")
    print(
        "leaks       AUC   difference  covered  anew covered  width  anew width  more  less  epsilon > 0  more by both"
    )
    for leaks in PAIRS:
        reports = [imitated(leaks, shadows, n, seed) for seed in range(seeds)]
        (name,) = reports[0].compared
        found = [report.difference(name) for report in reports]
        truth = np.mean([one.auc.value for one in found]) if leaks[0] != leaks[1] else 0.0
        anew = np.mean([one.anew.value for one in found]) if leaks[0] != leaks[1] else 0.0
        held = [
            np.mean([low <= true <= high for _, low, high in estimates])
            for estimates, true in (([one.auc for one in found], truth), ([one.anew for one in found], anew))
        ]
        wide = [
            np.mean([one[2] - one[1] for one in of])
            for of in ([f.auc for f in found], [f.anew for f in found])
        ]
        said = [report.verdict(name) for report in reports]
        judged = [report.networks[name].judged for report in reports]
        above = np.mean([one.epsilon > 0 for one in judged])
        both = np.mean(
            [r.attacked.together[name].auc.value - r.networks[r.baseline].judged.auc.value for r in reports]
        )
        print(
            f"{leaks[0]:g} -> {leaks[1]:<4g} {np.mean([one.auc.value for one in judged]):.3f} {truth:+.4f}     {held[0]:.2f}     "
            f"{held[1]:.2f}          {wide[0]:.3f}  {wide[1]:.3f}       {np.mean([one == 'leaks more' for one in said]):.2f}  "
            f"{np.mean([one == 'leaks less' for one in said]):.2f}  {above:.2f}         {both:+.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--n", type=int, default=2000, help="examples, half of them members")
    parser.add_argument(
        "--shadows", type=int, default=8, help="imitations of each network in the second part"
    )
    options = parser.parse_args()
    print(f"{options.seeds} seeds, {options.n} examples, of which the half is scored; truth from {TRUTH:,}\n")
    print("leaks       truth   more  less  no more  cannot tell  covered  found  by power")
    for leaks in PAIRS:
        true = audit(TRUTH, leaks, seed=10**6)
        (name,) = true.compared
        truth = true.difference(name).auc.value if leaks[0] != leaks[1] else 0.0
        reports = [audit(options.n, leaks, seed) for seed in range(options.seeds)]
        said = [report.verdict(name) for report in reports]
        found = [report.difference(name) for report in reports]
        covered = np.mean([one.auc.low <= truth <= one.auc.high for one in found])
        errors = np.array([one.detectable for one in found]) / (stats.norm.ppf(0.975) + stats.norm.ppf(0.8))
        power = np.mean(
            stats.norm.sf(1.96 - abs(truth) / errors) + stats.norm.cdf(-1.96 - abs(truth) / errors)
        )
        counts = [
            np.mean([one == verdict for one in said])
            for verdict in ("leaks more", "leaks less", "leaks no more", "cannot tell")
        ]
        print(
            f"{leaks[0]:g} -> {leaks[1]:<4g} {truth:+.4f}  {counts[0]:.2f}  {counts[1]:.2f}  {counts[2]:.2f}     {counts[3]:.2f}"
            f"         {covered:.2f}     {counts[0] + counts[1]:.2f}   {power:.2f}"
        )
    with_imitations(options.seeds, options.n, options.shadows)
    started = time.perf_counter()
    report = audit(50_000, (1.0, 1.2, 1.5, 0.8), seed=0)
    audited = time.perf_counter() - started
    one = report.networks[report.baseline].judged
    started = time.perf_counter()
    theirs = roc_auc_score(one.member, one.margin)
    print(
        f"\n50,000 examples, 4 networks: {audited:.1f} s; AUC apart from scikit-learn's: {abs(theirs - one.auc.value):.1e} "
        f"(theirs takes {time.perf_counter() - started:.3f} s for one signal)"
    )


if __name__ == "__main__":
    main()
