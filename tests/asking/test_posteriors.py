"""Log-posteriors: what is no log-posterior is refused, log-odds by hand and where they saturate, labels beside values."""

import math

import numpy as np
import pytest
import torch

from mialib.asking import posteriors
from mialib.asking.posteriors import LIMIT


def log_p(*rows):
    return torch.tensor(rows, dtype=torch.float64).log()


# Checking


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_log_posteriors_come_back_in_float64(dtype):
    given = log_p([0.5, 0.5, 0.0], [0.2, 0.3, 0.5]).to(dtype)  # -inf is allowed
    found = posteriors.checked(given, torch.tensor([2, 0]))
    assert found.dtype == torch.float64 and torch.equal(found, given.double())


def test_a_rounding_error_above_0_is_let_through():
    given = torch.tensor([[0.9e-6, -20.0]])
    assert torch.equal(posteriors.checked(given, torch.tensor([0])), given.double())


def test_no_candidates_are_no_trouble():
    assert posteriors.checked(torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.int64)).shape == (2, 0, 3)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([[2.0, 0.0]], "must be at most 0, found 2: pass log_softmax"),
        ([[1.1e-6, -20.0]], "must be at most 0, found 1.1e-06"),
        ([[math.nan, -1.0]], "must be at most 0, found nan"),
        ([[math.inf, -1.0]], "must be at most 0, found inf"),
    ],
    ids=["logits", "just above", "nan", "inf"],
)
def test_what_is_no_log_posterior_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        posteriors.checked(torch.tensor(given), torch.tensor([0]))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.zeros(3, dtype=torch.int64), r"found labels \(3,\) and values \(2, 3, 4\)"),
        (torch.zeros(2, 3, 4, dtype=torch.int64), r"without its last axis \(classes\)"),
        (torch.zeros(2, 3), r"labels is torch.float32, must be torch.int64; pass labels.long\(\)"),
        (np.zeros((2, 3), dtype=np.int64), "labels is a numpy.ndarray of int64, must be a torch.Tensor"),
        (torch.tensor([[0, 1, 2], [3, 4, 0]]), r"labels must lie in \[0, 4\), found 0 to 4"),
        (torch.tensor([[0, 1, 2], [3, -1, 0]]), "found -1 to 3"),
    ],
    ids=["too few axes", "too many axes", "type", "an array", "too large", "negative"],
)
def test_labels_that_do_not_fit_are_refused_with_the_name_of_what_they_label(labels, words):
    with pytest.raises(ValueError, match=words):
        posteriors.check_labels(torch.zeros(2, 3, 4), labels, "values")
    with pytest.raises(ValueError):
        posteriors.checked(torch.zeros(2, 3, 4), labels)


def test_the_last_class_is_a_label():
    posteriors.check_labels(torch.zeros(2, 3, 4), torch.full((2, 3), 3), "values")


def test_a_single_axis_is_no_answer():
    with pytest.raises(ValueError, match="and scores \\(3,\\)"):
        posteriors.check_labels(torch.zeros(3), torch.tensor(0), "scores")


# Rows


def sums_to(*totals):
    """One model's answers (1, n, 2), whose rows sum to these."""
    return log_p(*([0.75 * total, 0.25 * total] for total in totals))[None]


def test_rows_that_sum_to_one_within_a_thousandth_are_log_posteriors():
    posteriors.check_rows(sums_to(1.0, 0.9991, 1.0009), "answers")
    posteriors.check_rows(
        log_p([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]], [[0.1, 0.1, 0.8], [0.0, 0.0, 1.0]]), "answers"
    )
    posteriors.check_rows(torch.zeros(2, 0, 3), "answers")
    halves = (3 * torch.randn(4, 50, 10, generator=torch.Generator().manual_seed(0))).softmax(-1).half()
    posteriors.check_rows(halves.double().log(), "answers in half precision")


