"""Derives every seed from what it is for, and sets exact arithmetic on CUDA.

Every draw of a run uses a generator seeded by (seed, purpose, progress of the run). A resumed run
therefore needs no generator state: it derives the same seeds again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_for(seed: int, *parts: str | int) -> int:
    """Returns a seed in [0, 2**63), the same on every machine and in every version.

    Args:
        seed: of the run.
        parts: the purpose of the draw, such as a stage's name, an epoch and a step.
    """
    text = json.dumps([seed, *parts], ensure_ascii=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *parts: str | int) -> torch.Generator:
    """Returns a CPU generator seeded with `seed_for(seed, *parts)`."""
    import torch

    return torch.Generator().manual_seed(seed_for(seed, *parts))


def seed_draws(seed: int, device: torch.device) -> None:
    """Seeds the generators of the CPU and of `device`, and no others.

    ``torch.manual_seed`` also formats a stack trace for every other kind of device: that takes up
    to a millisecond, longer than a step on a GPU.
    """
    import torch

    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)


@contextmanager
def cuda_math(*, exact: bool, timed: bool = False) -> Iterator[None]:
    """Sets how CUDA computes float32 inside the block; a CPU computes the same either way.

    Args:
        exact: True to compare or measure outputs; False for training, with TensorFloat-32 (10 bits
            of mantissa), which cuDNN's convolutions use by default.
        timed: whether cuDNN times its algorithms for every new shape and takes the fastest.
    """
    import torch

    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark, torch.get_float32_matmul_precision()
    cudnn.allow_tf32, cudnn.benchmark = not exact, timed
    torch.set_float32_matmul_precision("highest" if exact else "high")
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark = before[:2]
        torch.set_float32_matmul_precision(before[2])
