"""Random streams: every use has a name of its own, and any two streams are independent."""

import ast
import itertools
import math
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import nn

from mialib import REPO_ROOT, streams
from mialib.data import splits
from mialib.defenses.differential_privacy import DPSGD
from mialib.models import attack_networks
from mialib.training import Recipe, descent, loop, objectives, population
from mialib.training.hooks import Hooks

SOURCES = {path: ast.parse(path.read_text()) for path in sorted((REPO_ROOT / "mialib").rglob("*.py"))}


def named_streams():
    """(name, where) of every call of `streams` in the package; its name is the first text among the arguments."""
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            function = getattr(node, "func", None)
            if isinstance(function, ast.Attribute) and getattr(function.value, "id", "") == "streams":
                texts = [arg.value for arg in node.args if isinstance(getattr(arg, "value", None), str)]
                assert texts, f"{path}, line {node.lineno}: a stream without a name"
                yield texts[0], f"{path.name}, line {node.lineno}"


NAMES = [name for name, _ in named_streams()]


def test_no_two_uses_share_a_name():
    assert len(NAMES) > 15
    for name in NAMES:
        assert NAMES.count(name) == 1, [where for one, where in named_streams() if one == name]


def test_nothing_else_is_seeded():
    """No generator is made of a bare seed: two of them would give the same numbers."""
    allowed = {"streams.py", "splits.py", "losses.py"}  # SeedSequence itself; the number of a step, see Mixup
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            attribute = getattr(getattr(node, "func", None), "attr", "")
            if attribute in ("manual_seed", "default_rng", "seed") and path.name not in allowed:
                inner = [
                    getattr(getattr(arg, "func", None), "value", None) for arg in getattr(node, "args", [])
                ]
                is_stream = any(getattr(one, "id", "") == "streams" for one in inner)
                owner = getattr(getattr(node.func, "value", None), "id", "")
                assert is_stream or owner == "streams", f"{path}, line {node.lineno}"


@pytest.mark.parametrize("draw", [torch.rand, torch.randn], ids=["uniform", "normal"])
def test_every_pair_of_streams_is_independent(draw):
    """Of one seed, and of neighbouring seeds: no correlation of the numbers in their order."""
    n = 20_000
    drawn = {
        (seed, name): draw(n, generator=streams.generator(seed, name)).double()
        for seed in (0, 1)
        for name in NAMES
    }
    pairs = list(itertools.combinations(drawn, 2))
    values = torch.stack([draws - draws.mean() for draws in drawn.values()])
    values /= values.norm(dim=1, keepdim=True)
    correlations = (values @ values.T).fill_diagonal_(0)
    assert float(correlations.abs().max()) * math.sqrt(n) < 4.5 + math.log10(len(pairs)) / 4
    permutations = {
        tuple(torch.randperm(50, generator=streams.generator(seed, name)).tolist())
        for seed in (0, 1)
        for name in NAMES
    }
    assert len(permutations) == 2 * len(NAMES)


def test_a_seed_depends_on_all_its_parts_and_on_their_order():
    seeds = {
        streams.seed(*of)
        for of in [(0,), (1,), (0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a", 2), (0, 1)]
    }
    assert len(seeds) == 8 and all(0 <= seed < 2**63 for seed in seeds)
    assert streams.seed(7, "a") == streams.seed(7, "a") and streams.seed(-1, "a") != streams.seed(1, "a")
    assert streams.seeds([7, 8], "a", 3) == [streams.seed(7, "a", 3), streams.seed(8, "a", 3)]


# What one training uses


def network():
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))


@dataclass(frozen=True)
class Opponent:
    """Notes the seeds that it is given."""

    given: list

    def begin(self, seeds, device):
        self.given.extend(seeds)
        return lambda *_: 0.0


def test_a_training_seeds_every_stream_by_itself(toy, monkeypatch):
    """The seeds that generators really have: initial weights, order, dropout, augmentation, references, opponent."""
    split = splits.target_shadow(len(toy), 1, 2, seed=0, n_train=20)
    seeds, given, dropout, augmented, initial = split.seeds.tolist(), [], [], [], []
    real = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: dropout.append(seed) or real(seed))
    fresh = population.initial(network, seeds)
    initial.extend(dropout)
    dropout.clear()

    def augment(x, generator):
        augmented.append(generator.initial_seed())
        return x

    orders = []
    begin = descent.Shuffling.begin
    made, generator = [], streams.generator

    def noted(*of, **options):
        made.append(generator(*of, **options))
        return made[-1]

    monkeypatch.setattr(streams, "generator", noted)
    monkeypatch.setattr(
        descent.Shuffling,
        "begin",
        lambda self, members, size, of: orders.append(len(made)) or begin(self, members, size, of),
    )
    hooks = Hooks(objectives.cross_entropy, descent.Shuffling(), opponent=Opponent(given), augment=augment)
    loop.train(network, toy, Recipe(1, 8), split=split, hooks=hooks, start=fresh)
    of_generators = [one.initial_seed() for one in made]
    assert (
        len(of_generators) == 3 + 3 + 1 and orders
    )  # references and order of each model, one for augmentation
    assert set(augmented) <= set(of_generators) and len(dropout) == 1
    used = [*initial, *of_generators, *dropout, *given]
    assert len(used) == 3 + 7 + 1 + 3
    assert not set(used) & set(seeds)  # an opponent of its model's seed would begin with its model's weights
    low = [seed % 2**32 for seed in used]  # all that a generator on the CPU reads of its seed
    assert len(set(low)) == len(low)


def test_private_descent_draws_batches_and_noise_from_streams_of_their_own(toy, monkeypatch):
    made, generator = [], streams.generator
    monkeypatch.setattr(
        streams, "generator", lambda *of, **options: made.append(generator(*of, **options)) or made[-1]
    )
    DPSGD(1.0).begin(torch.arange(20)[None], 8, [3])
    assert len({one.initial_seed() for one in made}) == 2
    assert streams.seed(3, "initial weights") not in {one.initial_seed() for one in made}


def test_reference_batches_do_not_follow_the_batch_order(toy):
    """With the seed of the order, the references would be drawn from the very numbers that shuffle the members."""
    split = splits.target_shadow(len(toy), 1, 2, seed=0, n_train=20)
    for seed in split.seeds.tolist():
        order, references = (
            torch.rand(1000, generator=streams.generator(seed, name))
            for name in ("batch order", "reference batches")
        )
        assert abs(float(torch.corrcoef(torch.stack([order, references]))[0, 1])) < 0.15
        neighbour = torch.rand(1000, generator=streams.generator(seed + 1, "batch order"))
        assert not torch.equal(references, neighbour)


def test_an_opponents_weights_are_not_its_models(toy):
    make = partial(attack_networks.attack_mlp, 6)
    model, opponent = (population.initial(make, seeds) for seeds in ([5], streams.seeds([5], "opponent")))
    assert not any(
        torch.equal(model.params[name], opponent.params[name])
        for name in model.params
        if model.params[name].any()
    )
