"""Scoring edges and damage, compared with a plain re-run of the layer, for every topology."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import Bottleneck, ResNet

from prunebench.channels import trace
from prunebench.criteria.aofp.damage import damages, gram, of_some
from prunebench.criteria.aofp.edges import find_edges, unfit
from prunebench.errors import PruningError
from prunebench.models import ModelSpec
from prunebench.models.resnet import Resnet
from prunebench.options import option


class Separable(nn.Module):
    """MobileNetV1: a pointwise layer, a depthwise one behind it, the next pointwise layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.dw, self.bn1 = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.BatchNorm2d(6)
        self.pw, self.bn2 = nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.act0, self.act1, self.act2 = (nn.ReLU6(inplace=True) for _ in range(3))
        self.fc = nn.Linear(8 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act0(self.bn0(self.stem(x)))
        x = self.act2(self.bn2(self.pw(self.act1(self.bn1(self.dw(x))))))
        return self.fc(functional.max_pool2d(x, 2).flatten(1))


def vgg(hidden: int | None = None) -> nn.Module:
    spec = option("model", "vgg16", ModelSpec, width=0.125, hidden=hidden)
    return spec.build((3, 16, 16), 5)


def bottleneck() -> nn.Module:
    torch.manual_seed(0)
    return ResNet(Bottleneck, [1, 1, 1, 1], num_classes=5, width_per_group=8)


# name -> network, image size, and of some groups (consumer, norm, whether activated)
TABLE = {
    "vgg": (vgg, 16, {
        "features.conv1_1": ("features.conv1_2", "features.bn1_2", True),
        "features.conv1_2": ("features.conv2_1", "features.bn2_1", True),
        "features.conv5_3": ("classifier", None, False),
    }),
    "headed": (lambda: vgg(hidden=7), 16, {
        "features.conv5_2": ("features.conv5_3", "features.bn5_3", True),
        "features.conv5_3": ("hidden.0", None, True),
        "hidden.0": ("classifier", None, False),
    }),
    "basic": (lambda: Resnet(depth=8, shortcut="A", width=0.5).build((3, 8, 8), 5), 8, {
        "layer1.0.conv1": ("layer1.0.conv2", "layer1.0.bn2", False),
        "layer3.0.conv1": ("layer3.0.conv2", "layer3.0.bn2", False),
    }),
    "bottleneck": (bottleneck, 32, {
        "layer1.0.conv1": ("layer1.0.conv2", "layer1.0.bn2", True),
        "layer1.0.conv2": ("layer1.0.conv3", "layer1.0.bn3", False),
    }),
    "separable": (Separable, 8, {"stem": ("pw", "bn2", True), "pw": ("fc", None, False)}),
}  # fmt: skip


def prepared(name: str):
    build, size, expected = TABLE[name]
    torch.manual_seed(1)
    network = build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    cmap = trace(network, torch.zeros(1, 3, size, size))
    missing = unfit(network, cmap.groups)
    edges = find_edges(network, cmap, [g for g in cmap.groups if g.name not in missing])
    return network.train(), torch.randn(8, 3, size, size), edges, missing, expected


def seen_by(network, edge, images):
    """The consumer's input, its output and its norm's, as one training forward has them."""
    found = {}

    def consumer(module, inputs, output):
        found.update(x=inputs[0].clone(), y=output.clone())

    def norm(module, inputs, output):
        found.update(z=output.clone())

    handles = [
        edge.consumer.register_forward_hook(consumer),
        (edge.norm or edge.consumer).register_forward_hook(norm),
    ]
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    return found["x"], found["y"], found["z"]


def again(edge, x, *, stats=None):
    """The whole layer once more, in a plain way."""
    y = edge.consumer(x)
    if edge.norm is not None:
        mean, var = stats or (y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False))
        shape = (1, -1, 1, 1)
        y = (y - mean.view(shape)) / (var.view(shape) + edge.norm.eps).sqrt()
        y = y * edge.norm.weight.view(shape) + edge.norm.bias.view(shape)
    return edge.activation(y) if edge.activation is not None else y


class Written(nn.Module):
    """Two convolutions with a norm; how the answer is activated is written in the forward."""

    def __init__(self, activate):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3, bias=False)
        self.norm, self.fc = nn.BatchNorm2d(5), nn.Linear(5, 2)
        self.slope, self.activate = nn.Parameter(torch.full((1,), 0.3)), activate

    def forward(self, x):
        x = self.norm(self.second(self.first(x).relu()))
        return self.fc(self.activate(self, x).mean((2, 3)))


