"""A sweep through Hydra's launchers, and through a real SLURM with one node, ends complete."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

SWEEP = [
    "-m", "model=mlp_512_512", "model.widths=[16,8]", "dataset=digits", "dataset.size=8",
    "dataset.train_size=512", "criterion=l1,random", "budget=macs", "recipe=quick",
    "recipe.baseline.batch_size=4", "recipe.baseline.epochs=40", "recipe.finetune.epochs=1",
    "run.latency_batch=1", "run.seed=0,1", "hydra.sweep.dir=sweep",
]  # fmt: skip

RAY = ["hydra.launcher.ray.remote.num_gpus=0", "hydra.launcher.ray.remote.num_cpus=1"]


def start(folder, *words):
    command = [sys.executable, "-m", "prunebench", *SWEEP, *words]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def states(prunebench):
    [status] = json.loads(prunebench("status", "sweep", "--json").stdout)
    return {job["name"]: job["state"] for job in status["jobs"]}


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
    process = start(tmp_path, *words)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()
    assert list(states(prunebench).values()) == ["done"] * 4
    stored = [path for path in (tmp_path / "outputs" / "baselines").iterdir() if path.is_dir()]
    assert len(stored) == 2  # one for each seed


@pytest.mark.timeout(600)
def test_on_a_cluster_that_takes_jobs_away(prunebench, tmp_path):
    """Needs sbatch and a cluster that answers, such as one node on this machine."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    if shutil.which("sinfo") is None or subprocess.run(["sinfo"], check=False).returncode:
        pytest.skip("no SLURM answers")
    process = start(
        tmp_path, "hydra/launcher=slurm", "hydra.launcher.timeout_min=60",
        "hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1",
        "hydra.launcher.array_parallelism=2", "recipe.baseline.epochs=300",
    )  # fmt: skip
    try:
        names = wait_for(lambda: running(prunebench, tmp_path))
        number = names[0].partition("-")[0]
        [job] = {path.name for path in (tmp_path / "sweep" / ".submitit").glob(f"*_{number}")}
        subprocess.run(["scancel", "--signal=USR2", job], check=True)
        _, said = process.communicate(timeout=500)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 0, said.decode()
    assert list(states(prunebench).values()) == ["done"] * 4
    report = json.loads((tmp_path / "sweep" / names[0] / "report.json").read_text())
    assert len(report["attempts"]) == 2


def running(prunebench, folder):
    """Returns the jobs that train by now."""
    if not (folder / "sweep" / "multirun.yaml").exists():
        return []
    rows = (folder / "sweep").glob("*/metrics.jsonl")
    begun = [path.parent for path in rows if path.stat().st_size]
    return [job.name for job in begun if not (job / "report.json").exists()]


def wait_for(found, seconds=200):
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.5)
    return found()
