"""Times the dense and the slim network in every available engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from prunebench.errors import ConfigError
from prunebench.export.certificate import Timing
from prunebench.export.formats import random_images
from prunebench.measure.accuracy import evaluating
from prunebench.measure.engines import Runner, runner
from prunebench.measure.latency import noise, timed


def timings(
    networks: Mapping[str, nn.Module],
    engines: Sequence[str],
    batches: Sequence[int],
    shape: tuple[int, ...],
    ready: Mapping[tuple[str, str], Runner],
) -> list[Timing]:
    """Returns the time of each of `networks` in each engine at each batch size.

    Args:
        networks: by name, in eval mode.
        engines: names of engines.
        batches: images per pass.
        shape: of one image.
        ready: (name, engine) -> a runner of that network that exists already.
    """
    return [
        found
        for engine in engines
        for name, network in networks.items()
        for found in _timed(name, network, engine, batches, shape, ready.get((name, engine)))
    ]


def _timed(
    name: str,
    network: nn.Module,
    engine: str,
    batches: Sequence[int],
    shape: tuple[int, ...],
    ready: Runner | None,
) -> Iterator[Timing]:
    try:
        run = ready or runner(engine, network, random_images(shape))
    except ConfigError as error:
        yield Timing(network=name, engine=engine, latency=None, why=str(error))
        return
    with evaluating(network):
        for batch in dict.fromkeys(batches):
            latency = timed(run, noise(shape, batch, torch.device("cpu")))
            yield Timing(network=name, engine=engine, latency=latency)


def speed_ups(timings: Sequence[Timing]) -> dict[tuple[str, int], float]:
    """Returns (engine, batch) -> by which factor the slim network is faster."""
    found = {
        (one.network, one.engine, one.latency.batch): one.latency.median_ms
        for one in timings
        if one.latency
    }
    return {
        (engine, batch): found["dense", engine, batch] / ms
        for (network, engine, batch), ms in found.items()
        if network == "slim" and ("dense", engine, batch) in found
    }


def busy(timings: Sequence[Timing], engine: str, batch: int) -> bool:
    """Returns whether the machine was too busy for reliable times of an engine at a batch size."""
    found = [
        one.latency
        for one in timings
        if one.latency and (one.engine, one.latency.batch) == (engine, batch)
    ]
    return any(latency.busy for latency in found)
