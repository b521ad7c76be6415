"""Gram matrices of consumers, compared with plain loops and with the convolutions themselves."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from prunebench.analysis.consumer_gram import Reader, contributions
from prunebench.analysis.gram import GramCollection
from prunebench.channels import trace
from prunebench.contracts import Evidence
from prunebench.errors import ConfigError, PruningError

ALL = GramCollection(collect="all", num_samples=99, per_image=1, rows_per_channel=0, chunk=2)


def sampling(**changes):
    values = {"num_samples": 99, "per_image": 10, "rows_per_channel": 0, "chunk": 2} | changes
    return GramCollection(collect="sampled", **values)


def with_integers(network, seed=0):
    """Small integers in all weights, so that every sum is exact."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        if tensor.dtype.is_floating_point and tensor.dim() != 0:
            tensor.copy_(torch.randint(-3, 4, tensor.shape, generator=generator))
    return network.eval()


def evidence(network, shape, count=3, seed=0):
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(-4, 5, (count, *shape), generator=generator).float()
    cmap = trace(network, images[:1])
    labels = torch.zeros(count, dtype=torch.int64)
    return Evidence(network, cmap, tuple(cmap.groups), images, labels, seed)


def inputs_of(network, name, images):
    """What the module called `name` reads."""
    heard = []
    module = network.get_submodule(name)
    handle = module.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0].clone()))
    with torch.no_grad():
        network(images)
    handle.remove()
    return heard[0]


def loop_row(conv, inputs, image, filter_, row, column):
    """What each input channel adds to one output, tap by tap; the bias is left out."""
    stride, padding, dilation = conv.stride, conv.padding, conv.dilation
    per_group = conv.in_channels // conv.groups
    start = filter_ // (conv.out_channels // conv.groups) * per_group
    found = [0.0] * conv.in_channels
    height, width = inputs.shape[2:]
    for c in range(per_group):
        for u, v in itertools.product(range(conv.kernel_size[0]), range(conv.kernel_size[1])):
            i = row * stride[0] - padding[0] + u * dilation[0]
            j = column * stride[1] - padding[1] + v * dilation[1]
            if 0 <= i < height and 0 <= j < width:
                weight = conv.weight[filter_, c, u, v].item()
                found[start + c] += weight * inputs[image, start + c, i, j].item()
    return found


def all_rows(conv, inputs):
    with torch.no_grad():
        shape = conv(inputs).shape
    return np.array([loop_row(conv, inputs, *at) for at in itertools.product(*map(range, shape))])


#: kernel, stride, padding, dilation, groups
GEOMETRY = [
    (1, 1, 0, 1, 1),
    (1, 2, 0, 1, 1),
    (3, 1, 1, 1, 1),
    (3, 2, 1, 1, 1),
    (3, 2, 0, 1, 1),
    ((1, 3), (2, 1), (0, 2), 1, 1),
    (3, 1, 2, 2, 1),
    (2, 3, 2, 3, 1),
    (3, 2, 1, 1, 2),
    (1, 1, 0, 1, 2),
]


def two_convolutions(kernel, stride, padding, dilation, groups):
    consumer = nn.Conv2d(4, 6, kernel, stride, padding=padding, dilation=dilation, groups=groups)
    return with_integers(nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), consumer))


@pytest.mark.parametrize("geometry", GEOMETRY, ids=str)
def test_rows_are_those_of_plain_loops_and_sum_to_the_output_without_bias(geometry):
    network = two_convolutions(*geometry)
    facts = evidence(network, (2, 7, 6))
    conv, inputs = network[2], inputs_of(network, "2", facts.images)
    with torch.no_grad():
        output = conv(inputs)
    [group] = [g for g in facts.groups if g.name == "0"]
    [site] = group.consumers
    reader = Reader(conv, site, group)
    places = list(itertools.product(*map(range, output.shape)))[::7]
    where = torch.tensor(places)
    rows = contributions(reader, reader.padded(inputs), where[:, 0], where[:, 1:])
    expected = torch.tensor([loop_row(conv, inputs, *at) for at in places], dtype=torch.float64)
    by_class = torch.zeros(len(places), group.size, dtype=torch.float64)
    for channel in range(4):  # under groups the k-th channels of all groups are one class
        by_class[:, site.classes[channel % len(site.classes)]] += expected[:, channel]
    assert torch.equal(rows, by_class)
    values = torch.stack([output[at] - conv.bias[at[1]] for at in places]).double()
    assert torch.equal(rows.sum(1), values)


