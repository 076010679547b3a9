"""The hooks that the package ships have the shapes of their Protocols, and each is picked by model as it should be."""

import inspect
from functools import partial

import pytest
import torch
from torch import nn

from mialib.attacks import (
    blindmi,
    boundary,
    inversion,
    label_only,
    likelihood,
    neural,
    quantile,
    suites,
    threshold,
)
from mialib.compression import Masks, Quantizer, admm, cardinality, gradual, pruning
from mialib.defenses import (
    adversarial,
    differential_privacy,
    hamp,
    losses,
    memguard,
    mmd,
    outputs,
    purifier,
    reformer,
    state,
    swapper,
)
from mialib.models import decoders
from mialib.training import Batch, Blurred, FlipAndShift, Recipe, cross_entropy, hooks, population
from mialib.training.descent import Shuffling
from mialib.training.hooks import Hooks, LearningAttack, NetworkAttack, PopulationAttack

K, B, C = 2, 6, 3  # models, examples a batch, classes, and as many features


def network():
    return nn.Sequential(nn.Linear(C, 5), nn.Tanh(), nn.Linear(5, C))


def named(value):
    return getattr(value, "__name__", type(value).__name__)


@pytest.fixture
def params():
    fresh = population.initial(network, range(K)).params
    return {name: tensor.requires_grad_() for name, tensor in fresh.items()}


SKELETON = population.skeleton(network)


def forward(params, x):
    return population.forward(SKELETON, params, {}, x)


