"""Seeds as a pure function of what they are for, and what a result was made with.

Every draw of a run comes from a generator seeded by (seed, what it is for, where the run stands).
A resumed run therefore needs no generator state: it asks the same question again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def seed_for(seed: int, *parts: str | int) -> int:
    """Returns a seed in [0, 2**63), the same on every machine and in every version.

    Args:
        seed: of the run.
        parts: what the draw is for, such as a stage's name, an epoch and a step.
    """
    text = json.dumps([seed, *parts], ensure_ascii=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *parts: str | int) -> torch.Generator:
    """Returns a CPU generator seeded with `seed_for(seed, *parts)`."""
    import torch

    return torch.Generator().manual_seed(seed_for(seed, *parts))


@contextmanager
def cuda_math(*, exact: bool) -> Iterator[None]:
    """Sets how CUDA computes float32 inside the block; a CPU computes the same either way.

    Args:
        exact: False while training: TensorFloat-32 (10 bits of mantissa) and timed choice of the
            convolution algorithms. True where outputs are compared or measured: neither. By
            default cuDNN's convolutions use TensorFloat-32, so comparing needs this.
    """
    import torch

    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark, torch.get_float32_matmul_precision()
    cudnn.allow_tf32, cudnn.benchmark = not exact, not exact
    torch.set_float32_matmul_precision("highest" if exact else "high")
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark = before[:2]
        torch.set_float32_matmul_precision(before[2])


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Returns what a figure depends on beside the config, as plain JSON values.

    Keys: python, torch, torchvision, prunebench (versions; None where not installed), platform,
    device, threads, commit and dirty (None outside a git checkout of prunebench).
    """
    import torch

    commit, dirty = _checkout(Path(__file__).resolve().parents[1])
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
    """Returns the chip's name, as far as the system tells it."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    """Installed version of `package`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _checkout(root: Path) -> tuple[str | None, bool | None]:
    """Commit of the checkout at `root` and whether tracked files differ from it."""
    if not (root / ".git").exists():
        return None, None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit, bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(root: Path, *arguments: str) -> str:
    """Output of one git command, asked in a way that takes no lock."""
    quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(
        ["git", "-C", str(root), *arguments],
        capture_output=True, text=True, check=True, timeout=20, env=quiet,
    )  # fmt: skip
    return done.stdout.strip()