#: how it is written -> what it is
WRITTEN = {
    "a function": (lambda _, x: functional.relu(x), torch.relu),
    "a function in place": (lambda _, x: functional.relu(x, inplace=True), torch.relu),
    "in place by position": (lambda _, x: functional.relu6(x, True), functional.relu6),
    "a method": (lambda _, x: x.relu(), torch.relu),
    "a method in place": (lambda _, x: x.relu_(), torch.relu),
    "in place of torch": (lambda _, x: torch.relu_(x), torch.relu),
    "by keyword": (lambda _, x: functional.leaky_relu(input=x, negative_slope=0.2),
                   lambda x: torch.where(x > 0, x, 0.2 * x)),
    "with numbers": (lambda _, x: functional.hardtanh(x, -0.5, 2.0, True),
                     lambda x: x.clamp(-0.5, 2)),
    "clamped": (lambda _, x: x.clamp_(min=0), torch.relu),
    "a module made on the spot": (lambda _, x: nn.ELU(inplace=True)(x), functional.elu),
    "with a weight": (lambda net, x: functional.prelu(x, net.slope),
                      lambda x: torch.where(x > 0, x, 0.3 * x)),
    "read twice": (lambda _, x: x * torch.sigmoid(x), None),
    "behind a sum": (lambda _, x: functional.relu(x + 1), None),
    "behind a sum in place": (lambda _, x: functional.relu(x.add_(1)), None),
    "none": (lambda _, x: x, None),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_an_activation_is_found_however_it_is_written(name):
    """What a function does in the forward is what scores are taken behind, and not before."""
    written, is_ = WRITTEN[name]
    network = Written(written).eval()
    cmap = trace(network, torch.zeros(1, 3, 8, 8))
    [group] = (group for group in cmap.groups if group.name == "first")
    [edge] = find_edges(network, cmap, [group])
    assert edge.norm is network.norm
    x = 2 * torch.randn(4, 5, 6, 6)
    before = x.clone()
    if is_ is None:
        assert edge.activation is None
        return
    torch.testing.assert_close(edge.activation(x), is_(before))
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", TABLE)
def test_edges_are_where_the_table_says(name):
    network, _, edges, missing, expected = prepared(name)
    modules = {id(module): key for key, module in network.named_modules()}
    found = {
        edge.group.name: (
            modules[id(edge.consumer)],
            modules[id(edge.norm)] if edge.norm is not None else None,
            edge.activation is not None,
        )
        for edge in edges
    }
    assert found.items() >= expected.items()
    assert all(not edge.group.residual for edge in edges)
    if name == "basic":
        # half of the last stage has one producer only: the shortcut pads it with zeros
        assert set(missing) == {"conv1", "layer2.0.conv2"}
        assert set(missing.values()) == {"it lies on a residual stream"}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("reduction", ["batch", "example"])
def test_damage_is_that_of_a_plain_rerun(name, reduction):
    network, images, edges, _, _ = prepared(name)
    for number, edge in enumerate(edges):
        seen = seen_by(network, edge, images)
        source = torch.Generator().manual_seed(number)
        dropped = torch.randperm(edge.group.size, generator=source)[: edge.group.size // 2]
        drop = torch.cat([edge.positions[c] for c in dropped.tolist()])
        masked = seen[0].clone()
        if isinstance(edge.consumer, nn.Linear):
            masked[:, drop] = 0
        else:
            masked[:, drop, :, :] = 0
        outputs = seen[1].shape[1]
        alive = torch.arange(outputs) % 3 != 1
        with torch.no_grad():
            y = edge.consumer(seen[0])
            base = (y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False)) if y.dim() > 2 else None
            whole = again(edge, seen[0])
            for mode, stats in (("own", None), ("base", base)):
                lost = (whole - again(edge, masked, stats=stats))[:, alive].flatten(1).square()
                energy = whole[:, alive].flatten(1).square()
                want = (
                    lost.sum() / energy.sum()
                    if reduction == "batch"
                    else (lost.sum(1) / energy.sum(1)).mean()
                )
                flags = torch.isin(torch.arange(seen[0].shape[1]), drop).long()
                for form, given in ((False, drop), (True, flags)):
                    asked = {"bn_mode": mode, "reduction": reduction}
                    got = damages(replace(edge, flags=form), seen, [given], alive, **asked)
                    assert got[0] == pytest.approx(float(want), rel=1e-4), (edge.group.name, mode)


def test_an_image_without_an_answer_has_no_part_in_a_mean_over_images():
    network = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2))
    cmap = trace(network, torch.zeros(1, 3))
    [edge] = find_edges(network, cmap, [g for g in cmap.groups if g.name == "0"])
    with torch.no_grad():
        network[2].weight.copy_(torch.tensor([[1.0, -1.0]]))
        network[2].bias.zero_()
        # answers of 3, 0, 0 and 4; without channel 1 of 4, 2, 0 and 4
        x = torch.tensor([[4.0, 1.0], [2.0, 5.0], [0.0, 0.0], [4.0, 0.0]])
        y = network[2](x)
    drop = torch.tensor([1])
    [got] = damages(edge, (x, y, y), [drop], None, bn_mode="own", reduction="example")
    assert float(got) == pytest.approx((1 / 9 + 0 + 0) / 3)
    [got] = damages(edge, (x, y, y), [drop], None, bn_mode="own", reduction="batch")
    assert float(got) == pytest.approx((1 + 4) / (9 + 16))


