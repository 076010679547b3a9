"""Classifiers: the papers' sizes, initial weights, alone and many at once; the checks that all networks share."""

import copy
import pickle
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.utils.flop_counter import FlopCounterMode

from mialib import models
from mialib.models import classifiers

# of digits, in a few seconds: for the tests of other rooms
CNN = partial(classifiers.small_cnn, in_channels=1, num_classes=10, image_size=8, width=4)
SIDES = {
    "small_cnn": 8,
    "lenet5": 8,
    "resnet8": 8,
    "resnet20": 8,
    "resnet18": 8,
    "vgg11_bn": 32,
    "vgg16_bn": 32,
    "densenet121": 16,
    "mobilenet_v2": 16,
}


def toy(shape, num_classes=10):
    return SimpleNamespace(name="toy", x=torch.zeros(4, *shape), num_classes=num_classes)


def constructor(name, num_classes=10):
    return models.make(name, toy((3, SIDES[name], SIDES[name]) if name in SIDES else (20,), num_classes))


def inputs(name, n=4):
    shape = (3, SIDES[name], SIDES[name]) if name in SIDES else (20,)
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def built():
    torch.manual_seed(0)
    return {name: constructor(name)() for name in classifiers.NAMES}


@pytest.mark.parametrize("name", classifiers.NAMES)
def test_classifiers_give_logits(built, name):
    model, x = built[name].eval(), inputs(name)
    before = x.clone()
    with torch.no_grad():
        assert model(x).shape == (4, 10)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    "name", ["resnet8", "resnet20", "resnet18", "vgg11_bn", "vgg16_bn", "densenet121", "mobilenet_v2"]
)
def test_in_channels_is_adjustable(name):
    with torch.device("meta"):
        model = getattr(classifiers, name)(in_channels=1, num_classes=7)
        assert model(torch.zeros(2, 1, SIDES[name], SIDES[name])).shape == (2, 7)


def parameter_count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("densenet121", 6_956_426),  # the paper's notebook prints 6,956 K
        ("columnfc", (20 + 1) * 256 + 257 * 128 + 129 * 10),
        # torchvision's ResNet-18 with 10 classes, less the stem's 7x7 kernels, plus 3x3 ones
        ("resnet18", 11_181_642 - 3 * 64 * (49 - 9)),
        # torchvision's MobileNetV2 on 1,000 classes has 3,504,872; its stem is 3x3 already
        ("mobilenet_v2", 3_504_872 - 990 * (1280 + 1)),
    ],
)
def test_parameter_counts(built, name, count):
    assert parameter_count(built[name]) == count


def test_vgg16_has_the_published_head(built):
    assert [
        tuple(layer.weight.shape) for layer in built["vgg16_bn"].modules() if type(layer) is nn.Linear
    ] == [
        (4096, 512),
        (4096, 4096),
        (10, 4096),
    ]


@pytest.mark.parametrize(("name", "blocks", "count"), [("resnet8", 1, 78_042), ("resnet20", 3, 272_474)])
def test_cifar_resnet_parameters_by_hand(built, name, blocks, count):
    def convolution(before, after, kernel):  # no bias, but gamma and beta behind it
        return before * after * kernel**2 + 2 * after

    total = convolution(3, 16, 3) + (64 + 1) * 10
    for before, after in ((16, 16), (16, 32), (32, 64)):
        total += convolution(before, after, 3) + (2 * blocks - 1) * convolution(after, after, 3)
        total += convolution(before, after, 1) if before != after else 0  # the shortcut
    assert parameter_count(built[name]) == total == count


def test_vgg11_parameters_by_hand(built):
    widths = (3, 64, 128, 256, 256, 512, 512, 512, 512)
    convolutions = sum(9 * a * b + 3 * b for a, b in pairwise(widths))  # weights; bias, gamma, beta
    assert parameter_count(built["vgg11_bn"]) == convolutions + (512 + 1) * 10 == 9_231_114


