import math

import pytest
import torch

from mialib.asking.posteriors import LIMIT
from mialib.attacks import signals

SIGNALS = [signals.correctness, signals.confidence, signals.top1, signals.entropy, signals.modified_entropy]


def log_softmax(logits):
    return torch.tensor(logits, dtype=torch.float64).log_softmax(-1)


def log_odds(u):
    """The unit of every signal, written down plainly: the log-odds of the probability exp(-u)."""
    return math.log(math.exp(-u) / (1 - math.exp(-u)))


def test_confidence_by_hand():
    log_p = log_softmax([[2.0, 0.0], [2.0, 0.0]])
    torch.testing.assert_close(
        signals.confidence(log_p, torch.tensor([1, 0])), torch.tensor([-2.0, 2.0], dtype=torch.float64)
    )


@pytest.mark.parametrize("labels", [[0, 2], [1, 1]], ids=str)
def test_top1_is_the_confidence_of_the_largest_class_and_ignores_labels(labels):
    log_p, labels = log_softmax([[0.0, 3.0, 1.0], [5.0, 1.0, 2.0]]), torch.tensor(labels)
    expected = signals.confidence(log_p, torch.tensor([1, 0]))
    assert torch.equal(signals.top1(log_p, labels), expected)
    assert torch.equal(signals.entropy(log_p, labels), signals.entropy(log_p, 2 - labels))


def test_correctness_by_hand():
    log_p = log_softmax([[2.0, 0.0], [2.0, 0.0]])
    assert signals.correctness(log_p, torch.tensor([0, 1])).tolist() == [1.0, -1.0]


def test_entropy_by_hand():
    log_p = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.5, 0.25]], dtype=torch.float64).log()
    found = signals.entropy(log_p, torch.tensor([0, 0]))
    assert found.tolist() == pytest.approx([0.0, log_odds(1.5 * math.log(2))])  # H = log 2 and 1.5 log 2


def test_modified_entropy_by_hand():
    log_p = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).log()
    m = -(0.7 * math.log(0.3) + 0.6 * math.log(0.4) + 0.1 * math.log(0.9))
    assert signals.modified_entropy(log_p, torch.tensor([1])).item() == pytest.approx(log_odds(m), rel=1e-12)


def test_signals_match_their_formulas_on_random_posteriors():
    generator = torch.Generator().manual_seed(0)
    log_p = (2 * torch.randn(3, 50, 7, generator=generator, dtype=torch.float64)).log_softmax(-1)
    labels = torch.randint(7, (3, 50), generator=generator)
    p, one_hot = log_p.exp(), torch.nn.functional.one_hot(labels, 7).double()
    p_y = (p * one_hot).sum(-1)
    surprisals = {
        signals.confidence: -p_y.log(),
        signals.top1: -p.amax(-1).log(),
        signals.entropy: -(p * p.log()).sum(-1),
        signals.modified_entropy: -(1 - p_y) * p_y.log() - ((1 - one_hot) * p * (1 - p).log()).sum(-1),
    }
    for signal, u in surprisals.items():
        expected = -torch.log(torch.exp(u) - 1)
        found = signal(log_p, labels)
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9), signal.__name__


def test_saturated_posteriors_stay_exact():
    log_p = log_softmax([[0.0, -60.0], [0.0, -60.0]])
    assert log_p[0, 0] == 0  # the true class's log posterior has lost everything
    assert signals.confidence(log_p, torch.tensor([0, 1])).tolist() == [60.0, -60.0]
    assert signals.top1(log_p, torch.tensor([0, 1])).tolist() == [60.0, 60.0]
    # H = e^-60 (60 + 1); M is 2 * 60 for the wrong label, and 2 e^-120 for the right one
    assert signals.entropy(log_p, torch.tensor([0, 0]))[0].item() == pytest.approx(
        60 - math.log(61), rel=1e-14
    )
    found = signals.modified_entropy(log_p, torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([120 - math.log(2), -120.0], rel=1e-14)


@pytest.mark.parametrize("apart", [21.0, 25.0, 39.0, 41.0])
def test_entropy_is_exact_on_both_sides_of_where_its_second_order_vanishes(apart):
    log_p, p = log_softmax([[0.0, -apart]]), math.exp(-apart) / (1 + math.exp(-apart))
    h = math.log1p(math.exp(-apart)) + apart * p  # of two classes whose logits are so far apart
    found = signals.entropy(log_p, torch.tensor([0])).item()
    assert found == pytest.approx(-math.log(math.expm1(h)), rel=1e-14)


def test_saturation_beyond_the_smallest_float():
    log_p = log_softmax([[0.0, -800.0]])  # e^-800 is 0 in float64
    assert signals.confidence(log_p, torch.tensor([0])).item() == 800.0
    assert signals.entropy(log_p, torch.tensor([0])).item() == pytest.approx(800 - math.log(801), rel=1e-14)


@pytest.mark.parametrize("signal", SIGNALS[1:])
def test_signals_are_smooth_where_the_formulas_change_hands(signal):
    """From unsure to saturated in steps of 0.01: each step of the signal is about as long as the last."""
    logits = torch.arange(0.5, 60.0, 0.01, dtype=torch.float64)
    log_p = torch.stack([logits, torch.zeros_like(logits), torch.zeros_like(logits) - 1], dim=1).log_softmax(
        -1
    )
    steps = signal(log_p, torch.zeros(len(logits), dtype=torch.int64)).diff()
    assert steps.min() > 0
    assert steps.diff().abs().max() < 1e-3


def test_log_complement_is_precise_for_every_class():
    log_p = log_softmax([[0.0, -60.0, -61.0], [0.0, 0.0, -50.0]])
    found = signals.log_complement(log_p)
    assert found[0, 0].item() == pytest.approx(-60 + math.log1p(math.exp(-1)), rel=1e-15)
    assert found[0, 1].item() == pytest.approx(-math.exp(-60), rel=1e-12)
    assert found[1, :2].tolist() == pytest.approx([-math.log(2)] * 2)
    turned = log_p.flip(-1)
    assert torch.equal(signals.log_complement(turned[None, None])[0, 0], signals.log_complement(turned))


@pytest.mark.parametrize("signal", SIGNALS)
def test_posteriors_of_zero_and_one_are_finite(signal):
    log_p = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64).log()
    right, wrong = (signal(log_p, torch.tensor([label, label])) for label in (0, 2))
    assert right.isfinite().all() and wrong.isfinite().all()
    assert right.abs().max() <= LIMIT and wrong.abs().max() <= LIMIT
    assert (right >= wrong).all()
    if signal in (signals.confidence, signals.modified_entropy):
        assert right[0] == LIMIT and wrong[0] == -LIMIT


