"""Any classification network of timm, by its name there; timm is an optional dependency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunebench.datasets.views import INTERPOLATIONS, Preset
from prunebench.errors import CheckpointError, ConfigError, first_line, nearest, require, unknown
from prunebench.models import ModelSpec

if TYPE_CHECKING:
    from torch import nn

#: name of the weights that timm takes by default
DEFAULT = "DEFAULT"


@dataclass(frozen=True, kw_only=True)
class Timm(ModelSpec):
    """A network of timm; the schema of ``conf/model/timm.yaml``.

    Attributes:
        name: as in ``timm.list_models()``, such as ``resnet18``.
        weights: tag of timm's weights, such as ``a1_in1k``; ``DEFAULT``; or null for fresh ones.
    """

    name: str
    weights: str | None

    def __post_init__(self) -> None:
        """Raises ConfigError unless timm is installed and has the network and the weights."""
        try:
            import timm
        except ImportError:
            raise ConfigError("model=timm needs timm: pip install 'prunebench[timm]'") from None
        names = timm.list_models()
        if self.name not in names:
            near = nearest(self.name, names)
            hint = f"did you mean '{near}'?" if near else "timm.list_models() has all"
            raise ConfigError(f"'model.name={self.name}' is not known to timm; {hint}")
        if self.weights is not None:
            tagged = timm.list_models(f"{self.name}.*", pretrained=True)
            valid = [DEFAULT, *(name.partition(".")[2] for name in tagged)] if tagged else []
            require(self.weights in valid, unknown(f"model.weights={self.weights}", valid))

    def pretrained(self, classes: int) -> bool:
        """Whether `classes` is that of the weights, so that their last layer is used, too."""
        return self.weights is not None and bool(classes == self._shown().num_classes)

    @property
    def preset(self) -> Preset | None:
        """The preprocessing with which timm measures the weights."""
        if self.weights is None:
            return None
        shown = self._shown()
        by = shown.interpolation if shown.interpolation in INTERPOLATIONS else "bicubic"
        return Preset(
            size=shown.input_size[-1],
            crop=shown.crop_pct,
            interpolation=by,
            mean=tuple(shown.mean),
            std=tuple(shown.std),
        )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network, with a fresh last layer if `classes` is not that of the weights.

        Raises:
            ConfigError: timm cannot build it for images of `shape`.
            CheckpointError: the weights cannot be downloaded.
        """
        import timm

        try:
            network: nn.Module = timm.create_model(
                self._tagged,
                pretrained=self.weights is not None,
                in_chans=shape[0],
                num_classes=classes,
            )
        except Exception as error:
            first = first_line(error)
            if self.weights is None:
                raise ConfigError(f"model.name={self.name}: timm refuses ({first})") from error
            raise CheckpointError(
                f"model.weights={self.weights}: timm could not load them ({first}); download them "
                "where there is a network, or set model.weights=null"
            ) from error
        return network

    @property
    def _tagged(self) -> str:
        """The name with the tag of the weights."""
        return self.name if self.weights in (None, DEFAULT) else f"{self.name}.{self.weights}"

    def _shown(self) -> Any:
        """Returns timm's description of the weights."""
        import timm

        return timm.get_pretrained_cfg(self._tagged)
