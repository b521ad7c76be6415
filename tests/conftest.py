"""Fixtures for all tests: one thread, and the command line as a user runs it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

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
