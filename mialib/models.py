"""Every network, as a plain `nn.Module`: classifiers (target and shadow models) and attack networks.

Classifiers map images float32 (b, c, h, w) or features (b, d) to logits (b, num_classes); attack networks map
attack features to logits (b, 2), column 1 = member. All run alone and under `torch.func.functional_call` + `vmap`
(randomness="different" where there is dropout): no control flow on data, nothing changed in place but
BatchNorm's running statistics.

All start from `initialise`, attention's projections excepted, as in the code released with Yuan & Zhang 2022, which
applies one rule to every network it builds.
"""

import copy
import difflib
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.densenet import DenseNet
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vgg import vgg16_bn as torchvision_vgg16_bn

if TYPE_CHECKING:
    from mialib.data import Dataset

# The smallest image side that leaves every stage of the network at least one pixel.
SMALLEST_IMAGE = {
    "small_cnn": 8,
    "lenet5": 8,
    "resnet18": 8,
    "vgg16_bn": 32,
    "densenet121": 16,
    "mobilenet_v2": 16,
}
_SIZED = ("small_cnn", "lenet5")  # networks whose linear layer depends on the image size
NAMES = (*SMALLEST_IMAGE, "columnfc")


def initialise(module: nn.Module) -> nn.Module:
    """Xavier-normal weights for every Conv* and Linear layer, zero biases, norms 1 / 0; in place, and returned.

    Source: Yuan & Zhang 2022, released code (`utils.py`), which selects layers by class name just so.
    """
    for layer in module.modules():
        kind = type(layer).__name__
        if getattr(layer, "weight", None) is None:
            continue  # also containers with such a name, as torchvision's Conv2dNormActivation
        if kind.startswith("Conv") or kind == "Linear":
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif "Norm" in kind:
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    return module


def make(name: str, dataset: "Dataset") -> partial:
    """A zero-argument constructor of classifier `name` for `dataset`.

    The result is a partial of a function of this module with keyword arguments only, so that it pickles and its
    description (name and arguments) can be hashed. Reads `dataset.x.shape` and `dataset.num_classes`.
    Raises ValueError for an unknown name (with the nearest valid one), for features given to an image network or
    images to `columnfc`, and for images too small for the architecture.
    """
    if name not in NAMES:
        nearest = difflib.get_close_matches(str(name), NAMES, n=1, cutoff=0.0)[0]
        raise ValueError(f"model: unknown name {name!r}, did you mean {nearest!r}? Valid: {', '.join(NAMES)}")
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


# --- classifiers ---------------------------------------------------------------------------------------------------


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


def resnet18(in_channels: int, num_classes: int) -> nn.Module:
    """ResNet-18 with a 3x3 stride-1 stem; the 3x3 / stride-2 max-pool is kept: 16x16 after it on 32x32 images.

    Source: Yuan & Zhang 2022, released code (`cifar10_models/resnet.py`).
    """
    model = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
    model.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    return initialise(_out_of_place(model))


def vgg16_bn(in_channels: int, num_classes: int) -> nn.Module:
    """VGG-16 with BatchNorm, a 1x1 adaptive average pool, then 512 -> 4096 -> 4096 -> classes with dropout 0.5.

    Source: Yuan & Zhang 2022, released code (`cifar10_models/vgg.py`).
    """
    features = torchvision_vgg16_bn(init_weights=False).features
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
    base = DenseNet(growth_rate=32, block_config=(6, 12, 24, 16), num_classes=num_classes)
    base.features.conv0 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    # The same layers in a row: DenseNet.forward itself applies its last ReLU in place.
    tail = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), base.classifier)
    return initialise(_out_of_place(nn.Sequential(base.features, tail)))


def mobilenet_v2(in_channels: int, num_classes: int) -> nn.Module:
    """torchvision's MobileNetV2 with a 3x3 stride-1 stem: 2x2 pixels before the average pool on 32x32 images.

    ReLU6, dropout 0.2 before the linear layer; 2,237 K parameters on 10 classes. The stem is our choice.
    """
    model = MobileNetV2(num_classes=num_classes)
    model.features[0][0] = nn.Conv2d(in_channels, 32, 3, padding=1, bias=False)
    return initialise(_out_of_place(model))


def columnfc(in_features: int, num_classes: int) -> nn.Module:
    """in -> 256 -> 128 -> classes, ReLU and dropout 0.1 after both hidden layers, for tabular data.

    Source: Yuan & Zhang 2022, released code (`models.py`, ColumnFC).
    """
    return initialise(_mlp((in_features, 256, 128, num_classes), dropouts=(0.1, 0.1)))


_CLASSIFIERS = {
    "small_cnn": small_cnn,
    "lenet5": lenet5,
    "resnet18": resnet18,
    "vgg16_bn": vgg16_bn,
    "densenet121": densenet121,
    "mobilenet_v2": mobilenet_v2,
}


def _mlp(widths: tuple[int, ...], dropouts: tuple[float, ...]) -> nn.Sequential:
    """Linear layers with ReLU between, each of the first len(dropouts) hidden layers followed by dropout."""
    layers: list[nn.Module] = []
    for i in range(len(widths) - 2):
        layers += [nn.Linear(widths[i], widths[i + 1]), nn.ReLU()]
        if i < len(dropouts):
            layers.append(Dropout(dropouts[i]))
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def _out_of_place(model: nn.Module) -> nn.Module:
    """torchvision's ReLUs work in place, which backward hooks (opacus's, for one) refuse."""
    for layer in model.modules():
        if isinstance(layer, nn.ReLU | nn.ReLU6):
            layer.inplace = False
    return model


