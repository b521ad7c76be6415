"""Multilayer perceptrons."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import prod

from torch import nn

from prunebench.errors import require
from prunebench.models import ModelSpec
from prunebench.models.initialisation import draw_plain


@dataclass(frozen=True, kw_only=True)
class Mlp(ModelSpec):
    """Linear layers with ReLUs between; the schema of the MLPs in ``conf/model/``.

    Attributes:
        widths: units of the hidden layers, in forward order.
    """

    widths: list[int]

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(
            bool(self.widths) and min(self.widths) >= 1,
            f"widths must be one or more layer widths of at least 1, got {list(self.widths)}",
        )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network, which flattens images of `shape` itself."""
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        inputs = prod(shape)
        for place, width in enumerate(self.widths, start=1):
            layers[f"fc{place}"] = nn.Linear(inputs, width)
            layers[f"relu{place}"] = nn.ReLU(inplace=True)
            inputs = width
        layers[f"fc{len(self.widths) + 1}"] = nn.Linear(inputs, classes)
        network = nn.Sequential(layers)
        draw_plain(network)
        return network
