"""Doors: each model is asked its own inputs, defences stand before them, and what is remembered is not asked again."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from mialib import asking
from mialib.asking import Door, Guarded, answers, doors
from mialib.defenses import outputs
from mialib.training import population


@dataclass(frozen=True)
class Divided:
    """An output defence with one number a model."""

    by: torch.Tensor

    def __getitem__(self, models):
        return Divided(self.by[models])

    def __call__(self, log_p):
        return (log_p / self.by[:, None, None]).log_softmax(-1)


def flatter(log_p):
    return (log_p / 2).log_softmax(-1)


def turned(log_p):
    return log_p.flip(-1)


@pytest.fixture
def x():
    return torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def asked(monkeypatch):
    """The shapes of the inputs about which a model was asked, question by question."""
    shapes, real = [], Door._ask

    def spy(door, module, x):
        shapes.append(tuple(x.shape))
        return real(door, module, x)

    monkeypatch.setattr(Door, "_ask", spy)
    return shapes


def test_a_door_gives_the_log_posteriors_of_each_plain_module(steep, x):
    found = Door(steep)(x)
    assert found.shape == (2, 4, 3) and found.dtype == torch.float64 and not found.requires_grad
    for i, module in enumerate(steep):
        expected = module(x[i]).detach().double().log_softmax(-1)
        torch.testing.assert_close(found[i], expected, msg=f"model {i}")


def test_more_inputs_than_are_asked_at_once_are_answered_in_order(steep):
    x = torch.randn(1, 2 * answers.ROWS + 1, 6)
    found = Door(steep[:1])(x)
    assert torch.allclose(found[0], steep[0](x[0]).detach().double().log_softmax(-1), atol=1e-6)


def test_every_model_needs_inputs_of_its_own(steep, x):
    with pytest.raises(ValueError):
        Door(steep)(x[:1])


class Bare(nn.Module):
    """A deployed network: no parameters that would say where it is."""

    def forward(self, x):
        return 2 * x


def test_a_network_without_parameters_can_be_asked(x):
    assert torch.allclose(Door([Bare(), Bare()])(x), (2 * x).double().log_softmax(-1))


@pytest.mark.parametrize("models", [[1], [1, 0], slice(1)], ids=str)
def test_a_part_of_a_door_opens_to_those_models(steep, x, models):
    assert torch.equal(Door(steep)[models](x[models]), Door(steep)(x)[models])


# Behind a defence


@pytest.mark.parametrize("models", [[1], [1, 0], slice(1)], ids=str)
def test_a_guarded_door_serves_what_the_defence_leaves_of_the_answer(steep, x, models):
    plain, defense = Door(steep)(x), Divided(torch.tensor([2.0, 3.0]).double())
    guarded = Guarded(Door(steep), defense)
    assert torch.equal(guarded(x), defense(plain))
    assert torch.equal(guarded[models](x[models]), defense(plain)[models])


def test_plain_functions_guard_every_part_alike(steep, x):
    guarded = Guarded(Door(steep), flatter)
    assert guarded[[1]].defense is flatter
    assert torch.equal(guarded[[1]](x[1:]), flatter(Door(steep)(x))[1:])


def test_defences_stand_one_behind_the_other(steep, x):
    twice = Guarded(Guarded(Door(steep), flatter), turned)
    assert torch.equal(twice(x), flatter(Door(steep)(x)).flip(-1))
    assert torch.equal(twice[[1]](x[1:]), twice(x)[1:])


class Diverged(nn.Module):
    """A network whose training went wrong."""

    def forward(self, x):
        return x[:, :3] * torch.nan


def test_a_network_that_answers_with_nan_is_refused(x):
    with pytest.raises(
        ValueError, match="door: 8 of 8 rows are no log-posteriors.*model 0, example 0 holds nan"
    ):
        Door([Diverged(), Diverged()])(x)


@pytest.mark.parametrize(
    ("defense", "words"),
    [
        (torch.exp, "what exp serves: 8 of 8 rows.*sums to"),
        (torch.log, "what log serves: 8 of 8 rows.*holds nan"),
    ],
    ids=["no posteriors", "nan"],
)
def test_a_defence_that_serves_no_posteriors_is_refused_by_name(steep, x, defense, words):
    with pytest.raises(ValueError, match=words):
        Guarded(Door(steep), defense)(x)


def test_a_defence_may_leave_classes_without_a_probability(steep, x):
    assert torch.equal(Guarded(Door(steep), outputs.OneHot())(x).exp().sum(-1), torch.ones(2, 4).double())


# Memory


def test_without_a_memory_every_question_is_asked(steep, x, asked):
    door = Door(steep)
    assert torch.equal(door(x), door(x)) and len(asked) == 4


def test_a_door_that_remembers_asks_each_model_once(toy, x, asked):
    models = population.initial(_linear, [0, 1])
    index = torch.arange(5).expand(2, -1)
    seen = asking.ask(models, toy, index, sensitive=False, probes=True, remember=True)
    first = seen.query(x)
    served = asking.serve(seen, flatter)
    assert torch.equal(served.query(x), flatter(first)) and torch.equal(seen[[1]].query(x[1:]), first[1:])
    assert len(asked) == 2  # each of the two models about its four inputs
    assert not torch.equal(seen[[0]].query(x[1:]), first[1:]) and len(asked) == 3  # another model's answer
    seen.query(x + 1)
    assert len(asked) == 5


def test_what_is_remembered_goes_by_values_not_by_layout_in_memory(steep, x, asked):
    door = Door(steep, [{}, {}])
    first = door(x)
    other = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not other.is_contiguous() and torch.equal(door(other), first)
    assert len(asked) == 2


def _linear():
    return torch.nn.Linear(6, 3)


def test_one_at_a_time_asks_for_each_input_alone(x, asked):
    networks = population.initial(lambda: nn.Linear(6, 3), [0, 1])
    alone = asking.one_at_a_time(Door(networks), x)
    assert asked == [(1, 6)] * 8
    torch.testing.assert_close(alone, Door(networks)(x))


def test_a_tally_counts_what_networks_are_asked_and_a_memory_is_not_asked_again(toy, steep):
    seen = asking.ask(steep, toy, torch.arange(10).view(2, 5), sensitive=False, probes=True, remember=True)
    x = torch.stack([seen.x[0], seen.x[1]])
    with asking.tally() as whole:
        seen.query(x)
        with asking.tally() as part:
            seen.query(x)
            seen[[1]].query(x[1:, :3])
        assert part.inputs == 3
    seen.query(x + 1)
    assert whole.inputs == 13


def test_a_forgetful_door_answers_alike_and_remembers_nothing(toy, steep):
    memory = [{}, {}]
    door = Guarded(Door(steep, memory), flatter)
    x = torch.stack([toy.inputs(torch.arange(4))] * 2)
    assert torch.equal(doors.forgetful(door)(x), door(x)) and len(memory[0]) == 1
    doors.forgetful(door)(x + 1)
    assert len(memory[0]) == 1
    assert doors.forgetful(torch.exp) is torch.exp
