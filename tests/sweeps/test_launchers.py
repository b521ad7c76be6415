"""Sweeps through Hydra's launchers, and through a real one-node SLURM, complete."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import torch

from prunebench.records import Report, from_json
from prunebench.records.equality import first_difference
from prunebench.records.metrics import read_metrics

pytestmark = pytest.mark.slow

RUN = [
    "model=mlp_512_512", "model.widths=[16,8]", "dataset=digits", "dataset.size=8",
    "dataset.train_size=512", "budget=macs", "recipe=quick", "recipe.baseline.batch_size=4",
    "recipe.finetune.epochs=1", "run.latency_batch=1",
]  # fmt: skip
SWEEP = ["criterion=l1,random", "hydra.sweep.dir=sweep"]
SHORT = ["recipe.baseline.epochs=40", "run.seed=0,1"]
EPOCHS = 100
LONG = [f"recipe.baseline.epochs={EPOCHS}", "run.seed=0,1,2"]
ON_A_CLUSTER = [
    "hydra/launcher=slurm", "hydra.launcher.timeout_min=60", "hydra.launcher.gpus_per_node=null",
    "hydra.launcher.cpus_per_task=1", "hydra.launcher.array_parallelism=3",
]  # fmt: skip
RAY = ["hydra.launcher.ray.remote.num_gpus=0", "hydra.launcher.ray.remote.num_cpus=1"]


def start(folder, *words):
    command = [sys.executable, "-m", "prunebench", "-m", *RUN, *SWEEP, *words]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def states(prunebench):
    [status] = json.loads(prunebench("status", "sweep", "--json").stdout)
    return {job["name"]: job["state"] for job in status["jobs"]}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        ("hydra_joblib_launcher", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]),
        ("hydra_joblib_launcher", ["hydra/launcher=parallel"]),
        ("hydra_submitit_launcher", ["hydra/launcher=submitit_local"]),
        (
            "hydra_ray_launcher",
            ["hydra/launcher=ray_cluster", "+hydra.launcher.ray.init.num_cpus=2", *RAY],
        ),
    ],
)
def test_on_one_machine(prunebench, tmp_path, plugin, words):
    pytest.importorskip(f"hydra_plugins.{plugin}")
    process = start(tmp_path, *SHORT, *words)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said.decode()
    assert list(states(prunebench).values()) == ["done"] * 4
    stored = [path for path in (tmp_path / "outputs" / "baselines").iterdir() if path.is_dir()]
    assert len(stored) == 2  # one for each seed


@pytest.mark.timeout(900)
def test_a_sweep_that_is_told_to_stop_takes_its_workers_along(prunebench, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    process = start(tmp_path, *LONG, "hydra/launcher=parallel", "hydra.launcher.n_jobs=2")
    while len(list(tmp_path.rglob("metrics.jsonl"))) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.2)
    process.terminate()
    _, said = process.communicate(timeout=100)
    assert process.returncode == 75, said.decode()
    assert said.decode().splitlines()[-1].startswith("prunebench: interrupted by SIGTERM")
    assert set(states(prunebench).values()) == {"interrupted", "not begun"}


@pytest.mark.timeout(1800)
def test_on_a_cluster_that_takes_jobs_away(prunebench, tmp_path):
    """Needs sbatch and a cluster that answers, such as one node on this machine."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    if shutil.which("sinfo") is None or subprocess.run(["sinfo"], check=False).returncode:
        pytest.skip("no SLURM answers")
    process = start(tmp_path, *ON_A_CLUSTER, *LONG)
    try:
        warned = wait_for(process, lambda: taken_away(tmp_path, "scancel", "--signal=USR2"))
        queued = wait_for(process, lambda: taken_away(tmp_path, "scontrol", "requeue", but=warned))
        _, said = process.communicate(timeout=900)
    finally:
        if process.poll() is None:
            process.kill()
            subprocess.run(["scancel", *{job.partition("_")[0] for job in submitted(tmp_path)}])
    assert process.returncode == 0, said.decode()
    assert list(states(prunebench).values()) == ["done"] * 6
    stored = [path for path in (tmp_path / "outputs" / "baselines").iterdir() if path.is_dir()]
    assert len(stored) == 3  # one for each seed
    for name in (warned, queued):
        folder = tmp_path / "sweep" / name
        report = from_json(Report, (folder / "report.json").read_text(), name)
        assert len(report.attempts) == 2
        assert differs(prunebench, folder, report) == ""


def differs(prunebench, folder, report):
    """Says where the same run, undisturbed and with a store of its own, ends otherwise."""
    done = prunebench(
        *RUN, f"criterion={report.choices['criterion']}", f"run.seed={report.seed}", LONG[0],
        "run.outputs=undisturbed", f"hydra.run.dir=undisturbed/{folder.name}", timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    other = prunebench.folder / "undisturbed" / folder.name
    one, two = (torch.load(place / "slim.pt")["network"] for place in (folder, other))
    if any(not torch.equal(weights, two[key]) for key, weights in one.items()):
        return "weights"
    return first_difference(from_json(Report, (other / "report.json").read_text(), ""), report)


def taken_away(folder, *command, but=""):
    """Has `command` done to a job that trains and will for a while; returns its name, or None.

    Whether that took it off its node is what SLURM says of the job, not of the command: while
    others of the sweep wait, it passes a signal on and answers that the job cannot be altered now,
    upon which scancel asks for a minute. Where it did not, another time will do.
    """
    for path in (folder / "sweep").glob("*/metrics.jsonl"):
        rows, name = read_metrics(path), path.parent.name
        if name == but or not rows or not 1 < rows[-1].get("epoch", EPOCHS) < EPOCHS / 2:
            continue
        number = name.partition("-")[0]
        [job] = (job for job in submitted(folder) if job.endswith(f"_{number}"))
        if not on_its_node(job):
            continue
        with suppress(subprocess.TimeoutExpired):
            subprocess.run([*command, job], capture_output=True, check=False, timeout=4)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if not on_its_node(job):
                return name
            time.sleep(0.5)
    return None


def on_its_node(job):
    asked = ["squeue", "--noheader", "--format=%T", f"--jobs={job}"]
    return subprocess.run(asked, capture_output=True, text=True).stdout.strip() == "RUNNING"


def submitted(folder):
    """Returns SLURM's names of the jobs that have begun."""
    return {path.name for path in (folder / "sweep" / ".submitit").glob("[0-9]*_*")}


def wait_for(process, found, seconds=400):
    """Returns what `found` does as soon as it is anything; `process` must not end before."""
    end = time.monotonic() + seconds
    while not (it := found()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.5)
    return it
