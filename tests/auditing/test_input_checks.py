"""Every finding about inputs by a case that has it and one that does not."""

import pytest
import torch
from sklearn.datasets import load_digits

from mialib.auditing import checks, input_checks
from mialib.measures import Estimate
from tests.auditing.conftest import kinds, the

CLEAN = Estimate(0.5, 0.48, 0.52)


def digits(n=300):
    bunch = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    x, y = torch.from_numpy(bunch.images).float()[order][:, None], torch.from_numpy(bunch.target)[order]
    return x[:n].clone(), y[:n].clone(), x[n : 2 * n].clone(), y[n : 2 * n].clone()


@pytest.fixture
def alike(monkeypatch):
    """The classifier of inputs, which takes a second, finds nothing."""
    monkeypatch.setattr(input_checks.telling, "apart", lambda *_: CLEAN)


def test_a_random_split_has_no_finding_and_inputs_stay_whole():
    given = digits()
    before = [one.clone() for one in given]
    assert input_checks.of_inputs(*given) == []
    assert all(torch.equal(one, other) for one, other in zip(given, before, strict=True))


@pytest.mark.parametrize(("count", "kind"), [(2, "warning"), (12, "refused")])
def test_examples_in_both_sets(alike, count, kind):
    x, y, others, labels = digits()
    others[:count], labels[:count] = x[50 : 50 + count], y[50 : 50 + count]
    labels[0] = (labels[0] + 1) % 10
    found = the(input_checks.of_inputs(x, y, others, labels), "overlap")
    assert found.kind == kind
    assert found.text.startswith(
        f"{count} examples of the others are also among the members, 1 of them with another"
    )
    assert "others 0, 1" in found.text and "members 50, 51" in found.text


def test_repeated_examples_are_noted(alike):
    x, y, others, labels = digits()
    x[1] = x[0]
    assert kinds(input_checks.of_inputs(x, y, others, labels)) == [("note", "duplicates")]


@pytest.mark.parametrize(("count", "kind"), [(12, "refused"), (60, "refused")])
def test_nearly_equal_examples(alike, count, kind):
    x, y, others, labels = digits()
    others[:count] = x[:count] + 0.3
    found = the(input_checks.of_inputs(x, y, others, labels), "near overlap")
    assert found.kind == kind and f"{count} pairs" in found.text


def test_few_nearly_equal_examples_of_many_are_a_warning(alike):
    generator = torch.Generator().manual_seed(0)
    x, others = torch.randn(1500, 12, generator=generator), torch.randn(1500, 12, generator=generator)
    others[:12] = x[:12] + 0.001
    y = torch.zeros(1500, dtype=torch.int64)
    assert kinds(input_checks.of_inputs(x, y, others, y)) == [("warning", "near overlap")]


def test_data_that_repeat_themselves_are_not_blamed(alike):
    """A third of all examples have a twin, dealt to the sides at random; so half of the twins lie across."""
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(450, 12, generator=generator)
        x = torch.cat([x, x[:150] + 0.001 * torch.randn(150, 12, generator=generator)])
        x = x[torch.randperm(600, generator=generator)]
        y = torch.zeros(300, dtype=torch.int64)
        assert kinds(input_checks.of_inputs(x[:300], y, x[300:], y)) == [("note", "near overlap")]


PREPARED = {
    "255 times": lambda x: x * 255,
    "another normalisation": lambda x: (x - 5) / 6,
    "another  range": lambda x: x / 16,
}


@pytest.mark.parametrize("how", PREPARED)
@pytest.mark.parametrize("swapped", [False, True])
def test_other_preprocessing_is_named(alike, how, swapped):
    x, y, others, labels = digits()
    given = x, y, PREPARED[how](others), labels
    found = the(input_checks.of_inputs(*(given[2:] + given[:2] if swapped else given)), "inputs")
    assert found.kind == "refused" and "prepare both in the same way" in found.text
    assert ("255 times as large" in found.text) == (how == "255 times")


def test_values_that_are_no_numbers_are_refused():
    x, y, others, labels = digits()
    x[3, 0, 0, 0] = float("nan")
    found = input_checks.of_inputs(x, y, others, labels)
    assert kinds(found) == [("refused", "inputs")] and "1 members and 0 others" in found[0].text


@pytest.mark.parametrize(
    ("apart", "expected"),
    [
        (Estimate(0.6, 0.56, 0.64), [("refused", "inputs")]),
        (Estimate(0.56, 0.53, 0.59), [("warning", "inputs")]),
        (Estimate(0.53, 0.51, 0.55), []),
    ],
)
def test_inputs_told_apart(monkeypatch, apart, expected):
    monkeypatch.setattr(input_checks.telling, "apart", lambda *_: apart)
    found = input_checks.of_inputs(*digits())
    assert kinds(found) == expected and all(f"{apart.value:.3f} [" in one.text for one in found)


def test_other_inputs_are_refused_in_earnest():
    x, y, others, labels = digits()
    others = others + 0.4 * torch.randn(others.shape, generator=torch.Generator().manual_seed(0))
    assert kinds(input_checks.of_inputs(x, y, others, labels)) == [("refused", "inputs")]


def test_other_shares_of_classes_are_the_labels_matter_alone():
    x, y, others, labels = digits(800)
    kept = (labels < 5) | (torch.arange(800) % 2 == 0)
    assert input_checks.of_inputs(x, y, others[kept], labels[kept]) == []
    assert kinds(checks.of_labels(y, labels[kept], 10)) == [("warning", "classes")]


def test_few_inputs_cannot_be_compared():
    assert kinds(input_checks.of_inputs(*digits(20))) == [("note", "inputs")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y, o, z: (x[:0], y[:0], o, z), "members_x is empty"),
        (lambda x, y, o, z: (x[:, 0, 0, 0], y, o, z), "one value or more each"),
        (lambda x, y, o, z: (x, y, o, z[1:]), "others_y has shape"),
        (lambda x, y, o, z: (x, y, o[:, :, 1:], z), "both must be the same"),
    ],
)
def test_inputs_that_do_not_fit_are_errors(change, said):
    with pytest.raises(ValueError, match=said):
        input_checks.of_inputs(*change(*digits(50)))