@pytest.mark.parametrize("geometry", GEOMETRY, ids=str)
def test_all_entries_are_those_of_plain_loops(geometry):
    network = two_convolutions(*geometry)
    facts = evidence(network, (2, 7, 6))
    [group] = [g for g in facts.groups if g.name == "0"]
    x = all_rows(network[2], inputs_of(network, "2", facts.images))
    classes = group.consumers[0].classes.repeat(4 // len(group.consumers[0].classes))
    merged = np.stack([x[:, classes.numpy() == c].sum(1) for c in range(group.size)], axis=1)
    gram = ALL.grams(facts, [group])["0"]["2.weight"]
    assert gram.dtype == torch.float64
    assert np.array_equal(gram.numpy(), merged.T @ merged)


def test_what_lies_in_between_is_part_of_the_input():
    network = with_integers(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4, eps=0), nn.ReLU(),
            nn.MaxPool2d(2), nn.Conv2d(4, 3, 3, padding=1), nn.Flatten(),
        )
    )  # fmt: skip
    network[1].running_var.fill_(1)
    facts = evidence(network, (2, 6, 6))
    x = all_rows(network[4], inputs_of(network, "4", facts.images))
    assert np.array_equal(ALL.grams(facts, facts.groups)["0"]["4.weight"].numpy(), x.T @ x)


def test_a_depthwise_layer_in_between_is_passed_through():
    network = with_integers(
        nn.Sequential(
            nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, padding=1, groups=4),
            nn.ReLU(), nn.Conv2d(4, 5, 1), nn.Flatten(),
        )
    )  # fmt: skip
    facts = evidence(network, (2, 6, 6))
    x = all_rows(network[4], inputs_of(network, "4", facts.images))
    grams = ALL.grams(facts, facts.groups)
    assert list(grams) == ["0"]
    assert list(grams["0"]) == ["4.weight"]
    assert np.array_equal(grams["0"]["4.weight"].numpy(), x.T @ x)


@pytest.mark.parametrize("pooled", [False, True])
def test_a_linear_layer_behind_flatten_and_behind_global_pooling(pooled):
    pool = nn.AdaptiveAvgPool2d(1) if pooled else nn.Identity()
    pixels = 1 if pooled else 8
    network = with_integers(
        nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4 * pixels, 3))
    )
    facts = evidence(network, (2, 2, 4))
    linear, inputs = network[4], inputs_of(network, "4", facts.images)
    x = np.array(
        [
            [
                sum(linear.weight[f, p].item() * inputs[n, p].item()
                    for p in range(c * pixels, (c + 1) * pixels))
                for c in range(4)
            ]
            for n in range(3) for f in range(3)
        ]
    )  # fmt: skip
    gram = ALL.grams(facts, facts.groups)["0"]["4.weight"]
    assert np.array_equal(gram.numpy(), x.T @ x)
    with torch.no_grad():
        y = linear(inputs) - linear.bias
    assert gram.sum().item() == y.double().square().sum().item()


