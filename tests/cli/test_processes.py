"""run.processes: several processes train together, and a lost one is explained."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from prunebench.errors import ConfigError
from prunebench.run.workers import require_devices

WHILE_TRAINING = [
    "experiment=aofp_digits",
    "model=resnet20",
    "model.depth=8",
    "model.width=0.25",
    "dataset.val_size=101",
    "dataset.test_size=50",
    "dataset.train_size=187",  # the last batches have no equal parts
    "recipe.baseline.epochs=2",
    "recipe.pruning.epochs=3",
    "recipe.finetune.epochs=1",
    "criterion.draws_per_half=2",
    "criterion.warmup_steps=1",
    "criterion.theta=0.5",
    "budget.keep=0.8",
    "run.latency_batch=2",
    "run.processes=2",
]


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_run_by_two_processes_that_prunes_while_training(prunebench, tmp_path):
    done = prunebench(*WHILE_TRAINING, START_METHOD="spawn")  # as it is for users
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.rglob("report.json")
    report = json.loads(path.read_text())
    before, after = report["measurements"][0], report["measurements"][-1]
    assert after["macs"] <= 0.8 * before["macs"]
    rows = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    epochs = [row for row in rows if row.get("epoch") and "loss" in row]
    assert {row["stage"] for row in epochs} == {"baseline", "pruning", "finetune"}
    baseline = [row for row in epochs if row["stage"] == "baseline"]
    assert [row["seen"] for row in baseline] == [187, 187]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_process_that_is_killed_is_named_and_the_run_goes_on_later(prunebench, tmp_path):
    command = [*WHILE_TRAINING, "recipe.baseline.epochs=4", "run.checkpoint_seconds=0"]
    with prunebench.start(*command) as run:
        run.wait_for("baseline  epoch 2/4")
        [other] = children(run.pid)
        os.kill(other, signal.SIGKILL)
        assert run.wait(timeout=60) == 2
        said = run.stderr
    assert "Traceback" not in said
    assert "process 1 of the run was killed (SIGKILL)" in said
    [failure] = tmp_path.rglob("failure.json")
    assert json.loads(failure.read_text())["stage"] == "baseline"
    done = prunebench(*command, "run.resume=true")
    assert done.returncode == 0, done.stderr
    assert "epoch 1/4" not in done.stderr
    [report] = tmp_path.rglob("report.json")
    assert report.parent == failure.parent


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_an_interrupted_run_leaves_no_process_behind(prunebench):
    with prunebench.start(*WHILE_TRAINING, "recipe.baseline.epochs=40") as run:
        run.wait_for("baseline  epoch 1/40")
        others = children(run.pid)
        assert others
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=60) == 130
        said = run.stderr
    assert "interrupted; progress is saved" in said
    assert "Traceback" not in said
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in others):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.processes=0", "processes must be at least 1"),
        ("run.processes=64", "recipe.baseline.batch_size=64 images, and each needs at least two"),
    ],
)
def test_impossible_numbers_are_refused(prunebench, override, message):
    done = prunebench("experiment=quickstart", override)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_every_process_needs_a_cuda_device_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    require_devices(2, torch.device("cuda"))
    require_devices(9, torch.device("cpu"))
    for size, device in [(3, "cuda"), (2, "cuda:1")]:
        with pytest.raises(ConfigError, match="this machine has 2 CUDA devices"):
            require_devices(size, torch.device(device))