def batch(seed=0):
    """Features that may as well be posteriors."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(K, B, C, generator=generator).softmax(-1)
    return Batch(x, torch.randint(C, (K, B), generator=generator), torch.arange(K * B).view(K, B))


# Signatures

SHIPPED = [
    (hooks.Objective, cross_entropy),
    (hooks.Objective, losses.PPB),
    (hooks.Objective, losses.LabelSmoothing),
    (hooks.Objective, losses.RelaxLoss),
    (hooks.Objective, losses.SoftTargets),
    (hooks.Objective, losses.Mixup),
    (hooks.Objective, hamp.HAMP),
    (hooks.Objective, pruning.SparseGamma),
    (hooks.Objective, purifier.Faithful),
    (hooks.Objective, reformer.Evidence),
    (hooks.Objective, inversion.SquaredError),
    (hooks.Compress, Masks),
    (hooks.Compress, Quantizer),
    (hooks.Constraint, admm.ADMM),
    (hooks.Constraint, gradual.Gradual),
    (hooks.Opponent, adversarial.AdversarialRegularization),
    (hooks.Opponent, mmd.MMD),
    (hooks.Opponent, purifier.Games),
    (hooks.Opponent, purifier.InversionHelper),
    (hooks.Opponent, purifier.MembershipDiscriminator),
    (hooks.Descent, Shuffling),
    (hooks.Descent, differential_privacy.DPSGD),
    (hooks.Descent, adversarial.OneUpdate),
    (hooks.Augment, FlipAndShift),
    (hooks.Augment, Blurred),
    (hooks.Augment, reformer.WithNoise),
    (hooks.OutputDefense, outputs.Rounding),
    (hooks.OutputDefense, outputs.OneHot),
    (hooks.OutputDefense, outputs.Temperature),
    (hooks.OutputDefense, outputs.TopK),
    (hooks.OutputDefense, outputs.Noise),
    (hooks.OutputDefense, hamp.Reordered),
    (hooks.OutputDefense, memguard.MemGuard),
    (hooks.OutputDefense, purifier.Purifier),
    (hooks.OutputDefense, reformer.Reformer),
    (hooks.OutputDefense, swapper.Swapper),
    (hooks.OutputDefense, state.Chain),
    (hooks.OutputDefense, state.Each),
    (hooks.Attack, threshold.gap),
    (hooks.Attack, threshold.ThresholdAttack),
    (hooks.Attack, blindmi.BlindMIDiff),
    (hooks.Attack, boundary.BoundaryDistance),
    (hooks.Attack, quantile.QuantileRegression),
    (hooks.Attack, label_only.NoiseRobustness),
    (hooks.Attack, label_only.SwapDetector),
    (hooks.Attack, likelihood.LiRA),
    (hooks.Attack, neural.NeuralAttack),
    (hooks.LearningAttack, boundary.BoundaryDistance),
    (hooks.LearningAttack, label_only.NoiseRobustness),
    (hooks.NetworkAttack, neural.NeuralAttack),
    (hooks.PopulationAttack, neural.NeuralAttack),
]


def parameters(function):
    """Names of what it is called with, less `self`, and the defaults that there are."""
    found = {name: one.default for name, one in inspect.signature(function).parameters.items()}
    found.pop("self", None)
    return found


@pytest.mark.parametrize(("protocol", "hook"), SHIPPED, ids=named)
def test_hooks_are_called_as_their_protocols_say(protocol, hook):
    methods = {
        n: m for n, m in vars(protocol).items() if inspect.isfunction(m) and n in ("__call__", n.lstrip("_"))
    }
    assert methods
    for name, method in methods.items():
        own = hook if inspect.isfunction(hook) else getattr(hook, name)
        asked, given = parameters(method), parameters(own)
        assert list(given) == list(asked), name
        # a hook may have defaults of its own; those of the protocol it has too
        defaults = {n: default for n, default in asked.items() if default is not inspect.Parameter.empty}
        assert defaults.items() <= given.items(), name


@pytest.mark.parametrize(
    "defense",
    [
        hamp.Reordered,
        memguard.MemGuard,
        purifier.Purifier,
        reformer.Reformer,
        swapper.Swapper,
        state.Chain,
        state.Each,
    ],
    ids=named,
)
def test_output_defences_with_a_state_a_network_are_indexed(defense):
    assert issubclass(defense, population.PerModel)


@pytest.mark.parametrize(
    "hook", [hook for protocol, hook in SHIPPED if protocol is not hooks.OutputDefense], ids=named
)
def test_other_hooks_are_indexed_only_where_they_keep_something_of_each_model(hook):
    keeps = hook in (losses.SoftTargets, Masks, purifier.Games)
    assert hasattr(hook, "__getitem__") == keeps


# What they give, for two models


OBJECTIVES = [
    cross_entropy,
    losses.PPB(1.0),
    losses.LabelSmoothing(0.5),
    losses.RelaxLoss(1.1, period=2),  # some examples above, some below
    losses.SoftTargets(torch.full((K, K * B, C), 1 / C)),
    losses.Mixup(1.0),
    hamp.HAMP(0.1),
    purifier.Faithful(1.0),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
def test_objectives_give_each_model_a_loss_of_its_own(params, objective):
    found = objective(forward, params, batch(), 0)
    assert found.shape == (K,) and bool(found.isfinite().all())
    gradients = torch.autograd.grad(found[0], list(params.values()))
    assert any(bool(gradient[0].any()) for gradient in gradients)
    assert not any(bool(gradient[1].any()) for gradient in gradients)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
def test_objectives_that_need_a_whole_batch_say_so(params, objective):
    """They alone are no mean of what they are of each example by itself."""
    whole, b = batch(), batch().y.shape[1]
    one_by_one = [
        objective(forward, params, Batch(whole.x[:, [i]], whole.y[:, [i]], whole.index[:, [i]]), 0)
        for i in range(b)
    ]
    found = objective(forward, params, whole, 0)
    is_a_mean = torch.allclose(found, torch.stack(one_by_one).mean(0), atol=1e-5)
    declared = isinstance(objective, hooks.BatchObjective) and objective.whole_batch
    assert declared == (not is_a_mean)


OPPONENTS = [
    adversarial.AdversarialRegularization(1.0, C),
    mmd.MMD(1.0),
    purifier.Games((mmd.MMD(1.0), mmd.MMD(2.0))),
    purifier.InversionHelper(1.0, torch.rand(K * B, 4), decoders.make((4,), C, 0.05)),
]


@pytest.mark.parametrize("opponent", OPPONENTS, ids=named)
def test_opponents_give_each_model_a_penalty_of_its_own(params, opponent):
    play = opponent.begin(list(range(K)), torch.device("cpu"))
    found = play(forward, params, batch(0), batch(1), 0)
    assert found.shape == (K,) and bool(found.isfinite().all())
    gradients = torch.autograd.grad(found[0], list(params.values()), allow_unused=True)
    assert not any(bool(gradient[1].any()) for gradient in gradients if gradient is not None)


PROJECT = cardinality.LargestWeights({"0.weight": 0.5, "2.weight": 0.4})


@pytest.mark.parametrize(
    "compress",
    [
        lambda params: PROJECT(params),
        lambda params: Quantizer("dorefa", {"0.weight": 2, "2.weight": 2}),
    ],
    ids=["Masks", "Quantizer"],
)
def test_compression_is_pure_and_lets_the_other_parameters_through(params, compress):
    before = {name: tensor.detach().clone() for name, tensor in params.items()}
    found = compress(params)(params)
    assert found.keys() == params.keys()
    for name, tensor in params.items():
        assert torch.equal(tensor, before[name]) and found[name].shape == tensor.shape, name
        assert (found[name] is tensor) == name.endswith("bias"), name
        assert torch.equal(found[name], tensor) == name.endswith("bias"), name


@pytest.mark.parametrize(
    "constraint",
    [admm.ADMM(PROJECT, rho=0.1, every=1), gradual.Gradual(PROJECT, steps=2, every=1)],
    ids=named,
)
def test_constraints_penalise_each_model_and_replace_parameters_that_there_are(params, constraint):
    bound = constraint.begin(params)
    for step in range(2):
        penalty = torch.as_tensor(bound.penalty(params, step))
        assert penalty.shape in ((), (K,)) and bool(penalty.isfinite().all()), step
        with torch.no_grad():
            for name, tensor in bound.follow(params, step).items():
                assert tensor.shape == params[name].shape, name
    assert all(value.shape == (K,) for values in bound.curves.values() for value in values)


DESCENTS = [Shuffling(), differential_privacy.DPSGD(1.0), adversarial.OneUpdate(batches=3)]


@pytest.mark.parametrize("descent", DESCENTS, ids=named)
def test_descents_draw_batches_of_members_and_leave_gradients(descent):
    k = 1 if descent.alone else K
    descent.check(network)
    members = torch.arange(3, 23).expand(k, -1)
    batches, backward = descent.begin(members, 8, list(range(k)))
    fresh = population.initial(network, range(k)).params
    params = {name: tensor.requires_grad_() for name, tensor in fresh.items()}
    epoch = list(batches())
    assert len(epoch) > 1
    for step, index in enumerate(epoch):
        assert index.dtype == torch.int64 and index.shape[0] == k, step
        rows = index.tolist()
        assert all(len(set(row)) == len(row) and set(row) <= set(range(3, 23)) for row in rows), step
        one = Batch(torch.rand(*index.shape, C), index % C, index)
        found = backward(lambda params, batch: cross_entropy(forward, params, batch, 0), params, one)
        assert found.shape == (k,) and bool(found.isfinite().all()), step
    assert all(parameter.grad.shape == parameter.shape for parameter in params.values())


@pytest.mark.parametrize(
    ("augment", "shape", "after"),
    [
        (FlipAndShift(1), (K, B, 1, 4, 4), (K, B, 1, 4, 4)),
        (Blurred((1, 2)), (K, B, 1, 4, 4), (K, B, 1, 4, 4)),
        (reformer.WithNoise(2), (K, B, C), (K, B, C + 2)),
    ],
    ids=["FlipAndShift", "Blurred", "WithNoise"],
)
def test_augmentations_are_decided_by_the_generator_and_leave_what_they_get(augment, shape, after):
    x = torch.rand(shape)
    before = x.clone()
    found, again, other = (augment(x, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert found.shape == after and torch.equal(x, before)
    assert torch.equal(found, again) and not torch.equal(found, other)


@pytest.mark.parametrize(
    "defense",
    [outputs.Rounding(3), outputs.OneHot(), outputs.Temperature(2.0), outputs.TopK(2), outputs.Noise(0.1)],
    ids=named,
)
def test_output_defences_give_log_posteriors_for_log_posteriors(defense):
    log_p = torch.randn(K, B, C, generator=torch.Generator().manual_seed(0)).double().log_softmax(-1)
    before = log_p.clone()
    found = defense(log_p)
    assert torch.equal(log_p, before) and not torch.equal(found, before)
    assert found.shape == log_p.shape and found.dtype == torch.float64
    assert torch.allclose(found.exp().sum(-1), torch.ones(K, B).double())


# Kinds of attacks

NETWORKS = Recipe(1, 16)
ATTACKS = (
    suites.yuan2022(NETWORKS, NETWORKS)
    | suites.half_known(NETWORKS, 0.1)
    | suites.famili2023(NETWORKS)
    | suites.yang2020(NETWORKS, 4)
    | {"lira": likelihood.LiRA()}
)
BY_NETWORKS = {"nn", "top3_nn", "nn_class", "samia", "nsh", "nsh_log", "ranked_nn"}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_of_the_kind_that_the_study_takes_them_for(name):
    assert isinstance(ATTACKS[name], NetworkAttack) == (name in BY_NETWORKS)
    assert isinstance(ATTACKS[name], PopulationAttack) == (name in BY_NETWORKS)
    assert isinstance(ATTACKS[name], LearningAttack) == (name == "noise_robustness")
    assert callable(ATTACKS[name])


def test_every_network_attack_is_among_those_checked():
    assert ATTACKS.keys() > BY_NETWORKS


# Hooks of some of the models


def masks(kept):
    return Masks({"0.weight": kept})


@pytest.mark.parametrize("models", [[1], [2, 0], slice(1, 3)], ids=str)
def test_picking_takes_what_has_one_state_a_model_and_leaves_what_serves_all(models):
    targets, kept = torch.rand(3, 4, C), torch.rand(3, 5, C) < 0.5
    whole = Hooks(
        losses.SoftTargets(targets),
        Shuffling(),
        compress=masks(kept),
        constraint=admm.ADMM(PROJECT, rho=0.1, every=1),
        opponent=mmd.MMD(1.0),
        augment=FlipAndShift(1),
    )
    some = whole[models]
    assert torch.equal(some.objective.targets, targets[models])
    assert torch.equal(some.compress.kept["0.weight"], kept[models])
    for name in ("descent", "constraint", "opponent", "augment"):
        assert getattr(some, name) is getattr(whole, name), name


def test_picking_leaves_plain_functions_and_none():
    some = Hooks(cross_entropy, Shuffling(), augment=partial(torch.add))[[0]]
    assert some.objective is cross_entropy and isinstance(some.augment, partial)
    assert some.compress is some.constraint is some.opponent is None
