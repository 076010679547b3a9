"""Small trainings that use every hook of a training that the package ships, by name."""

from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

from mialib.attacks import inversion
from mialib.compression import Quantizer, admm, cardinality, gradual, pruning, quantization
from mialib.data import Dataset, splits
from mialib.defenses import adversarial, differential_privacy, hamp, losses, mmd, purifier, reformer
from mialib.models import classifiers, decoders
from mialib.training import Blurred, FlipAndShift, Recipe, cross_entropy, loop, population
from mialib.training.descent import Shuffling
from mialib.training.hooks import Hooks

N, C, MODELS = 120, 3, 2
LR = 2**-7  # a number that float32 has too
RECIPE = Recipe(epochs=6, batch_size=8, lr=LR)  # 20 members: batches of 8, 8 and 4


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, C))


def plain():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, C))


def convolutional():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, C))


def _draws():
    return torch.Generator().manual_seed(0)


LABELS = torch.arange(N) % C
FEATURES = Dataset.of_features("features", torch.randn(N, 6, generator=_draws()), LABELS, C)
ANSWERS = Dataset.of_features("answers", torch.randn(N, C, generator=_draws()).softmax(-1), LABELS, C)
PICTURES = Dataset(
    "pictures",
    torch.randint(256, (N, 1, 6, 6), generator=_draws()).byte(),
    LABELS,
    C,
    torch.tensor([0.4]),
    torch.tensor([0.2]),
)
SPLIT = splits.target_shadow(N, 1, 1, seed=0, n_train=20)
PROJECT = cardinality.everywhere(mlp, 2.0)
TRUTH = torch.rand(N, 4, generator=_draws())


@dataclass(frozen=True)
class Case:
    make_model: object = mlp
    data: Dataset = FEATURES
    recipe: Recipe = RECIPE
    hooks: dict = field(default_factory=dict)
    watch: tuple[str, ...] = ("test",)

    def train(self, split=SPLIT, graphs=None, **recipe):
        """The entries of `loop.train`; hooks are those of the models of `split`."""
        hooks = Hooks(**{"objective": cross_entropy, "descent": Shuffling()} | self.hooks)
        if hooks.descent.alone or len(split) < MODELS:
            split = split[:1]
            hooks = hooks[[0]]
        return loop.train(
            self.make_model,
            self.data,
            replace(self.recipe, **recipe),
            split=split,
            hooks=hooks,
            watch=self.watch,
            graphs=graphs,
        )


def _masks():
    return pruning.mask(population.initial(mlp, list(range(MODELS))), "l1_unstructured", 0.5)


def _quantised(method, bits):
    return Case(hooks={"compress": Quantizer(method, quantization.widths(mlp, bits))})


def _game(*opponents, **more):
    return Case(hooks={"opponent": purifier.Games(opponents) if len(opponents) > 1 else opponents[0]} | more)


ADVERSARY = adversarial.AdversarialRegularization(1.0, C)
AUTOENCODER = partial(purifier.autoencoder, num_classes=C, widths=(7, 4))

CASES = {
    "cross_entropy": Case(),
    "SGD": Case(recipe=replace(RECIPE, optimizer="sgd", milestones=(4,))),
    "dropout": Case(partial(classifiers.columnfc, in_features=6, num_classes=C)),
    "PPB": Case(hooks={"objective": losses.PPB(1.0)}),
    "LabelSmoothing": Case(hooks={"objective": losses.LabelSmoothing(0.2)}),
    "RelaxLoss": Case(hooks={"objective": losses.RelaxLoss(0.9, period=2)}),
    "HAMP": Case(hooks={"objective": hamp.HAMP(0.1)}),
    "Mixup": Case(hooks={"objective": losses.Mixup(1.0)}),
    "SoftTargets": Case(
        hooks={"objective": losses.SoftTargets(torch.rand(MODELS, N, C, generator=_draws()).softmax(-1))}
    ),
    "SparseGamma": Case(hooks={"objective": pruning.SparseGamma(1e-2, ("1.weight",))}),
    "Masks": Case(hooks={"compress": _masks()}),
    **{f"{m}, {b} bits": _quantised(m, b) for m in ("dorefa", "affine") for b in (1, 1.58, 2)},
    "Squashed": Case(hooks={"compress": quantization.Squashed(("0.weight",))}),
    "ADMM": Case(hooks={"constraint": admm.ADMM(PROJECT, every=3, rho=0.1, growth=2.0)}),
    "Gradual": Case(hooks={"constraint": gradual.Gradual(PROJECT, steps=9, every=2)}),
    "AdversarialRegularization": _game(ADVERSARY),
    "MMD": _game(mmd.MMD(1.0)),
    "OneUpdate": _game(ADVERSARY, descent=adversarial.OneUpdate(2)),
    "purifier": Case(
        AUTOENCODER,
        ANSWERS,
        hooks={
            "objective": purifier.Faithful(1.0),
            "opponent": purifier.Games(
                (
                    purifier.InversionHelper(1.0, TRUTH, decoders.make((4,), C, 0.05)),
                    purifier.MembershipDiscriminator(1.0, C, 0.05),
                )
            ),
        },
    ),
    "reformer": Case(
        partial(reformer.cvae, num_classes=C, widths=(8,), latent=2),
        ANSWERS,
        hooks={"objective": reformer.Evidence(C, 1.0, 0.1), "augment": reformer.WithNoise(2)},
        watch=(),  # it is not asked without its noise
    ),
    "inversion": Case(
        partial(decoders.connected, features=4, num_classes=C, width=0.05),
        ANSWERS,
        hooks={"objective": inversion.SquaredError(TRUTH, "truth")},
    ),
    "DPSGD": Case(plain, hooks={"descent": differential_privacy.DPSGD(1.0)}),
    "FlipAndShift": Case(convolutional, PICTURES, hooks={"augment": FlipAndShift(1)}),
    "Blurred": Case(convolutional, PICTURES, hooks={"augment": Blurred((1, 2))}),
}
