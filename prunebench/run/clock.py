"""Times layers and whole networks on this machine, and remembers what it has timed."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from prunebench.errors import ConfigError
from prunebench.measure import layers as timing
from prunebench.measure.engines import require_packages
from prunebench.measure.latency import noise
from prunebench.records.environment import device_name
from prunebench.records.jsonfile import write_bytes

#: seconds for which a whole network is timed
SECONDS = 1.0


@dataclass
class Clock:
    """Times layers and networks on one machine; what was timed before is looked up.

    Attributes:
        engine: ``cpu``, ``cuda`` or ``onnxruntime``.
        batch: images per pass.
        path: JSON file of earlier times; None keeps times in memory only.
        known: name -> microseconds, all times known so far.
    """

    engine: str
    batch: int
    path: Path | None

    def __post_init__(self) -> None:
        """Reads the earlier times, if the file exists."""
        self.known: dict[str, float] = {}
        if self.path is not None and self.path.exists():
            self.known = json.loads(self.path.read_text(encoding="utf-8"))["microseconds"]

    @property
    def device(self) -> torch.device:
        """The device of the images and layers that are timed."""
        return torch.device("cuda" if self.engine == "cuda" else "cpu")

    def microseconds(self, key: str, measure: Callable[[], float]) -> float:
        """Returns the microseconds known as `key` at this batch size, or else measures them."""
        full = f"{key} batch={self.batch}"
        if full not in self.known:
            self.known[full] = measure()
        return self.known[full]

    def layer(self, seen: timing.Seen, inputs: int, outputs: int) -> float:
        """Returns the microseconds of a layer like `seen` with `inputs` and `outputs` channels."""

        def measure() -> float:
            made = timing.sized(seen.module, inputs, outputs).to(self.device)
            shape = (inputs, *seen.shape[1:])
            run = timing.layer_runner(self.engine, made)
            return timing.fastest(run, noise(shape, self.batch, self.device))

        return self.microseconds(
            f"{timing.described(seen.module, seen.shape)} {inputs}x{outputs}", measure
        )

    def network(self, network: nn.Module, shape: Sequence[int]) -> float:
        """Returns the microseconds of a whole network on images of `shape`, timed at every call."""
        here = copy.deepcopy(network).to(self.device).eval()
        run = timing.network_runner(self.engine, here, noise(shape, 2, self.device))
        return timing.fastest(run, noise(shape, self.batch, self.device), SECONDS)

    def kept_network(self, network: nn.Module, shape: Sequence[int]) -> float:
        """Returns the same, but looks it up if a network of this structure was timed before."""
        name = hashlib.sha256(f"{network}{list(shape)}".encode()).hexdigest()[:16]
        return self.microseconds(f"network {name}", lambda: self.network(network, shape))

    def save(self) -> None:
        """Writes all known times to the file, if there is one."""
        if self.path is not None:
            content = {"machine": machine(self.engine), "microseconds": self.known}
            write_bytes(self.path, json.dumps(content, indent=1).encode())


def machine(engine: str) -> dict[str, object]:
    """Returns what times depend on beside the layers: engine, version, device and threads.

    Raises:
        ConfigError: the engine is not available on this machine.
    """
    version = str(torch.__version__)
    if engine == "onnxruntime":
        require_packages("onnx", "onnxscript", "onnxruntime")
        import onnxruntime

        version = str(onnxruntime.__version__)
    elif engine == "cuda" and not torch.cuda.is_available():
        raise ConfigError("budget.on=cuda: this machine has no CUDA device; use budget.on=cpu")
    device = device_name("cuda" if engine == "cuda" else "cpu")
    threads = torch.get_num_threads()
    return {"engine": engine, "version": version, "device": device, "threads": threads}
