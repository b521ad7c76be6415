"""Counts, scores and latencies, compared with hand counts and torch's own."""

import io

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from prunebench import measure
from prunebench.datasets import Arrays, Data
from prunebench.measure import accuracy
from prunebench.measure.conventions import foad_flops
from prunebench.models.resnet import Resnet, Resnet56Foad
from prunebench.models.vgg import Vgg16
from prunebench.training.resident import ResidentSplit


def small_network():
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2),  # 8 x 2 x 9 weights, 8 biases, on 6 x 6 pixels
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 5),
    )


class Fixed(nn.Module):
    """Gives the logits it was made with, in turn."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.at = logits, 0
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        start, self.at = self.at, self.at + len(x)
        return self.logits[start : self.at] * self.scale


def split_of(labels):
    split = Arrays(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), torch.tensor(labels))
    data = Data("x", split, split, split, classes=7, mean=(0.5,), std=(0.5,))
    return ResidentSplit(data, split, device=torch.device("cpu"))


def test_counts_by_hand():
    network = small_network()
    assert measure.params(network) == (144 + 8) + 16 + (160 + 5)
    assert measure.macs(network, torch.zeros(1, 4, 8, 8)) == 144 * 36 + 160
    assert measure.macs(network, torch.zeros(5, 4, 8, 8)) == 144 * 36 + 160  # of one image


def test_operations_as_foads_authors_count_them():
    network = nn.Sequential(small_network(), nn.Unflatten(1, (5, 1, 1)), nn.AvgPool2d(1))
    # multiply-adds twice, 2 behind the norm, 1 behind the ReLU, 1 x 1 behind the pooling
    by_hand = 2 * (144 * 36 + 160) + (2 + 1) * 8 * 36 + 5
    assert foad_flops(network, torch.zeros(1, 4, 8, 8)) == by_hand
    assert foad_flops(nn.MaxPool2d((2, 3)), torch.zeros(1, 1, 4, 6)) == 4 * 6
    assert foad_flops(nn.LSTM(6, 2), torch.zeros(1, 4, 6)) == 0  # it returns several


@pytest.mark.parametrize(
    ("spec", "printed"),
    [(Vgg16(width=1.0), 0.62736e9), (Resnet56Foad(), 0.24602e9)],
    ids=["vgg", "resnet"],
)
def test_operations_of_foads_own_networks(spec, printed):
    network = spec.build((3, 32, 32), 10)
    found = foad_flops(network, torch.zeros(1, 3, 32, 32))
    assert abs(found - printed) <= 0.5e4  # the last digit that is printed
    assert not any(module._forward_hooks for module in network.modules())


def test_layer_rows_by_hand():
    rows = measure.layer_costs(small_network(), torch.zeros(1, 4, 8, 8))
    assert rows == [
        measure.LayerCost("0", 8, 4, params=152, macs=144 * 36),
        measure.LayerCost("5", 5, 32, params=165, macs=160),
    ]


def test_a_shared_layer_counts_its_params_once_and_its_calls_all():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x):
            return self.fc(self.fc(x))

    network = Twice()
    assert measure.params(network) == 42
    assert measure.macs(network, torch.zeros(1, 6)) == 72
    assert [row.macs for row in measure.layer_costs(network, torch.zeros(1, 6))] == [72]


def test_attention_and_matmul_count():
    class Attention(nn.Module):
        def forward(self, x):
            return functional.scaled_dot_product_attention(x, x[:, :3], x[:, :3]) @ x.mT

    # (5 x 3 x (4 + 4)) for attention, 5 x 4 x 5 for the product
    assert measure.macs(Attention(), torch.zeros(1, 5, 4)) == 120 + 100


def test_layers_that_torch_calls_in_another_way_count():
    """A padding in words, matrices that are spread over others, and recurrent layers."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 8, 3, padding="same")
            self.step = nn.LSTM(8, 5, num_layers=2, bidirectional=True, batch_first=True)

        def forward(self, x):
            places = self.conv(x).flatten(2).mT  # [n, 36, 8]
            heads = places[:, None] @ torch.ones(3, 8, 2)
            first = places[:, :2]
            return torch.baddbmm(heads[:, 0, :2], first, first.mT), self.step(places)

    conv, heads, last = 8 * 4 * 9 * 36, 3 * 36 * 8 * 2, 2 * 8 * 2
    lstm = 2 * 36 * 20 * (8 + 5) + 2 * 36 * 20 * (10 + 5)
    example = torch.randn(2, 4, 6, 6)
    assert measure.macs(Odd(), example) == conv + heads + last + lstm
    assert [row.macs for row in measure.layer_costs(Odd(), example)] == [conv]


def test_a_branch_that_torch_takes_itself_counts():
    class Either(nn.Module):
        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda x: x @ x, lambda x: x @ x @ x, (x,))

    assert measure.macs(Either(), torch.zeros(1, 4, 4)) == 2 * 64  # the costlier one


