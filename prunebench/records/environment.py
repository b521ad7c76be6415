"""Describes what computes a result: versions, machine, and the state of the checkout."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Returns what a figure depends on beside the config, as plain JSON values.

    Keys: python, torch, torchvision, prunebench (versions; None if not installed), platform,
    device, threads, commit and dirty (None outside a git checkout of prunebench).
    """
    import torch

    commit, dirty = _checkout(Path(__file__).resolve().parents[2])
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "prunebench": _version("prunebench"),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "commit": commit,
        "dirty": dirty,
    }


def device_name(device: torch.device | str) -> str:
    """Returns the name of the GPU or CPU, as far as the system tells."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    """Returns the installed version of `package`; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _checkout(root: Path) -> tuple[str | None, bool | None]:
    """Returns the commit of the checkout at `root`, and whether tracked files differ from it.

    The answer is cached, since later changes to the files do not affect what is imported already.
    """
    if not (root / ".git").exists():
        return None, None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit, bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(root: Path, *arguments: str) -> str:
    """Returns the output of one git command, which takes no lock."""
    quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(
        ["git", "-C", str(root), *arguments],
        capture_output=True, text=True, check=True, timeout=20, env=quiet,
    )  # fmt: skip
    return done.stdout.strip()
