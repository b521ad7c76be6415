"""ResNets for CIFAR: shortcuts, and names as in public checkpoints."""

import pytest
import torch
from torch.nn import functional

from prunebench.errors import ConfigError
from prunebench.models.resnet import PadShortcut, Resnet, Resnet56Foad


def resnet(**changes):
    values = {"depth": 8, "shortcut": "A", "width": 0.25} | changes
    return Resnet(**values)


@pytest.mark.parametrize(("inputs", "outputs"), [(16, 32), (5, 10), (3, 8)])
def test_pad_shortcut_strides_and_pads_both_sides(inputs, outputs):
    x = torch.randn(2, inputs, 7, 8)
    left = (outputs - inputs) // 2
    padded = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, left, outputs - inputs - left))
    assert torch.equal(PadShortcut(inputs, outputs)(x), padded)


def test_names_are_those_of_the_public_checkpoints():
    names = set(Resnet(depth=20, shortcut="A", width=1.0).build((3, 32, 32), 10).state_dict())
    wiring = {name for name in names if name.endswith(".gather.index")}
    assert wiring == {f"layer{stage}.0.shortcut.gather.index" for stage in (2, 3)}
    bn = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    places = [""] + [f"layer{stage}.{block}." for stage in (1, 2, 3) for block in range(3)]
    expected = {"linear.weight", "linear.bias"}
    for place in places:
        for number in (1,) if place == "" else (1, 2):
            expected.add(f"{place}conv{number}.weight")
            expected |= {f"{place}bn{number}.{part}" for part in bn}
    assert names - wiring == expected


def test_foad_names_are_those_of_the_authors_checkpoint():
    state = Resnet56Foad().build((3, 32, 32), 10).state_dict()
    assert len(state) == 344
    assert state["features.C1.0.weight"].shape == (16, 3, 3, 3)
    assert state["features.BasicBlock_2_1.baseNet.0.weight"].shape == (16, 16, 3, 3)
    assert state["features.BasicBlock_2_1.baseNet.3.weight"].shape == (32, 16, 3, 3)
    assert state["features.BasicBlock_3_1.shortcut.0.weight"].shape == (64, 32, 1, 1)
    assert "features.BasicBlock_1_9.baseNet.4.running_var" in state
    assert state["fc.weight"].shape == (10, 64)


def test_foad_block_rectifies_the_shortcut_and_not_the_sum():
    block = Resnet56Foad().build((3, 32, 32), 10).features.BasicBlock_1_1.eval()
    with torch.no_grad():
        block.baseNet[4].weight.zero_()
        block.baseNet[4].bias.fill_(-2.0)
        out = block(torch.tensor([1.5, -1.0]).view(1, 1, 1, 2).expand(1, 16, 1, 2))
    assert out[0, 0, 0].tolist() == [-0.5, -2.0]


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_gradients_reach_every_parameter(shortcut):
    network = resnet(shortcut=shortcut).build((3, 16, 16), 4)
    network(torch.randn(4, 3, 16, 16)).logsumexp(1).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 18}, "depth must be 6 n \\+ 2"),
        ({"depth": 2}, "depth must be 6 n \\+ 2"),
        ({"shortcut": "a"}, "shortcut must be one of A, B; got 'a'"),
        ({"width": -1.0}, "width must be positive"),
    ],
)
def test_values_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        resnet(**changes)


def test_tiny_images_are_refused():
    with pytest.raises(ConfigError, match="at least 8 x 8, got 4 x 4"):
        resnet().build((3, 4, 4), 10)
