"""Attackers who know half, and attackers who imitate."""

import numpy as np
import torch

from mialib.auditing import attacked
from mialib.auditing.imitating import Imitations, Planted
from mialib.measures import metrics
from tests.auditing.test_judging import imitated


def test_who_knows_half_uses_thresholds_on_each_network(three):
    answers, labels, member = three
    answers = {name: torch.from_numpy(one).log_softmax(1) for name, one in answers.items()}
    found = attacked.by_half(answers, torch.from_numpy(labels), torch.from_numpy(member))
    assert list(found.alone) == ["original", "pruned", "longer"] and found.together == {}
    assert found.alone["pruned"].auc.low > found.alone["original"].auc.high
    assert found.imitations == 0 and found.canaries == {} and found.assumed == (attacked.BY_HALF,)


def test_two_networks_with_errors_of_their_own_are_stronger_together():
    """Who holds both averages the noise away; who holds a network twice gains nothing."""
    (one, labels, member), (two, *_) = imitated(1.5, n=600), imitated(1.5, n=600)
    two = two + 0.8 * torch.randn(two.shape, generator=torch.Generator().manual_seed(0)).double()
    one = one + 0.8 * torch.randn(one.shape, generator=torch.Generator().manual_seed(1)).double()
    answers = {"a": one, "same": one, "other": two}
    answers = {name: each.log_softmax(2) for name, each in answers.items()}
    imitations = Imitations(
        torch.arange(600),
        {name: each[1:] for name, each in answers.items()},
        member[1:],
        torch.full((8,), 300),
    )
    found = attacked.by_imitations(
        {name: each[0] for name, each in answers.items()}, labels, member[0], "a", imitations
    )
    alone = found.alone["a"]
    more = {
        name: metrics.paired_difference(alone.member, each.margin, alone.margin, "auc")
        for name, each in found.together.items()
    }
    assert more["other"].low > 0 >= more["same"].low


def test_imitators_are_scored_on_the_candidates_and_told_in_the_users_rows():
    answers, labels, member = imitated(1.0, n=200)
    # the users' examples: fifty that are no candidates come first
    filler = torch.zeros(50, 4).double().log_softmax(1)
    everyone = {"a": torch.cat([filler, answers[0]]), "b": torch.cat([filler, answers[0]])}
    of_all = torch.cat([torch.zeros(50, dtype=torch.long), labels])
    learned = torch.cat([torch.ones(50, dtype=torch.bool), member[0]])
    planted = Planted({"a": answers[1:, :40], "b": answers[1:, :40]}, labels[:40], member[1:, :40])
    imitations = Imitations(
        torch.arange(50, 250),
        {"a": answers[1:], "b": answers[1:]},
        member[1:],
        torch.full((8,), 150),
        known=50,
        planted=planted,
    )
    found = attacked.by_imitations(everyone, of_all, learned, "a", imitations)
    one = found.alone["b"]
    assert sorted(one.example.tolist()) == list(range(50, 250)) and one.auc.value > 0.9
    assert np.array_equal(one.label, of_all.numpy()[one.example])
    assert np.array_equal(one.member, learned.numpy()[one.example])
    assert found.imitations == 8 and "8 imitations" in found.assumed[0] and "50 members" in found.assumed[1]
    assert found.canaries["a"].canaries == 40 and found.together["b"].auc.value >= one.auc.value - 0.02


def test_few_imitations_will_do():
    """Four: the pair of each target's own distributions needs more, and is left out."""
    answers, labels, member = imitated(1.0, s=4, n=200)
    imitations = Imitations(torch.arange(200), {"a": answers[1:]}, member[1:], torch.full((4,), 100))
    found = attacked.by_imitations({"a": answers[0]}, labels, member[0], "a", imitations)
    assert found.alone["a"].auc.value > 0.8 and found.together == {} and len(found.assumed) == 1


def test_rows_of_imitations_are_no_rows_of_the_network():
    answers, labels, member = imitated(1.0, s=4, n=200)
    imitations = Imitations(torch.arange(200), {"a": answers[1:]}, member[1:], torch.full((4,), 100))
    found = attacked.by_imitations({"a": answers[0]}, labels, member[0], "a", imitations)
    targets = {}
    for row in found.rows:
        if row["attack"]:
            targets.setdefault((row["variant"], row["n_shadows"]), set()).add(row["target"])
    assert targets == {("a", 4): {0}, ("a, trained anew", 2): {0, 1, 2, 3}}
    accuracy = {row["variant"]: row["value"] for row in found.rows if row["metric"] == "test_accuracy"}
    right = answers[0].argmax(1) == labels
    assert accuracy["a"] == float(right[~member[0]].double().mean()) and "a, trained anew" in accuracy
    of_network = [row for row in found.rows if (row["variant"], row["metric"]) == ("a", "auc")]
    assert found.alone["a"].auc.value in [row["value"] for row in of_network]
