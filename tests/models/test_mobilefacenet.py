"""MobileFaceNet: which layers are pruned, and which weights it can load."""

import pytest
import torch

from prunebench.channels import Plan, mask, slim, trace
from prunebench.checkpoints.foreign import load_weights
from prunebench.errors import ConfigError
from prunebench.models.mobilefacenet import Mobilefacenet

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Mobilefacenet(embedding=16).build(SHAPE, 7).eval()


def test_it_ends_in_an_embedding_whatever_the_classes(network):
    assert network(torch.rand(2, *SHAPE)).shape == (2, 16)
    assert Mobilefacenet(embedding=16).embeds


def test_bottlenecks_streams_and_the_last_maps_are_pruned_the_embedding_is_not(network):
    sizes = {group.name: group.size for group in trace(network, torch.rand(1, *SHAPE)).groups}
    hidden = [sizes[f"blocks.{place}.conv.0"] for place in range(15)]
    assert hidden == [128] * 5 + [256] * 7 + [512] + [256] * 2
    streams = {name: size for name, size in sizes.items() if not name.startswith("blocks.")}
    assert streams == {"conv1.conv": 64, "conv2.conv": 512}
    assert len(sizes) == 15 + 2 + 3  # 64 wide, and 128 wide at two resolutions


def test_slim_is_masked(network):
    image = torch.rand(1, *SHAPE)
    cmap = trace(network, image)
    plan = Plan({group.name: tuple(range(1, group.size, 2)) for group in cmap.groups})
    small, same = slim(network, cmap, plan), mask(network, cmap, plan)
    torch.testing.assert_close(small(image), same(image), rtol=1e-4, atol=1e-4)
    assert small.dw_conv1.prelu.weight.shape == (32,)  # one slope per channel goes with it


def test_xiaoccers_checkpoint_loads_by_its_names(network, tmp_path):
    theirs = {f"module.{name}": value for name, value in network.state_dict().items()}
    theirs = {
        name: value.half() if value.dim() == 4 else value
        for name, value in theirs.items()
        if not name.endswith("num_batches_tracked")
    }
    names = {name.removeprefix("module.") for name in theirs}
    assert {
        "conv1.conv.weight", "dw_conv1.prelu.weight", "blocks.14.conv.7.running_var",
        "conv2.bn.bias", "linear7.conv.weight", "linear1.bn.weight",
    } <= names  # fmt: skip
    torch.save({"epoch": 68, "net_state_dict": theirs}, tmp_path / "068.ckpt")
    other = Mobilefacenet(embedding=16).build(SHAPE, 7).eval()
    load_weights(other, tmp_path / "068.ckpt")
    assert other.linear1.conv.weight.dtype == torch.float32
    image = torch.rand(1, *SHAPE)
    torch.testing.assert_close(other(image), network(image), rtol=1e-2, atol=1e-2)


def test_a_tiny_image_is_one_line():
    with pytest.raises(ConfigError, match="mobilefacenet needs images of at least 32 x 32"):
        Mobilefacenet(embedding=16).build((3, 28, 28), 7)