@pytest.mark.parametrize("name", TABLE)
def test_gram_gives_the_joint_damage_before_the_activation(name):
    network, images, edges, _, _ = prepared(name)
    for edge in edges:
        if edge.consumer.weight[0].numel() > 600:
            continue
        seen = seen_by(network, edge, images)
        alive = torch.arange(seen[1].shape[1]) % 4 != 3
        matrix = gram(edge, seen, alive)
        y = seen[1]
        gain = torch.ones(y.shape[1])
        if edge.norm is not None:
            gain = edge.norm.weight.detach() / (y.var((0, 2, 3), unbiased=False) + 1e-5).sqrt()
        for chosen in ([0], [1, 2], list(range(edge.group.size))):
            kept = torch.zeros_like(seen[0])
            drop = torch.cat([edge.positions[c] for c in chosen])
            kept[:, drop] = seen[0][:, drop]
            bias = edge.consumer.bias
            with torch.no_grad():
                delta = edge.consumer(kept)
                if bias is not None:
                    delta = delta - bias.view(1, -1, *[1] * (delta.dim() - 2))
                delta = delta * gain.view(1, -1, *[1] * (delta.dim() - 2))
                answer = edge.activation(seen[2]) if edge.activation else seen[2]
                want = delta[:, alive].square().sum() / answer[:, alive].square().sum()
            d = torch.zeros(edge.group.size)
            d[chosen] = 1
            assert float(d @ matrix @ d) == pytest.approx(float(want), rel=1e-3)


@pytest.mark.parametrize(
    "geometry",
    [
        {"padding": "same"}, {"padding": "same", "dilation": 2}, {"padding": "valid"},
        {"padding": 1, "padding_mode": "circular"}, {"padding": (0, 1), "stride": 2},
    ],
    ids=str,
)  # fmt: skip
def test_gram_is_of_a_map_padded_as_the_layer_pads_it(geometry):
    torch.manual_seed(2)
    consumer = nn.Conv2d(4, 5, 3, bias=False, **geometry)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), consumer,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2),
    )  # fmt: skip
    cmap = trace(network, torch.zeros(1, 3, 9, 7))
    [edge] = find_edges(network, cmap, [g for g in cmap.groups if g.name == "0"])
    x, y, z = seen_by(network, edge, torch.randn(6, 3, 9, 7))
    kept = x * torch.tensor([1.0, 0, 1, 0])[:, None, None]
    with torch.no_grad():
        want = consumer(kept).square().sum() / y.square().sum()
    d = torch.tensor([1.0, 0, 1, 0])
    assert float(d @ gram(edge, (x, y, z), None) @ d) == pytest.approx(float(want), rel=1e-4)


@pytest.mark.parametrize("bn_mode", ["own", "base"])
@pytest.mark.parametrize("activated", [True, False])
def test_a_frozen_norm_keeps_its_statistics(activated, bn_mode):
    torch.manual_seed(4)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5),
        nn.ReLU() if activated else nn.Identity(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2),
    )  # fmt: skip
    nn.init.uniform_(network[3].running_var, 0.2, 3)
    cmap = trace(network, torch.zeros(1, 3, 8, 8))
    [edge] = find_edges(network, cmap, [g for g in cmap.groups if g.name == "0"])
    network.train()[3].eval()
    seen = seen_by(network, edge, torch.randn(6, 3, 8, 8))
    d = torch.tensor([1.0, 0, 1, 0])
    with torch.no_grad():
        layer = network[2:5]
        whole, damaged = layer(seen[0]), layer(seen[0] * (1 - d)[:, None, None])
        want = (whole - damaged).square().sum() / whole.square().sum()
    [got] = damages(edge, seen, [torch.tensor([0, 2])], None, bn_mode=bn_mode, reduction="batch")
    assert float(got) == pytest.approx(float(want), rel=1e-4)
    if not activated:
        assert float(d @ gram(edge, seen, None) @ d) == pytest.approx(float(want), rel=1e-4)
    assert torch.equal(of_some(edge, seen, 6)[2], seen[2])