@pytest.mark.parametrize(
    ("name", "side", "mflop"),
    [
        ("resnet8", 16, 6.3),
        ("resnet8", 32, 25.0),
        ("resnet20", 16, 20.4),
        ("resnet20", 32, 81.6),
        ("vgg11_bn", 32, 306),
    ],
)
def test_operations_are_those_the_docstrings_name(built, name, side, mflop):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        built[name].eval()(torch.zeros(1, 3, side, side))
    assert counter.get_total_flops() / 1e6 == pytest.approx(mflop, rel=0.01)


@pytest.mark.parametrize(("name", "blocks"), [("resnet8", 1), ("resnet20", 3)])
def test_cifar_resnet_stages(built, name, blocks):
    convolutions = [layer for layer in built[name].modules() if isinstance(layer, nn.Conv2d)]
    wide = [layer for layer in convolutions if layer.kernel_size == (3, 3)]
    widths = [16, *(width for width in (16, 32, 64) for _ in range(2 * blocks))]
    assert [layer.out_channels for layer in wide] == widths
    assert [i for i, layer in enumerate(wide) if layer.stride == (2, 2)] == [1 + 2 * blocks, 1 + 4 * blocks]
    shortcuts = [layer for layer in convolutions if layer.kernel_size == (1, 1)]
    assert [(layer.in_channels, layer.out_channels, layer.stride) for layer in shortcuts] == [
        (16, 32, (2, 2)),
        (32, 64, (2, 2)),
    ]


@pytest.mark.parametrize(("name", "activations"), [("resnet8", 7), ("resnet20", 19), ("vgg11_bn", 8)])
def test_every_activation_is_a_module_of_its_own(built, name, activations):
    model, calls = copy.deepcopy(built[name]).eval(), []
    for part, layer in model.named_modules():
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda _module, _args, _out, part=part: calls.append(part))
    with torch.no_grad():
        model(inputs(name, 1))
    assert len(calls) == len(set(calls)) == activations


def map_sizes(model, side, kind):
    sizes = []
    for layer in model.modules():
        if isinstance(layer, kind):
            layer.register_forward_hook(
                lambda _m, args, out: sizes.append((args[0].shape[-1], out.shape[-1]))
            )
    model(torch.zeros(2, 3, side, side))
    return sizes


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_stem_keeps_the_resolution_and_the_max_pool_halves_it(name):
    with torch.device("meta"):
        model = getattr(classifiers, name)(in_channels=3, num_classes=10)
        assert map_sizes(model, 32, nn.MaxPool2d) == [(32, 16)]


@pytest.mark.parametrize("name", ["resnet8", "resnet20"])
def test_cifar_resnet_leaves_a_quarter_of_the_side(name):
    with torch.device("meta"):
        model = getattr(classifiers, name)(in_channels=3, num_classes=10)
        assert map_sizes(model, 32, nn.AdaptiveAvgPool2d) == [(8, 1)]


def test_mobilenet_stem_keeps_the_resolution_and_later_stages_divide_it_by_16():
    with torch.device("meta"):
        model = classifiers.mobilenet_v2(in_channels=3, num_classes=10)
        sizes = map_sizes(model, 32, nn.Conv2d)
        assert sizes[0] == (32, 32) and sizes[-1] == (2, 2)


