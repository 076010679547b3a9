"""Classifiers (target and shadow models), as plain `nn.Module`s; the networks that attack them: `attack_networks`.

Images float32 (b, c, h, w) or features (b, d) -> logits (b, num_classes). All run alone and under
`torch.func.functional_call` + `vmap` (randomness="different" where there is dropout): no control flow on data,
nothing changed in place but BatchNorm's running statistics.

All start from `layers.initialise`, as in the code released with Yuan & Zhang 2022, which applies one rule to every
network it builds.

torchvision takes seconds to import, so that only the networks that are made of its parts import it.
"""

import difflib
from functools import partial

import torch
from torch import nn

from mialib.data import Dataset, own
from mialib.models.layers import initialise, mlp

# The smallest image side that leaves every stage of the network at least one pixel.
SMALLEST_IMAGE = {
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
_SIZED = ("small_cnn", "lenet5")  # networks whose linear layer depends on the image size
NAMES = (*SMALLEST_IMAGE, "columnfc")


def make(name: str, dataset: Dataset) -> partial:
    """A constructor without arguments of classifier `name` for `dataset`.

    name: one of `NAMES`, or your own "module:function" (`data.own` says where it is looked for), a function
        (shape, num_classes) that gives the network for inputs of `shape`, (c, h, w) or (d,).

    The result is a partial with keyword arguments only, so that it pickles and its description (name and arguments) can
    be hashed. Raises ValueError for an unknown name (with the nearest valid one), for features given to an image network
    or images to `columnfc`, for images too small for the architecture, and for a network of your own that does not
    answer such inputs with `num_classes` logits.
    """
    if ":" in name:
        return _own(name, dataset)
    if name not in NAMES:
        nearest = difflib.get_close_matches(str(name), NAMES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"model: unknown name {name!r}, did you mean {nearest!r}? Valid: {', '.join(NAMES)} and module:function"
        )
    shape = tuple(dataset.x.shape[1:])
    if name == "columnfc":
        if len(shape) != 1:
            raise ValueError(
                f"model: columnfc takes features (n, d), but dataset {dataset.name!r} holds images {shape}; "
                f"use one of {', '.join(SMALLEST_IMAGE)}"
            )
        return partial(columnfc, in_features=shape[0], num_classes=dataset.num_classes)
    if len(shape) != 3:
        raise ValueError(
            f"model: {name} takes images (n, c, h, w), but dataset {dataset.name!r} holds features {shape}; "
            "use columnfc"
        )
    side = min(shape[1:])
    if side < SMALLEST_IMAGE[name]:
        raise ValueError(
            f"model: {name} needs images of at least {SMALLEST_IMAGE[name]} x {SMALLEST_IMAGE[name]} pixels, "
            f"but dataset {dataset.name!r} holds {shape[1]} x {shape[2]}; use small_cnn or larger images"
        )
    sizes = {"image_size": side} if name in _SIZED else {}
    return partial(_CLASSIFIERS[name], in_channels=shape[0], num_classes=dataset.num_classes, **sizes)


def _own(address: str, dataset: Dataset) -> partial:
    shape = tuple(dataset.x.shape[1:])
    make_model = partial(own.function(address), shape=shape, num_classes=dataset.num_classes)
    with torch.random.fork_rng(), torch.no_grad():
        network = make_model()
        if not isinstance(network, nn.Module):
            raise ValueError(f"model: {address} gives a {type(network).__name__}, not an nn.Module")
        logits = network.eval()(torch.zeros(2, *shape))
    if logits.shape != (2, dataset.num_classes):
        raise ValueError(
            f"model: {address} answers two inputs {shape} with {tuple(logits.shape)}; {dataset.name!r} has "
            f"{dataset.num_classes} classes, so it must be (2, {dataset.num_classes}) logits"
        )
    return make_model


def small_cnn(in_channels: int, num_classes: int, image_size: int, width: int | None = None) -> nn.Module:
    """Three 3x3 convolutions with BatchNorm, ReLU and 2x2 max-pools, then one linear layer: for CPU runs.

    `width` filters in the first layer, doubled in each next one; None gives 16 below 16 pixels, else 32. Images
    below 16 pixels are not halved after the first layer, so that 8x8 leaves 2x2 pixels and 32x32 leaves 4x4.
    Images are `image_size` on their shorter side; the longer one is averaged down to it before the linear layer.
    """
    small = image_size < 16
    width = width or (16 if small else 32)
    widths = (width, 2 * width, 4 * width)
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(zip((in_channels, *widths), widths, strict=False)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        if i > 0 or not small:
            layers.append(nn.MaxPool2d(2))
    side = min(image_size // (4 if small else 8), 4)
    layers += [nn.AdaptiveAvgPool2d(side), nn.Flatten(), nn.Linear(widths[-1] * side**2, num_classes)]
    return initialise(nn.Sequential(*layers))


def lenet5(in_channels: int, num_classes: int, image_size: int) -> nn.Module:
    """Convolutions 20@5x5 and 50@5x5, each with ReLU and a 2x2 max-pool, then a linear layer of 500 and the classes.

    Images below 16 pixels are padded by 2 in both convolutions, so that 8x8 leaves 2x2 pixels; 28x28 leaves 4x4 and
    gives 430,500 weights besides the biases. Images are `image_size` on their shorter side; the longer one is averaged
    down before the linear layers, as in `small_cnn`. Source: Zhang et al. 2018, arXiv:1804.03294, and its released
    code (kaiqzhan/admm-pruning, `pytorch/net.py`).
    """
    padding = 2 if image_size < 16 else 0
    side = image_size
    for _ in range(2):
        side = (side - 4 + 2 * padding) // 2
    layers = [
        nn.Conv2d(in_channels, 20, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(side),  # changes nothing on square images
        nn.Flatten(),
        nn.Linear(50 * side**2, 500),
        nn.ReLU(),
        nn.Linear(500, num_classes),
    ]
    return initialise(nn.Sequential(*layers))


def resnet8(in_channels: int, num_classes: int) -> nn.Module:
    """`resnet20` with one block a stage instead of three: small enough for CPU runs.

    78,042 parameters on 10 classes; an image of 16x16 in colour takes 6.3 MFLOP (multiply-adds x 2), of 32x32 25.0.
    """
    return _cifar_resnet(1, in_channels, num_classes)


def resnet20(in_channels: int, num_classes: int) -> nn.Module:
    """A 3x3 stem of 16 filters, three stages of three blocks with 16, 32 and 64 filters, average pool, linear layer.

    The second and the third stage start with stride 2. Source: He et al. 2016, arXiv:1512.03385, section 4.2; but where
    the shape changes, the shortcut is a 1x1 convolution with BatchNorm (option B; the paper's CIFAR networks have
    option A, zeros for the new filters). 272,474 parameters on 10 classes, 269,722 with option A; 81.6 MFLOP
    (multiply-adds x 2) for an image of 32x32 in colour, 20.4 for 16x16.
    """
    return _cifar_resnet(3, in_channels, num_classes)


def _cifar_resnet(blocks: int, in_channels: int, num_classes: int) -> nn.Module:
    """6 * `blocks` + 2 layers: `blocks` blocks of two convolutions in each of three stages, stem and linear layer."""
    from mialib.models.blocks import Block

    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
    ]
    for before, after in ((16, 16), (16, 32), (32, 64)):
        layers.append(Block(before, after))
        layers += [Block(after, after) for _ in range(blocks - 1)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes)]
    return initialise(_out_of_place(nn.Sequential(*layers)))


def resnet18(in_channels: int, num_classes: int) -> nn.Module:
    """ResNet-18 with a 3x3 stride-1 stem; the 3x3 / stride-2 max-pool is kept: 16x16 after it on 32x32 images.

    Source: Yuan & Zhang 2022, released code (`cifar10_models/resnet.py`).
    """
    from torchvision.models.resnet import BasicBlock, ResNet

    model = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
    model.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    return initialise(_out_of_place(model))


def vgg11_bn(in_channels: int, num_classes: int) -> nn.Module:
    """VGG-11 with BatchNorm in its CIFAR variant: a 1x1 adaptive average pool, then one linear layer 512 -> classes.

    The convolutions are torchvision's; the three linear layers of the original, made for ImageNet, are gone.
    9,231,114 parameters on 10 classes; 306 MFLOP (multiply-adds x 2) for an image of 32x32 in colour.
    """
    from torchvision.models import vgg

    features = vgg.vgg11_bn(init_weights=False).features
    features[0] = nn.Conv2d(in_channels, 64, 3, padding=1)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
    return initialise(_out_of_place(nn.Sequential(features, *head)))


def vgg16_bn(in_channels: int, num_classes: int) -> nn.Module:
    """VGG-16 with BatchNorm, a 1x1 adaptive average pool, then 512 -> 4096 -> 4096 -> classes with dropout 0.5.

    Source: Yuan & Zhang 2022, released code (`cifar10_models/vgg.py`).
    """
    from torchvision.models import vgg

    features = vgg.vgg16_bn(init_weights=False).features
    features[0] = nn.Conv2d(in_channels, 64, 3, padding=1)
    head = nn.Sequential(
        nn.Linear(512, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, num_classes),
    )
    return initialise(_out_of_place(nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)))


def densenet121(in_channels: int, num_classes: int) -> nn.Module:
    """DenseNet-121 (growth 32, blocks 6, 12, 24, 16) with a 3x3 stride-1 stem and the max-pool kept.

    Source: Yuan & Zhang 2022, released code (`cifar10_models/densenet.py`); 6,956 K parameters on 10 classes.
    """
    from torchvision.models.densenet import DenseNet

    base = DenseNet(growth_rate=32, block_config=(6, 12, 24, 16), num_classes=num_classes)
    base.features.conv0 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    # The same layers in a row: DenseNet.forward itself applies its last ReLU in place.
    tail = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), base.classifier)
    return initialise(_out_of_place(nn.Sequential(base.features, tail)))


