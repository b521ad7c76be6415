"""The formats: each writes a network, runs what it wrote, counts it, carries its certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prunebench.measure.engines import Runner


@dataclass(frozen=True)
class Opened:
    """An exported network that was read again.

    Attributes:
        run: takes images and returns outputs.
        counts: some of the conventions, counted on what was read.
        certificate: the text that it carries inside; "" if it has none.
    """

    run: Runner
    counts: Mapping[str, int]
    certificate: str


class Format(Protocol):
    """What each of the modules of this room named after a format offers."""

    def write(
        self, network: nn.Module, example: Tensor, path: Path, about: Mapping[str, Any]
    ) -> None:
        """Writes `network`, and says in the file what `about` says.

        Args:
            network: in eval mode on the CPU.
            example: images [2 or more, C, H, W].
            path: of the file; what else there is lies beside it.
            about: ``title`` and ``input`` as text, ``structure`` as what rebuilds the network.

        Raises:
            ConfigError: a package is missing, or the format cannot hold this network.
        """

    def carry(self, path: Path, certificate: str) -> None:
        """Puts the text of a certificate into the file, if the format has room for it."""

    def opened(self, path: Path, shape: tuple[int, ...]) -> Opened:
        """Reads the file again.

        Args:
            path: of the file.
            shape: (C, H, W) of an image.

        Raises:
            PrunebenchError: it cannot be read, or a package is missing.
        """

    def files(self, path: Path) -> list[Path]:
        """Returns all files that belong to the one at `path`, itself first."""


def plain_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Returns the state of `network` as safetensors takes it: contiguous, nothing shared."""
    state = network.state_dict()
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


def random_images(shape: tuple[int, ...], count: int = 2) -> Tensor:
    """Returns images that are the same on every machine."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))