def test_lenet5_has_the_published_weights():
    model = classifiers.lenet5(in_channels=1, num_classes=10, image_size=28)
    layers = [layer for layer in model if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert [layer.weight.numel() for layer in layers] == [500, 25_000, 400_000, 5_000]  # 430,500
    assert [layer.bias.numel() for layer in layers] == [20, 50, 500, 10]
    x = torch.rand(2, 1, 28, 28)
    conv1, conv2, fc1, fc2 = layers
    maps = nn.functional.max_pool2d(conv2(nn.functional.max_pool2d(conv1(x).relu(), 2)).relu(), 2)
    torch.testing.assert_close(model(x), fc2(fc1(maps.flatten(1)).relu()))


@pytest.mark.parametrize(("side", "pixels"), [(8, 2), (15, 3), (16, 1), (28, 4), (32, 5)])
def test_lenet5_last_map(side, pixels):
    model = classifiers.lenet5(in_channels=1, num_classes=7, image_size=side)
    assert [layer.in_features for layer in model if isinstance(layer, nn.Linear)] == [50 * pixels**2, 500]
    assert model(torch.zeros(2, 1, side, side)).shape == (2, 7)
    assert model(torch.zeros(2, 1, side, side + 5)).shape == (2, 7)  # a longer second side is averaged down


@pytest.mark.parametrize("name", ["vgg11_bn", "vgg16_bn"])
def test_vgg_averages_to_one_pixel(name):
    with torch.device("meta"):
        model = getattr(classifiers, name)(in_channels=3, num_classes=10)
        assert map_sizes(model, 64, nn.AdaptiveAvgPool2d) == [(2, 1)]


@pytest.mark.parametrize(("side", "width", "pixels"), [(8, 16, 2), (28, 32, 3), (32, 32, 4), (64, 32, 4)])
def test_small_cnn_widths_and_last_map(side, width, pixels):
    model = classifiers.small_cnn(in_channels=1, num_classes=10, image_size=side)
    assert [layer.out_channels for layer in model if isinstance(layer, nn.Conv2d)] == [
        width,
        2 * width,
        4 * width,
    ]
    assert model[-1].in_features == 4 * width * pixels**2
    assert model(torch.zeros(2, 1, side, side + 5)).shape == (2, 10)  # a longer second side is averaged down


@pytest.mark.parametrize("name", classifiers.NAMES)
def test_initial_weights(built, name):
    for part, layer in built[name].named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
            if layer.weight.numel() > 10_000:
                expected = pytest.approx((2 / (fan_in + fan_out)) ** 0.5, rel=0.05)
                assert layer.weight.std().item() == expected, part
                assert abs(layer.weight.mean().item()) < 0.05 * layer.weight.std().item(), part
            assert layer.bias is None or not layer.bias.any(), part
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all() and not layer.bias.any(), part


@pytest.mark.parametrize("name", classifiers.NAMES)
def test_no_layer_works_in_place(built, name):
    assert not any(getattr(layer, "inplace", False) for layer in built[name].modules())


def two(model):
    """`model` and another one, nearby; building two of the large ones takes seconds."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)  # no common shift: over thousands of inputs it would saturate the logits
    return [model, other]


def batched(models, x, randomness="error"):
    params, buffers = stack_module_state(models)
    base = models[0]
    return vmap(lambda p, b: functional_call(base, (p, b), (x,)), randomness=randomness)(
        params, buffers
    ), buffers


def randomised(model):
    """BatchNorm with statistics and affine parameters that are not 0 and 1."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return model


def fresh(built, name):
    torch.manual_seed(1)
    return copy.deepcopy(built[name])


def naming(part):
    """A message of `assert_close` that says of which part it speaks."""
    return lambda message: f"{part}: {message}"


def check_vmap_in_eval_mode(model, x):
    """Two models at once answer as each of them alone."""
    both = [model.eval() for model in two(randomised(model))]
    with torch.no_grad():
        logits, _ = batched(both, x)
        for got, model in zip(logits, both, strict=True):
            expected = model(x)
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def check_dropout_differs(model, x):
    model.train()
    logits, _ = batched([model, model], x, randomness="different")
    assert not torch.allclose(logits[0], logits[1])


def check_gradients(model, x, dropping=nn.Dropout):
    """Those of two models at once equal autograd's of each, without the layers `dropping`: masks cannot be compared."""
    both = [model.double().train() for model in two(model)]
    for model in both:
        for layer in model.modules():
            if isinstance(layer, dropping):
                layer.eval()
    x, y = x.double(), torch.arange(len(x)) % 2
    params, buffers = stack_module_state(both)

    def loss(params, buffers):
        return nn.functional.cross_entropy(functional_call(both[0], (params, buffers), (x,)), y)

    gradients = vmap(grad(loss))(params, buffers)
    for i, model in enumerate(both):
        nn.functional.cross_entropy(model(x), y).backward()
        for parameter, value in model.named_parameters():
            torch.testing.assert_close(gradients[parameter][i], value.grad, msg=naming(parameter))
            if parameter.endswith("weight"):
                assert value.grad.any(), parameter


def check_gradients_with_dropout(model, x):
    both = [model.train() for model in two(model)]
    y = torch.arange(len(x)) % 2
    params, buffers = stack_module_state(both)

    def loss(params, buffers):
        return nn.functional.cross_entropy(functional_call(both[0], (params, buffers), (x,)), y)

    for name, value in vmap(grad(loss), randomness="different")(params, buffers).items():
        assert value.isfinite().all(), name


@pytest.mark.parametrize("name", classifiers.NAMES)
def test_vmap_equals_one_by_one_in_eval_mode(built, name):
    check_vmap_in_eval_mode(fresh(built, name), inputs(name))


@pytest.mark.parametrize("name", ["small_cnn", "lenet5", "resnet8", "resnet18"])
def test_vmap_equals_one_by_one_in_train_mode(built, name):
    both = [model.double().train() for model in two(fresh(built, name))]
    x = inputs(name, 6).double()
    logits, buffers = batched(both, x)
    for i, model in enumerate(both):
        torch.testing.assert_close(logits[i], model(x))
        for buffer, value in model.named_buffers():
            torch.testing.assert_close(buffers[buffer][i], value, msg=naming(buffer))


@pytest.mark.parametrize("name", ["mobilenet_v2", "columnfc"])
def test_dropout_differs_between_models_under_vmap(built, name):
    check_dropout_differs(fresh(built, name), inputs(name))


@pytest.mark.parametrize("name", ["small_cnn", "lenet5", "resnet8", "resnet18", "columnfc"])
def test_gradients_under_vmap_equal_autograd(built, name):
    check_gradients(fresh(built, name), inputs(name, 16))


@pytest.mark.parametrize("name", ["mobilenet_v2", "columnfc"])
def test_gradients_with_dropout_under_vmap_are_finite(built, name):
    check_gradients_with_dropout(fresh(built, name), inputs(name, 16))


# --- factory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", classifiers.NAMES)
def test_constructor_pickles_and_names_its_arguments(name):
    make_model = constructor(name)
    again = pickle.loads(pickle.dumps(make_model))
    assert make_model.args == () and again.func is make_model.func is getattr(classifiers, name)
    assert again.keywords == make_model.keywords
    assert make_model.keywords["num_classes"] == 10


@pytest.mark.parametrize(
    ("name", "shape", "num_classes", "keywords"),
    [
        ("small_cnn", (1, 8, 9), 4, {"in_channels": 1, "num_classes": 4, "image_size": 8}),
        ("lenet5", (1, 8, 9), 4, {"in_channels": 1, "num_classes": 4, "image_size": 8}),
        ("mobilenet_v2", (3, 32, 32), 10, {"in_channels": 3, "num_classes": 10}),
        ("columnfc", (446,), 30, {"in_features": 446, "num_classes": 30}),
    ],
)
def test_make_reads_the_dataset(name, shape, num_classes, keywords):
    assert models.make(name, toy(shape, num_classes)).keywords == keywords


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("resnet-18", (3, 32, 32), "'resnet-18'.*did you mean 'resnet18'"),
        ("resnet18", (446,), "images.*features"),
        ("columnfc", (3, 32, 32), "features.*images"),
        ("vgg16_bn", (3, 28, 28), "at least 32 x 32.*28 x 28"),
        ("vgg11_bn", (3, 32, 16), "at least 32 x 32.*32 x 16"),
        ("resnet8", (1, 7, 8), "at least 8 x 8.*7 x 8"),
        ("resnet20", (446,), "images.*features"),
        ("densenet121", (1, 8, 8), "at least 16 x 16.*8 x 8"),
        ("lenet5", (1, 7, 7), "at least 8 x 8.*7 x 7"),
        ("mobilenet_v2", (1, 8, 8), "at least 16 x 16.*8 x 8"),
        ("small_cnn", (1, 4, 8), "at least 8 x 8.*4 x 8"),
    ],
)
def test_make_refuses_what_cannot_work(name, shape, message):
    with pytest.raises(ValueError, match=message):
        models.make(name, toy(shape))
