"""Measures the time of a forward pass."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from prunebench.measure.accuracy import evaluating
from prunebench.records import Latency
from prunebench.records.environment import device_name

#: seconds of timing per batch size: usual and longest
_LATENCY_SECONDS = 0.45
_LONGEST_SECONDS = 5.0


def latencies(
    network: nn.Module, shape: Sequence[int], batch_sizes: Sequence[int]
) -> list[Latency]:
    """Returns the time of a float32 forward pass for each batch size, on the network's device.

    It takes about half a second per batch size, and more if a single pass takes that long.

    Args:
        network: any network; its mode is restored.
        shape: (C, H, W) of one image.
        batch_sizes: images per pass; repeated sizes are timed once.
    """
    device = next(network.parameters()).device
    with evaluating(network):
        sizes = dict.fromkeys(batch_sizes)
        return [timed(network, noise(shape, batch, device)) for batch in sizes]


def timed(
    run: Callable[[Tensor], object], images: Tensor, seconds: float = _LATENCY_SECONDS
) -> Latency:
    """Returns the time that `run` takes for `images`.

    Args:
        run: a network in eval mode, or any function of images.
        images: the images of one pass.
        seconds: usual seconds of timing.
    """
    # silence its useless warning on machines that have the CUDA toolkit but no GPU
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils import benchmark

    threads = torch.get_num_threads()
    timer = benchmark.Timer(
        "run(images)",
        globals={"run": run, "images": images},
        num_threads=threads,  # by default Timer uses one
    )
    run(images)  # allocates, and lets cuDNN choose
    start = benchmark.timer()
    run(images)
    pass_seconds = benchmark.timer() - start
    # a slow pass gets time for three samples: one sample has no spread
    longest = max(seconds, min(2.5 * pass_seconds, _LONGEST_SECONDS))
    measured = timer.adaptive_autorange(
        threshold=0.02, min_run_time=seconds / 20, max_run_time=longest
    )
    return Latency(
        batch=len(images),
        device=device_name(images.device),
        threads=threads,
        median_ms=1e3 * measured.median,
        iqr_ms=1e3 * measured.iqr,
    )


def noise(shape: Sequence[int], batch: int, device: torch.device) -> Tensor:
    """Returns reproducible images [batch, C, H, W] to time networks with."""
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
