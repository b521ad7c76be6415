"""A machine is timed once, the times are kept, and the slim network is measured."""

import dataclasses
import json
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch
from torch import nn

import prunebench as package
from prunebench.budgets.latency import Latency
from prunebench.budgets.layer_times import costly_widths
from prunebench.channels import Plan, trace
from prunebench.errors import ConfigError, PruningError
from prunebench.measure import engines, layers
from prunebench.records import finish
from prunebench.reports.table import main
from prunebench.run import timing
from prunebench.run.timing import ceiling, outcome, timed

IMAGE = torch.zeros(1, 3, 8, 8)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, groups=32), nn.ReLU(), nn.Conv2d(32, 64, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def cmap(network):
    return trace(network, IMAGE)


class Pretended:
    """A machine on which a channel costs 10 microseconds a layer, thrice that where it is odd."""

    def __init__(self, odd=1.0):
        self.odd, self.calls = odd, 0

    def __call__(self, run, images, seconds=0.0):
        self.calls += 1
        return sum(
            self.cost(layer) for layer in run.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
        )

    def cost(self, layer):
        width = layer.weight.shape[0]
        return 10.0 * width * (self.odd if width % 8 and width > 5 else 1.0)


@pytest.fixture
def pretended(monkeypatch):
    def pretend(odd=1.0):
        machine = Pretended(odd)
        monkeypatch.setattr(layers, "fastest", machine)
        return machine

    return pretend


def budget_for(network, cmap, asked, store=None):
    return timed(asked, network, cmap, IMAGE, store, lambda line: None)


def test_prediction_and_measurement_agree(network, cmap, pretended):
    pretended()
    made = budget_for(network, cmap, Latency(keep=0.5, batch=2))
    assert made.times.dense == 10 * (32 + 32 + 64 + 5)
    plan = timing.tentative(made, cmap)
    slim = package.channels.slim(network, cmap, plan)
    found = outcome(made, slim, cmap, plan, IMAGE)
    assert found.asked_ms == pytest.approx(0.665)
    assert found.predicted_ms == pytest.approx(found.measured_ms, rel=0.02)
    assert found.measured_ms <= found.asked_ms
    assert "(+0%); divisor 1" in str(found)


def test_the_divisor_follows_the_times(network, cmap, pretended):
    pretended(odd=3.0)
    made = budget_for(network, cmap, Latency(keep=0.6, batch=2))
    assert made.divisor == 8
    assert costly_widths(made.times, cmap, timing.tentative(made, cmap)) == []
    odd = Plan({"0": range(13), "5": range(29)})
    assert costly_widths(made.times, cmap, odd) == [13, 29]
    assert budget_for(network, cmap, Latency(keep=0.6, batch=2, divisor=1)).divisor == 1


def test_what_was_measured_is_kept_by_machine_and_batch(network, cmap, pretended, tmp_path):
    machine = pretended()
    first = budget_for(network, cmap, Latency(keep=0.5, batch=2), tmp_path)
    measured = machine.calls
    again = budget_for(network, cmap, Latency(keep=0.5, batch=2), tmp_path)
    assert machine.calls == measured > 10
    assert again.times.dense == first.times.dense
    assert timing.tentative(again, cmap) == timing.tentative(first, cmap)
    [store] = tmp_path.glob("*.json")
    held = json.loads(store.read_text())
    assert held["machine"]["engine"] == "cpu"
    assert all(key.endswith("batch=2") for key in held["microseconds"])
    budget_for(network, cmap, Latency(keep=0.5, batch=3), tmp_path)
    assert machine.calls > measured


def test_the_ceiling_is_told(network, cmap, pretended):
    pretended()
    with pytest.raises(PruningError, match=r"at most \d+\.\dx on this machine: .* asks for"):
        budget_for(network, cmap, Latency(keep=0.01, batch=2))
    made = budget_for(network, cmap, Latency(keep=0.5, batch=2))
    assert ceiling(made, cmap).startswith("at most 16.6x on this machine: 0.08 of 1.33 ms remain")


def test_a_measurement_that_is_off_is_told():
    found = timing.LatencyTarget(
        on="cpu", batch=1, device="X", threads=1, divisor=8, dense_ms=2, asked_ms=1,
        predicted_ms=1.0, measured_ms=1.2, costly_widths=[13, 29, 5, 7],
    )  # fmt: skip
    assert found.advice == "widths of 13, 29, 5, ... cost you the speed-up: budget.divisor=8"
    assert "measured 1.2 (+20%, MORE THAN 10 % OFF: time it again on a quiet machine)" in str(found)


@pytest.mark.parametrize("engine", ["cpu", "onnxruntime"])
def test_layers_of_other_widths_are_timed(network, engine):
    if engine == "onnxruntime":
        pytest.importorskip("onnxruntime")
    seen = layers.calls(network, IMAGE)
    assert [layers.kind(one.module) for one in seen] == [
        "conv", "elementwise", "elementwise", "depthwise", "elementwise", "conv", "elementwise",
        "elementwise", "linear",
    ]  # fmt: skip
    for one, widths in ((seen[0], (3, 5)), (seen[3], (7, 7)), (seen[5], (7, 9)), (seen[8], (9, 5))):
        made = layers.sized(one.module, *widths).eval()
        images = torch.randn(2, widths[0], *one.shape[1:])
        run = layers.layer_runner(engine, made)
        with torch.no_grad():
            assert torch.allclose(run(images), made(images), atol=1e-5)
        assert layers.fastest(run, images, 0.0) > 0
    assert seen[0].module.out_channels == 32  # what was resized is a copy
    norm = layers.sized(seen[1].module, 6, 6)
    assert norm(torch.ones(1, 6, 2, 2)).shape[1] == 6


def test_a_run_is_timed_for_real(prunebench):
    words = ["model=resnet20", "model.depth=8", "model.width=0.5", "dataset=digits"]
    words += ["criterion=l1", "budget=latency", "budget.keep=1.0", "budget.batch=2"]
    done = prunebench(*words, "run.threads=1", "run.dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "latency (cpu, batch 2, " in done.stdout
    assert "x on this machine: " in done.stdout
    assert "timing layers on" in done.stderr + done.stdout
    assert list(prunebench.folder.glob("outputs/latency/*.json"))


def test_python_prunes_to_a_time(network, pretended):
    pretended()
    small = package.prune(network, IMAGE, budget="latency", keep=0.5, batch=2)
    assert small[0].out_channels < 32
    with pytest.raises(PruningError, match="images .* alone"):
        package.prune(network, (IMAGE,), budget="latency")


def test_engines_that_are_not_there_are_named(network, cmap, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="onnxruntime is not installed; pip install"):
        budget_for(network, cmap, Latency(keep=0.5, on="onnxruntime"))
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="budget.on=cuda: this machine has no CUDA device"):
            budget_for(network, cmap, Latency(keep=0.5, on="cuda"))


def test_an_onnxscript_that_is_too_old_is_named(network, monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "0.6.0")
    with pytest.raises(ConfigError, match=r"onnxscript 0\.6\.0 is too old to write ONNX; pip"):
        engines.onnx_bytes(network, IMAGE)


def test_the_extra_asks_for_what_onnx_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = f"onnxscript>={'.'.join(map(str, engines._OLDEST))}"
    assert oldest in project["optional-dependencies"]["export"]


def test_tables_say_what_came_of_it(make_report, tmp_path, capsys):
    target = timing.LatencyTarget(
        on="onnxruntime", batch=1, device="X", threads=1, divisor=1, dense_ms=2, asked_ms=1,
        predicted_ms=1.0, measured_ms=1.05, costly_widths=[13, 29],
    )  # fmt: skip
    finish(tmp_path / "a", dataclasses.replace(make_report(), latency_target=target))
    assert main([str(tmp_path), "--format", "markdown"]) == 0
    said = capsys.readouterr().out
    assert "Budget, " in said and "asked for 1, predicted 1, measured 1.05 (+5%)" in said
    assert "widths of 13, 29 cost you the speed-up: budget.divisor=8" in said
    assert ", seed " not in said
    later = dataclasses.replace(target, measured_ms=1.2)
    finish(tmp_path / "b", dataclasses.replace(make_report(7), latency_target=later))
    assert main([str(tmp_path), "--format", "markdown"]) == 0
    [line] = [one for one in capsys.readouterr().out.splitlines() if "Budget, " in one]
    assert ", seed 7: latency" in line and "measured 1.2 (+20%" in line
