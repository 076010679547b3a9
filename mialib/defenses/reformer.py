"""The confidence reformer: a conditional variational autoencoder (CVAE) instead of the purifier's autoencoder.

    z ~ N(mu(p, l), sigma(p, l)^2),  q = softmax Dec(z, l),  l = argmax p
    G minimises  mean over D2 of  |q - p|^2 + strength * C(q, l) + beta * KL(N(mu, sigma^2) || N(0, 1))

Source: Yang et al. 2023, arXiv:2212.00612 (abstract), and their public code zyyrrr/purifier. There the KL is a sum over
batch and latent dimensions, added to a mean over batch and classes: it outweighs the reconstruction by orders of
magnitude, and the released network has collapsed into a table of the predicted label. Here all three terms are means
over the examples, so beta is the weight that it says, and `Reformer.kl` and `measures.beyond_the_label` show a
collapse.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from mialib import training
from mialib.defenses import keyed, state
from mialib.defenses.purifier import HELD_OUT, SCHEDULE, faithful, mlp_with_norms, through
from mialib.defenses.state import Defender
from mialib.models.layers import initialise
from mialib.store import Store
from mialib.training import Batch, Forward, Population, Recipe, Tensors, pick

Noise = Literal["keyed", "none", "fresh"]


class CVAE(nn.Module):
    """[posteriors (b, c), noise (b, latent)] -> [logits (b, c), mu (b, latent), log sigma^2 (b, latent)].

    The noise, N(0, 1), is an input, so that the network itself is a function. Encoder: Linear-BatchNorm-ReLU of `widths`
    on posteriors and one-hot label, then two linear heads. Decoder: a linear layer from z and label to the widest, then
    the same widths back, then a linear layer to the classes.
    """

    def __init__(self, num_classes: int, widths: tuple[int, ...], latent: int):
        super().__init__()
        self.num_classes = num_classes
        self.encoder = mlp_with_norms((2 * num_classes, *widths), 2 * latent)
        back = mlp_with_norms(tuple(reversed(widths)), num_classes)
        self.decoder = nn.Sequential(nn.Linear(latent + num_classes, widths[-1]), *back)

    def forward(self, x: Tensor) -> Tensor:
        posteriors, noise = x[:, : self.num_classes], x[:, self.num_classes :]
        label = torch.zeros_like(posteriors).scatter(1, posteriors.argmax(1, keepdim=True), 1.0)
        mu, log_variance = self.encoder(torch.cat([posteriors, label], dim=1)).chunk(2, dim=1)
        z = mu + (log_variance / 2).exp() * noise
        return torch.cat([self.decoder(torch.cat([z, label], dim=1)), mu, log_variance], dim=1)


def cvae(num_classes: int, widths: tuple[int, ...], latent: int) -> nn.Module:
    """`CVAE`, initialised. Public code: widths 32, 64, 128 and latent 2 for CIFAR-10; 128, 256, 512 and 20 for tabular
    sets; 512, 1024, 2048 and 100 for FaceScrub530 and CIFAR-100."""
    return initialise(CVAE(num_classes, widths, latent))


@dataclass(frozen=True)
class Reformer:
    """The output defence: each network's answers pass through its own CVAE, (m, n, c) -> (m, n, c).

    Args:
        noise: "keyed", drawn from a hash of the answer (`keyed`), so that asking again tells nothing new; "none", z = mu;
            "fresh", new with every question, as in the public code (from torch's global stream).
        keys: of the hash, one for each network; secret.
    """

    networks: Population
    latent: int
    keys: tuple[int, ...]
    noise: Noise = "keyed"

    def __getitem__(self, models: slice | list[int]) -> "Reformer":
        return replace(self, networks=self.networks[models], keys=pick(self.keys, models))

    def __call__(self, log_posteriors: Tensor) -> Tensor:
        return self._answers(log_posteriors)[..., : -2 * self.latent].double().log_softmax(-1)

    def kl(self, log_posteriors: Tensor) -> Tensor:
        """Mean KL to the prior of each latent dimension over the answers, in nats, (m, latent); all 0: collapsed."""
        mu, log_variance = self._answers(log_posteriors)[..., -2 * self.latent :].double().chunk(2, dim=-1)
        return _kl(mu, log_variance).mean(1)

    @torch.no_grad()
    def _answers(self, log_posteriors: Tensor) -> Tensor:
        shape = (*log_posteriors.shape[:-1], self.latent)
        if self.noise == "keyed":
            asked = zip(log_posteriors, self.keys, strict=True)
            noise = torch.stack([keyed.normal(own, key, self.latent) for own, key in asked])
        else:
            noise = torch.randn(shape) if self.noise == "fresh" else torch.zeros(shape)
        return through(self.networks, torch.cat([log_posteriors.exp(), noise.to(log_posteriors)], dim=-1))


def fit(
    known: Defender,
    widths: tuple[int, ...],
    latent: int,
    strength: float,
    beta: float,
    *,
    noise: Noise = "keyed",
    key: int = 0,
    recipe: Recipe = SCHEDULE,
    device: str = "cpu",
    cache: Store | None = None,
    what: str = "reformer",
) -> Reformer:
    """Train one CVAE for each of the defender's networks, on four fifths of its reference answers.

    Args:
        widths, latent: of the network, see `cvae`.
        strength: weight of the label term (lambda), 0 or more.
        beta: weight of the KL, 0 or more; from 1 on most data lead to a table of the label.
        key: from 0; each network's own key is made from it and the network's seed.
    """
    for name, value in (("strength", strength), ("beta", beta)):
        if not value >= 0:
            raise ValueError(f"reformer: {name} is {value}; it must be 0 or more")
    keys = keyed.own_keys(key, known.seeds)
    rows, split = state.rows(known.reference, known.seeds, HELD_OUT)
    networks = training.fit(
        partial(cvae, num_classes=rows.num_classes, widths=tuple(widths), latent=latent),
        rows.to(device),
        split,
        recipe,
        objective=Evidence(rows.num_classes, strength, beta),
        augment=WithNoise(latent),
        cache=cache,
        what=what,
        kind="networks of defences",
        batched=True,  # so small that launching costs more than arithmetic: 1.5 to 2.3 times as fast on a CPU
    )
    return Reformer(networks, latent, keys, noise)


@dataclass(frozen=True)
class Evidence:
    """The objective: `faithful` and beta * KL, all averaged over the examples."""

    num_classes: int
    strength: float
    beta: float

    def __call__(self, forward: Forward, params: Tensors, batch: Batch, step: int) -> Tensor:
        answer = forward(params, batch.x)
        logits, latent = answer[..., : self.num_classes], answer[..., self.num_classes :]
        divergence = _kl(*latent.chunk(2, dim=-1)).sum(-1).mean(1)
        posteriors = batch.x[..., : self.num_classes]
        return faithful(logits, posteriors, batch.y, self.strength) + self.beta * divergence


@dataclass(frozen=True)
class WithNoise:
    """Gives each batch the noise that the CVAE takes as an input: the `augment` of its training."""

    latent: int

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(*x.shape[:-1], self.latent, generator=generator, device=generator.device)
        return torch.cat([x, noise.to(x)], dim=-1)


def _kl(mu: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) of each latent dimension, in nats."""
    return (mu.square() + log_variance.exp() - log_variance - 1) / 2