@pytest.mark.parametrize(
    "rows, words",
    [
        (sums_to(1.0, 1.0011, 1.0, 0.5), "answers: 2 of 4 rows .*that of model 0, example 1 sums to 1.001"),
        (sums_to(0.9989), "1 of 1 rows .*example 0 sums to 0.9989"),
        (sums_to(1.0, math.nan), "1 of 2 rows .*example 1 holds nan"),
        (torch.tensor([[[-0.1, math.nan]]]), "example 0 holds nan"),
        (torch.tensor([[[0.0, math.inf]]]), "example 0 sums to inf"),
        (
            torch.cat([sums_to(1.0, 1.0, 1.0), sums_to(1.0, 1.0, 2.0), sums_to(3.0, 1.0, 4.0)]),
            "3 of 9 rows .*that of model 1, example 2 sums to 2",
        ),
    ],
    ids=["two", "too little", "all nan", "one nan", "inf", "the first of three models"],
)
def test_the_first_row_that_is_none_is_named(rows, words):
    with pytest.raises(ValueError, match=words):
        posteriors.check_rows(rows, "answers")


# Per class


def test_the_true_class_by_hand():
    values = torch.arange(12.0).view(2, 2, 3)
    assert posteriors.true_class(values, torch.tensor([[0, 2], [1, 1]])).tolist() == [[0.0, 5.0], [7.0, 10.0]]


def test_log_odds_by_hand():
    found = posteriors.log_odds(log_p([0.5, 0.25, 0.25], [0.8, 0.1, 0.1]), torch.tensor([1, 0]))
    assert found.tolist() == pytest.approx([math.log(1 / 3), math.log(4)])
    many = log_p([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1]], [[0.1, 0.3, 0.6], [0.25, 0.5, 0.25]])  # two models
    found = posteriors.log_odds(many, torch.tensor([[1, 0], [2, 2]]))
    assert found.flatten().tolist() == pytest.approx([math.log(odds) for odds in (1 / 3, 4, 1.5, 1 / 3)])


def test_log_odds_tell_certain_answers_apart():
    sure = torch.tensor([[0.0, -60.0], [0.0, -800.0]], dtype=torch.float64)  # both posteriors round to 1
    assert posteriors.log_odds(sure, torch.tensor([0, 0])).tolist() == [60.0, 800.0]
    assert posteriors.log_odds(sure, torch.tensor([1, 1])).tolist() == [-60.0, -800.0]


@pytest.mark.parametrize("limit", [LIMIT, 7.0])
def test_log_odds_of_0_and_1_stop_at_the_limit(limit):
    found = posteriors.log_odds(log_p([1.0, 0.0], [1.0, 0.0]), torch.tensor([0, 1]), limit)
    assert found.tolist() == [limit, -limit]
    assert posteriors.LIMIT == 1000


def test_log_odds_leave_what_they_read():
    given = log_p([0.5, 0.25, 0.25])
    before = given.clone()
    first = posteriors.log_odds(given, torch.tensor([1]))
    assert torch.equal(given, before) and torch.equal(posteriors.log_odds(given, torch.tensor([1])), first)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_log_odds_of_many_rows_are_those_of_each(classes):
    """To the last bit, for blocks that are full, the last one, and one of a single row; of models seen in any order."""
    generator = torch.Generator().manual_seed(0)
    many = torch.randn(2, posteriors.BLOCK + 1, classes, generator=generator, dtype=torch.float64)
    many = many.log_softmax(-1)
    labels = torch.randint(classes, many.shape[:2], generator=generator)
    others = many.scatter(-1, labels[..., None], -math.inf)
    expected = many.gather(-1, labels[..., None])[..., 0] - others.logsumexp(-1)
    assert torch.equal(posteriors.log_odds(many, labels), expected)
    assert torch.equal(posteriors.log_odds(many[:, -1:], labels[:, -1:]), expected[:, -1:])
    assert torch.equal(posteriors.log_odds(many.transpose(0, 1), labels.T), expected.T)
    assert posteriors.log_odds(many[0, 0], labels[0, 0]) == expected[0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_labels_stand_behind_the_values_one_hot(dtype):
    values = torch.tensor([[[0.5, 0.25, 0.25]], [[0.1, 0.2, 0.7]]], dtype=dtype)
    found = posteriors.with_label(values, torch.tensor([[1], [2]]))
    assert found.dtype == dtype and found.shape == (2, 1, 6)
    assert torch.equal(found[..., :3], values)
    assert found[..., 3:].tolist() == [[[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]