@pytest.mark.parametrize("signal", SIGNALS)
def test_signals_leave_log_posteriors_unchanged(signal):
    log_p = log_softmax(
        [[2.0, 0.0, 1.0], [0.0, 0.0, -60.0]]
    )  # float64: the case where .double() does not copy
    labels = torch.tensor([1, 0])
    log_p_before, labels_before = log_p.clone(), labels.clone()
    first = signal(log_p, labels)
    assert torch.equal(log_p, log_p_before) and torch.equal(labels, labels_before)
    assert torch.equal(signal(log_p, labels), first)


@pytest.mark.parametrize("signal", SIGNALS)
def test_leading_axes_are_models(signal):
    generator = torch.Generator().manual_seed(1)
    log_p = torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64).log_softmax(-1)
    labels = torch.randint(4, (2, 3, 5), generator=generator)
    found = signal(log_p, labels)
    assert found.shape == (2, 3, 5) and found.dtype == torch.float64
    assert torch.equal(found[1, 2], signal(log_p[1, 2], labels[1, 2]))


def test_gaps_by_hand():
    # (model, example, class); the last class has no non-member
    p = torch.tensor(
        [[[0.8, 0.1, 0.1], [0.6, 0.2, 0.2], [0.3, 0.4, 0.3], [0.2, 0.2, 0.6]]], dtype=torch.float64
    )
    labels, member = torch.tensor([[0, 0, 1, 2]]), torch.tensor([[True, False, False, True]])
    gap = signals.confidence_gap(p.log(), labels, member)
    assert gap.per_class.shape == (1, 3)
    assert gap.overall.tolist() == pytest.approx([0.7 - 0.5])
    assert gap.per_class[0, 0].item() == pytest.approx(0.2)
    assert gap.per_class[0, 1:].isnan().all()
    reverse = signals.sensitivity_gap(p, labels, member)
    torch.testing.assert_close(reverse.overall, -gap.overall)
    torch.testing.assert_close(reverse.per_class, -gap.per_class, equal_nan=True)
    assert signals.sensitivity_gap(p.float(), labels, member).overall.dtype == torch.float64


@pytest.mark.parametrize(
    ("log_p", "labels", "message"),
    [
        (torch.tensor([[2.0, 0.0]]), torch.tensor([0]), "log_softmax"),
        (torch.tensor([[math.nan, 0.0]]), torch.tensor([0]), "at most 0"),
        (torch.tensor([[-0.7, -0.7]]), torch.tensor([2]), r"\[0, 2\)"),
        (torch.tensor([[-0.7, -0.7]]), torch.tensor([0, 1]), "shape"),
        (torch.tensor([[-0.7, -0.7]]), torch.tensor([0.0]), "int64"),
    ],
)
@pytest.mark.parametrize("signal", SIGNALS)
def test_bad_input_is_named(signal, log_p, labels, message):
    with pytest.raises(ValueError, match=message):
        signal(log_p, labels)


def test_gaps_need_a_boolean_mask_in_the_shape_of_the_labels():
    log_p, labels = log_softmax([[0.0, 1.0]]), torch.tensor([0])
    for member, words in (
        (torch.tensor([1]), r"member is torch.int64, must be torch.bool; pass member.bool\(\)"),
        (torch.tensor([True, False]), "member must have the shape of the labels"),
    ):
        with pytest.raises(ValueError, match=words):
            signals.confidence_gap(log_p, labels, member)
    with pytest.raises(ValueError, match="labels must have the shape of sensitivity"):
        signals.sensitivity_gap(log_p.exp(), torch.tensor([[0]]), torch.tensor([[True]]))
