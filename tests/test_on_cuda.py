"""Criteria, surgery, counts and whole runs on a GPU, for ``pytest -m gpu``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import prunebench
from prunebench.channels import mask, trace
from prunebench.criteria import Criterion
from prunebench.measure import macs
from prunebench.models import ModelSpec
from prunebench.options import option
from prunebench.reproducibility import cuda_math
from tests.test_cross_product import CRITERIA, WATCHES_TRAINING, criterion_of

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
#: batch norm's own criteria need norms that were trained; the oracle's order is that of noise here
SCORED = sorted({*CRITERIA} - WATCHES_TRAINING - {"oracle", "bn_probability"})
DIGITS = ["dataset=digits", "dataset.size=16", "dataset.val_size=300", "run.device=cuda"]
VGG = ["model=vgg16", "model.width=0.25", *DIGITS, "recipe=quick"]
RESNET = ["model=resnet20", "model.width=0.5", *DIGITS, "recipe=quick"]
RUNS = {
    "foad": [*VGG, "method=foad"],
    "foad, headline": [*VGG, "method=foad_headline"],
    "thinet": [*VGG, "method=thinet", "recipe=quick"],
    "thinet of blocks": [*RESNET, "method=thinet", "recipe=quick"],
    "weight sum": [*VGG, "criterion=l1", "budget=uniform", "schedule=layerwise"],
    "apoz": [*VGG, "method=apoz", "recipe=quick"],
    "probability": [
        "experiment=probability_quick", "run.device=cuda", "criterion.tau=0.6",
    ],
    "cac": [
        *RESNET, "method=cac", "recipe=quick", "budget.keep=0.9", "criterion.n_min=2",
        "criterion.prune_every=1", "criterion.max_step=1", "criterion.end=0.9",
        "recipe.pruning.epochs=8", "recipe.pruning.batch_size=8",
    ],
    "aofp": [*VGG, "method=aofp_quick", "recipe=quick", "criterion.theta=1.0", "budget.keep=0.9"],
    "hrank, bf16": [*RESNET, "criterion=hrank", "budget=macs", "recipe.precision=bf16"],
    "taylor, fp16": [*RESNET, "criterion=taylor", "budget=macs", "recipe.precision=fp16"],
    "soft": [*RESNET, "method=sfp", "recipe=quick", "recipe.pruning.epochs=2"],
    "oracle": [*RESNET, "criterion=oracle", "budget=uniform", "budget.keep=0.5"],
    "recalibrated": [*RESNET, "criterion=l1", "budget=macs", "repair=bn_recalibration"],
    "latency": [
        "model=vgg16", *DIGITS, "recipe=quick", "criterion=l1", "budget=latency", "budget.on=cuda",
        "budget.keep=0.9", "budget.batch=512",
    ],
}  # fmt: skip


def network() -> nn.Module:
    torch.manual_seed(0)
    built: nn.Module = option("model", "resnet20", ModelSpec, width=0.5).build((3, 32, 32), 10)
    with torch.no_grad():
        for module in built.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
    return built


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(64, 3, 32, 32), torch.arange(64) % 10


def pruned(criterion: str, device: torch.device) -> nn.Module:
    images, labels = (t.to(device) for t in batch())
    spec = criterion_of(criterion)
    assert isinstance(spec, Criterion)
    return prunebench.prune(
        network().to(device), images[:2], criterion=spec, images=(images, labels)
    )


@pytest.mark.parametrize("criterion", SCORED)
def test_a_criterion_keeps_what_it_keeps_on_a_cpu(criterion: str) -> None:
    with cuda_math(exact=True):
        ours, theirs = pruned(criterion, CUDA), pruned(criterion, torch.device("cpu"))
        assert all(p.is_cuda for p in ours.parameters())
        kept = {g: {*keep} for g, keep in ours.plan.kept.items()}
        expected = {g: {*keep} for g, keep in theirs.plan.kept.items()}
        assert kept.keys() == expected.keys()
        common = sum(len(kept[g] & expected[g]) for g in kept)
        assert common >= 0.97 * sum(map(len, expected.values())), (kept, expected)
        if kept == expected:
            outputs = ours.eval()(batch()[0].to(CUDA)).cpu()
            assert torch.allclose(outputs, theirs.eval()(batch()[0]), atol=1e-3)


def test_slim_and_masked_networks_agree() -> None:
    with cuda_math(exact=True):
        net, images = network().to(CUDA), batch()[0].to(CUDA)
        small = prunebench.prune(net, images[:2])
        masked = mask(net, trace(net, images[:2]), small.plan)
        assert torch.allclose(small.eval()(images), masked.eval()(images), atol=1e-4)
        assert not torch.allclose(small(images), net.eval()(images), atol=1e-2)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("more", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}])
def test_recurrent_layers_cost_what_they_cost_on_a_cpu(
    kind: type[nn.RNNBase], more: dict[str, int]
) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = kind(12, 8, **more)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0]

    x = torch.randn(5, 3, 12)
    assert macs(Recurrent().to(CUDA), x.to(CUDA)) == macs(Recurrent(), x) > 0


def test_attention_costs_what_it_costs_on_a_cpu() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    x = torch.randn(2, 7, 16)
    expected = macs(layer, x)
    assert macs(layer.to(CUDA), x.to(CUDA)) == expected > 0


def test_an_optimizer_goes_on_with_the_slim_network() -> None:
    images, labels = (t.to(CUDA) for t in batch())
    net = network().to(CUDA)
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)

    def step(network: nn.Module) -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    for _ in range(3):
        step(net)
    small = prunebench.prune(net, images[:2], optimizer=optimizer)
    losses = [step(small) for _ in range(20)]
    assert losses[-1] < losses[0]
    for weight in small.parameters():
        assert optimizer.state[weight]["exp_avg"].shape == weight.shape
        assert optimizer.state[weight]["exp_avg"].is_cuda


def test_a_saved_network_loads_on_a_cpu(tmp_path: Path) -> None:
    images = batch()[0].to(CUDA)
    small = prunebench.prune(network().to(CUDA), images[:2]).eval()
    prunebench.save(small, tmp_path / "slim.pt")
    loaded = prunebench.load(tmp_path / "slim.pt", network()).eval()
    assert torch.allclose(loaded(images.cpu()), small(images).cpu(), atol=1e-2)


@pytest.mark.parametrize("name", RUNS)
def test_a_whole_run_of_each_method(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [*RUNS[name], f"run.outputs={tmp_path}", f"hydra.run.dir={folder}"]
    done = subprocess.run(
        [sys.executable, "-m", "prunebench", *words],
        env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((folder / "report.json").read_text())
    costs = [measured["macs"] for measured in report["measurements"]]
    assert costs[-1] < costs[0]
    assert report["environment"]["device"] == torch.cuda.get_device_name(CUDA)
    errors = [step["surgery_error"] for step in report["steps"] if step["kept"]]
    assert errors and max(errors) < 1e-3
