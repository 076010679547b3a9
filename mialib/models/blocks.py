"""The block of the CIFAR ResNets of `classifiers`, a file of its own since torchvision takes seconds to import."""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock


class Block(BasicBlock):
    """torchvision's block, but each activation is a module of its own: a quantiser gives each one scale.

    More filters come with half the resolution. The sum with the shortcut is out of place, unlike torchvision's.
    """

    def __init__(self, before: int, after: int):
        shortcut = None
        if before != after:
            shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride=2, bias=False), nn.BatchNorm2d(after))
        super().__init__(before, after, stride=1 if before == after else 2, downsample=shortcut)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu2(out + (x if self.downsample is None else self.downsample(x)))
