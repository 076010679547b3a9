import copy
from functools import partial

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision.models import mobilenet_v2 as torchvision_mobilenet_v2

from mialib import hashing
from mialib.compression import channels, deployment_cost
from mialib.compression.channels import Group, LargestChannels
from mialib.models import classifiers
from mialib.training.population import initial, stack


def lenet():
    """(b, 1, 12, 12) -> (b, 3); 4 maps of 5 x 5, 6 maps of 2 x 2, 8 hidden units."""
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 6, 2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3)),
    )


class Residual(nn.Module):
    """Stem and last convolution of the block meet in an addition; `pre` puts BatchNorms on the way, as ResNet-v2."""

    def __init__(self, pre: bool = False):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, bias=False)
        self.inner = nn.Conv2d(4, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 4, 3, padding=1)
        self.norm1, self.norm2 = (nn.BatchNorm2d(4), nn.BatchNorm2d(4)) if pre else (nn.Identity(),) * 2
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.last(self.inner(self.norm1(x).relu()).relu())
        return self.head(self.norm2(x).relu().mean((2, 3)))


class Joined(nn.Module):
    """Two branches side by side: behind the concatenation, the inputs of one layer belong to two groups."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 6, 3)
        self.tail = nn.Sequential(nn.Conv2d(10, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 2 * 2, 3))

    def forward(self, x):
        return self.tail(torch.cat([self.left(x).relu(), self.right(x).relu()], dim=1))


def mobilenet_v2(num_classes):
    model = torchvision_mobilenet_v2(num_classes=num_classes)
    for layer in model.modules():
        if isinstance(layer, nn.ReLU6):
            layer.inplace = False
    return model


def population(make_model, k=1, shape=None):
    """Random models with biases, BatchNorm parameters and running statistics far from their defaults.

    With the shape of an input the running statistics are of real activations, so that the signal reaches the logits
    of a deep network; otherwise they are random, too.
    """
    generator = torch.Generator().manual_seed(0)
    modules = list(initial(make_model, list(range(k))))
    for module in modules:
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.dim() > 1:
                tensor.data *= 3
            elif tensor.dim() == 1 and name.endswith(("weight", "running_var")):
                tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5
            elif tensor.dim() == 1:
                tensor.data = 0.3 * torch.randn(tensor.shape, generator=generator)
        if shape:
            for layer in module.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.momentum = 1.0
            with torch.no_grad():
                module.train()(torch.randn(16, *shape, generator=generator))
    return stack(make_model, modules)


def pruned(make_model, example, density):
    """One random model with masks baked in."""
    pop = population(make_model, shape=example.shape[1:])
    pop.params.update(LargestChannels(channels.groups(make_model, example), density)(pop.params)(pop.params))
    return pop[0]


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_groups_of_lenet():
    assert channels.groups(lenet, torch.randn(2, 1, 12, 12)) == (
        Group(("0.weight", "0.bias"), 4),
        Group(("3.weight", "3.bias"), 6),
        Group(("7.weight", "7.bias"), 8),
    )


def test_groups_of_a_residual_network():
    stream = ("stem.weight", "last.weight", "last.bias")
    inner = Group(("inner.weight", "inner.bias"), 6)
    example = torch.randn(1, 1, 6, 6)
    assert channels.groups(Residual, example) == (Group(stream, 4), inner)
    norms = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")
    assert channels.groups(partial(Residual, pre=True), example) == (Group(stream + norms, 4), inner)


def test_groups_of_small_cnn_and_a_batch_of_one():
    make = partial(classifiers.small_cnn, in_channels=1, num_classes=3, image_size=8, width=4)
    expected = tuple(
        Group((f"{conv}.weight", f"{conv + 1}.weight", f"{conv + 1}.bias"), size)
        for conv, size in ((0, 4), (3, 8), (7, 16))
    )
    assert channels.groups(make, torch.randn(1, 1, 8, 8)) == expected
    assert channels.groups(make, torch.randn(5, 1, 8, 8)) == expected


def test_only_the_bottlenecks_of_densenet():
    make = partial(classifiers.densenet121, in_channels=1, num_classes=3)
    found = channels.groups(make, torch.randn(1, 1, 32, 32))
    assert len(found) == 6 + 12 + 24 + 16
    for group in found:
        assert group.size == 128, group
        assert [name.split(".", 3)[3] for name in group.outputs] == [
            "conv1.weight",
            "norm2.weight",
            "norm2.bias",
        ], group


def test_groups_share_no_parameter():
    found = channels.groups(partial(mobilenet_v2, 3), torch.randn(1, 3, 32, 32))
    names = [name for group in found for name in group.outputs]
    assert len(names) == len(set(names))
    assert set(dict(mobilenet_v2(3).named_parameters())) - set(names) == {
        "classifier.1.weight",
        "classifier.1.bias",
    }


@pytest.mark.parametrize(
    "between",
    [
        nn.GroupNorm(2, 4),
        nn.LayerNorm(6),
        nn.BatchNorm2d(4, affine=False),
        nn.Conv2d(4, 8, 3, padding=1, groups=2),
        nn.ConvTranspose2d(4, 4, 3, groups=2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_channels_that_cannot_be_silenced_are_left_out(between):
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5), nn.ReLU(), nn.Linear(5, 3)]
    network = nn.Sequential(nn.Conv2d(1, 4, 3), between, nn.ReLU(), *tail)
    example = torch.randn(1, 1, 8, 8)
    network(example)
    assert channels.groups(partial(copy.deepcopy, network), example) == (Group(("5.weight", "5.bias"), 5),)


def test_nothing_to_remove():
    with pytest.raises(ValueError, match="no channels"):
        channels.groups(partial(nn.Linear, 4, 2), torch.randn(3, 4))


@pytest.mark.parametrize(
    "density, kept", [(1.0, (4, 6, 8)), (0.5, (2, 3, 4)), (0.3, (1, 2, 2)), (0.01, (1, 1, 1))]
)
def test_exact_counts_and_the_largest_stay(density, kept):
    pop = population(lenet, k=3)
    found = channels.groups(lenet, torch.randn(2, 1, 12, 12))
    masks = LargestChannels(found, density)(pop.params)
    assert set(masks.kept) == {name for group in found for name in group.outputs}
    for group, expected in zip(found, kept, strict=True):
        weight = group.outputs[0]
        stay = masks.kept[group.outputs[1]]  # the bias: one entry a channel
        assert stay.sum(1).tolist() == [expected] * 3, group
        norms = pop.params[weight].flatten(2).norm(dim=2)
        for i, (model_norms, model_stay) in enumerate(zip(norms, stay, strict=True)):
            if not model_stay.all():
                assert model_norms[~model_stay].max() <= model_norms[model_stay].min(), f"{group}, model {i}"


def test_pruned_channels_are_zero_in_all_outputs_and_nothing_else_changes():
    make = partial(Residual, pre=True)
    pop = population(make, k=2)
    before = {name: tensor.clone() for name, tensor in pop.params.items()}
    found = channels.groups(make, torch.randn(1, 1, 6, 6))
    masks = LargestChannels(found, 0.5)(pop.params)
    after = masks(pop.params)
    assert all(torch.equal(tensor, before[name]) for name, tensor in pop.params.items())
    for group in found:
        channel = masks.kept[group.outputs[0]].flatten(2)[:, :, 0]  # (k, size)
        for name in group.outputs:
            assert masks.kept[name].dtype == torch.bool and masks.kept[name].shape == before[name].shape, (
                f"{group}, {name}"
            )
            assert not after[name][~channel].any(), f"{group}, {name}"
            assert torch.equal(after[name][channel], before[name][channel]), f"{group}, {name}"
    assert all(torch.equal(after[name], before[name]) for name in ("head.weight", "head.bias"))


def test_rank_is_the_norm_over_all_weights_of_the_group_for_each_model():
    pop = population(partial(Residual, pre=True), k=2)
    stem, last = pop.params["stem.weight"].zero_(), pop.params["last.weight"].zero_()
    stem[:, :, 0, 0, 0] = torch.tensor([[3.0, 0.0, 4.5, 1.0], [0.0, 2.0, 0.0, 0.0]])
    last[:, :, 0, 0, 0] = torch.tensor([[4.0, 4.8, 0.0, 1.0], [1.0, 0.0, -3.0, 0.5]])
    # Neither of these counts, large as they are.
    pop.params["norm1.weight"][:, 3] = 100.0
    pop.params["last.bias"][:, 3] = 100.0
    found = channels.groups(pop.make_model, torch.randn(1, 1, 6, 6))
    kept = LargestChannels(found, 0.5)(pop.params).kept["norm2.bias"]
    assert kept.tolist() == [[True, True, False, False], [False, True, True, False]]  # norms 5, 4.8, 4.5, 1.4
    alone = LargestChannels(found, 0.5)(pop[1:2].params).kept["norm2.bias"]
    assert torch.equal(alone, kept[1:])


def test_of_equal_channels_the_smaller_index_goes_first():
    pop = population(lenet, k=2)
    tied = {name: torch.ones_like(tensor) for name, tensor in pop.params.items()}
    masks = LargestChannels(channels.groups(lenet, torch.randn(2, 1, 12, 12)), 0.5)(tied)
    assert masks.kept["0.bias"].tolist() == [[False] * 2 + [True] * 2] * 2
    assert masks.kept["7.bias"].tolist() == [[False] * 4 + [True] * 4] * 2


@pytest.mark.parametrize("density", [0.0, -0.5, 1.01, float("nan")])
def test_density_out_of_range(density):
    with pytest.raises(ValueError, match="density"):
        LargestChannels((), density)
    with pytest.raises(ValueError, match="density"):
        LargestChannels((), 0.5).at(density)


def test_another_density_is_another_key():
    half = LargestChannels((Group(("0.weight", "0.bias"), 4),), 0.5)
    assert half.at(0.25) == LargestChannels(half.groups, 0.25) and half.density == 0.5
    assert hashing.key(choose=half) != hashing.key(choose=half.at(0.25))
    assert hashing.key(choose=half) == hashing.key(choose=half.at(0.5))


@pytest.mark.parametrize(
    "make, shape",
    [
        (lenet, (1, 12, 12)),
        (Residual, (1, 6, 6)),
        (partial(Residual, pre=True), (1, 6, 6)),
        (Joined, (1, 6, 6)),
        (partial(classifiers.columnfc, in_features=20, num_classes=5), (20,)),
        (partial(classifiers.small_cnn, in_channels=3, num_classes=5, image_size=8), (3, 8, 8)),
        (partial(classifiers.small_cnn, in_channels=1, num_classes=5, image_size=32, width=8), (1, 32, 32)),
        (partial(classifiers.resnet18, in_channels=3, num_classes=5), (3, 16, 16)),
        (partial(classifiers.vgg16_bn, in_channels=3, num_classes=5), (3, 32, 32)),
        (partial(classifiers.densenet121, in_channels=3, num_classes=5), (3, 16, 16)),
        (partial(mobilenet_v2, num_classes=5), (3, 32, 32)),
    ],
    ids=lambda value: getattr(getattr(value, "func", value), "__name__", None),
)
def test_smaller_has_the_logits_of_the_masked_module(make, shape):
    generator = torch.Generator().manual_seed(1)
    example = torch.randn(2, *shape, generator=generator)
    masked = pruned(make, example, 0.5)
    small = channels.smaller(masked, example)
    assert count(small) < 0.6 * count(masked) and not small.training
    fresh = torch.randn(3, *shape, generator=generator)  # another batch size, too
    with torch.inference_mode():
        expected, got = masked(fresh), small(fresh)
    assert expected.std(0).max() > 5e-3  # the logits depend on the inputs, so this compares something
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_parameters_of_a_smaller_lenet_by_hand():
    example = torch.randn(2, 1, 12, 12)
    small = channels.smaller(pruned(lenet, example, 0.5), example)
    assert count(small) == 2 * (9 + 1) + 3 * (2 * 4 + 1) + 4 * (3 * 4 + 1) + 3 * (4 + 1)
    assert small[0].weight.shape == (2, 1, 3, 3) and small[7].weight.shape == (4, 12)


def test_smaller_leaves_the_module_as_it_was():
    example = torch.randn(2, 1, 6, 6)
    module = pruned(partial(Residual, pre=True), example, 0.5).train().requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    channels.smaller(module, example)
    assert module.training and not any(parameter.requires_grad for parameter in module.parameters())
    after = module.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_nothing_dead_nothing_removed():
    example = torch.randn(2, 1, 12, 12)
    module = population(lenet)[0]
    with torch.no_grad():
        module[0].weight[1] = 0  # its bias still speaks, so the channel is alive
        small = channels.smaller(module, example)
    assert count(small) == count(module)
    assert torch.equal(small(example), module(example))


def test_one_channel_stays_where_all_are_dead():
    example = torch.randn(2, 1, 12, 12)
    module = population(lenet)[0]
    with torch.no_grad():
        module[3].weight.zero_()
        module[3].bias.zero_()
    small = channels.smaller(module, example)
    assert small[3].weight.shape == (1, 4, 2, 2) and small[7].weight.shape == (8, 4)
    torch.testing.assert_close(small(example), module(example))


def test_smaller_refuses_channels_that_are_not_silent():
    make = partial(copy.deepcopy, nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 2)))
    example = torch.randn(3, 4)
    with pytest.raises(ValueError, match="not silent"):
        channels.smaller(pruned(make, example, 0.5), example)


def test_comparison_by_hand():
    example = torch.randn(2, 1, 12, 12)
    masked = pruned(lenet, example, 0.5)
    small = channels.smaller(masked, example)
    table = deployment_cost.compare(
        masked, small, {"one image": example[:1], "batch of 2": example}, repeats=3
    )
    assert list(table.index) == [
        "parameters",
        "file (KB)",
        "CPU latency, one image (ms)",
        "CPU latency, batch of 2 (ms)",
    ]
    assert list(table.columns) == ["before", "after", "ratio"]
    full = 4 * (9 + 1) + 6 * (4 * 4 + 1) + 8 * (24 + 1) + 3 * (8 + 1)
    assert table.loc["parameters"].tolist() == [full, 114, full / 114]
    assert table.loc["file (KB)", "before"] == len(safetensors.torch.save(masked.state_dict())) / 1000
    assert (table["ratio"] == table["before"] / table["after"]).all()
