"""ResNet-164, DenseNet-40, GoogLeNet, VGG-19: names, order of the layers, surgery."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from prunebench.channels import Plan, slim, trace, verify
from prunebench.errors import ConfigError
from prunebench.models.densenet import DenseLayer, Densenet
from prunebench.models.googlenet import Googlenet, Inception
from prunebench.models.preresnet import PreBottleneck, PreResnet
from prunebench.models.vgg import Vgg19

NARROW = [
    PreResnet(depth=20, width=0.5),
    Densenet(depth=16, growth=6),
    Googlenet(width=0.1),
    Vgg19(width=0.1),
]


def lively(network):
    """The network in float64 and eval mode, its batch norms no identities."""
    for module in network.double().modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.1)
    return network.eval()


@pytest.mark.parametrize("spec", NARROW, ids=lambda spec: type(spec).__name__)
def test_random_plans_slim_exactly_and_are_counted(spec):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    network = lively(spec.build((3, 32, 32), 10))
    cmap = trace(network, images)
    assert len(cmap.frozen) == 1  # the classifier
    kept = {
        group.name: sorted(torch.randperm(group.size)[: (group.size + 1) // 2].tolist())
        for group in cmap.groups
    }
    plan = Plan(kept)
    small = slim(network, cmap, plan)
    assert type(small) is type(network)  # nothing had to be rewritten
    assert verify(network, small, cmap, plan, images) < 1e-9
    assert sum(p.numel() for p in small.parameters()) == cmap.params(plan)
    with FlopCounterMode(display=False) as counter:
        small(images[:1])
    assert counter.get_total_flops() // 2 == cmap.macs(plan)


def test_a_bottleneck_normalises_before_it_convolves_and_adds_what_came_in():
    torch.manual_seed(0)
    block = lively(PreBottleneck(8, 2, stride=1))
    x = torch.randn(1, 8, 4, 4, dtype=torch.float64)
    y = x
    for norm, conv in (
        (block.bn1, block.conv1),
        (block.bn2, block.conv2),
        (block.bn3, block.conv3),
    ):
        y = conv(functional.relu(norm(y)))
    assert torch.allclose(block(x), x + y)


def test_the_projections_have_no_norm_and_see_what_came_in():
    network = PreResnet(depth=11, width=1.0).build((3, 32, 32), 10)
    names = [name for name, m in network.named_modules() if "downsample" in name]
    assert [name for name in names if isinstance(network.get_submodule(name), nn.Conv2d)] == [
        f"layer{stage}.0.downsample" for stage in (1, 2, 3)
    ]
    block = lively(network).layer2[0]
    x = torch.randn(1, 64, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        block.conv3.weight.zero_()
    assert torch.allclose(block(x), block.downsample(x))
    assert block(x).shape == (1, 128, 2, 2)


def test_a_dense_layer_appends():
    layer = lively(DenseLayer(5, 3))
    x = torch.randn(1, 5, 4, 4, dtype=torch.float64)
    out = layer(x)
    assert torch.equal(out[:, :5], x)
    assert torch.allclose(out[:, 5:], layer.conv1(functional.relu(layer.bn1(x))))


def test_widths_of_densenet40():
    network = Densenet(depth=40, growth=12).build((3, 32, 32), 10)
    norms = [m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms == [*range(24, 457, 12)][:12] + [168] + [*range(168, 301, 12)] + [312] + [
        *range(312, 445, 12)
    ] + [456]
    assert network.fc.in_features == 456


def test_widths_of_googlenet():
    network = Googlenet(width=1.0).build((3, 32, 32), 10)
    blocks = [m for m in network.modules() if isinstance(m, Inception)]
    outputs = [sum(b[-3].out_channels for b in block.children()) for block in blocks]
    assert outputs == [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    sizes = {}
    for name, block in network.named_children():
        block.register_forward_hook(
            lambda module, args, out, name=name: sizes.update({name: out.shape[-1]})
        )
    network(torch.zeros(1, 3, 32, 32))
    assert [sizes[f"inception_{name}"] for name in ("b3", "a4", "e4", "a5")] == [32, 16, 16, 8]


def test_poolings_of_vgg19():
    network = Vgg19(width=0.1).build((3, 32, 32), 10)
    names = [name for name, _ in network.features.named_children()]
    assert sum(name.startswith("conv") for name in names) == 16
    before = [names[i - 1] for i, name in enumerate(names) if name.startswith("pool")]
    assert before == ["relu1_2", "relu2_2", "relu3_4", "relu4_4"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PreResnet(depth=112, width=1.0), r"depth must be 9 n \+ 2"),
        (lambda: PreResnet(depth=164, width=0.0), "width must be positive"),
        (lambda: Densenet(depth=41, growth=12), r"depth must be 3 n \+ 4"),
        (lambda: Densenet(depth=40, growth=0), "growth must be at least 1"),
        (lambda: Googlenet(width=-1.0), "width must be positive"),
        (lambda: Vgg19(width=0.0), "width must be positive"),
        (lambda: NARROW[0].build((3, 4, 4), 10), "at least 8 x 8, got 4 x 4"),
        (lambda: NARROW[1].build((3, 4, 8), 10), "at least 8 x 8, got 4 x 8"),
        (lambda: NARROW[2].build((3, 4, 4), 10), "at least 8 x 8, got 4 x 4"),
        (lambda: NARROW[3].build((3, 8, 8), 10), "at least 16 x 16, got 8 x 8"),
    ],
)
def test_mistakes_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
