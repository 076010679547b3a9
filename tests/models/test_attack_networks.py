"""Attack networks: the layers of their sources, PyTorch's own encoder, alone and many at once."""

import pytest
import torch
from torch import nn

from mialib.models import attack_networks
from tests.models.test_classifiers import (
    check_dropout_differs,
    check_gradients,
    check_gradients_with_dropout,
    check_vmap_in_eval_mode,
)

WIDTHS = {"attack_mlp": 20, "nsh_network": 10, "samia_network": 15}  # of the attack features
SIZES = {"attack_mlp": 20, "nsh_network": 5, "samia_network": 5}  # the constructors' argument


def fresh(name):
    torch.manual_seed(1)
    return getattr(attack_networks, name)(SIZES[name])


def example(name, n=4):
    return torch.rand(n, WIDTHS[name], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", WIDTHS)
def test_vmap_equals_one_by_one_in_eval_mode(name):
    check_vmap_in_eval_mode(fresh(name), example(name))


@pytest.mark.parametrize("name", ["attack_mlp", "samia_network"])
def test_dropout_differs_between_models_under_vmap(name):
    check_dropout_differs(fresh(name), example(name))


@pytest.mark.parametrize("name", WIDTHS)
def test_gradients_under_vmap_equal_autograd(name):
    check_gradients(fresh(name), example(name, 16), dropping=nn.Dropout | attack_networks.EncoderLayer)


@pytest.mark.parametrize("name", ["attack_mlp", "samia_network"])
def test_gradients_with_dropout_under_vmap_are_finite(name):
    check_gradients_with_dropout(fresh(name), example(name, 16))


def test_attack_mlp_layers():
    model = attack_networks.attack_mlp(9)
    assert [layer.out_features for layer in model if isinstance(layer, nn.Linear)] == [512, 256, 128, 2]
    kinds = "".join(type(layer).__name__[0] for layer in model)
    assert kinds == "LRDLRDLRL" and all(layer.p == 0.2 for layer in model if isinstance(layer, nn.Dropout))


@pytest.mark.parametrize(
    ("part", "widths"),
    [
        ("prediction", [(9, 1024), (1024, 512), (512, 64)]),
        ("label", [(9, 512), (512, 64)]),
        ("joint", [(128, 256), (256, 64), (64, 2)]),
    ],
)
def test_nsh_layers(part, widths):
    layers = list(getattr(attack_networks.nsh_network(9), part).modules())
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == widths
    relus = sum(isinstance(layer, nn.ReLU) for layer in layers)
    assert relus == len(widths) - (part == "joint")  # the logits alone have none


def test_nsh_reads_the_posterior_first_and_the_label_second():
    model, seen = attack_networks.nsh_network(3), {}
    for name in ("prediction", "label"):
        branch = getattr(model, name)
        branch.register_forward_pre_hook(lambda _module, args, name=name: seen.update({name: args[0]}))
    x = torch.arange(12.0).view(2, 6)
    assert model(x).shape == (2, 2)
    assert torch.equal(seen["prediction"], x[:, :3]) and torch.equal(seen["label"], x[:, 3:])


def reference_encoder(model):
    """PyTorch's own encoder with the weights of SAMIA's layers."""
    layer = nn.TransformerEncoderLayer(64, 4, 128, 0.2, "gelu", batch_first=True)
    encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    theirs = {
        "qkv.": "self_attn.in_proj_",
        "out.": "self_attn.out_proj.",
        "up.": "linear1.",
        "down.": "linear2.",
        "norm1.": "norm1.",
        "norm2.": "norm2.",
    }
    state = {}
    for name, value in model.layers.state_dict().items():
        index, ours, kind = name.split(".")
        state[f"layers.{index}.{theirs[ours + '.']}{kind}"] = value
    encoder.load_state_dict(state)
    return encoder


def test_samia_layers_equal_pytorchs_encoder():
    torch.manual_seed(0)
    model = attack_networks.samia_network(7).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # no two layers alike, no bias zero
            parameter.add_(0.1 * torch.randn_like(parameter))
        encoder = reference_encoder(model).eval()
        tokens = torch.randn(5, 7, 64)
        ours = tokens
        for layer in model.layers:
            ours = layer(ours)
        torch.testing.assert_close(ours, encoder(tokens), rtol=1e-5, atol=1e-5)


def test_samia_starts_as_the_released_code_does():
    """One rule for all networks, by class name: the attention's own projections are not of class Linear there."""
    torch.manual_seed(0)
    twins = attack_networks.samia_network(7).layers
    layer, reference = twins[0], nn.TransformerEncoderLayer(64, 4, 128)
    bound = (6 / (64 + 192)) ** 0.5  # Xavier-uniform over the fused matrix
    assert 0.98 * bound < layer.qkv.weight.abs().max().item() <= bound
    assert 0.98 * bound < reference.self_attn.in_proj_weight.abs().max().item() <= bound
    assert torch.equal(twins[0].qkv.weight, twins[2].qkv.weight)  # nn.TransformerEncoder copies its layer
    assert not layer.qkv.bias.any() and not layer.out.bias.any() and not layer.up.bias.any()
    up = layer.up.weight  # Xavier-normal, as are the perceptron's
    assert up.std().item() == pytest.approx((2 / sum(up.shape)) ** 0.5, rel=0.05)
    assert not torch.equal(twins[0].up.weight, twins[2].up.weight)


def test_attack_mlp_starts_xavier_normal():
    torch.manual_seed(0)
    weight = attack_networks.attack_mlp(20)[0].weight
    assert weight.std().item() == pytest.approx((2 / sum(weight.shape)) ** 0.5, rel=0.05)


def test_samia_reads_confidence_sensitivity_and_label_of_each_class_as_one_token():
    model = attack_networks.samia_network(4).eval()
    seen = []
    model.embed.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    x = torch.arange(12.0)[None]
    with torch.no_grad():
        model(x)
    # BatchNorm in eval mode with its initial statistics divides by sqrt(1 + 1e-5)
    expected = torch.tensor([[0.0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]])
    torch.testing.assert_close(seen[0][0], expected, rtol=1e-4, atol=0)


def test_samia_learns_which_class_is_confident():
    """Members: confidence high on the labelled class. A few steps suffice, dropout on."""
    torch.manual_seed(0)
    model = attack_networks.samia_network(5)
    y = torch.randint(5, (256,))
    member = torch.arange(256) % 2
    label = torch.eye(5)[y]
    x = torch.cat(
        [torch.rand(256, 5) * 0.3 + 0.6 * label * member[:, None], torch.rand(256, 5), label], dim=1
    )
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(40):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), member).backward()
        optimiser.step()
    assert (model.eval()(x).argmax(1) == member).float().mean() > 0.95
