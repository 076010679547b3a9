"""Adversarial regularisation: a min-max game between each model and an opponent that tries to recognise its members.

    h maximises  mean over members of log h(f(x), y) + mean over reserve of log (1 - h(f(x), y))
    f minimises  CE(f; members) + strength * mean over members of log h(f(x), y)

The opponent h is an attack network on posterior and label. It learns to tell batches of members from batches of the
model's reserve, on which the model neither trains nor is attacked. The model pays for what the opponent finds.
Source: Nasr, Shokri & Houmansadr 2018, arXiv:1807.05852, algorithm 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor, nn

from mialib.asking.posteriors import with_label
from mialib.defenses.player import Player
from mialib.models import attack_networks
from mialib.training import Batch, Forward, Tensors, descent, mean_cross_entropy


@dataclass(frozen=True)
class AdversarialRegularization:
    """The `opponent` of `training.fit`: a population of its own, one network for each model, trained along with them.

    Every step of the model is a round of the game: the opponent is updated on the batch and on as many reserve examples,
    then the model pays strength * mean log h(member). Opponents start anew in each training and are thrown away after it;
    they never serve as attackers. The reference passes through the model in training mode, so BatchNorm's running
    statistics see it too (as in mia_prune).

    Args:
        strength: weight of the opponent's gain in the model's loss, >= 0 (Yuan & Zhang 2022's follow-up code sweeps 1
            to 8 under the name theta).
        num_classes: of the model; the opponent sees 2c features, posterior and one-hot label.
        network: network(features) -> module with two logits, column 1 = member. Default: mia_prune's attack MLP.
        updates: updates of the opponent for each step of the model.
        lr, weight_decay: of the opponent's Adam.

    Raises:
        ValueError: a negative strength, or no update.
    """

    strength: float
    num_classes: int
    network: Callable[[int], nn.Module] = attack_networks.attack_mlp
    updates: int = 1
    lr: float = 1e-3
    weight_decay: float = 5e-4

    def __post_init__(self):
        if not self.strength >= 0:
            raise ValueError(
                f"adversarial regularisation: strength is {self.strength}; it must be 0 or more (1 to 8 are usual)"
            )
        if self.updates < 1:
            raise ValueError(f"adversarial regularisation: updates is {self.updates}; it must be 1 or more")

    def begin(self, seeds: list[int], device: torch.device):
        """play(forward, params, batch, reference, step) -> penalty (k,) of a fresh opponent for each seed."""
        return _Opponent(self, seeds, device)


class _Opponent:
    def __init__(self, game: AdversarialRegularization, seeds: list[int], device: torch.device):
        make = partial(game.network, 2 * game.num_classes)
        self.game = game
        self.player = Player(make, seeds, device, game.lr, game.weight_decay)

    def __call__(
        self, forward: Forward, params: Tensors, batch: Batch, reference: Batch, step: int
    ) -> Tensor:
        members = with_label(forward(params, batch.x).softmax(-1), batch.y)
        with torch.no_grad():
            others = with_label(forward(params, reference.x).softmax(-1), reference.y)
        both = torch.cat([members.detach(), others], dim=1)
        truth = torch.zeros(both.shape[:2], dtype=torch.long, device=both.device)
        truth[:, : members.shape[1]] = 1
        for _ in range(self.game.updates):
            self.player.learn(lambda answer: mean_cross_entropy(answer(both), truth))
        log_h = self.player.judge(members).log_softmax(-1)[..., 1]
        return self.game.strength * log_h.mean(1)


@dataclass(frozen=True)
class OneUpdate(descent.Shuffling):
    """The `descent` of mia_prune's released defence: one update of the model each epoch. An ablation, not a defence.

    Its epoch takes `batches` batches for the opponent and then a single one for the model, so a model fine-tuned for 50
    epochs is updated 50 times. Here the opponent learns from each of the batches, and only the last one moves the
    model.
    """

    batches: int = 7
    captured: ClassVar[bool] = False  # it counts the remaining batches

    def begin(self, members: Tensor, batch_size: int, seeds: list[int]):
        shuffled, backward = super().begin(members, batch_size, seeds)
        left = 0

        def first_batches():
            nonlocal left
            epoch = list(islice(shuffled(), self.batches))
            if epoch[-1].shape[1] < batch_size and len(epoch) > 1:
                epoch.pop()  # the model's one step an epoch must not rest on a remainder
            left = len(epoch)
            yield from epoch

        def only_the_last(losses_of, params, batch):
            nonlocal left
            left -= 1
            # without gradients the optimiser leaves the model as it is; the opponent has played anyway
            return backward(losses_of, params, batch) if left == 0 else losses_of(params, batch).detach()

        return first_batches, only_the_last
