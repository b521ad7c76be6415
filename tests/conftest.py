"""Fixtures for all tests: one thread, the command line as a user runs it, and small reports."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from prunebench.records import Failure, Latency, Measurement, Report, Score, finish

torch.set_num_threads(1)

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def prunebench(tmp_path: Path) -> Command:
    """Runs the command in an empty folder of its own; returns what it printed and its exit code."""

    def command(*arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "prunebench", *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return command


def measured(
    stage: str,
    correct: int,
    sizes: tuple[int, int] = (2000, 10000),
    times: tuple[float, ...] = (),
    device: str = "CPU X",
) -> Measurement:
    """A measurement on 1000 test images; `sizes` are params and MACs."""
    return Measurement(
        stage=stage,
        params=sizes[0],
        macs=sizes[1],
        size_bytes=4 * sizes[0],
        test=Score(correct=correct, correct_top5=None, seen=1000, loss=0.5),
        val=None,
        latency=[
            Latency(batch=batch, device=device, threads=1, median_ms=ms, iqr_ms=0.1)
            for batch, ms in zip((1, 64), times, strict=False)
        ],
    )


def report(
    seed: int = 0,
    *,
    base: int = 900,
    last: int | None = 880,
    best: int | None = None,
    sizes: tuple[int, int] = (500, 4000),
    config: dict[str, object] | None = None,
    choices: dict[str, str] | None = None,
    device: str = "CPU X",
    note: str = "",
    finished_at: str = "2026-01-01T00:00:00+00:00",
) -> Report:
    """A report of FOAD on a small network."""
    values: dict[str, object] = {"run": {"seed": seed, "resume": False}, "criterion": {"t": 1}}
    measurements = [
        measured("baseline", base, times=(4.0, 100.0), device=device),
        measured("pruned", 200, sizes),
    ]
    if last is not None:
        measurements.append(measured("finetuned_last", last, sizes, (2.0, 40.0), device))
    if best is not None:
        measurements.append(measured("finetuned_best_val", best, sizes))
    return Report(
        config=values | (config or {}),
        choices={
            "model": "lenet5",
            "dataset": "digits",
            "criterion": "foad",
            "budget": "own",
            "repair": "none",
            "schedule": "oneshot",
            "recipe": "quick",
        }
        | (choices or {}),
        seed=seed,
        digest="",
        environment={},
        seconds={},
        plan={},
        layers=[],
        steps=[],
        measurements=measurements,
        convention="conv + linear, one image",
        note=note,
        finished_at=finished_at,
    )


def failure(of: Report, message: str = "loss is nan\nmore") -> Failure:
    """The failure of a run with the settings of `of`."""
    return Failure(
        config=of.config,
        choices=of.choices,
        seed=of.seed,
        digest="",
        environment={},
        seconds={},
        stage="finetune",
        kind="TrainingError",
        message=message,
        traceback="",
        finished_at="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture
def make_report() -> Callable[..., Report]:
    """Makes reports."""
    return report


@pytest.fixture
def make_failure() -> Callable[..., Failure]:
    """Makes failures."""
    return failure


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three seeds of one setting, one run of another, and a failed run of that."""
    for seed, base, last in ((0, 900, 880), (1, 910, 880), (2, 920, 900)):
        finish(tmp_path / f"seed{seed}", report(seed, base=base, last=last, best=last + 5))
    other = report(0, last=850, sizes=(200, 1000), config={"criterion": {"t": 2}})
    finish(tmp_path / "t2", other)
    finish(tmp_path / "t2_failed", failure(other))
    return tmp_path
