"""How models are trained: epochs, batches, optimiser, and which epoch is kept."""

from dataclasses import dataclass

from mialib.training.precision import PRECISIONS


@dataclass(frozen=True)
class Recipe:
    """How models are trained. Models of one recipe differ only by members and seed.

    Args:
        epochs: passes over the members, at most.
        batch_size: examples a step; a last batch of one example is left out (BatchNorm needs two).
        lr, weight_decay, momentum: of the optimiser; the decay is an L2 term in the gradient, as in torch.optim.
        optimizer: "adam" or "sgd".
        milestones: epochs at whose start the learning rate is divided by ten.
        select_best: keep the weights of the epoch with the best accuracy on the reserve set, else the last epoch's.
        patience: with select_best, stop after more than that many epochs in a row without a better one; None: never.
        precision: "float32", "tf32" (CUDA only) or "bf16" (autocast; parameters and optimiser stay in float32), see
            `precision`: "float32" is never TF32.

    Raises:
        ValueError: a value out of range, with its name.
    """

    epochs: int
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 5e-4
    optimizer: str = "adam"
    momentum: float = 0.9
    milestones: tuple[int, ...] = ()
    select_best: bool = False
    patience: int | None = None
    precision: str = "float32"

    def steps_per_epoch(self, n_members: int) -> int:
        """Optimiser steps in one pass over `n_members` members."""
        full, rest = divmod(n_members, self.batch_size)
        return full + (rest > 1 or n_members == 1)

    def __post_init__(self):
        for name, valid, rule in (
            ("epochs", self.epochs >= 0, "0 or more"),
            ("batch_size", self.batch_size >= 2, "2 or more"),
            ("lr", self.lr > 0, "positive"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("optimizer", self.optimizer in ("adam", "sgd"), "'adam' or 'sgd'"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("patience", self.patience is None or self.select_best, "None unless select_best is set"),
            ("precision", self.precision in PRECISIONS, "'float32', 'tf32' or 'bf16'"),
        ):
            if not valid:
                raise ValueError(f"recipe: {name} is {getattr(self, name)!r}; it must be {rule}")
