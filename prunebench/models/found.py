"""Networks with the structure that a pruning run found, and fresh weights."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench.errors import ConfigError, require
from prunebench.models import ModelSpec, as_recorded
from prunebench.records import Origin, Report, from_json
from prunebench.records.identity import as_origin

if TYPE_CHECKING:
    from torch import nn

    from prunebench.channels import ChannelMap, Plan

#: largest factor on the widths of the dense network that a scaled structure may need
WIDEST = 16
#: steps of bisection for the factor
HALVINGS = 40


@dataclass(frozen=True, kw_only=True)
class Found(ModelSpec):
    """The pruned structure of a run; the schema of ``conf/model/found.yaml``.

    Attributes:
        report: path of the run's ``report.json``.
        macs: None keeps the widths as found. A number scales the widths of all pruned groups by
            one factor, the largest with which the network has at most this fraction of the dense
            one's MACs ("destructive re-design", Ding et al., ICML 2019; the scaling rule is ours).
    """

    report: str
    macs: float | None

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.macs is None or self.macs > 0, f"macs must be positive, got {self.macs}")

    @property
    def missing(self) -> str:
        """Says that the report is missing; "" if it is there."""
        return (
            "" if Path(self.report).is_file() else f"model.report: there is no file {self.report}"
        )

    @property
    def files(self) -> dict[str, Path]:
        """The report, as the field ``report``."""
        return {"report": Path(self.report)}

    def found(self) -> Report:
        """Returns the report of the run that found the structure.

        Raises:
            ConfigError: it cannot be read, its run pruned nothing, or its structure was found by
                itself.
        """
        report = _read_report(Path(self.report))
        require(bool(report.plan), f"model.report: {self.report} prunes nothing")
        seen, inner = {Path(self.report).resolve()}, report.config["model"].get("report")
        while inner is not None:  # its network may itself be one that a run found, and so on
            place = Path(inner).resolve()
            require(place not in seen, f"model.report: {self.report} leads back to itself")
            seen.add(place)
            inner = _read_report(place).config["model"].get("report")
        return report

    def origin(self) -> Origin:
        """Returns the run that found the structure.

        Raises:
            ConfigError: as `found`.
        """
        return as_origin(self.found())

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network with fresh weights.

        Kernels are drawn as in the network that they are cut from and scaled to their own fan-in,
        so that the outputs of layers keep their variance.

        Raises:
            ConfigError: the report cannot be read, or its network cannot be made wide enough.
        """
        import torch

        from prunebench.channels import Plan, trace

        report = self.found()
        model = report.config["model"]
        found = {name: len(kept) for name, kept in report.plan.items()}
        dense = _build(model, 1, shape, classes)
        example = torch.zeros(1, *shape)
        cmap = trace(dense, example)
        for name in found:
            require(
                name in {group.name for group in cmap.groups},
                f"model.report: {self.report} prunes '{name}', which its network does not have "
                f"for images of {shape}",
            )
        if self.macs is None:
            return _cut_to(dense, cmap, found)
        target = int(self.macs * cmap.macs(Plan({})) + 1e-6)
        original = {group.name: group.size for group in cmap.groups}
        least = cmap.macs(_plan({**original, **dict.fromkeys(found, 1)}))
        require(
            least <= target,
            f"model.macs={self.macs:g} asks for {target:,} MACs, and the layers that were not "
            f"pruned already have {least:,}; ask for more",
        )
        for factor in range(1, WIDEST + 1):
            wide = dense if factor == 1 else _build(model, factor, shape, classes)
            wide_map = trace(wide, example)
            widths, enough = scaled(wide_map, original, found, target)
            if enough:
                return _cut_to(wide, wide_map, widths)
        raise ConfigError(
            f"model.macs={self.macs:g} would take layers {WIDEST} times as wide as the original; "
            "ask for less"
        )


def _read_report(path: Path) -> Report:
    try:
        return from_json(Report, path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"model.report: cannot read {path} ({error.strerror})") from error


def scaled(
    cmap: ChannelMap, original: Mapping[str, int], found: Mapping[str, int], target: int
) -> tuple[dict[str, int], bool]:
    """Returns the width of every group, the pruned ones scaled by the largest factor that fits.

    Args:
        cmap: channel map of a network at least as wide as the result.
        original: group name -> width in the dense network, for groups that were not pruned.
        found: group name -> width left by pruning.
        target: MACs that may not be exceeded.

    Returns:
        The widths, and whether the network of `cmap` is wide enough for all of them.
    """
    limits = {group.name: group.size for group in cmap.groups}

    def widths(factor: float) -> dict[str, int]:
        return {
            **original,
            **{name: max(1, round(factor * width)) for name, width in found.items()},
        }

    def macs(factor: float) -> int:
        capped = {name: min(limits[name], width) for name, width in widths(factor).items()}
        return cmap.macs(_plan(capped))

    low, high = 0.0, max(limits[name] / width for name, width in found.items())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if macs(middle) <= target else (low, middle)
    result = widths(low)
    fits = all(width < limits[name] for name, width in result.items() if name in found)
    capped = {name: min(limits[name], width) for name, width in result.items()}
    return capped, fits or result == {name: limits[name] for name in result}


def _build(
    model: Mapping[str, Any], factor: int, shape: tuple[int, int, int], classes: int
) -> nn.Module:
    """Returns the network of a model section, built `factor` times as wide."""
    values = deepcopy(dict(model))
    if factor > 1 and "width" in values:
        values["width"] = values["width"] * factor
    elif factor > 1 and "widths" in values:
        values["widths"] = [factor * width for width in values["widths"]]
    elif factor > 1:
        raise ConfigError(
            f"model.macs: {values.get('_target_')} has no width to scale; use model.macs=null"
        )
    from prunebench.models import rationed

    spec = as_recorded(values, "model.report")
    return rationed.build(spec, shape, classes, source="model.report")


def _plan(widths: Mapping[str, int]) -> Plan:
    from prunebench.channels import Plan

    return Plan({name: range(width) for name, width in widths.items()})


def _cut_to(network: nn.Module, cmap: ChannelMap, widths: Mapping[str, int]) -> nn.Module:
    """Returns `network` with the first `widths` channels of every group, kernels rescaled."""
    from prunebench.channels import slim

    small = slim(network, cmap, _plan(widths))
    keep_variance(small, network)
    return small


def keep_variance(small: nn.Module, network: nn.Module) -> None:
    """Scales the kernels of `small`, cut from the fresh `network`, to their fan-in, in place."""
    import torch

    before = dict(network.named_parameters())
    with torch.no_grad():
        for name, weight in small.named_parameters():
            if weight.dim() > 1:
                fan_in, whole = weight[0].numel(), before[name][0].numel()
                weight.mul_((whole / fan_in) ** 0.5)