# --- attack networks -----------------------------------------------------------------------------------------------


def attack_mlp(in_features: int) -> nn.Module:
    """in -> 512 -> 256 -> 128 -> 2, ReLU, dropout 0.2 after the first two hidden layers.

    Source: Yuan & Zhang 2022, released code (`attackers.py`), after the BlindMI repository.
    """
    return initialise(_mlp((in_features, 512, 256, 128, 2), dropouts=(0.2, 0.2)))


def nsh(num_classes: int) -> nn.Module:
    """The attack network of the min-max game: (b, 2C) -> (b, 2), with C = `num_classes`.

    The input is [posterior (C), one-hot label (C)]. Source: Nasr, Shokri & Houmansadr 2018, arXiv:1807.05852; the
    layers are recalled from memory and not checked against the paper. Theirs ends in one sigmoid, ours in two logits.
    """
    return initialise(Nsh(num_classes))


class Nsh(nn.Module):
    """Branches C -> 1024 -> 512 -> 64 for the posterior and C -> 512 -> 64 for the label, joined 128 -> 256 -> 64 -> 2.

    ReLU after every layer but the last.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.prediction = nn.Sequential(_mlp((num_classes, 1024, 512, 64), dropouts=()), nn.ReLU())
        self.label = nn.Sequential(_mlp((num_classes, 512, 64), dropouts=()), nn.ReLU())
        self.joint = _mlp((128, 256, 64, 2), dropouts=())

    def forward(self, x: Tensor) -> Tensor:
        posterior, label = x.chunk(2, dim=1)
        return self.joint(torch.cat([self.prediction(posterior), self.label(label)], dim=1))


def samia(num_classes: int, dropout: float = 0.2) -> nn.Module:
    """The self-attention attack network: (b, 3C) -> (b, 2), with C = `num_classes`.

    The input is [confidence (C), sensitivity (C), one-hot label (C)]. Source: Yuan & Zhang 2022, released code
    (`transformer.py`).
    """
    return initialise(Samia(num_classes, dropout=dropout))


class Samia(nn.Module):
    """BatchNorm over the 3C inputs, one token (confidence, sensitivity, label) for each class, three encoder layers.

    No positional encoding: a class is known only by its place in the batch norm and in the last flattened layer.
    """

    def __init__(
        self,
        num_classes: int,
        width: int = 64,
        heads: int = 4,
        hidden: int = 128,
        depth: int = 3,
        dropout: float = 0.2,
    ):
        super().__init__()
        self.norm = nn.BatchNorm1d(3 * num_classes)
        self.embed = nn.Linear(3, width)
        layer = EncoderLayer(width, heads, hidden, dropout)
        # nn.TransformerEncoder copies its layer, so all layers start from the same weights; so do ours.
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(depth))
        self.head = nn.Sequential(nn.Linear(num_classes * width, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).unflatten(1, (3, -1)).transpose(1, 2)  # (b, C, 3)
        tokens = F.gelu(self.embed(tokens))
        for layer in self.layers:
            tokens = layer(tokens)
        return self.head(tokens.flatten(1))


class Projection(nn.Linear):
    """A linear layer that `initialise` leaves alone: it goes by class names, and so attention keeps its own weights."""


class EncoderLayer(nn.Module):
    """A post-norm transformer encoder layer with GELU, the function of `nn.TransformerEncoderLayer` exactly.

    Queries, keys and values come from one matrix product. The projections start as those of `nn.MultiheadAttention`.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = Projection(width, 3 * width)
        self.out = Projection(width, width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:  # (b, tokens, width), and back
        x = self.norm1(x + self._drop(self.out(self._attend(x))))
        return self.norm2(x + self._drop(self.down(self._drop(F.gelu(self.up(x))))))

    def _attend(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        size = width // self.heads
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, size).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, batch * self.heads, tokens, size)  # one copy for all three
        attention = self._drop((torch.bmm(q, k.transpose(1, 2)) * size**-0.5).softmax(-1))
        mixed = torch.bmm(attention, v).view(batch, self.heads, tokens, size)
        return mixed.transpose(1, 2).reshape(batch, tokens, width)

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout) if self.training else x


class Dropout(nn.Dropout):
    """nn.Dropout by the faster `dropout` below."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training else x


def dropout(x: Tensor, p: float) -> Tensor:
    """`x` with a share `p` (to 2**-16) of its values set to 0 and the others scaled up so that the mean stays.

    Drawing one random number a value takes two fifths of a training step on a CPU, so there one 64-bit draw decides
    about four values. Elsewhere this is `F.dropout`.
    """
    if p in (0.0, 1.0) or x.device.type != "cpu":
        return F.dropout(x, p)
    kept = round((1 - p) * 2**16)
    draws = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // 4),), device=x.device)
    uniform = draws.view(torch.int16)[: x.numel()].view(x.shape)
    return x * ((uniform < kept - 2**15).to(x.dtype) * (2**16 / kept))
