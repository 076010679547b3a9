"""Purifiers: what they learn, from whom, and what their games change."""

from functools import partial
from itertools import combinations

import pytest
import torch

from mialib import measures
from mialib.defenses import purifier, state
from mialib.models import decoders
from mialib.training import Batch, Population, Recipe, fitting, pick
from mialib.training.population import initial

RECIPE = Recipe(30, 32, 1e-2, 0.0)
WIDTHS = (32,)


@pytest.fixture(scope="module")
def base(known):
    return purifier.fit(known[2], WIDTHS, 0.2, recipe=RECIPE)


def test_g_keeps_the_labels_of_its_reference_set_but_for_the_loss_it_states(known, base):
    reference = known[2].reference.log_posteriors
    served = base(reference)
    _, split = state.rows(known[2].reference, known[2].seeds, purifier.HELD_OUT)
    for i in range(2):
        held_out = split.reserve[i].view(2, 200)[i]
        changed = served[i].argmax(-1) != reference[i].argmax(-1)
        assert float(changed[held_out].double().mean()) == pytest.approx(base.label_loss[i], abs=1e-6), i
        assert float(changed[~held_out].double().mean()) <= 0.01, i
        assert base.label_loss[i] <= 0.05, i
    assert torch.allclose(served.exp().sum(-1), torch.ones(2, 200).double())


def test_g_moves_members_more_towards_the_answers_of_others_than_it_moves_others(known, base):
    member, other = known[2].members.log_posteriors, known[2].reference.log_posteriors
    before = measures.spread(other).entropy - measures.spread(member).entropy
    after = measures.spread(base(other)).entropy - measures.spread(base(member)).entropy
    assert bool((after < before).all())


def test_each_network_has_its_own_g(known, base):
    reference = known[2].reference.log_posteriors
    whole = base(reference)
    assert torch.equal(base[[1]](reference[1:]), whole[1:]) and torch.equal(
        base[0:1](reference[:1]), whole[:1]
    )
    assert not torch.allclose(base[[0]](reference[1:]), whole[1:], atol=1e-3)
    assert isinstance(pick(base, [0]), purifier.Purifier)


def test_certain_answers_are_served_too(base):
    certain = torch.full((2, 3, 10), -torch.inf, dtype=torch.float64)
    certain[..., 4] = 0
    assert bool(base(certain).isfinite().all())


def test_a_second_fit_trains_nothing(known, base, monkeypatch):
    monkeypatch.setattr(fitting.loop, "train", lambda *a, **k: pytest.fail("trained again"))
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        purifier.fit(known[2], WIDTHS, 0.3, recipe=RECIPE)


def test_the_loss_is_the_papers():
    p = torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]])
    logits = torch.tensor([[[1.0, 0.0, -1.0], [0.5, 0.0, 2.0]]])
    y = p.argmax(-1)
    q = logits.softmax(-1)
    expected = sum(float(((q[0, i] - p[0, i]) ** 2).sum() - 0.3 * q[0, i, y[0, i]].log()) for i in range(2))
    batch = Batch(p, y, torch.zeros_like(y))
    found = purifier.Faithful(0.3)(lambda params, x: logits, {}, batch, 0)
    assert float(found[0]) == pytest.approx(expected / 2, abs=1e-6)


def test_the_game_with_h_raises_the_error_of_a_decoder_and_with_i_changes_the_answers(known, base, digits):
    found, seen = known[2], known[2].reference.log_posteriors
    pictures = purifier.pictures(found)
    assert pictures.shape == (400, 1, 8, 8) and 0 <= float(pictures.min()) and float(pictures.max()) <= 1
    assert torch.allclose(
        pictures[200], digits.x[known[1].reserve[1].nonzero()[0, 0]].float() / 255
    )  # network 1's rows follow network 0's
    helper = purifier.InversionHelper(20.0, pictures, decoders.make((1, 8, 8), 10, 0.1))
    against_h = purifier.fit(found, WIDTHS, 0.2, inversion=helper, recipe=RECIPE)
    judge = purifier.MembershipDiscriminator(0.2, 10)
    against_i = purifier.fit(found, WIDTHS, 0.2, membership=judge, recipe=RECIPE)
    both = purifier.fit(found, WIDTHS, 0.2, inversion=helper, membership=judge, recipe=RECIPE)
    answers = [one(seen) for one in (base, against_h, against_i, both)]
    for one, other in combinations(range(4), 2):
        assert not torch.allclose(answers[one], answers[other], atol=1e-4), f"{one} as {other}"
    # h makes the answers say less about the picture: they are further from the truth
    assert float(measures.distortion(seen, answers[1]).mean()) > float(
        measures.distortion(seen, answers[0]).mean()
    )


def test_h_is_charged_for_what_it_rebuilds_and_learns_to(digits):
    generator = torch.Generator().manual_seed(0)
    p = (4 * torch.randn(1, 32, 10, generator=generator)).softmax(-1)
    y = p.argmax(-1)
    truth = torch.eye(10).repeat_interleave(7, 1)[y[0], :64].view(32, 1, 8, 8)  # a picture for each class
    helper = purifier.InversionHelper(2.0, truth, decoders.make((1, 8, 8), 10, 0.1), lr=1e-2)
    play = helper.begin([0], torch.device("cpu"))
    batch = Batch(p, y, torch.arange(32)[None])
    shift = torch.zeros(10, requires_grad=True)
    penalties = []
    for step in range(60):
        penalty = play(lambda params, x: x.log() + params["shift"], {"shift": shift}, batch, batch, step)
        penalties.append(float(penalty[0].detach()))
    assert penalties[0] < penalties[-1] < 0  # -strength * error, and the error falls
    penalty.sum().backward()
    assert float(shift.grad.abs().sum()) > 0  # g is told how to make it rise


def test_i_tells_answers_from_what_stands_in_their_place():
    generator = torch.Generator().manual_seed(0)
    p = (4 * torch.randn(1, 64, 5, generator=generator)).softmax(-1)
    batch = Batch(p, p.argmax(-1), torch.zeros(1, 64, dtype=torch.long))
    play = purifier.MembershipDiscriminator(1.0, 5).begin([0], torch.device("cpu"))
    for _ in range(40):
        flattened = play(lambda params, x: x.log() / 3, {}, batch, batch, 0)
    assert float(flattened[0].detach()) > 1.0  # -log I(real) of answers that are plainly not real
    play = purifier.MembershipDiscriminator(1.0, 5).begin([0], torch.device("cpu"))
    for _ in range(40):
        same = play(lambda params, x: x.log(), {}, batch, batch, 0)
    assert float(same[0].detach()) == pytest.approx(0.69, abs=0.15)  # cannot be told


def test_widths_are_those_of_the_public_code():
    g = purifier.autoencoder(10, (20, 7, 4, 7))
    linear = [layer for layer in g if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [20, 7, 4, 7, 10]
    assert sum(isinstance(layer, torch.nn.BatchNorm1d) for layer in g) == 4
    assert isinstance(initial(partial(purifier.autoencoder, 10, (7, 4, 7)), [0]), Population)


def test_a_negative_strength_is_refused(known):
    with pytest.raises(ValueError, match="strength is -1"):
        purifier.fit(known[2], WIDTHS, -1)


@pytest.mark.cuda
def test_on_cuda_as_on_the_cpu(known, base, accelerator):
    there = purifier.fit(known[2], WIDTHS, 0.2, recipe=RECIPE, device=accelerator)
    seen = known[2].reference.log_posteriors
    assert torch.allclose(there(seen).exp(), base(seen).exp(), atol=0.05)