def mobilenet_v2(in_channels: int, num_classes: int) -> nn.Module:
    """torchvision's MobileNetV2 with a 3x3 stride-1 stem: 2x2 pixels before the average pool on 32x32 images.

    ReLU6, dropout 0.2 before the linear layer; 2,237 K parameters on 10 classes. The stem is our choice.
    """
    from torchvision.models.mobilenetv2 import MobileNetV2

    model = MobileNetV2(num_classes=num_classes)
    model.features[0][0] = nn.Conv2d(in_channels, 32, 3, padding=1, bias=False)
    return initialise(_out_of_place(model))


def columnfc(in_features: int, num_classes: int) -> nn.Module:
    """in -> 256 -> 128 -> classes, ReLU and dropout 0.1 after both hidden layers, for tabular data.

    Source: Yuan & Zhang 2022, released code (`models.py`, ColumnFC).
    """
    return initialise(mlp((in_features, 256, 128, num_classes), dropouts=(0.1, 0.1)))


_CLASSIFIERS = {
    "small_cnn": small_cnn,
    "lenet5": lenet5,
    "resnet8": resnet8,
    "resnet20": resnet20,
    "resnet18": resnet18,
    "vgg11_bn": vgg11_bn,
    "vgg16_bn": vgg16_bn,
    "densenet121": densenet121,
    "mobilenet_v2": mobilenet_v2,
}


def _out_of_place(model: nn.Module) -> nn.Module:
    """torchvision's ReLUs work in place, which backward hooks (opacus's, for example) refuse."""
    for layer in model.modules():
        if isinstance(layer, nn.ReLU | nn.ReLU6):
            layer.inplace = False
    return model
