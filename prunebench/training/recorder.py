"""Records work on a GPU, and replays it, as CUDA graphs."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch

from prunebench.errors import require

Work: TypeAlias = Callable[[], None]


class Recorder(Protocol):
    """Records work that changes tensors in place.

    Attributes:
        insists: whether to raise an error for work that cannot be recorded.
    """

    insists: bool

    def warm_up(self, work: Work) -> None:
        """Runs `work` unrecorded, on the stream on which it will be recorded."""

    def record(self, work: Work) -> Work:
        """Returns a function that repeats `work` on the same tensors; recording does not run it.

        Raises:
            RuntimeError: it cannot be recorded.
        """


@dataclass
class CudaGraphs:
    """Records CUDA graphs on a stream of its own; they share memory, as no two run at once.

    Attributes:
        device: with an index.
        insists: see `Recorder`.
    """

    device: torch.device
    insists: bool
    stream: torch.cuda.Stream = field(init=False)
    pool: Any = field(init=False)

    def __post_init__(self) -> None:
        """Creates the stream and the pool of memory."""
        self.stream = torch.cuda.Stream(self.device)
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Work) -> None:
        """See `Recorder`."""
        usual = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(usual)
        with torch.cuda.stream(self.stream):
            work()
        usual.wait_stream(self.stream)

    def record(self, work: Work) -> Work:
        """See `Recorder`."""
        graph, usual = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        drawing = torch.cuda.default_generators[self.device.index]
        seeded, drawn = drawing.get_state(), host_draws()
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                work()
            if host_draws() != drawn:
                raise RuntimeError("it draws random numbers on the host, which no replay repeats")
        except RuntimeError:
            # after a failed recording torch still uses its stream, and its generator, which takes
            # itself to be recorded, refuses to draw
            torch.cuda.set_stream(usual)
            drawing.graphsafe_set_state(torch.Generator(self.device).graphsafe_get_state())
            drawing.set_state(seeded)  # the work is run again, unrecorded, with the same draws
            raise
        return graph.replay


def host_draws() -> tuple[Any, ...]:
    """Returns the states of the random generators on the host: Python's, numpy's and torch's."""
    _, key, *place = np.random.get_state(legacy=True)
    torchs = torch.default_generator.get_state().tolist()
    return random.getstate(), np.asarray(key).tolist(), place, torchs


def recorder_of(device: torch.device, compiled: str) -> Recorder | None:
    """Returns the recorder for steps on `device` under ``run.compile``; None for no recording.

    Raises:
        ConfigError: ``run.compile=on`` on a device that cannot record.
    """
    if device.type != "cuda":
        require(
            compiled != "on",
            f"run.compile=on records steps on CUDA, and this run is on the {device.type.upper()}; "
            "use run.compile=auto",
        )
        return None
    if compiled == "off":
        return None
    index = torch.cuda.current_device() if device.index is None else device.index
    return CudaGraphs(torch.device("cuda", index), insists=compiled == "on")
