"""Every finding by a case that has it and one that does not; how often chance alone is blamed."""

import numpy as np
import pytest
import torch

from mialib.auditing import checks
from tests.auditing.conftest import kinds, the


def test_classes_in_other_shares():
    y = torch.arange(1000) % 10
    assert checks.of_labels(y, y[:500], 10) == []
    mild = torch.cat([y[:700], torch.zeros(90, dtype=torch.int64)])
    found = checks.of_labels(y, mild, 10)
    assert kinds(found) == [("warning", "classes")]
    assert "class 0, 10.0% of the members and 20.3% of the others" in found[0].text
    far = torch.cat([y[:700], torch.zeros(400, dtype=torch.int64)])
    assert kinds(checks.of_labels(y, far, 10)) == [("refused", "classes")]


def test_classes_that_one_side_lacks():
    y = torch.arange(1000) % 10
    found = checks.of_labels(y, y[y != 3], 10)
    lacking = [one for one in found if "lack" in one.text]
    assert kinds(lacking) == [("warning", "classes")] and "The others lack class 3" in lacking[0].text
    rare = torch.cat([y, torch.tensor([10])])
    assert kinds(checks.of_labels(rare, y, 11)) == [("note", "classes")]
    assert checks.of_labels(y, y, 11) == []  # neither side has it


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_classes_dealt_at_random_are_rarely_blamed(classes):
    rng = np.random.default_rng(classes)
    for _ in range(20):
        y = torch.from_numpy(rng.integers(0, classes, 400))
        assert all(one.kind == "note" for one in checks.of_labels(y[:250], y[250:], classes))


def answers(accuracy_members=0.95, accuracy_others=0.8, n=1000, classes=10, seed=0):
    """Log-posteriors right for these shares, labels, membership."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(2 * n) % classes
    member = torch.arange(2 * n) < n
    right = torch.rand(2 * n, generator=generator) < torch.where(member, accuracy_members, accuracy_others)
    answered = torch.where(right, labels, (labels + 1) % classes)
    logits = torch.randn(2 * n, classes, generator=generator, dtype=torch.float64)
    logits[torch.arange(2 * n), answered] += 6
    best = logits.argmax(1)
    logits[torch.arange(2 * n), best], logits[torch.arange(2 * n), answered] = (
        logits[torch.arange(2 * n), answered],
        logits[torch.arange(2 * n), best],
    )
    return logits.log_softmax(1), labels, member


def test_a_network_that_works_has_no_finding():
    assert checks.of_answers(*answers(), "a", 0.8) == []
    assert checks.of_answers(*answers(1.0, 0.3), "a") == []  # it overfits, which is no fault of the audit


@pytest.mark.parametrize(
    ("others", "stated", "expected"),
    [
        (0.5, 0.8, [("refused", "accuracy")]),
        (0.74, 0.8, [("warning", "accuracy")]),
        (0.79, 0.8, []),
        (0.94, 0.8, [("warning", "accuracy")]),
    ],
)
def test_accuracy_other_than_stated(others, stated, expected):
    found = checks.of_answers(*answers(0.95, others), "pruned", stated)
    assert kinds(found) == expected
    assert all("pruned" in one.text for one in found)
    assert ("normalisation" in "".join(one.text for one in found)) == (others < 0.75)


@pytest.mark.parametrize(
    ("stated", "hint"), [(93, "give 0.93"), (0, "must be a share"), (-1, "must be a share")]
)
def test_a_stated_accuracy_is_a_share(stated, hint):
    with pytest.raises(ValueError, match=hint):
        checks.of_answers(*answers(), "a", stated)


def test_accuracy_at_chance():
    log_posteriors, labels, member = answers()
    mixed = labels[torch.randperm(2000, generator=torch.Generator().manual_seed(0))]
    found = checks.of_answers(log_posteriors, mixed, member, "a")
    assert kinds(found) == [("refused", "accuracy")] and "order of the classes" in found[0].text
    few = torch.arange(0, 2000, 401)
    found = checks.of_answers(
        log_posteriors[few], (labels[few] + torch.tensor([0, 1, 1, 1, 1])) % 10, member[few], "a"
    )
    assert [one.kind for one in found if "too few" in one.text] == ["warning"]


def test_a_rare_class_makes_no_chance_of_a_good_network():
    log_posteriors, labels, member = answers(classes=2)
    rare = torch.where(torch.arange(2000) % 50 == 1, 1, 0)
    turned = torch.where((labels == rare)[:, None], log_posteriors, log_posteriors.flip(1))
    assert (
        checks.of_answers(turned[rare == 0], rare[rare == 0], member[rare == 0], "a") == []
    )  # a single class
    sure = torch.stack([1 - rare, rare], 1).double() * 5
    assert checks.of_answers(sure.log_softmax(1), rare, member, "a") == []


def test_the_same_answer_to_all():
    log_posteriors, labels, member = answers()
    found = checks.of_answers(log_posteriors[:1].expand(2000, -1), labels, member, "a")
    assert kinds(found) == [("refused", "accuracy")] and "same answer to all 2,000" in found[0].text
    collapsed = log_posteriors.clone()
    collapsed[:, 4] = 1.0
    found = checks.of_answers(collapsed.log_softmax(1), labels, member, "a")
    assert kinds(found) == [("refused", "accuracy")] and "answers class 4 to all" in found[0].text


def test_members_answered_worse_than_others():
    assert kinds(checks.of_answers(*answers(0.7, 0.9), "a")) == [("warning", "membership")]
    assert checks.of_answers(*answers(0.8, 0.8), "a") == []


@pytest.mark.parametrize(("share", "kind"), [(0.5, "warning"), (0.02, "note")])
def test_saturated_posteriors(share, kind):
    log_posteriors, labels, member = answers()
    sure = torch.arange(2000) % 1000 < share * 1000
    log_posteriors[sure] = torch.where(
        log_posteriors[sure] == log_posteriors[sure].amax(1, keepdim=True), 0.0, -40.0
    ).double()
    found = checks.of_answers(log_posteriors, labels, member, "a")
    assert kinds(found) == [(kind, "saturated")]
    assert f"{share:.1%} of the members" in found[0].text and "give logits" in found[0].text


@pytest.mark.parametrize(
    ("members", "others", "expected"),
    [
        (20_000, 20_000, []),
        (5_000, 5_000, [("note", "resolution")]),
        (500, 500, [("note", "resolution")] * 2 + [("note", "size")]),
        (50, 50, [("note", "resolution")] * 2 + [("warning", "size")]),
        (20, 20, [("note", "resolution")] * 2 + [("warning", "size")]),
        (19, 500, [("refused", "size")]),
        (1, 1, [("refused", "size")]),
    ],
)
def test_what_so_many_examples_can_show(members, others, expected):
    assert kinds(checks.of_size(members, others)) == expected


def test_an_unresolved_rate_says_how_many_are_needed():
    first, second, *_ = checks.of_size(1000, 500)
    assert "5 false accusations" in first.text and "at least 1,000 others" in second.text


def test_the_smallest_leak_is_found_four_times_in_five():
    """With 50 and 50 examples of normal scores whose AUC is the one that the text names."""
    from scipy.stats import norm

    from mialib.measures import metrics

    least = float(the(checks.of_size(50, 50), "size").text.split("above ")[1][:4])
    rng, member = np.random.default_rng(0), np.repeat([1, 0], 50)
    shift = np.sqrt(2) * norm.ppf(least)
    found = [metrics.auc(member, rng.normal(size=100) + shift * member).low > 0.5 for _ in range(200)]
    assert 0.7 < np.mean(found) < 0.92
