"""What networks are made of: how weights begin, perceptrons, and dropout against its definition."""

import pytest
import torch
from torch import nn
from torch.func import vmap
from torchvision.ops import Conv2dNormActivation

from mialib.models.layers import Dropout, dropout, initialise, mlp


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(200, 300),
        nn.Conv1d(40, 50, 5),
        nn.Conv2d(40, 50, 3),
        nn.Conv2d(40, 40, 3, groups=4),
        nn.ConvTranspose2d(40, 50, 4, bias=False),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_weights_begin_xavier_normal_and_biases_at_0(layer):
    torch.manual_seed(0)
    assert initialise(layer) is layer
    area = layer.weight[0, 0].numel()
    std = (2 / (area * (layer.weight.shape[0] + layer.weight.shape[1]))) ** 0.5
    assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
    assert layer.weight.abs().max() > 3 * std  # a normal law, not Xavier's uniform one, which ends at sqrt(3)
    assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(7), nn.BatchNorm2d(7), nn.LayerNorm(7), nn.GroupNorm(1, 7)], ids=repr
)
def test_norms_begin_as_the_identity(layer):
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    initialise(layer)
    assert bool((layer.weight == 1).all()) and not layer.bias.any()


def test_containers_and_norms_without_weights_are_passed_over():
    block = Conv2dNormActivation(3, 8, norm_layer=lambda width: nn.BatchNorm2d(width, affine=False))
    before = block[0].weight.clone()
    assert initialise(block) is block
    assert not torch.equal(block[0].weight, before)  # what is inside is reached all the same


class Other(nn.Linear):
    pass


def test_layers_of_another_class_name_keep_their_weights():
    layer = Other(6, 3)
    before = layer.weight.clone()
    initialise(layer)
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize(
    ("widths", "dropouts", "kinds"),
    [
        ((6, 3), (), ["Linear"]),
        ((6, 5, 3), (), ["Linear", "ReLU", "Linear"]),
        ((6, 5, 4, 3), (0.2,), ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Linear"]),
        ((6, 5, 4, 3), (0.2, 0.5), ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]),
    ],
    ids=["linear", "one hidden layer", "first dropped", "all dropped"],
)
def test_perceptrons_have_relus_between_and_dropout_where_asked(widths, dropouts, kinds):
    model = mlp(widths, dropouts)
    assert [type(layer).__name__ for layer in model] == kinds
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == list(
        zip(widths, widths[1:], strict=False)
    )
    assert tuple(layer.p for layer in model if isinstance(layer, Dropout)) == dropouts
    assert model(torch.zeros(2, 6)).shape == (2, 3)


# Dropout


def test_the_layer_drops_in_training_only():
    layer, x = Dropout(0.5), torch.ones(1000)
    assert layer.eval()(x) is x
    torch.manual_seed(0)
    assert sorted(layer.train()(x).unique().tolist()) == [0.0, 2.0] and bool((x == 1).all())


def test_dropout_follows_torchs_seed():
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(dropout(torch.ones(100), 0.5))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_dropout_keeps_type_and_shape(dtype):
    out = dropout(torch.ones(3, 5, 7, dtype=dtype), 0.2)
    assert out.dtype == dtype and out.shape == (3, 5, 7)


def test_dropout_share_scale_and_gradient():
    torch.manual_seed(0)
    x = torch.ones(1000, 401, requires_grad=True)  # 401,000 is not a multiple of four: the last draw is cut
    out = dropout(x, 0.2)
    share = (out == 0).double().mean().item()
    assert share == pytest.approx(0.2, abs=5 * (0.16 / x.numel()) ** 0.5)
    assert out[out != 0].unique().tolist() == pytest.approx([1.25], rel=1e-4)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    columns = (out == 0).double().flatten()[:400_000].view(-1, 4)
    assert (
        torch.corrcoef(columns.T).fill_diagonal_(0).abs().max() < 0.02
    )  # the four of one draw are independent


def test_dropout_under_vmap_draws_for_each_model():
    x = torch.ones(2, 50)
    one = vmap(lambda row: dropout(row, 0.5), randomness="different")(x)
    assert not torch.equal(one[0], one[1])


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_limits(p):
    assert torch.equal(dropout(torch.ones(7), p), torch.full((7,), 1.0 - p))