def test_the_last_layer_of_attention_has_its_multiply_adds():
    """Attention calls a function with its weight, which its fast path does not even do."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    inward, products, outward, feed = 7 * 16 * 48, 2 * 7 * 7 * 16, 7 * 16 * 16, 7 * 16 * 32
    for example in (torch.randn(1, 7, 16), torch.randn(3, 7, 16)):
        with torch.inference_mode():
            whole = measure.macs(layer, example)
            rows = {row.name: row.macs for row in measure.layer_costs(layer, example)}
        assert whole == inward + products + outward + 2 * feed
        assert rows == {"self_attn.out_proj": outward, "linear1": feed, "linear2": feed}


NETWORKS = {
    "vgg16": (lambda: Vgg16(width=0.3).build((3, 32, 32), 10), (3, 32, 32)),
    "resnet20-A": (
        lambda: Resnet(depth=20, shortcut="A", width=1).build((3, 32, 32), 10),
        (3, 32, 32),
    ),
    "resnet20-B": (
        lambda: Resnet(depth=20, shortcut="B", width=1).build((3, 32, 32), 10),
        (3, 32, 32),
    ),
    "foad": (lambda: Resnet56Foad().build((3, 32, 32), 10), (3, 32, 32)),
    "mobilenet_v2": (lambda: models.mobilenet_v2(), (3, 64, 64)),
    "shufflenet_v2": (lambda: models.shufflenet_v2_x0_5(), (3, 64, 64)),
    "efficientnet_b0": (lambda: models.efficientnet_b0(), (3, 64, 64)),
    "densenet": (lambda: models.DenseNet(12, (3, 3), 16), (3, 64, 64)),
    "googlenet": (lambda: models.googlenet(aux_logits=False, init_weights=False), (3, 64, 64)),
    "squeezenet1_1": (lambda: models.squeezenet1_1(), (3, 64, 64)),
    "vit": (
        lambda: models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=10),
        (3, 32, 32),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_are_half_of_torchs_own_count(name):
    make, shape = NETWORKS[name]
    network = make().eval()
    example = torch.zeros(1, *shape)
    # torch counts attention only where it is written out
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(example)
    assert 2 * measure.macs(network, example) == counter.get_total_flops()


def test_counting_leaves_the_network_alone():
    network = small_network().train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    measure.macs(network, torch.randn(2, 4, 8, 8))
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_size_is_that_of_the_saved_file():
    network = Vgg16(width=0.2).build((3, 32, 32), 10)
    saved = io.BytesIO()
    torch.save(network.state_dict(), saved)
    assert measure.size_bytes(network) == saved.getbuffer().nbytes


LOGITS = torch.tensor(
    [
        [9.0, 1, 2, 3, 4, 5, 6],  # label 0: first
        [9.0, 1, 2, 3, 4, 5, 6],  # label 3: fifth
        [9.0, 1, 2, 3, 4, 5, 6],  # label 2: sixth
        [0.0, 8, 0, 0, 0, 0, 0],  # label 1: first
    ]
)


@pytest.mark.parametrize("pixels", [4, 12, 2**17])  # batches of 1, 3 and all 4 images of 2 x 2
def test_a_score_by_hand(pixels, monkeypatch):
    monkeypatch.setitem(accuracy.BATCH_PIXELS, "cpu", pixels)
    labels = [0, 3, 2, 1]
    score = measure.evaluate(Fixed(LOGITS), split_of(labels))
    assert (score.correct, score.correct_top5, score.seen) == (2, 3, 4)
    chances = [
        torch.softmax(row.double(), 0)[label] for row, label in zip(LOGITS, labels, strict=True)
    ]
    assert score.loss == pytest.approx(float(-torch.stack(chances).log().mean()), rel=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_wrong(bad):
    logits = LOGITS.clone()
    logits[0, 0] = bad  # where the right answer was
    logits[3, 5] = -bad
    score = measure.evaluate(Fixed(logits), split_of([0, 3, 2, 1]))
    assert (score.correct, score.correct_top5, score.seen, score.loss) == (0, 1, 4, None)


def test_few_classes_have_no_top5():
    score = measure.evaluate(Fixed(LOGITS[:, :5]), split_of([0, 3, 2, 1]))
    assert (score.correct, score.correct_top5) == (2, None)


def test_evaluation_is_in_eval_mode_and_restores_each_modules_own():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(0.9), nn.Linear(4, 7))
    network.train()
    network[1].eval()
    first = measure.evaluate(network, split_of([0, 1]))
    assert measure.evaluate(network, split_of([0, 1])) == first
    assert [module.training for module in network] == [True, False, True, True]
    assert network[1].num_batches_tracked == 0


def test_latency_of_each_batch_size_once():
    passes = []
    network = small_network().train()
    network.register_forward_hook(lambda module, args, out: passes.append(len(out)))
    rows = measure.latencies(network, (4, 8, 8), (1, 64, 1))
    assert [row.batch for row in rows] == [1, 64]
    assert set(passes) == {1, 64}
    assert all(0 < row.median_ms < 1000 and row.iqr_ms >= 0 for row in rows)
    assert rows[0].threads == torch.get_num_threads()
    assert network.training
