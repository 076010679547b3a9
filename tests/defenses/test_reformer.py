"""The CVAE: its loss, its noise, and that a collapse is seen."""

from dataclasses import replace

import pytest
import torch

from mialib import measures
from mialib.asking import Views
from mialib.defenses import Defender, reformer
from mialib.training import Batch, Recipe

RECIPE = Recipe(60, 32, 1e-2, 0.0)


def views(n, seed, c=5):
    """Answers of two networks that differ in certainty, which one latent dimension can say."""
    generator = torch.Generator().manual_seed(seed)
    certainty = 1 + 4 * torch.rand(2, n, 1, generator=generator, dtype=torch.float64)
    labels = torch.randint(c, (2, n), generator=generator)
    log_p = (certainty * torch.nn.functional.one_hot(labels, c)).log_softmax(-1)
    return Views(log_p, labels)


@pytest.fixture(scope="module")
def known():
    return Defender(views(50, 0), views(300, 1), torch.tensor([1, 2]))


@pytest.fixture(scope="module")
def fitted(known):
    return {beta: reformer.fit(known, (16, 32), 2, 0.2, beta, key=7, recipe=RECIPE) for beta in (1e-4, 10.0)}


def test_the_loss_is_the_evidence_bound_by_hand():
    p = torch.tensor([[[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]])
    logits = torch.tensor([[[1.0, 0.2, 0.0], [0.1, 1.0, 0.3]]])
    mu, log_variance = torch.tensor([[[0.5, -1.0], [0.0, 2.0]]]), torch.tensor([[[0.1, -0.3], [0.0, 0.4]]])
    answer = torch.cat([logits, mu, log_variance], -1)
    batch = Batch(torch.cat([p, torch.zeros(1, 2, 2)], -1), p.argmax(-1), torch.zeros(1, 2, dtype=torch.long))
    found = reformer.Evidence(3, 0.2, 0.7)(lambda params, x: answer, {}, batch, 0)
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(mu, (log_variance / 2).exp()), normal(0.0, 1.0))
    q = logits.softmax(-1)
    expected = (
        ((q - p) ** 2).sum(-1) - 0.2 * q.gather(-1, batch.y[..., None])[..., 0].log() + 0.7 * kl.sum(-1)
    )
    assert float(found[0]) == pytest.approx(float(expected.mean()), abs=1e-6)


def test_a_little_kl_keeps_what_an_answer_says_and_much_of_it_leaves_the_label(known, fitted):
    answers = views(400, 3).log_posteriors
    faithful, table = fitted[1e-4], fitted[10.0]
    for beta, one in fitted.items():
        assert float(measures.label_loss(answers, one(answers)).max()) <= 0.02, beta
    assert float(table.kl(answers).max()) < 0.01 < float(faithful.kl(answers).max(1).values.min())
    assert float(measures.beyond_the_label(table(answers)).max()) < 0.05
    mean = replace(faithful, noise="none")
    assert float(measures.beyond_the_label(mean(answers)).min()) > 0.1
    assert float(measures.distortion(answers, mean(answers)).max()) < float(
        measures.distortion(answers, table(answers)).min()
    )


def test_keyed_noise_belongs_to_the_answer_and_fresh_noise_to_the_question(known, fitted):
    answers = views(100, 4).log_posteriors
    keyed = fitted[10.0]
    assert torch.equal(keyed(answers), keyed(answers))
    assert torch.equal(keyed(answers.flip(1)).flip(1), keyed(answers))
    one, other = keyed.keys
    assert one != other  # each network has its own
    assert not torch.equal(replace(keyed, keys=(other, one))(answers), keyed(answers))
    fresh = replace(fitted[1e-4], noise="fresh")
    assert not torch.equal(fresh(answers), fresh(answers))
    still = replace(fitted[1e-4], noise="none")
    assert torch.equal(still(answers), still(answers))


@pytest.mark.cuda
def test_cuda_learns_from_noise_of_its_own(known, accelerator):
    there = reformer.fit(
        known, (16, 32), 2, 0.2, 1e-4, key=7, recipe=replace(RECIPE, epochs=2), device=accelerator
    )
    answers = views(40, 3).log_posteriors
    assert there(answers).isfinite().all() and there(answers).device == answers.device


def test_each_network_has_its_own(fitted):
    answers = views(60, 5).log_posteriors
    whole = fitted[1e-4](answers)
    assert torch.allclose(fitted[1e-4][[1]](answers[1:]), whole[1:], atol=1e-6)
    assert not torch.allclose(fitted[1e-4][[0]](answers[1:]), whole[1:], atol=1e-3)
    assert torch.allclose(whole.exp().sum(-1), torch.ones(2, 60).double())


def test_the_networks_shape_is_the_public_codes():
    network = reformer.cvae(10, (32, 64, 128), 2)
    sizes = [layer.out_features for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
    assert sizes == [32, 64, 128, 4, 128, 64, 32, 10]  # encoder, both heads, decoder from the widest back
    x = torch.rand(3, 12)
    assert network.eval()(x).shape == (3, 14)


@pytest.mark.parametrize("name, values", [("strength", (-1, 1)), ("beta", (1, -1))])
def test_negative_weights_are_refused(known, name, values):
    with pytest.raises(ValueError, match=f"{name} is -1"):
        reformer.fit(known, (8,), 2, *values)
