"""Networks: each option of the model group is a frozen spec that builds one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench.datasets.views import Preset
from prunebench.errors import require
from prunebench.options import component
from prunebench.options.code import require_trusted
from prunebench.records import Origin

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelSpec(ABC):
    """What to build; the fields are the schema of ``conf/model/*.yaml``."""

    def pretrained(self, classes: int) -> bool:
        """Whether `build` returns trained weights, so that no baseline need be trained."""
        return False

    @property
    def embeds(self) -> bool:
        """Whether the network ends in an embedding, not in logits: then a head trains it."""
        return False

    @property
    def preset(self) -> Preset | None:
        """How images were shown to the weights that `build` returns; None where nothing says."""
        return None

    def origin(self) -> Origin | None:
        """Returns which run found the structure to build; None where no run did."""
        return None

    @property
    def missing(self) -> str:
        """Which file `build` will not find; "" if none. Reads none."""
        return ""

    @property
    def files(self) -> Mapping[str, Path]:
        """Field -> file that `build` will read; what it holds tells a network from others."""
        return {}

    @property
    def class_of_others(self) -> str:
        """Full name of the class that `build` imports because a field names it; "" if none."""
        return ""

    @abstractmethod
    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns a freshly initialised network for images of `shape` (C, H, W).

        Raises:
            ConfigError: the network cannot take images of this shape.
        """


def require_size(name: str, shape: tuple[int, int, int], least: int) -> None:
    """Raises ConfigError unless images of `shape` are at least `least` pixels wide and high."""
    _, height, width = shape
    require(
        min(height, width) >= least,
        f"model: {name} needs images of at least {least} x {least}, got {height} x {width}; "
        "enlarge them (dataset=digits has dataset.size) or choose another model",
    )


def as_recorded(values: Mapping[str, Any], source: str) -> ModelSpec:
    """Returns the model whose section the file `source`, perhaps a stranger's, holds.

    Raises:
        ConfigError: `values` do not fit, or a class that they name is not one to be trusted.
    """
    require(
        "${" not in str(values),
        f"{source} holds references instead of values of its network: ${{...}}",
    )
    spec: ModelSpec = component("model", dict(values), ModelSpec, source=source)  # type: ignore[type-abstract]
    if spec.class_of_others:
        require_trusted(source, spec.class_of_others)
    return spec