class Branches(nn.Module):
    """One producer read by two convolutions, one of them behind a concatenation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 1)
        self.other = nn.Conv2d(2, 2, 1)
        self.left = nn.Conv2d(3, 4, 3, padding=1)
        self.right = nn.Conv2d(5, 4, 1)

    def forward(self, x):
        stem = self.stem(x).relu()
        both = torch.cat([self.other(x), stem], dim=1)
        return self.left(stem).mean((2, 3)), self.right(both).mean((2, 3))


def test_several_consumers_and_a_concatenation():
    network = with_integers(Branches())
    facts = evidence(network, (2, 4, 4))
    grams = ALL.grams(facts, facts.groups)
    left = all_rows(network.left, inputs_of(network, "left", facts.images))
    right = all_rows(network.right, inputs_of(network, "right", facts.images))
    assert np.array_equal(grams["stem"]["left.weight"].numpy(), left.T @ left)
    assert np.array_equal(grams["stem"]["right.weight"].numpy(), right[:, 2:].T @ right[:, 2:])
    assert np.array_equal(grams["other"]["right.weight"].numpy(), right[:, :2].T @ right[:, :2])


def marked(filters, side):
    """A consumer whose Gram matrix counts how often each filter and each position was drawn."""
    pixels = side * side
    network = nn.Sequential(
        nn.Conv2d(filters + pixels, filters + pixels, 1, bias=False),
        nn.Conv2d(filters + pixels, filters, 1, bias=False),
    ).eval()
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(filters + pixels)[:, :, None, None])
        network[1].weight.fill_(1)
        network[1].weight[:, :filters, 0, 0] = torch.eye(filters)
    image = torch.ones(filters + pixels, side, side)
    image[filters:] = torch.eye(pixels).reshape(pixels, side, side)
    return network, image


def test_filters_and_positions_are_drawn_uniformly_and_independently():
    filters, side = 3, 4
    network, image = marked(filters, side)
    images = image.repeat(200, 1, 1, 1)
    cmap = trace(network, images[:1])
    facts = Evidence(network, cmap, tuple(cmap.groups), images, torch.zeros(200), 0)
    per_image = 48
    setup = sampling(num_samples=200, per_image=per_image, chunk=64)
    counts = setup.grams(facts, facts.groups)["0"]["1.weight"][:filters, filters:]
    drawn = 200 * per_image
    assert counts.sum() == drawn
    mean = drawn / (filters * side * side)
    assert (counts - mean).abs().max() < 5 * mean**0.5
    assert counts.std() > 0.5 * mean**0.5  # draws, no grid


def test_one_possible_sample_is_drawn_as_often_as_asked():
    network = with_integers(nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 1, 3)))
    facts = evidence(network, (2, 3, 3), count=5)
    once = ALL.grams(facts, facts.groups)["0"]["2.weight"]
    assert torch.equal(sampling().grams(facts, facts.groups)["0"]["2.weight"], 10 * once)
    # 5 images x 10 draws are fewer than 30 for each of 4 channels: 24 from each image
    more = sampling(rows_per_channel=30).grams(facts, facts.groups)["0"]["2.weight"]
    assert torch.equal(more, 24 * once)


def test_only_so_many_images_are_looked_at():
    network = with_integers(nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 1, 3)))
    facts = evidence(network, (2, 3, 3), count=5)
    two = replace(facts, images=facts.images[:2], labels=facts.labels[:2])
    setup = sampling(num_samples=2)
    assert setup.images_needed == 2
    found = setup.grams(facts, facts.groups)["0"]["2.weight"]
    assert torch.equal(found, setup.grams(two, two.groups)["0"]["2.weight"])
    assert not torch.equal(found, sampling().grams(facts, facts.groups)["0"]["2.weight"])


def test_draws_depend_on_seed_and_group_but_not_on_the_chunk():
    network = with_integers(
        nn.Sequential(
            nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3)
        )
    )
    facts = evidence(network, (2, 7, 7), count=7)
    found = sampling(chunk=3).grams(facts, facts.groups)
    for chunk in (1, 7, 50):
        again = sampling(chunk=chunk).grams(facts, facts.groups)
        assert torch.equal(again["0"]["2.weight"], found["0"]["2.weight"])
    alone = sampling().grams(facts, facts.groups[:1])["0"]["2.weight"]
    assert torch.equal(alone, found["0"]["2.weight"])
    other = evidence(network, (2, 7, 7), count=7, seed=1)
    assert not torch.equal(
        sampling().grams(other, other.groups)["0"]["2.weight"], found["0"]["2.weight"]
    )


def test_groups_that_share_a_consumer_are_sampled_independently():
    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1)
            self.both = nn.Conv2d(6, 4, 3)

        def forward(self, x):
            return self.both(torch.cat([self.one(x), self.two(x)], 1)).mean((2, 3))

    network = with_integers(Twins())
    network.two.load_state_dict(network.one.state_dict())
    network.both.weight.data[:, 3:] = network.both.weight.data[:, :3]
    facts = evidence(network, (2, 7, 7))
    exact = ALL.grams(facts, facts.groups)
    assert torch.equal(exact["one"]["both.weight"], exact["two"]["both.weight"])
    drawn = sampling().grams(facts, facts.groups)
    assert not torch.equal(drawn["one"]["both.weight"], drawn["two"]["both.weight"])


def test_the_bias_of_the_consumer_does_not_matter():
    network = with_integers(nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 3)))
    facts = evidence(network, (2, 5, 5))
    for setup in (ALL, sampling()):
        before = setup.grams(facts, facts.groups)["0"]["2.weight"]
        network[2].bias.data += 100
        again = evidence(network, (2, 5, 5))
        assert torch.equal(setup.grams(again, again.groups)["0"]["2.weight"], before)


def test_a_module_called_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            x = self.first(x)
            return self.again(x.relu()).mean((2, 3)) + self.again((-x).relu()).mean((2, 3))

    network = with_integers(Twice())
    facts = evidence(network, (2, 4, 4))
    with torch.no_grad():
        maps = network.first(facts.images)
    x = np.concatenate(
        [all_rows(network.again, maps.relu()), all_rows(network.again, (-maps).relu())]
    )
    assert np.array_equal(ALL.grams(facts, facts.groups)["first"]["again.weight"].numpy(), x.T @ x)


def test_layers_behind_the_last_consumer_are_not_run():
    class Unwanted(nn.Module):
        def forward(self, x):
            if x.device.type == "meta":
                return x
            raise AssertionError("nobody asked for this layer")

    network = with_integers(
        nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 3), Unwanted())
    )
    facts = evidence(network, (2, 5, 5))
    x = all_rows(network[2], inputs_of(network[:3], "2", facts.images))
    gram = ALL.grams(facts, facts.groups)["0"]["2.weight"]
    assert np.array_equal(gram.numpy(), x.T @ x)


def test_the_network_is_left_as_it_was():
    network = with_integers(nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 3)))
    facts = evidence(network, (2, 5, 5))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    sampling().grams(facts, facts.groups)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert not network[2]._forward_pre_hooks
    assert not network.training


def test_consumers_that_cannot_be_measured_are_refused():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 3, 1)

        def forward(self, x):
            return nn.functional.conv2d(self.first(x), self.second.weight).mean((2, 3))

    facts = evidence(Own().eval(), (2, 4, 4))
    with pytest.raises(PruningError, match=r"second\.weight.*without its module being called"):
        ALL.grams(facts, facts.groups)
    turned = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ConvTranspose2d(4, 3, 2, 2)).eval()
    facts = evidence(turned, (2, 4, 4))
    with pytest.raises(PruningError, match=r"1\.weight.*not the weight of a Conv2d or Linear"):
        ALL.grams(facts, facts.groups)


def test_a_table_too_large_and_inputs_that_are_not_finite_are_refused():
    with torch.device("meta"):
        wide = nn.Sequential(nn.Conv2d(3, 512, 1), nn.Flatten(), nn.Linear(512 * 49, 2)).eval()
    facts = evidence(wide, (3, 7, 7))
    with pytest.raises(PruningError, match="25088 x 25088.*collect=sampled"):
        ALL.grams(facts, facts.groups)
    network = with_integers(nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 3, 1)))
    network[0].weight.data[0] = torch.inf
    facts = evidence(network, (2, 4, 4))
    for setup in (ALL, sampling()):
        with pytest.raises(PruningError, match=r"inputs of 1\.weight are not finite"):
            setup.grams(facts, facts.groups)


@pytest.mark.parametrize(
    "change",
    [{"num_samples": 0}, {"per_image": 0}, {"rows_per_channel": -1}, {"chunk": 0}],
    ids=str,
)
def test_ranges(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        sampling(**change)
