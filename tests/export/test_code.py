"""A network written as plain torch code computes the same as the network."""

import ast
import importlib.util

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from prunebench.channels import Plan, add_position_bias, slim, trace
from prunebench.errors import ConfigError
from prunebench.export.code import source_code
from prunebench.export.formats import plain_tensors
from prunebench.models import ModelSpec
from prunebench.options import option

SHAPE = (3, 16, 16)


def halved(network, shape=SHAPE):
    """The network with every inner group cut to a half, and statistics as if it were trained."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    cmap = trace(network.eval(), torch.randn(1, *shape))
    inner = [group for group in cmap.groups if not group.residual]
    return slim(network, cmap, Plan({g.name: range(g.size // 2 + 1) for g in inner})).eval()


def rebuilt(network, folder):
    """The network that the file builds, and the file's text."""
    path = folder / "slim.py"
    path.write_text(source_code(network, "About."))
    save_file(plain_tensors(network), path.with_suffix(".safetensors"))
    spec = importlib.util.spec_from_file_location("slim_written_out", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(), path.read_text()


def imported(text):
    """The packages that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.partition(".")[0])
    return found


def require_same(network, folder, shape=SHAPE):
    images = torch.randn(3, *shape)
    made, text = rebuilt(network, folder)
    with torch.no_grad():
        want = network(images)
        assert torch.equal(made(images), want)
    assert made.state_dict().keys() == network.state_dict().keys()
    assert imported(text) <= {"collections", "math", "pathlib", "torch", "safetensors"}
    assert max(map(len, text.splitlines())) <= 150
    return text


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("resnet20", {"depth": 8, "width": 0.5}),  # gathers
        ("mobilenet_v2", {"width": 0.25}),
        ("shufflenet_v2", {"width": 0.5}),  # gathers where the code moved channels
        ("ghostnet", {"width": 0.25}),
        ("vgg16", {"width": 0.1}),
    ],
)
def test_models_of_the_house_are_written_out(model, changes, tmp_path):
    shape = (3, 32, 32)
    network = halved(option("model", model, ModelSpec, **changes).build(shape, 10), shape)
    text = require_same(network, tmp_path, shape)
    assert "def forward(self, x):" in text and "prunebench" not in text


class Own(nn.Module):
    """What a network of one's own may do."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")
        self.scale = nn.Parameter(torch.full((8, 1, 1), 0.5))
        self.register_buffer("shift", torch.arange(8.0)[:, None, None])
        self.towers = nn.ModuleList(nn.Conv2d(8, 4, k, padding=k // 2) for k in (1, 3))
        self.by_name = nn.ModuleDict({"last": nn.Linear(8, 5)})
        self.named = nn.Sequential()
        self.named.add_module("act", nn.PReLU(8))
        self.named.add_module("pool", nn.AdaptiveAvgPool2d((1, 1)))

    def forward(self, images, gain=2.0):
        x = functional.relu(self.stem(images), inplace=True)
        kept = x
        x *= self.scale
        x = torch.cat([tower(x + self.shift) for tower in self.towers], dim=1) - kept / gain
        x = functional.max_pool2d(x, 2, stride=2)[:, :, 1:]
        n = x.shape[0]
        return self.by_name["last"](self.named(x).view(n, -1)).clamp(min=-1.0, max=1.0)


def test_a_network_of_ones_own_is_written_out(tmp_path):
    text = require_same(Own().eval(), tmp_path)
    assert "gain=2.0" in text and "OrderedDict" in text and "ModuleDict" in text


def test_biases_by_position_are_written_out(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    add_position_bias(network[2], torch.randn(2, 16, 16))
    assert "PositionBiasConv2d((2, 16, 16), 4, 2, 3, padding=1)" in require_same(network, tmp_path)


def test_equal_blocks_share_a_class(tmp_path):
    network = option("model", "resnet20", ModelSpec, width=0.25).build((3, 32, 32), 10)
    text = require_same(halved(network, (3, 32, 32)), tmp_path, (3, 32, 32))
    assert text.count("class BasicBlock") == 1
    assert text.count("BasicBlock(\n") == 9


class Decides(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Foreign(nn.Module):
    def forward(self, x):
        return leave(x)


torch.fx.wrap("leave")


def leave(x):
    return x


class Secretive(nn.Conv2d):
    """Does not keep what it was made with."""

    def __init__(self, secret, channels):
        super().__init__(channels, channels, 1)


Secretive.__module__ = "torch.nn.modules.conv"


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (nn.Sequential(Decides()), "the forward of 0 cannot be written out"),
        (nn.Sequential(Foreign()), "leave, which is not torch's"),
        (nn.Sequential(Secretive(1, 3)), "Secretive does not say its secret"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(network, said):
    with pytest.raises(ConfigError) as error:
        source_code(network.eval(), "")
    assert said in str(error.value) and "export to onnx" in str(error.value)
    assert "\n" not in str(error.value)


class InPlace(nn.Module):
    """Gives another answer where what is computed when is changed."""

    def forward(self, x):
        before = x * 2
        y = x.add_(1)
        z = before + y
        x.mul_(3)
        return z + x


def test_the_order_of_what_is_computed_stays(tmp_path):
    made, _ = rebuilt(InPlace(), tmp_path)
    image = torch.randn(1, *SHAPE)
    assert torch.equal(made(image.clone()), InPlace()(image.clone()))
    assert not torch.equal(made(image.clone()), image)


def test_names_do_not_clash(tmp_path):
    class Taken(nn.Module):
        def forward(self, torch_, functional):
            nn = torch_ + 1
            return nn * torch_ + functional

    made, _ = rebuilt(Taken(), tmp_path)
    ones = torch.ones(2)
    assert made(ones, ones).tolist() == [3.0, 3.0]
