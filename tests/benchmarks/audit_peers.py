"""The audit's values against those of other tools, on the same saved answers: `python -m tests.benchmarks.audit_peers [--n 20000]`.

In an environment of its own:

    python -m venv peers && peers/bin/pip install -e . adversarial-robustness-toolbox
    peers/bin/pip install --no-deps privacyguard-platform sacroml privacy-meter     (their measures need nothing else)

A tool that is missing is named and left out. Answers are drawn as in `audit.py`. For the margins that the audit found: the AUC
and the rates of true positives, theirs, ours, how far they are apart, and how many times as long theirs take
(all measures of a tool together; ours include intervals). Margins are given as they are, and rounded to whole numbers, so
that many are equal. Where definitions differ:

    Privacy Meter         AUC alone is compared
    PrivacyGuard, ART     the largest rate among points of scikit-learn's `roc_curve`, which leaves out points on a line: of
                          margins with ties it can be lower than ours, never higher (rarely)
    SACRO-ML              rounds the AUC to 8 digits; interpolates the threshold between two points, so that more than the
                          stated share of others is accused: of margins with ties the rate can be higher than ours

The last part gives the AUC of the posterior of the true class, as tools get it that ask for posteriors: where these are kept
in float32, those of a model that is sure round to 1 and are equal.
"""

import argparse
import importlib
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.special import expit, softmax
from sklearn.metrics import roc_auc_score

from mialib.attacks import signals
from mialib.auditing import audit_answers
from mialib.measures import metrics
from tests.benchmarks.audit import logits

RATES = (0.01, 0.001)


def privacy_meter(member: np.ndarray, margin: np.ndarray) -> dict[str, float]:
    result = importlib.import_module("privacy_meter.metric_result").MetricResult
    return {"auc": result("population", margin > 0, member, margin).roc_auc}


def privacy_guard(member: np.ndarray, margin: np.ndarray) -> dict[str, float]:
    results = importlib.import_module("privacy_guard.analysis.mia.mia_results").MIAResults
    one = results(torch.tensor(margin[member]), torch.tensor(margin[~member]))
    _, auc, _ = one.compute_acc_auc_epsilon(delta=0.0)
    tpr, fpr = one.get_tpr_fpr()
    points = one._get_indices_of_error_at_thresholds(fpr, np.array(RATES), "fpr")
    return {"auc": float(auc)} | {
        f"TPR at {rate:.1%} FPR": tpr[i] for rate, i in zip(RATES, points, strict=True)
    }


def art(member: np.ndarray, margin: np.ndarray) -> dict[str, float]:
    measure = importlib.import_module("art.metrics.privacy").get_roc_for_multi_fprs
    _, found, _ = measure(margin, member, list(RATES))
    return {f"TPR at {rate:.1%} FPR": tpr for rate, tpr in zip(RATES, found, strict=True)}


def sacroml(member: np.ndarray, margin: np.ndarray) -> dict[str, float]:
    measure = importlib.import_module("sacroml.metrics").get_metrics
    chance = expit(margin / np.abs(margin).max())  # it takes chances; a scale that none of them rounds to 1
    found = measure(np.stack([1 - chance, chance], 1), member.astype(int))
    return {"auc": found["AUC"]} | {
        f"TPR at {rate:.1%} FPR": float(found[f"TPR@{100 * rate:g}%"]) for rate in RATES[1:]
    }


PEERS = {"Privacy Meter": privacy_meter, "PrivacyGuard": privacy_guard, "ART": art, "SACRO-ML": sacroml}


def ours(member: np.ndarray, margin: np.ndarray) -> dict[str, float]:
    rates = {f"TPR at {rate:.1%} FPR": metrics.tpr_at_fpr(member, margin, rate).value for rate in RATES}
    return {"auc": metrics.auc(member, margin).value} | rates


def timed(measure: Callable, *given) -> tuple[dict[str, float], float]:
    """What it gives, and the shortest of three times that it takes in the processor."""
    seconds = []
    for _ in range(3):
        began = time.process_time()
        found = measure(*given)
        seconds.append(time.process_time() - began)
    return found, min(seconds)


def compared(member: np.ndarray, margin: np.ndarray) -> Iterator[str]:
    """A line for each peer and measure."""
    mine, seconds = timed(ours, member, margin)
    for name, measure in PEERS.items():
        try:
            theirs, took = timed(measure, member, margin)
        except ModuleNotFoundError as error:
            yield f"  {name:14} left out: no module {error.name}"
            continue
        for what, value in theirs.items():
            yield (
                f"  {name:14} {what:18} {value:.6f}  {mine[what]:.6f}  {value - mine[what]:+.1e}  {took / seconds:6.1f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=20_000, help="examples, half of them members")
    n = parser.parse_args().n
    rng = np.random.default_rng(0)
    labels, member = rng.integers(0, 10, n), np.arange(n) < n // 2
    # sure of themselves, as networks are of what they know by heart
    answers = {f"leak {leak}": 4 * logits(leak, labels, member, rng) for leak in (1.0, 1.5)}
    report = audit_answers(answers, labels, member)
    print("                 measure            theirs    ours      apart   times as long")
    for name, network in report.networks.items():
        one = network.judged
        for what, margin in (("as found", one.margin), ("rounded", one.margin.round())):
            print(f"{name}, margins {what}", *compared(one.member, margin), sep="\n")
    print("\nAUC of the posterior of the true class    log-odds     float64      float32      apart")
    for name, each in answers.items():
        signal = signals.confidence(torch.tensor(each).log_softmax(1), torch.tensor(labels)).numpy()
        double, single = (
            roc_auc_score(member, softmax(each.astype(kind), axis=1)[np.arange(n), labels])
            for kind in (np.float64, np.float32)
        )
        exact = metrics.auc(member, signal).value
        print(f"{name:41} {exact:.8f}   {double:.8f}   {single:.8f}   {single - exact:+.1e}")


if __name__ == "__main__":
    main()