@pytest.mark.parametrize("activated", [True, False])
def test_channels_that_hardly_vary_have_the_damage_that_double_precision_gives(activated):
    torch.manual_seed(4)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5),
        nn.ReLU() if activated else nn.Identity(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2),
    )  # fmt: skip
    nn.init.constant_(network[0].bias, 1000.0)  # means are hundreds of standard deviations
    cmap = trace(network, torch.zeros(1, 3, 8, 8))
    [edge] = find_edges(network, cmap, [g for g in cmap.groups if g.name == "0"])
    seen = seen_by(network.train(), edge, torch.randn(6, 3, 8, 8))
    [got] = damages(edge, seen, [torch.tensor([0, 2])], None, bn_mode="own", reduction="batch")
    layer, x = network.double()[2:5], seen[0].double()
    with torch.no_grad():
        kept = torch.tensor([0.0, 1, 0, 1])[:, None, None]
        whole, damaged = layer(x), layer(x * kept)
    want = (whole - damaged).square().sum() / whole.square().sum()
    assert float(got) == pytest.approx(float(want), rel=1e-2)


class Tokens(nn.Module):
    """Linear layers on tokens, whose channels are the last dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 8), nn.Linear(8, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(2).transpose(1, 2)).relu()
        return self.third(self.second(x).relu().mean(1))


@pytest.mark.parametrize("size", [2, 3])
def test_of_tokens_the_last_dimension_is_the_channels(size):
    torch.manual_seed(3)
    network = Tokens().train()
    cmap = trace(network, torch.zeros(1, 3, size, size))
    [edge] = find_edges(network, cmap, [g for g in cmap.groups if g.name == "first"])
    seen = seen_by(network, edge, torch.randn(6, 3, size, size))
    d, alive = torch.zeros(8), torch.tensor([True, False, True, True, False])
    d[[1, 6]] = 1
    with torch.no_grad():
        before, after = network.second(seen[0]), network.second(seen[0] * (1 - d))
        lost = (before.relu() - after.relu())[..., alive].square()
        energy = before.relu()[..., alive].square()
        straight = (before - after)[..., alive].square().sum() / energy.sum()
        wanted = {
            "batch": lost.sum() / energy.sum(),
            "example": (lost.sum((1, 2)) / energy.sum((1, 2))).mean(),
        }
    for reduction, want in wanted.items():
        for flags, drop in ((False, d.nonzero()[:, 0]), (True, d.long())):
            asked = {"bn_mode": "own", "reduction": reduction}
            [got] = damages(replace(edge, flags=flags), seen, [drop], alive, **asked)
            assert float(got) == pytest.approx(float(want), rel=1e-4)
    assert float(d @ gram(edge, seen, alive) @ d) == pytest.approx(float(straight), rel=1e-4)


def test_a_network_of_streams_only_is_refused():
    network = Resnet(depth=8, shortcut="A", width=0.25).build((3, 8, 8), 4)
    cmap = trace(network, torch.zeros(1, 3, 8, 8))
    streams = [group for group in cmap.groups if group.residual]
    with pytest.raises(PruningError, match="cannot score conv1: it lies on a residual stream"):
        find_edges(network, cmap, streams)


@pytest.mark.parametrize("name", ["headed", "basic"])
@pytest.mark.parametrize("bn_mode", ["own", "base"])
def test_some_images_are_scored_as_if_they_were_the_batch(name, bn_mode):
    network, images, edges, _, _ = prepared(name)
    before = {key: value.clone() for key, value in network.named_buffers()}
    for edge in edges:
        seen = of_some(edge, seen_by_once(network, edge, images, before), 3)
        x, y = seen[:2]
        assert [len(part) for part in seen] == [3, 3, 3]
        drop = torch.cat([edge.positions[c] for c in range(edge.group.size // 2)])
        masked = x.clone()
        masked[:, drop] = 0
        base = None
        if edge.norm is not None:
            base = (y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False))
        with torch.no_grad():
            whole = again(edge, x)
            lost = whole - again(edge, masked, stats=base if bn_mode == "base" else None)
            want = lost.square().sum() / whole.square().sum()
        got = damages(edge, seen, [drop], None, bn_mode=bn_mode, reduction="batch")
        assert got[0] == pytest.approx(float(want), rel=1e-4), edge.group.name
    assert all(torch.equal(value, before[key]) for key, value in network.named_buffers())


def seen_by_once(network, edge, images, buffers):
    """As `seen_by`, with the running statistics as before the forward."""
    seen = seen_by(network, edge, images)
    for key, value in network.named_buffers():
        value.copy_(buffers[key])
    return seen
