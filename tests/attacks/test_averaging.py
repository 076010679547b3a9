"""Averaging: fresh noise goes away, deterministic answers stay, and the copies are what was asked for."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from mialib import asking, streams
from mialib.asking import Views
from mialib.attacks import averaging
from mialib.attacks.averaging import averaged, gaussian, of_copies


@dataclass
class Lines:
    """m models that answer log softmax(slope * x), x (m, b, c); with `noise`, fresh Gaussian noise on the logits."""

    slopes: Tensor
    noise: float = 0.0

    def __post_init__(self):
        self.generator, self.asked = torch.Generator().manual_seed(5), []

    def __getitem__(self, models):
        part = Lines(self.slopes[models], self.noise)
        part.generator, part.asked = self.generator, self.asked
        return part

    def __call__(self, x):
        assert len(x) == len(self.slopes)
        self.asked.append(x)
        logits = self.slopes[:, None, None] * x.double()
        fresh = torch.randn(x.shape, generator=self.generator, dtype=torch.float64)
        return (logits + self.noise * fresh).log_softmax(-1)


def toy(n=30, slopes=(1.0, 3.0), noise=0.0, c=3):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(slopes), n, c, generator=generator)
    labels = torch.randint(c, (len(slopes), n), generator=generator)
    door = Lines(torch.tensor(slopes), noise)
    return Views(door(x), labels, torch.zeros(len(slopes), n, c).double(), x, door)


def slow_average(views, queries, epsilon, seed, block):
    """Candidate by candidate and copy by copy."""
    m, n, c = views.log_posteriors.shape
    mean = torch.zeros(m, n, c, dtype=torch.float64)
    for i in range(m):
        generator = streams.generator(seed, "copies")
        for j in range(n):
            if j % block == 0:
                noise = torch.randn((queries, block, c), generator=generator)
            for q in range(queries):
                copy = views.x[i, j] + epsilon * noise[q, j % block]
                mean[i, j] += (views.query.slopes[i] * copy.double()).softmax(-1) / queries
    return mean


def test_it_is_the_mean_posterior_of_the_slow_loop(monkeypatch):
    monkeypatch.setattr(averaging, "ROWS", 28)
    views = toy(10)
    found = averaged(views, 7, 0.5, seed=3)
    assert found.log_posteriors.dtype == torch.float64
    torch.testing.assert_close(found.log_posteriors.exp(), slow_average(views, 7, 0.5, 3, block=4))


def test_the_mean_of_fresh_noise_is_the_expectation():
    views = toy(20, noise=1.0)
    expected = Lines(views.query.slopes, 1.0)(views.x.repeat(1, 20_000, 1)).exp()
    expected = expected.view(2, 20_000, 20, 3).mean(1)
    found = averaged(views, 2000, 0.0).log_posteriors.exp()
    # a posterior's standard deviation is at most 1/2: the mean of 2,000 is exact to 0.011, five times that here
    assert (found - expected).abs().max() < 0.056
    few = averaged(views, 20, 0.0).log_posteriors.exp()
    errors = [float((p - expected).square().mean()) for p in (views.log_posteriors.exp(), few, found)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]  # 20 and then 100 times less, but for chance


def test_without_noise_on_either_side_the_answers_stay():
    views = toy()
    torch.testing.assert_close(averaged(views, 5, 0.0).log_posteriors, views.log_posteriors)


def test_what_is_kept_and_what_is_asked():
    views = toy(30)
    views.query.asked.clear()
    found = averaged(views, 4, 0.1)
    assert found.x is views.x and found.labels is views.labels and found.query is views.query
    assert found.sensitivity is None
    assert sum(x.shape[0] * x.shape[1] for x in views.query.asked) == 2 * 30 * 4


def test_impossible_answers_are_averaged_as_probabilities():
    """A defence that answers class 0 or class 1, each with certainty and in turn: log(1/2), and -inf for the rest."""

    def in_turn(x):
        chosen = torch.arange(x.shape[1]) % 2
        return nn.functional.one_hot(chosen, 3)[None].double().log()

    views = replace(toy(1, slopes=(1.0,)), query=in_turn)
    found = averaged(views, 8, 0.0).log_posteriors[0, 0]
    torch.testing.assert_close(found, torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log())


def test_copies_have_the_asked_noise_and_every_model_the_same():
    views = replace(toy(400), x=torch.zeros(2, 400, 3))
    views.query.asked.clear()
    averaged(views, 10, 0.25)
    one, other = views.query.asked
    assert torch.equal(one, other)
    assert float(one.std()) == pytest.approx(0.25, rel=0.03) and abs(float(one.mean())) < 0.01
    assert len(one.unique(dim=1)[0]) == 4000
    views.query.asked.clear()
    averaged(views[:1], 10, 0.25, seed=1)
    assert not torch.equal(views.query.asked[0], one)


def test_an_examples_noise_does_not_depend_on_what_follows(monkeypatch):
    monkeypatch.setattr(averaging, "ROWS", 20)
    views = toy(30)
    long = averaged(views, 5, 0.5).log_posteriors
    for n in (1, 3, 4, 5, 29):
        short = replace(
            views,
            log_posteriors=views.log_posteriors[:, :n],
            labels=views.labels[:, :n],
            x=views.x[:, :n],
        )
        found = averaged(short, 5, 0.5).log_posteriors
        torch.testing.assert_close(found, long[:, :n], msg=lambda words, n=n: f"the first {n}: {words}")


@pytest.mark.parametrize(("limits", "most"), [({"ROWS": 20}, 20), ({"VALUES": 30}, 10), ({"ROWS": 2}, 5)])
def test_no_question_is_longer_than_a_block(monkeypatch, limits, most):
    for name, value in limits.items():
        monkeypatch.setattr(averaging, name, value)
    views = toy(30)
    views.query.asked.clear()
    averaged(views, 5, 0.1)
    assert max(x.shape[1] for x in views.query.asked) == most  # but one candidate's copies stay together


def test_a_change_may_be_anything_and_its_answers_may_be_summed_up_anyhow():
    """Copy j is the input turned by j places, the summary its label; each block is told its own rows."""
    views = toy(11)

    def turned(x, rows, generator):
        return torch.stack([x[rows].roll(j, -1) for j in range(3)])

    seen = []

    def labels(answers, model, rows):
        seen.append((model, rows.tolist()))
        return answers.argmax(-1).T

    found = of_copies(views, 3, turned, labels)
    largest = views.x.argmax(-1)
    assert torch.equal(found, (largest[..., None] + torch.arange(3)) % 3)
    assert seen == [(0, list(range(11))), (1, list(range(11)))]


def test_gaussian_noise_of_several_strengths():
    change = gaussian(torch.tensor([0.0, 1.0, 3.0]))
    x = torch.ones(2000, 2, 3, 3)
    copies = change(x, torch.arange(5, 1005), torch.Generator().manual_seed(0))
    assert copies.shape == (3, 1000, 2, 3, 3) and torch.equal(copies[0], x[:1000])
    assert [round(float((copy - 1).std())) for copy in copies] == [0, 1, 3]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"x": None}, {}, "views.x is needed, found None"),
        ({"query": None}, {}, "views.query is needed, found None"),
        (
            {"x": torch.zeros(2, 29, 3)},
            {},
            r"views.x must be \(2, 30\) inputs as the labels, found \(2, 29\)",
        ),
        ({}, {"queries": 0}, "queries must be at least 1 a candidate, found 0"),
        ({}, {"queries": -1}, "queries must be at least 1 a candidate, found -1"),
        ({}, {"epsilon": -0.1}, "epsilon must be 0 or more and finite, found -0.1"),
        ({}, {"epsilon": math.nan}, "epsilon must be 0 or more and finite, found nan"),
    ],
)
def test_bad_input_is_named(change, options, message):
    with pytest.raises(ValueError, match=message):
        averaged(replace(toy(), **change), **{"queries": 2, "epsilon": 0.0} | options)


def test_served_networks_are_asked_each_through_its_own_defence():
    """A defence with one state a model: the mean of what model i answers goes through defence i."""

    @dataclass(frozen=True)
    class Powers:
        powers: Tensor

        def __getitem__(self, models):
            return Powers(self.powers[models])

        def __call__(self, log_p):
            return (self.powers[:, None, None] * log_p).log_softmax(-1)

    both = asking.serve(toy(slopes=(1.0,))[[0, 0]], Powers(torch.tensor([1.0, 4.0]).double()))
    found = averaged(both, 2, 0.0).log_posteriors
    assert torch.allclose(found, both.log_posteriors, atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-2)


def test_what_is_public_is_averaged_alike():
    x = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(0))
    seen = Views(
        x.double().log_softmax(-1), torch.zeros(1, 6).long(), x=x, query=lambda x: x.double().log_softmax(-1)
    )
    found = averaging.averaged(replace(seen, public=seen), 5, 0.5)
    assert torch.equal(found.public.log_posteriors, found.log_posteriors)
    assert not torch.equal(found.log_posteriors, seen.log_posteriors)
