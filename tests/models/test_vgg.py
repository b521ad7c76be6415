"""VGG for CIFAR: order of layers, widths and sizes of images."""

import pytest
import torch
from torch import nn

from prunebench.errors import ConfigError
from prunebench.models.vgg import Vgg16


def test_layers_come_in_the_order_of_the_paper():
    network = Vgg16(width=1.0).build((3, 32, 32), 10)
    widths = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    names = [name.removeprefix("conv") for name, _ in network.features.named_children()]
    pools = [names[i - 3] for i, name in enumerate(names) if name.startswith("pool")]
    assert pools == ["1_2", "2_2", "3_3", "4_3"]  # convolutions 2, 4, 7 and 10
    assert all(m.bias is None for m in network.modules() if isinstance(m, nn.Conv2d))


def test_the_last_maps_of_32_pixels_are_two_by_two():
    network = Vgg16(width=0.1).build((3, 32, 32), 10)
    assert network.features(torch.rand(1, 3, 32, 32)).shape == (1, 51, 2, 2)


def test_widths_are_rounded_and_never_zero():
    network = Vgg16(width=0.005).build((1, 16, 16), 3)
    widths = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [1] * 7 + [3] * 6  # 512 x 0.005 = 2.56


def test_images_too_small_for_the_poolings_are_refused():
    with pytest.raises(ConfigError, match=r"at least 16 x 16, got 8 x 8; .*dataset\.size"):
        Vgg16(width=1.0).build((1, 8, 8), 10)


def test_a_width_of_zero_is_refused():
    with pytest.raises(ConfigError, match="width must be positive, got 0"):
        Vgg16(width=0.0)
