"""Adversarial regularisation: the game's arithmetic, who learns what, and the released code's one update an epoch."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from mialib import training
from mialib.data import splits
from mialib.defenses.adversarial import AdversarialRegularization, OneUpdate
from mialib.models import attack_networks
from mialib.store import Store
from mialib.training import Batch, Recipe
from mialib.training.population import initial

RECIPE = Recipe(epochs=3, batch_size=8, lr=1e-2)


def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def linear(features):
    """An opponent whose answers are easy to write out: member logit = 2 * first feature, else 0."""
    layer = nn.Linear(features, 2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[1, 0] = 2.0
        layer.bias.zero_()
    return layer


def dropout_free(features):
    return nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, 2))


@pytest.fixture
def split():
    return splits.target_shadow(120, 1, 2, seed=0, n_train=20)


def answer(params, x):
    """The model of these tests says what its inputs are: x (k, b, c) are the logits."""
    return params["scale"][:, None, None] * x


def batch(logits, labels):
    return Batch(torch.tensor(logits), torch.tensor(labels), torch.zeros(len(labels), len(labels[0])).long())


MEMBERS = batch([[[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]]], [[0, 1]])
OTHERS = batch([[[0.5, 0.0, 0.0], [0.0, 0.1, 0.0]]], [[0, 1]])


def game(**options):
    return AdversarialRegularization(**{"strength": 2.0, "num_classes": 3, "network": linear} | options)


def test_the_penalty_is_strength_times_the_mean_log_of_the_opponents_belief():
    play = game(lr=1e-12).begin([0], torch.device("cpu"))  # an opponent that hardly learns
    penalty = play(answer, {"scale": torch.ones(1)}, MEMBERS, OTHERS, 0)
    posteriors = [math.exp(3) / (math.exp(3) + 2), 1 / (math.exp(2) + 2)]  # of class 0
    expected = sum(-math.log1p(math.exp(-2 * p)) for p in posteriors) / 2  # log sigmoid of the member logit
    assert penalty.tolist() == pytest.approx([2.0 * expected], abs=1e-6)


def test_the_model_pays_for_what_the_opponent_learns():
    play = game(network=dropout_free, lr=1e-2).begin([0], torch.device("cpu"))
    params = {"scale": torch.ones(1)}
    penalties = [float(play(answer, params, MEMBERS, OTHERS, step)) for step in range(200)]
    assert penalties[0] < -0.7 and penalties[-1] > -0.2  # 2 * log 0.5 = -1.4 at first, 0 when it is sure


def test_the_gradient_lowers_the_opponents_belief_and_does_not_touch_the_opponent():
    play = game().begin([0], torch.device("cpu"))
    scale = torch.ones(1, requires_grad=True)
    play(answer, {"scale": scale}, MEMBERS, OTHERS, 0).sum().backward()
    before = {name: tensor.clone() for name, tensor in play.player.params.items()}
    lower = {"scale": scale.detach() - 0.1 * scale.grad}
    frozen = game(lr=1e-12).begin([0], torch.device("cpu"))
    assert float(frozen(answer, lower, MEMBERS, OTHERS, 0)) < float(
        frozen(answer, {"scale": torch.ones(1)}, MEMBERS, OTHERS, 0)
    )
    for name, tensor in play.player.params.items():
        assert torch.equal(tensor, before[name]), name


def test_the_opponent_learns_without_moving_the_model():
    play = game(network=dropout_free).begin([0], torch.device("cpu"))
    start = {name: tensor.detach().clone() for name, tensor in play.player.params.items()}
    scale = torch.ones(1, requires_grad=True)
    play(answer, {"scale": scale}, MEMBERS, OTHERS, 0)
    assert scale.grad is None
    assert any(not torch.equal(tensor, start[name]) for name, tensor in play.player.params.items())


@pytest.mark.parametrize("seeds, equal", [([5, 5], True), ([5, 6], False)])
def test_each_model_has_an_opponent_of_its_own(seeds, equal):
    """The same answers give different penalties to different opponents, and the same to the same one."""
    both = [Batch(*(torch.cat([part, part]) for part in (b.x, b.y, b.index))) for b in (MEMBERS, OTHERS)]
    play = game(network=dropout_free).begin(seeds, torch.device("cpu"))
    first, second = play(answer, {"scale": torch.ones(2)}, *both, 0).tolist()
    assert (abs(first - second) < 1e-6) == equal


def test_more_updates_learn_faster():
    penalties = []
    for updates in (1, 20):
        play = game(network=dropout_free, updates=updates).begin([0], torch.device("cpu"))
        for step in range(15):
            last = play(answer, {"scale": torch.ones(1)}, MEMBERS, OTHERS, step)
        penalties.append(float(last))
    assert penalties[1] > penalties[0] + 0.05


def test_in_training_batched_equals_one_by_one(toy, split):
    options = dict(opponent=game(network=dropout_free))
    batched = training.fit(mlp, toy, split, RECIPE, **options, batched=True)
    alone = training.fit(mlp, toy, split[2:], RECIPE, **options, batched=False)
    for name, tensor in alone.params.items():
        torch.testing.assert_close(tensor[0], batched.params[name][2], atol=1e-5, rtol=1e-4)


def test_strength_zero_is_plain_training(toy, split):
    plain = training.fit(mlp, toy, split, RECIPE)
    played = training.fit(mlp, toy, split, RECIPE, opponent=game(strength=0.0, network=dropout_free))
    for name, tensor in plain.params.items():
        assert torch.equal(tensor, played.params[name]), name
    strong = training.fit(mlp, toy, split, RECIPE, opponent=game(strength=8.0, network=dropout_free))
    for i, (record, other) in enumerate(zip(plain.records, strong.records, strict=True)):
        assert other["loss"][0] < record["loss"][0] - 3, i  # 8 * log 0.5 and better is paid back


def test_the_default_opponent_is_the_released_attack_network(toy, split):
    game = AdversarialRegularization(1.0, 3)
    play = game.begin([0], torch.device("cpu"))
    assert play.player.params.keys() == initial(lambda: attack_networks.attack_mlp(6), [0]).params.keys()
    fitted = training.fit(mlp, toy, split[:1], replace(RECIPE, epochs=1), opponent=game)
    assert math.isfinite(fitted.records[0]["loss"][0])


# As released


# 20 members in batches of 8: two whole ones, the remainder is left out
@pytest.mark.parametrize("batches, learned_from", [(1, 1), (7, 2)])
def test_as_released_the_model_moves_once_an_epoch(toy, split, batches, learned_from, monkeypatch):
    steps, rounds = [], []
    real = torch.optim.Adam.step

    def spy(self, *args):
        steps.append(all(p.grad is not None for group in self.param_groups for p in group["params"]))
        return real(self, *args)

    class Spy(AdversarialRegularization):
        def begin(self, seeds, device):
            return lambda *args: rounds.append(1) or torch.zeros(1)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    training.fit(mlp, toy, split[:1], RECIPE, opponent=Spy(1.0, 3), descent=OneUpdate(batches), batched=False)
    assert len(rounds) == RECIPE.epochs * learned_from
    assert steps == ([False] * (learned_from - 1) + [True]) * RECIPE.epochs


def test_as_released_hardly_trains(toy, split):
    recipe = replace(RECIPE, epochs=20)
    options = dict(opponent=game(strength=0.5, network=dropout_free), watch=("member",))
    trained = training.fit(mlp, toy, split, recipe, **options)
    released = training.fit(mlp, toy, split, recipe, **options, descent=OneUpdate())
    for i, (full, quirk) in enumerate(zip(trained.records, released.records, strict=True)):
        assert full["member_accuracy"][-1] > quirk["member_accuracy"][-1], i


@pytest.mark.cuda
def test_cuda_plays_as_the_cpu_does(toy, split, tmp_path, accelerator):
    opponent = game(network=dropout_free)
    here = training.fit(mlp, toy, split, RECIPE, opponent=opponent, cache=Store(tmp_path / "cpu"))
    moved, cache = toy.to(accelerator), Store(tmp_path / "cuda")
    there = training.fit(mlp, moved, split, RECIPE, opponent=opponent, cache=cache).to("cpu")
    for name, tensor in here.params.items():
        torch.testing.assert_close(there.params[name], tensor, atol=1e-4, rtol=1e-3)


# Bad input


@pytest.mark.parametrize(
    "options, words",
    [
        ({"strength": -1.0}, "strength is -1.0; it must be 0 or more"),
        ({"strength": math.nan}, "strength is nan"),
        ({"updates": 0}, "updates is 0; it must be 1 or more"),
    ],
)
def test_strengths_out_of_range_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        game(**options)


def test_a_reference_that_overlaps_the_evaluated_examples_is_refused(split):
    overlapping = split.reserve.clone()
    overlapping[1] |= split.test[1]
    with pytest.raises(
        ValueError, match="overlapping sets: 20 examples of one model are both test and reserve"
    ):
        replace(split, reserve=overlapping)
