"""How long a forward pass takes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import nn

from prunebench.measure.accuracy import evaluating
from prunebench.records import Latency
from prunebench.records.environment import device_name

#: seconds of timing per batch size: usually, and at most
_LATENCY_SECONDS = 0.45
_LONGEST_SECONDS = 5.0


def latencies(
    network: nn.Module, shape: Sequence[int], batch_sizes: Sequence[int]
) -> list[Latency]:
    """Returns the time of a float32 forward pass for each batch size, on the network's device.

    About half a second for each batch size, more where a single pass takes that long.

    Args:
        network: its mode is restored.
        shape: (C, H, W) of one image.
        batch_sizes: images per pass; one that occurs twice is timed once.
    """
    device = next(network.parameters()).device
    with evaluating(network):
        return [_latency(network, shape, batch, device) for batch in dict.fromkeys(batch_sizes)]


def _latency(network: nn.Module, shape: Sequence[int], batch: int, device: torch.device) -> Latency:
    # of no use here, its import warns of machines that have the CUDA toolkit but no GPU
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils import benchmark

    images = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    threads = torch.get_num_threads()
    timer = benchmark.Timer(
        "network(images)",
        globals={"network": network, "images": images},
        num_threads=threads,  # Timer would take one
    )
    network(images)  # allocates, and lets cuDNN choose
    start = benchmark.timer()
    network(images)
    pass_seconds = benchmark.timer() - start
    # a slow pass gets time for three samples, or the spread would be that of one
    longest = max(_LATENCY_SECONDS, min(2.5 * pass_seconds, _LONGEST_SECONDS))
    timed = timer.adaptive_autorange(
        threshold=0.02, min_run_time=_LATENCY_SECONDS / 20, max_run_time=longest
    )
    return Latency(
        batch=batch,
        device=device_name(device),
        threads=threads,
        median_ms=1e3 * timed.median,
        iqr_ms=1e3 * timed.iqr,
    )
