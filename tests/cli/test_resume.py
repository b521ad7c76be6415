"""A run killed with SIGKILL and resumed with ``run.resume=true`` ends with the same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest
import torch

#: a run with every kind of stage: baseline, two pruning steps, training between them, fine-tuning
SMALL = [
    "model=vgg16",
    "model.width=0.05",
    "dataset=digits",
    "dataset.size=16",
    "dataset.train_size=128",
    "dataset.test_size=50",
    "criterion=l1",
    "budget=uniform",
    "budget.keep=0.5",
    "schedule=iterative",
    "schedule.rounds=2",
    "recipe=quick",
    "recipe.baseline.epochs=2",
    "recipe.finetune.epochs=2",
    "run.checkpoint_seconds=0",
    "run.latency_batch=1",
]
#: of the default run; test_resume_matrix.py has twenty of the same, and of all other families
KILLS = 2


def state(folder):
    """Everything on disk that tells how far the run is."""
    found = set()
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                info = os.stat(os.path.join(root, name))
            except FileNotFoundError:
                continue
            if not name.endswith((".log", ".tmp")):
                found.add((name, info.st_mtime_ns))
    return found


def follow(process, folder, stop_after):
    """Kills the process after `stop_after` changes on disk; returns how many there were."""
    seen = state(folder)
    first = len(seen)
    while process.poll() is None:
        seen |= state(folder)
        if stop_after is not None and len(seen) - first >= stop_after:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.02)
    assert process.wait() in (0, -signal.SIGKILL), process.stderr
    return len(seen) - first


def outcome(folder):
    """All that must be equal: weights, plan, counts, figures and the log, but no times."""
    [path] = (folder / "outputs").rglob("report.json")
    report = json.loads(path.read_text())
    weights = torch.load(path.parent / "slim.pt", weights_only=True)["network"]
    rows = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("seconds", None)
    for measured in report["measurements"]:
        measured.pop("latency")
    for step in report["steps"]:
        step.pop("seconds")
        step.pop("criterion_seconds")
        for counts in step["counts"].values():
            counts.pop("milliseconds", None)
    keys = ("plan", "layers", "measurements", "steps", "digest")
    return weights, {key: report[key] for key in keys}, rows


@pytest.mark.timeout(600)
def test_killed_twice_equals_uninterrupted(python, tmp_path):
    words = ["-m", "prunebench", *SMALL, "run.resume=true"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    # a python of its own: with other hashes, what rests on the order of a set ends differently
    with subprocess.Popen([sys.executable, *words], cwd=whole) as process:
        changes = follow(process, whole, None)
    moments = random.Random(20240601)
    killed = 0
    for _ in range(KILLS):
        with python.start(*words, cwd=broken) as process:
            follow(process, broken, moments.randint(1, changes // (KILLS + 1)))
            killed += process.returncode == -signal.SIGKILL
    assert killed == KILLS
    with python.start(*words, cwd=broken) as process:
        follow(process, broken, None)
        assert process.returncode == 0

    weights, record, rows = outcome(whole)
    resumed_weights, resumed_record, resumed_rows = outcome(broken)
    assert record == resumed_record
    assert rows == resumed_rows
    assert weights.keys() == resumed_weights.keys()
    for name, value in weights.items():
        assert torch.equal(value, resumed_weights[name]), name


def test_a_finished_run_is_shown_again_and_not_repeated(prunebench, tmp_path):
    first = prunebench(*SMALL, "recipe.baseline.epochs=1", "recipe.finetune.epochs=0")
    assert first.returncode == 0, first.stderr
    [path] = (tmp_path / "outputs").rglob("report.json")
    before = path.stat().st_mtime_ns
    name = path.parents[1]
    name.rename(tmp_path / "other_disk")
    name.symlink_to(tmp_path / "other_disk")
    again = prunebench(
        *SMALL, "recipe.baseline.epochs=1", "recipe.finetune.epochs=0", "run.resume=true"
    )
    assert again.returncode == 0, again.stderr
    assert "finished before" in again.stderr
    assert path.stat().st_mtime_ns == before
    assert len(list(name.rglob("run.json"))) == 1


def test_a_second_run_takes_the_stored_baseline(prunebench, tmp_path):
    shorter = [*SMALL, "recipe.baseline.epochs=1", "recipe.finetune.epochs=0"]
    assert "trained" in prunebench(*shorter).stderr
    again = prunebench(*shorter, "criterion=random")
    assert again.returncode == 0, again.stderr
    assert "baseline store" in again.stderr
    assert len(list((tmp_path / "outputs" / "baselines").iterdir())) == 1
    reports = [json.loads(p.read_text()) for p in (tmp_path / "outputs").rglob("report.json")]
    first, second = (report["measurements"][0]["test"] for report in reports)
    assert first == second


def test_two_jobs_at_once_train_one_baseline(prunebench, tmp_path):
    shorter = [*SMALL, "run.resume=true", "recipe.finetune.epochs=0", "schedule.epochs=0"]
    with ExitStack() as stack:
        jobs = [
            stack.enter_context(prunebench.start(*shorter, f"budget.keep={keep}"))
            for keep in (0.5, 0.6)
        ]
        codes = [job.wait(240) for job in jobs]
        outputs = [job.stderr for job in jobs]
    assert codes == [0, 0], outputs
    assert all("nothing to resume in outputs: a new run starts" in told for told in outputs)
    trained = ["trained, now in the baseline store" in output for output in outputs]
    assert sorted(trained) == [False, True], outputs
    assert len(list((tmp_path / "outputs" / "baselines").iterdir())) == 1
