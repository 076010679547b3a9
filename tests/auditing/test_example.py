"""The recipe that the notebook runs by default."""

import torch
from torch.nn.utils import parametrize, prune

from mialib.auditing import example


def test_the_recipe_makes_what_it_says():
    members, others = example.examples()
    assert len(members) == example.MEMBERS and len(others) == 1797 - example.MEMBERS
    assert members[0][0].shape == (1, 8, 8) and 0 <= members.tensors[0].min() <= members.tensors[0].max() == 1
    torch.manual_seed(0)
    network = example.train(members)
    before = {name: one.clone() for name, one in network.state_dict().items()}
    made = example.compress(network, members)
    assert list(made) == ["pruned", "control", "3 bits"]
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())
    x, y = others.tensors
    for one in (network, *made.values()):
        assert float((one(x).argmax(1) == y).double().mean()) > 0.85
    assert prune.is_pruned(made["pruned"]) and not parametrize.is_parametrized(made["pruned"])
    layers = [layer.weight for layer in made["pruned"] if hasattr(layer, "weight")]
    zeros = sum(int((one == 0).sum()) for one in layers) / sum(one.numel() for one in layers)
    assert abs(zeros - 0.7) < 1e-3
    assert all(len(layer.weight.unique()) <= 7 for layer in made["3 bits"] if hasattr(layer, "weight"))
