"""The other player of a min-max game, used by an `opponent` of `training.fit`: a population that learns along."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mialib.training import population


class Player:
    """Fresh networks, one for each seed, with their own Adam; they start anew in each training.

    Args:
        make_model: constructor of the network, without arguments.
        lr, weight_decay: of Adam.
    """

    def __init__(
        self,
        make_model: Callable[[], nn.Module],
        seeds: list[int],
        device: torch.device,
        lr: float,
        weight_decay: float = 0.0,
    ):
        fresh = population.initial(make_model, seeds).to(device)
        self.params = {name: tensor.requires_grad_() for name, tensor in fresh.params.items()}
        self.buffers = fresh.buffers
        self._learning = population.skeleton(make_model).train()
        self._judging = population.skeleton(make_model).eval()
        self.optimiser = torch.optim.Adam(
            self.params.values(),
            lr=lr,
            weight_decay=weight_decay,
            fused=True,
            capturable=device.type == "cuda",
        )

    def learn(self, losses: Callable[[Callable[[Tensor], Tensor]], Tensor]) -> None:
        """One step down losses(answer) -> (k,), where answer(x (k, b, ...)) asks the networks in training mode."""
        self.optimiser.zero_grad(set_to_none=True)
        losses(self._answer).sum().backward()
        self.optimiser.step()

    def judge(self, x: Tensor) -> Tensor:
        """The networks' answers to x (k, b, ...) in eval mode; gradients reach x, not the networks."""
        frozen = {name: tensor.detach() for name, tensor in self.params.items()}
        return population.forward(self._judging, frozen, self.buffers, x)

    def _answer(self, x: Tensor) -> Tensor:
        return population.forward(self._learning, self.params, self.buffers, x)
