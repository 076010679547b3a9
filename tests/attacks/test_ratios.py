"""BASE and RMIA: formulas in loops, RMIA's shares, and that its ranking is BASE's."""

import math

import numpy as np
import pytest
import torch

from mialib.asking import Views
from mialib.attacks import ratios
from mialib.attacks.calibrating import Side
from mialib.attacks.ratios import BASE, RMIA
from mialib.data import splits
from tests.attacks.test_likelihood import attacked, made_up, others


def three_classes(k, n, seed=0, leak=1.0):
    """Logits (k, n, 3), labels (k, n) and membership (k, n) of random halves."""
    generator = torch.Generator().manual_seed(seed)
    member = splits.random_halves(n, k, seed, reserve_fraction=0.0).member
    labels = torch.randint(3, (n,), generator=generator).expand(k, n)
    logits = 2 * torch.randn(k, n, 3, generator=generator, dtype=torch.float64)
    return logits.scatter_add(-1, labels[..., None], leak * member[..., None].double()), labels, member


def softened(logits, labels, temperature):
    """p_T of the true class from logits, as the papers have it."""
    p = np.exp(logits / temperature)
    p /= p.sum(-1, keepdims=True)
    return np.take_along_axis(p, labels[..., None], -1)[..., 0]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_the_softmax_of_log_posteriors_is_that_of_logits(temperature):
    logits, labels, _ = three_classes(4, 20)
    seen = Views((logits + 7.0).log_softmax(-1), labels)
    expected = np.log(softened(logits.numpy(), labels.numpy(), temperature))
    torch.testing.assert_close(ratios.log_softened(seen, temperature), torch.from_numpy(expected))


def log_ratio(own, p, member, attack):
    """log r of each candidate, one by one, from p_T of the target (n,) and of shadows (s, n)."""
    found = []
    for x in range(len(own)):
        out = np.mean([p[k, x] for k in range(len(p)) if not member[k, x]])
        if attack.online:
            reference = np.mean(p[:, x])
        elif isinstance(attack, BASE):
            reference = out**attack.exponent
        else:
            reference = ((1 + attack.slope) * out + 1 - attack.slope) / 2
        found.append(math.log(own[x] / reference))
    return np.array(found)


VARIANTS = [BASE(), BASE(False), BASE(False, 1.0, 0.7), RMIA(), RMIA(False), RMIA(False, 1.0, 4.0, 0.6)]


@pytest.mark.parametrize("attack", VARIANTS)
def test_the_ranking_is_that_of_the_formula(attack):
    logits, labels, member = three_classes(10, 30)
    seen = Views(logits.log_softmax(-1), labels)
    p = softened(logits.numpy(), labels.numpy(), attack.temperature)
    expected = log_ratio(p[0], p[2:], member[2:].numpy(), attack)
    margins = attack(seen[:1], seen[2:], member[2:]).numpy()
    np.testing.assert_allclose(margins - margins[0], expected - expected[0], atol=1e-9)


def share_by_loops(ratio, gamma):
    """Of how many z is r(x) / r(z) > gamma."""
    return np.array([np.mean([math.exp(x - z) > gamma for z in ratio]) for x in ratio])


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("gamma", [1.0, 2.0, 4.0])
def test_rmias_share_and_decision_are_the_formulas(online, gamma):
    logits, labels, member = three_classes(10, 40, seed=3)
    attack, seen = RMIA(online, gamma=gamma), Views(logits.log_softmax(-1), labels)
    p, member = softened(logits.numpy(), labels.numpy(), 2.0)[2:], member.numpy()
    own = softened(logits.numpy(), labels.numpy(), 2.0)[0]
    ratio = log_ratio(own, p, member[2:], attack)
    np.testing.assert_allclose(attack.shares(torch.from_numpy(ratio)), share_by_loops(ratio, gamma))
    played = []
    for i in range(8):
        rest = others(i, member[2:])
        played.append(share_by_loops(log_ratio(p[i], p[rest], member[2:][rest], attack), gamma))
    cut = ratios.best_threshold(
        torch.from_numpy(np.concatenate(played)), torch.from_numpy(member[2:].flatten())
    )
    margins = attack(seen[:1], seen[2:], torch.from_numpy(member[2:]))
    assert ((margins > 0).numpy() == (share_by_loops(ratio, gamma) > float(cut))).all()


def test_rmias_ranking_is_bases_online_and_its_share_never_falls_along_it():
    signal, member = made_up(10, 400, seed=1, spread=2.0)
    base, rmia = attacked(ratios.base_online, signal, member), attacked(ratios.rmia_online, signal, member)
    assert torch.equal(base.argsort(), rmia.argsort())
    shares = ratios.rmia_online.shares(rmia)[rmia.argsort()]
    assert (shares.diff() >= 0).all()
    assert len(shares.unique()) < len(rmia.unique())  # there are ties, which the log-ratio breaks
    offline = [attacked(one, signal, member) for one in (ratios.base_offline, ratios.rmia_offline)]
    assert not torch.equal(*(one.argsort() for one in offline))


def test_where_all_are_members_best_every_margin_is_above_zero():
    """A useless share calls everybody a member, as every threshold here."""
    attack = RMIA(gamma=1e6)  # nobody passes anybody
    signal, member = made_up(8, 20)
    margins = attacked(attack, signal, member)
    assert margins.isfinite().all() and (margins > 0).all()


def test_a_mean_that_rounding_has_eaten_stays_positive():
    # one shadow says 1, the other next to nothing: taking the first out leaves what rounding makes of it
    values = torch.tensor([[1.0], [1e-30]], dtype=torch.float64)
    whole = Side.of(values, torch.ones(2, 1, dtype=torch.bool))
    rest = whole.without(values[:1], torch.ones(1, 1, dtype=torch.bool))
    assert float(ratios._mean(rest)) > 0 and float(ratios._mean(rest)) < 1e-14


@pytest.mark.parametrize("make", [BASE, RMIA])
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_none_is_refused(make, temperature):
    with pytest.raises(ValueError, match="temperature must be above 0 and finite"):
        make(temperature=temperature)


def test_other_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="gamma must be 1 or more and finite, found 0.5"):
        RMIA(gamma=0.5)
    with pytest.raises(ValueError, match=r"slope must lie in \[0, 1\], found 1.5"):
        RMIA(slope=1.5)


def test_the_instances_are_the_four_attacks():
    assert (ratios.base_online, ratios.base_offline) == (BASE(True, 2.0, 0.33), BASE(False, 2.0, 0.33))
    assert (ratios.rmia_online, ratios.rmia_offline) == (
        RMIA(True, 2.0, 2.0, 0.33),
        RMIA(False, 2.0, 2.0, 0.33),
    )
