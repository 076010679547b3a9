"""The purifier: a small network G that rewrites the answers of a classifier F, trained on non-members only.

    p = F(x), l = argmax p, q = G(p)
    G minimises  mean over D2 of  |q - p|^2 + strength * C(q, l)                        base
                                  - gamma * R(x, H(q))                                  + inversion helper H
                                  + eta * BCE(I(q, l), 1)                               + membership discriminator I

R is the squared error per pixel of the picture that the decoder H rebuilds from q; I tells F's own answers (1) from G's
(0). Both learn along, as `opponent`s of `training.fit`. Since G has seen only non-members, it should give members a
non-member's answer. Source: Yang et al. 2020, arXiv:2005.03915, of which we know the abstract; the loss as quoted in
AIJack's docstring, the terms of H and I from comments in the authors' public code (zyyrrr/purifier), which drop the label
term beside H. Keeping it, and all weights, are our reconstruction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mialib import streams, training
from mialib.asking.posteriors import with_label
from mialib.defenses import state
from mialib.defenses.player import Player
from mialib.defenses.state import Defender
from mialib.models import attack_networks, decoders
from mialib.models.layers import initialise
from mialib.store import Store
from mialib.training import Batch, Forward, Population, Recipe, Tensors, mean_cross_entropy, pick
from mialib.training.hooks import Capturable
from mialib.training.population import in_batches

HELD_OUT = 0.2  # share of the reference set that G does not learn from; its label loss is measured there
SCHEDULE = Recipe(epochs=300, batch_size=128, lr=1e-3, weight_decay=0.0)  # ours; the paper's is unknown


def autoencoder(num_classes: int, widths: tuple[int, ...]) -> nn.Module:
    """Posteriors (b, c) -> logits (b, c) through hidden layers Linear-BatchNorm-ReLU of the given widths.

    Widths in the authors' public code: 20, 7, 4, 7 for 10 classes and for 100; 1024, 512, 256, 128 for Purchase100;
    200 for FaceScrub530. 7, 4, 7 for CIFAR-10 in AIJack.
    """
    return initialise(mlp_with_norms((num_classes, *widths), num_classes))


def mlp_with_norms(widths: tuple[int, ...], out: int) -> nn.Sequential:
    """Linear-BatchNorm-ReLU from each width to the next, then a linear layer to `out`."""
    layers: list[nn.Module] = []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], out))


def through(networks: Population, x: Tensor) -> Tensor:
    """Each network's output for its own rows, x (m, n, d) -> (m, n, ...) float32 on the CPU."""
    x = x.float().to(networks.device)
    return torch.stack([in_batches(g, own).cpu() for g, own in zip(networks, x, strict=True)])


@dataclass(frozen=True)
class Purifier:
    """The output defence: each network's answers pass through its own G, (m, n, c) -> (m, n, c)."""

    networks: Population

    def __getitem__(self, models: slice | list[int]) -> "Purifier":
        return Purifier(self.networks[models])

    @torch.no_grad()
    def __call__(self, log_posteriors: Tensor) -> Tensor:
        return through(self.networks, log_posteriors.exp()).double().log_softmax(-1)

    @property
    def label_loss(self) -> list[float]:
        """Share of each network's held-out reference answers whose predicted class G changes, after the last epoch."""
        return [1 - record["reserve_accuracy"][-1] for record in self.networks.records]


def fit(
    known: Defender,
    widths: tuple[int, ...],
    strength: float,
    *,
    inversion: "InversionHelper | None" = None,
    membership: "MembershipDiscriminator | None" = None,
    start: Purifier | None = None,
    recipe: Recipe = SCHEDULE,
    device: str = "cpu",
    cache: Store | None = None,
    what: str = "purifier",
) -> Purifier:
    """Train one G for each of the defender's networks, on four fifths of its reference answers.

    Args:
        widths: of G's hidden layers, see `autoencoder`.
        strength: weight of the label term (lambda), 0 or more; AIJack's default is 0.2.
        inversion, membership: the further games that G plays.
        start: networks that G begins from; default: fresh weights. To specialise a base G, play on from it, and compare
            with one that trained equally long without a game.
    """
    if not strength >= 0:
        raise ValueError(f"purifier: strength is {strength}; it must be 0 or more (0.05 to 1 are usual)")
    rows, split = state.rows(known.reference, known.seeds, HELD_OUT)
    rows = rows.to(device)
    games = tuple(game for game in (inversion, membership) if game is not None)
    networks = training.fit(
        partial(autoencoder, num_classes=rows.num_classes, widths=tuple(widths)),
        rows,
        split,
        recipe,
        objective=Faithful(strength),
        opponent=Games(games) if games else None,
        watch=("reserve",),
        start=start and start.networks,
        cache=cache,
        what=what,
        kind="networks of defences",
        # G alone is so small that launching costs more than arithmetic: 1.5 to 2.3 times as fast on a CPU
        batched=None if games else True,
    )
    return Purifier(networks)


