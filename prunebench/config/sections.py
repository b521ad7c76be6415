"""Defines the sections of the configuration that are not options: ``run`` and ``baseline``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunebench.errors import require, require_choice


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Holds the section ``run`` of the configuration, the run-wide settings."""

    seed: int
    device: str
    threads: int | None
    processes: int
    resume: bool
    dry_run: bool
    outputs: str
    checkpoint_seconds: float
    latency_batch: int
    sensitivity: list[float] | None
    compile: str = "auto"

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        for name in ("seed", "checkpoint_seconds"):
            value = getattr(self, name)
            require(value >= 0, f"{name} must not be negative, got {value}")
        require(
            self.threads is None or 1 <= self.threads <= 1024,  # OpenMP crashes with more
            f"threads must be null or from 1 to 1024, got {self.threads}",
        )
        require(
            not self.outputs.startswith("~"),
            f"outputs={self.outputs} would create a folder named ~ in the current one; type $HOME "
            "instead, or ${oc.env:HOME} in a YAML",
        )
        require(self.processes >= 1, f"processes must be at least 1, got {self.processes}")
        kind, _, index = self.device.partition(":")
        require(
            kind in ("auto", "cpu", "cuda") and (not index or (kind == "cuda" and index.isdigit())),
            f"device must be auto, cpu, cuda or cuda:N, got '{self.device}'",
        )
        require_choice("compile", self.compile, ("auto", "on", "off"))
        require(
            self.latency_batch >= 1, f"latency_batch must be at least 1, got {self.latency_batch}"
        )
        shares = self.sensitivity
        require(
            shares is None or (bool(shares) and all(0 < share < 1 for share in shares)),
            f"sensitivity must be null or shares between 0 and 1, got {shares}",
        )


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Holds the section ``baseline`` of the configuration: where the dense network comes from.

    Attributes:
        checkpoint: a file with a state dict to use instead of training.
        store: whether trained baselines are stored and reused.
        norm_scale: initial scale of all batch norms; None = as the model sets it.
    """

    checkpoint: str | None
    store: bool
    norm_scale: float | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        if self.norm_scale is not None:
            require(self.norm_scale > 0, f"norm_scale must be positive, got {self.norm_scale}")

    @property
    def missing(self) -> str:
        """A message on a file that does not exist; "" if there is none."""
        exists = self.checkpoint is None or Path(self.checkpoint).is_file()
        return "" if exists else f"baseline.checkpoint: there is no file {self.checkpoint}"

    @property
    def files(self) -> dict[str, Path]:
        """Field -> file whose contents decide the result."""
        return {} if self.checkpoint is None else {"checkpoint": Path(self.checkpoint)}
