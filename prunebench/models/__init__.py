"""Networks: each option of the model group is a frozen spec that builds one.

`ModelSpec` is the interface. Most files hold one family of networks; `imagenet` and `timm` wrap
other libraries, `imported` a user's own class, and `found` builds the structure that a pruning run
found.
"""

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
    """Describes a network to build; the fields are the schema of ``conf/model/*.yaml``."""

    def pretrained(self, classes: int) -> bool:
        """Whether `build` returns trained weights, so that no baseline need be trained."""
        return False

    @property
    def embeds(self) -> bool:
        """Whether the network ends in an embedding, not in logits, so that a head trains it."""
        return False

    @property
    def preset(self) -> Preset | None:
        """Preprocessing that the weights which `build` returns expect; None if unknown."""
        return None

    def origin(self) -> Origin | None:
        """Returns the run that found the structure to build; None if none did."""
        return None

    @property
    def missing(self) -> str:
        """Says which file `build` lacks, without reading any; "" if none."""
        return ""

    @property
    def files(self) -> Mapping[str, Path]:
        """Field -> file that `build` will read; its contents are part of the network's identity."""
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
    """Returns the spec from `values`, the model section of the file `source`.

    A stranger may have written the file, so it may name no class that is not trusted.

    Raises:
        ConfigError: `values` do not fit, or name a class that is not trusted.
    """
    require(
        "${" not in str(values),
        f"{source} holds references instead of values of its network: ${{...}}",
    )
    spec: ModelSpec = component("model", dict(values), ModelSpec, source=source)
    if spec.class_of_others:
        require_trusted(source, spec.class_of_others)
    return spec
