"""The block of the CIFAR ResNets against torchvision's, and the import that it is kept apart for."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from mialib import REPO_ROOT
from mialib.models.blocks import Block


@pytest.mark.parametrize(
    ("before", "after", "stride"), [(16, 16, 1), (16, 32, 2)], ids=["without a shortcut", "with a shortcut"]
)
def test_a_block_computes_what_torchvisions_does(before, after, stride):
    torch.manual_seed(0)
    ours = Block(before, after)
    for layer in ours.modules():
        if isinstance(layer, nn.BatchNorm2d):  # statistics that something is done by
            nn.init.uniform_(layer.running_mean, -1, 1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    reference = BasicBlock(before, after, stride, ours.downsample)
    reference.load_state_dict(ours.state_dict())
    maps = torch.randn(3, before, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(maps), reference.eval()(maps))


def test_torchvision_is_imported_by_the_networks_of_its_parts_only_on_whatever_device():
    code = """
import sys, torch
from mialib.models import classifiers
classifiers.small_cnn(1, 10, 8)
print("torchvision" in sys.modules)
with torch.device("meta"):
    classifiers.resnet8(3, 10)
    classifiers.resnet18(3, 10)
print(float(classifiers.resnet8(3, 10)(torch.ones(2, 3, 8, 8)).square().sum().backward() is None))
"""
    said = subprocess.run([sys.executable, "-c", code], cwd=REPO_ROOT, capture_output=True, text=True)
    assert said.stdout.split() == ["False", "1.0"], said.stderr
