"""Answers, labels and membership as people have them."""

import numpy as np
import pytest
import torch

from mialib.auditing import answers

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0], [-2.0, 0.1, 4.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (LOGITS, "logits"),
        (LOGITS.numpy(), "logits"),
        (LOGITS.tolist(), "logits"),
        (LOGITS.softmax(1), "posteriors"),
        (LOGITS.softmax(1).half(), "posteriors"),
        (LOGITS.softmax(1).numpy().round(4), "posteriors"),
        (LOGITS.log_softmax(1), "log-posteriors"),
        (LOGITS.float().log_softmax(1), "log-posteriors"),
        (-LOGITS.abs(), "logits"),  # none is positive, and no row's exponentials sum to one
    ],
)
def test_rows_say_what_they_are(values, kind):
    found = answers.recognised(values, "a")
    assert found.kind == kind and found.log_posteriors.dtype == torch.float64
    if kind != "logits" or torch.equal(torch.as_tensor(values), LOGITS):
        assert torch.allclose(found.log_posteriors.exp(), LOGITS.softmax(1), atol=1e-3)


def test_one_row_that_is_none_makes_all_logits():
    values = LOGITS.softmax(1)
    values[1] *= 2
    assert answers.recognised(values, "a").kind == "logits"


def test_posteriors_of_exactly_one_stay():
    assert answers.recognised([[1.0, 0.0], [0.25, 0.75]], "a").log_posteriors[0].tolist() == [0.0, -np.inf]


@pytest.mark.parametrize("digits", [2, 3])
def test_rounded_posteriors_are_posteriors_and_said_to_be_rounded(digits):
    values = np.random.default_rng(0).dirichlet(np.ones(20), 200).round(digits)
    assert np.abs(values.sum(1) - 1).max() > answers.TOLERANCE
    found = answers.recognised(values, "a")
    assert found.kind == "posteriors" and f"rounded to {digits} digits" in found.note
    assert torch.allclose(found.log_posteriors.exp().sum(1), torch.ones(200).double())
    assert answers.recognised(np.eye(3), "a").note == "" == answers.recognised(LOGITS.softmax(1), "a").note


def test_posteriors_in_per_cent_are_posteriors():
    found = answers.recognised(100 * LOGITS.softmax(1), "a")
    assert found.kind == "posteriors" and torch.allclose(found.log_posteriors.exp(), LOGITS.softmax(1))


def test_a_single_output_is_the_second_of_two_classes():
    assert torch.allclose(
        answers.recognised([0.25, 1.0], "a").log_posteriors.exp()[0], torch.tensor([0.75, 0.25]).double()
    )
    of_logits = answers.recognised(np.array([[-2.0], [3.0]]), "a").log_posteriors
    assert torch.allclose(of_logits[:, 1].exp(), torch.tensor([-2.0, 3.0]).double().sigmoid())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([["x"]], "must be numbers"),
        (np.zeros((2, 3, 4)), r"must be \(n, classes\), found \(2, 3, 4\)"),
        (np.zeros((0, 3)), "must be"),
        ([[1.0, 2.0], [np.nan, 0.0]], "1 of 2 answers hold nan, the first that of example 1"),
        ([[1.0, np.inf], [2.0, 0.0]], "infinite logits"),
    ],
)
def test_what_is_no_answer_is_named(values, message):
    with pytest.raises(ValueError, match=f"answers.'a'.*{message}"):
        answers.recognised(values, "answers['a']")


@pytest.mark.parametrize(
    "labels",
    [
        [2, 0, 1],
        np.array([2, 0, 1], np.uint8),
        torch.tensor([[2], [0], [1]]),
        np.eye(3)[[2, 0, 1]],
        [2.0, 0.0, 1.0],
    ],
)
def test_labels_in_every_form(labels):
    found = answers.labels_of(labels, 3, 3)
    assert found.tolist() == [2, 0, 1] and found.dtype == torch.int64


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "each of the 3 examples"),
        ([0, 1, 3], "lie in 0 to 3.*classes 0 to 2; count"),
        ([1, 2, -1], "lie in -1"),
        ([0, 1, 0.5], "whole numbers, found 0.5"),
        (np.ones((3, 3)), "one-hot"),
    ],
)
def test_labels_that_do_not_fit_are_named(labels, message):
    with pytest.raises(ValueError, match=message):
        answers.labels_of(labels, 3, 3)


def test_membership_in_every_form_and_refused():
    truth = [1, 0] * 4
    for member in (truth, np.array(truth, bool), torch.tensor(truth)[:, None]):
        assert answers.membership(member, 8).tolist() == [bool(one) for one in truth]
    with pytest.raises(ValueError, match="each of the 8 examples"):
        answers.membership([0, 1, 2] + [0] * 5, 8)
    with pytest.raises(ValueError, match="3 members and 5 others; 4 of each"):
        answers.membership([1, 1, 1, 0, 0, 0, 0, 0], 8)


def test_arrays_may_be_views():
    values, labels = np.random.default_rng(0).normal(size=(8, 3)), np.arange(8) % 3
    turned = answers.recognised(values[::-1, ::-1], "a").log_posteriors
    torch.testing.assert_close(turned.flip(0, 1), answers.recognised(values, "a").log_posteriors)
    assert answers.labels_of(labels[::-1], 8, 3).tolist() == labels[::-1].tolist()
    member = np.arange(8) < 4
    assert answers.membership(member[::-1], 8).tolist() == (~member).tolist()
