"""Any classification network of torchvision, by its name there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torchvision import models

from prunebench.datasets.views import Preset
from prunebench.errors import CheckpointError, ConfigError, first_line, require, unknown
from prunebench.models import ModelSpec

#: number of classes of torchvision's weights
_IMAGENET_CLASSES = 1000
#: auxiliary classifiers, which only training uses
_AUXILIARY = ("aux1", "aux2", "AuxLogits")


@dataclass(frozen=True, kw_only=True)
class Torchvision(ModelSpec):
    """A torchvision network; the schema of ``conf/model/{torchvision,imagenet_*}.yaml``.

    Attributes:
        name: as in ``torchvision.models``, such as ``resnet50``.
        weights: name of torchvision's weights (``DEFAULT``, ``IMAGENET1K_V1``, ...), or null for
            fresh ones.
    """

    name: str
    weights: str | None

    def __post_init__(self) -> None:
        """Raises ConfigError unless torchvision has the network and the weights."""
        # `module` leaves out segmentation, detection, video and quantised networks
        names = models.list_models(module=models)
        require(self.name in names, unknown(f"model.name={self.name}", names))
        if self.weights is not None:
            valid = ["DEFAULT", *(weight.name for weight in models.get_model_weights(self.name))]
            require(self.weights in valid, unknown(f"model.weights={self.weights}", valid))

    def pretrained(self, classes: int) -> bool:
        """Whether `classes` is that of the weights, so that their last layer is used, too."""
        return self.weights is not None and classes == _IMAGENET_CLASSES

    @property
    def preset(self) -> Preset | None:
        """The preprocessing with which torchvision measured the weights."""
        if self.weights is None:
            return None
        shown = models.get_model_weights(self.name)[self.weights].transforms()
        [size], [resized] = shown.crop_size, shown.resize_size
        return Preset(
            size=size,
            crop=size / resized,
            interpolation=shown.interpolation.value,
            mean=tuple(shown.mean),
            std=tuple(shown.std),
        )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network, with a fresh last layer if `classes` is not that of the weights.

        Auxiliary classifiers (GoogLeNet, Inception) are left out.

        Raises:
            ConfigError: the network cannot take images of `shape`.
            CheckpointError: the weights cannot be downloaded.
        """
        self._try_shape(shape, classes)
        if self.weights is None:
            options = {"init_weights": True} if _has_auxiliary(self.name) else {}
            network = models.get_model(self.name, weights=None, num_classes=classes, **options)
        else:
            network = self._pretrained()
            if classes != _IMAGENET_CLASSES:
                _replace_head(network, classes)
        return _without_auxiliary(network)

    def _try_shape(self, shape: tuple[int, int, int], classes: int) -> None:
        """Raises ConfigError if a copy of the network on the meta device fails on such images."""
        options = {"init_weights": False} if _has_auxiliary(self.name) else {}
        with torch.device("meta"):
            empty = models.get_model(self.name, weights=None, num_classes=classes, **options)
            images = torch.zeros(2, *shape)
        try:
            with torch.no_grad():
                _without_auxiliary(empty).eval()(images)
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:
            size = " x ".join(map(str, shape))
            raise ConfigError(
                f"model: torchvision's {self.name} cannot take images of {size} "
                f"({first_line(error)}); choose another dataset or model"
            ) from error

    def _pretrained(self) -> nn.Module:
        weights = models.get_model_weights(self.name)[self.weights]
        try:
            return cast(nn.Module, models.get_model(self.name, weights=weights))
        except (OSError, RuntimeError) as error:  # no network, or the file's hash does not fit
            file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
            raise CheckpointError(
                f"model.weights={self.weights}: {weights.url} could not be downloaded ({error}); "
                f"put it at {file}, or set model.weights=null"
            ) from error


def _has_auxiliary(name: str) -> bool:
    return name in ("googlenet", "inception_v3")


def _without_auxiliary(network: nn.Module) -> nn.Module:
    absent: dict[str, object] = {"aux_logits": False, **dict.fromkeys(_AUXILIARY)}
    for name, value in absent.items():
        if hasattr(network, name):
            setattr(network, name, value)
    return network


def _replace_head(network: nn.Module, classes: int) -> None:
    """Replaces the last layer by a fresh one with `classes` outputs, in place."""
    heads = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and module.weight.shape[0] == _IMAGENET_CLASSES
        and not name.startswith(_AUXILIARY)
    ]
    name, old = heads[-1]
    bias = old.bias is not None
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, classes, bias=bias)
    else:  # SqueezeNet classifies by a 1x1 convolution
        new = nn.Conv2d(old.in_channels, classes, old.kernel_size, bias=bias)  # type: ignore[arg-type]
    network.set_submodule(name, new)
