"""The other player of a game: networks that learn along, alone and among others, and judge without learning."""

import torch
from torch import nn

from mialib.defenses.player import Player
from mialib.training import mean_cross_entropy
from mialib.training.population import initial

CPU = torch.device("cpu")


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def normed():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))


def task(k=1, n=32, seed=0):
    """Inputs (k, n, 4), and whether the first of them is positive."""
    x = torch.randn(k, n, 4, generator=torch.Generator().manual_seed(seed))
    return x, (x[..., 0] > 0).long()


def losses(x, y):
    return lambda answer: mean_cross_entropy(answer(x), y)


def test_it_starts_as_the_seeds_say_and_anew_each_time():
    fresh = initial(net, [3, 4])
    for _ in range(2):
        player = Player(net, [3, 4], CPU, lr=0.1)
        assert all(torch.equal(player.params[name], tensor) for name, tensor in fresh.params.items())
        player.learn(losses(*task(2)))


def test_a_step_is_adams():
    x, y = task()
    player = Player(net, [5], CPU, lr=0.01, weight_decay=0.1)
    module = initial(net, [5])[0].train()
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(3):
        player.learn(losses(x, y))
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(x[0]), y[0]).backward()
        optimiser.step()
    for name, tensor in module.named_parameters():
        torch.testing.assert_close(player.params[name][0], tensor, msg=name)


def test_it_learns_and_each_network_from_its_own_examples_only():
    x, y = task(2)
    y[1] = 1 - y[1]  # the second network's truth is the opposite
    both, alone = Player(net, [1, 2], CPU, lr=0.05), Player(net, [2], CPU, lr=0.05)
    for _ in range(60):
        both.learn(losses(x, y))
        alone.learn(losses(x[1:], y[1:]))
    right = (both.judge(x).argmax(-1) == y).double().mean(-1)
    assert float(right.min()) > 0.95
    torch.testing.assert_close(both.judge(x)[1], alone.judge(x[1:])[0], atol=1e-4, rtol=1e-4)


def test_a_judgement_passes_the_gradient_on_to_the_question_and_not_to_the_networks():
    x, _ = task()
    player = Player(net, [0], CPU, lr=0.1)
    player.judge(x.requires_grad_()).sum().backward()
    assert bool((x.grad != 0).any())
    assert all(tensor.grad is None for tensor in player.params.values())


def test_what_was_asked_between_two_steps_changes_nothing_that_is_learned():
    x, y = task()
    one, other = (Player(net, [0], CPU, lr=0.1) for _ in range(2))
    one.judge(x.requires_grad_()).sum().backward()
    for player in (one, other):
        player.learn(losses(x.detach(), y))
    for name, tensor in one.params.items():
        assert torch.equal(tensor, other.params[name]), name


def test_it_learns_in_training_mode_and_judges_in_eval_mode():
    x, y = task()
    player = Player(normed, [0], CPU, lr=0.1)
    assert torch.equal(player.judge(x), player.judge(x))  # no dropout
    before = {name: tensor.clone() for name, tensor in player.buffers.items()}
    player.judge(x)
    assert all(torch.equal(player.buffers[name], tensor) for name, tensor in before.items())
    player.learn(losses(x, y))
    assert not torch.equal(player.buffers["1.running_mean"], before["1.running_mean"])
    answers = []
    player.learn(lambda answer: answers.extend([answer(x), answer(x)]) or mean_cross_entropy(answers[0], y))
    assert not torch.equal(*answers)  # dropout