@dataclass(frozen=True)
class Faithful:
    """The objective |q - p|^2 + strength * C(q, l); batch.x are the posteriors p, batch.y the predicted classes l."""

    strength: float

    def __call__(self, forward: Forward, params: Tensors, batch: Batch, step: int) -> Tensor:
        return faithful(forward(params, batch.x), batch.x, batch.y, self.strength)


def faithful(logits: Tensor, posteriors: Tensor, labels: Tensor, strength: float) -> Tensor:
    """Squared error summed over classes, and label term, each averaged over the batch: (k, b, c), (k, b) -> (k,)."""
    squared = (logits.softmax(-1) - posteriors).square().sum(-1).mean(1)
    return squared + strength * mean_cross_entropy(logits, labels)


@dataclass(frozen=True)
class Games:
    """Several opponents at once: an `opponent` whose penalty is the sum of theirs."""

    opponents: tuple

    @property
    def captured(self) -> bool:
        return all(one.captured for one in self.opponents if isinstance(one, Capturable))

    def __getitem__(self, models: slice | list[int]) -> "Games":
        return Games(tuple(pick(one, models) for one in self.opponents))

    def begin(self, seeds: list[int], device: torch.device):
        plays = [
            one.begin(streams.seeds(seeds, "one of several opponents", number), device)
            for number, one in enumerate(self.opponents)
        ]
        return lambda *position: sum(play(*position) for play in plays)


@dataclass(frozen=True)
class InversionHelper:
    """H, the decoder that G plays against: penalty -strength * R(x, H(q)), a squared error per pixel.

    Args:
        strength: gamma, 0 or more.
        pictures: (n, ...) float32 in [0, 1], the input behind each row of the reference answers, all networks' rows one
            after the other (`pictures`).
        make_decoder: constructor of H, without arguments, from `decoders.make`.
        updates: updates of H for each step of G; an H that has not learned yet charges nothing.
        lr: of H's Adam.
    """

    strength: float
    pictures: Tensor
    make_decoder: Callable[[], nn.Module]
    updates: int = 1
    lr: float = 1e-3

    def begin(self, seeds: list[int], device: torch.device):
        player = Player(self.make_decoder, seeds, device, self.lr)
        inputs = self.pictures.to(device)

        def error(logits: Tensor, truth: Tensor) -> Tensor:
            return decoders.squared_error(logits.sigmoid(), truth).mean(1)

        def play(forward: Forward, params: Tensors, batch: Batch, reference: Batch, step: int) -> Tensor:
            seen = decoders.features(forward(params, batch.x).log_softmax(-1))
            truth = inputs[batch.index]
            for _ in range(self.updates):
                player.learn(lambda answer: error(answer(seen.detach()), truth))
            return -self.strength * error(player.judge(seen), truth)

        return play


@dataclass(frozen=True)
class MembershipDiscriminator:
    """I, which tells F's answers from G's: penalty strength * BCE(I(q, l), 1).

    Its network is the one of Nasr, Shokri & Houmansadr 2018, `attack_networks.nsh_network`.

    Args:
        strength: eta, 0 or more.
        num_classes: of F.
        width: factor on the network's hidden units.
        updates: updates of I for each step of G.
        lr: of I's Adam.
    """

    strength: float
    num_classes: int
    width: float = 1.0
    updates: int = 1
    lr: float = 1e-3

    def begin(self, seeds: list[int], device: torch.device):
        make = partial(attack_networks.nsh_network, self.num_classes, self.width)
        player = Player(make, seeds, device, self.lr)

        def play(forward: Forward, params: Tensors, batch: Batch, reference: Batch, step: int) -> Tensor:
            purified = with_label(forward(params, batch.x).softmax(-1), batch.y)
            both = torch.cat([with_label(batch.x, batch.y), purified.detach()], dim=1)
            real = torch.ones_like(batch.y)
            truth = torch.cat([real, torch.zeros_like(real)], dim=1)
            for _ in range(self.updates):
                player.learn(lambda answer: mean_cross_entropy(answer(both), truth))
            return self.strength * mean_cross_entropy(player.judge(purified), real)

        return play


def pictures(known: Defender) -> Tensor:
    """The inputs behind the reference answers, for `InversionHelper`: (k * n, ...) float32 in [0, 1]."""
    inputs = known.reference.x
    return decoders.pixels(inputs.data.x, inputs.index.flatten().to(inputs.data.x.device))
