"""Whole runs through the command line, and the files that they leave."""

import json
import signal

import pytest
import torch

SMALL = [
    "experiment=quickstart",
    "model.width=0.05",
    "dataset.train_size=64",
    "dataset.test_size=50",
    "recipe.baseline.epochs=2",
    "recipe.finetune.epochs=2",
    "run.latency_batch=2",
]
#: prints the logits of a fixed input and the count of right answers on the test set
RELOAD = """
import sys, torch, prunebench
from prunebench.options import option
from prunebench.datasets import DatasetSpec
from prunebench.measure import evaluate
from prunebench.training.resident import ResidentSplit
torch.set_num_threads(1)
network = prunebench.load(sys.argv[1])
data = option("dataset", "digits", DatasetSpec, size=16, train_size=64, test_size=50).load()
score = evaluate(network, ResidentSplit(data, data.test, device=torch.device("cpu")))
print(score.correct, score.loss.hex())
"""


@pytest.fixture(scope="module")
def finished(python, tmp_path_factory):
    """A folder in which one small FOAD run has come to its end."""
    folder = tmp_path_factory.mktemp("run")
    done = python.run("-m", "prunebench", *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def report_of(folder):
    [path] = (folder / "outputs").rglob("report.json")
    return path, json.loads(path.read_text())


def test_the_table_is_for_people(finished):
    folder, done = finished
    # a machine too busy to compare latencies is said to be so
    for part in ("vgg16 on digits: foad", "top-1 %", "params", "MACs", "atency", "-"):
        assert part in done.stdout
    assert "mask and slim agree to" in done.stderr
    assert str(report_of(folder)[0].name) in done.stderr


def test_the_report_is_complete_and_consistent(finished):
    folder, _ = finished
    path, report = report_of(folder)
    stages = [measured["stage"] for measured in report["measurements"]]
    assert stages == ["baseline", "pruned", "finetuned_last", "finetuned_best_val"]
    assert not (path.parent / "failure.json").exists()
    assert not (path.parent / "stages").exists()
    assert report["choices"]["criterion"] == "foad"
    assert 0 <= report["steps"][0]["surgery_error"] <= 1e-4
    before, after = report["measurements"][0], report["measurements"][-1]
    assert after["params"] < before["params"]
    assert sum(layer["macs_after"] for layer in report["layers"]) == after["macs"]
    assert sum(layer["macs_before"] for layer in report["layers"]) == before["macs"]
    assert after["test"]["seen"] == 50
    widths = {name: len(kept) for name, kept in report["plan"].items()}
    rows = {layer["name"]: layer["channels_after"] for layer in report["layers"]}
    assert widths == {name: rows[name] for name in widths}


def test_the_log_has_every_epoch(finished):
    folder, _ = finished
    path, _ = report_of(folder)
    rows = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    epochs = [(row["stage"], row["epoch"]) for row in rows if row.get("epoch")]
    assert epochs == [("baseline", 1), ("baseline", 2), ("finetune", 1), ("finetune", 2)]


def test_the_slim_network_reloads_in_a_fresh_process(finished, python, tmp_path):
    folder, _ = finished
    path, report = report_of(folder)
    outcomes = []
    for file, stage in (("slim.pt", -2), ("slim_best_val.pt", -1)):
        torch.load(path.parent / file, weights_only=True)
        done = python.run("-c", RELOAD, str(path.parent / file), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        correct, loss = done.stdout.split()
        measured = report["measurements"][stage]["test"]
        assert int(correct) == measured["correct"]
        assert float.fromhex(loss) == pytest.approx(measured["loss"], rel=1e-6)
        outcomes.append(done.stdout)


def test_a_divergence_is_on_record(prunebench, tmp_path):
    done = prunebench(
        *SMALL, "criterion=l1", "budget=uniform", "dataset.train_size=256",
        "recipe.baseline.lr=1e12",
    )  # fmt: skip
    assert done.returncode == 2
    assert "baseline: the loss is not finite at epoch 1 of 2, step" in done.stderr
    assert "Traceback" not in done.stderr
    [path] = (tmp_path / "outputs").rglob("failure.json")
    failure = json.loads(path.read_text())
    assert (failure["stage"], failure["kind"]) == ("baseline", "TrainingError")
    assert not list((tmp_path / "outputs").rglob("report.json"))


def test_a_sweep_goes_on_after_a_job_that_fails(prunebench, tmp_path):
    done = prunebench(
        "-m", *SMALL, "criterion=l1", "budget=uniform", "budget.floor=1000,1",
        "recipe.baseline.epochs=1", "recipe.finetune.epochs=0",
    )  # fmt: skip
    assert done.returncode == 2
    assert "removes none of" in done.stderr
    assert len(list((tmp_path / "outputs").rglob("report.json"))) == 1
    assert len(list((tmp_path / "outputs").rglob("failure.json"))) == 1
    assert len(list((tmp_path / "outputs" / "baselines").iterdir())) == 1


def test_a_dry_run_trains_and_writes_nothing(prunebench, tmp_path):
    done = prunebench(*SMALL, "run.dry_run=true")
    assert done.returncode == 0, done.stderr
    for part in ("features.conv1_1", "params:", "MACs:", "mask", "initial"):
        assert part in done.stdout.replace("masked", "mask")
    assert not list(tmp_path.rglob("report.json"))
    assert not list(tmp_path.rglob("baselines"))


def test_a_checkpoint_of_ones_own_is_the_baseline(prunebench, finished, tmp_path):
    folder, _ = finished
    [stored] = (folder / "outputs" / "baselines").rglob("baseline.pt")
    network = torch.load(stored, weights_only=True)["network"]
    prefixed = {f"module.{key}": value for key, value in network.items()}
    torch.save({"state_dict": prefixed}, tmp_path / "mine.pth")
    done = prunebench(*SMALL, "baseline.checkpoint=mine.pth", "recipe.finetune.epochs=0")
    assert done.returncode == 0, done.stderr
    theirs = report_of(folder)[1]["measurements"][0]["test"]
    assert report_of(tmp_path)[1]["measurements"][0]["test"]["correct"] == theirs["correct"]


def test_options_of_ones_own(prunebench, tmp_path):
    (tmp_path / "my" / "criterion").mkdir(parents=True)
    (tmp_path / "my" / "criterion" / "mine.yaml").write_text("_target_: mine.Last\n")
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from prunebench.criteria import Criterion, GroupRank\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Last(Criterion):\n"
        "    def rank(self, evidence):\n"
        "        import torch\n"
        "        first = {g.name: -torch.arange(g.size).double() for g in evidence.groups}\n"
        "        return {name: GroupRank(scores) for name, scores in first.items()}\n"
    )
    done = prunebench(
        "--config-dir", "my", *SMALL, "criterion=mine", "budget=uniform",
        "recipe.baseline.epochs=1", "recipe.finetune.epochs=0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plan = report_of(tmp_path)[1]["plan"]
    assert all(kept == list(range(len(kept))) for kept in plan.values())


def test_an_interrupted_run_says_how_to_go_on(prunebench, tmp_path):
    with prunebench.start(*SMALL, "recipe.baseline.epochs=500") as process:
        process.wait_for("epoch 1/500")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        said = process.stderr
    assert said.splitlines()[-1].endswith("command and run.resume=true")
    assert "Traceback" not in said
    [path] = (tmp_path / "outputs").rglob("failure.json")
    assert json.loads(path.read_text())["kind"] == "interrupted"
