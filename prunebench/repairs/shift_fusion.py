"""Shift fusion: folds the constants that cut channels leave behind into the next layers.

A channel that is dead before a depthwise convolution leaves a constant behind it, act(BN(DW(0))),
in essence the shift of that norm. Cutting the channel would lose W * constant in the next layer.
That sum is subtracted from the running mean of the norm behind the next layer, or added to the
layer's bias if there is no norm. Only there do the layers behind compute the same in training mode,
too (batch statistics would undo a shift of beta).

Zhao et al., J. Computer Science and Technology 37(3), 2022, name the idea; this is our
reconstruction. Constants are not derived case by case: the network runs with every cut channel held
at its constant, and what the cut channels add to each consumer is read off. So pooling,
concatenation, shuffles, residual sums and further depthwise layers need no rules of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunebench.analysis.constants import CONSTANTS, Held, hold_group, holding
from prunebench.analysis.dead_channels import standing
from prunebench.analysis.norm_wiring import Norm, empty_image, wiring
from prunebench.errors import PruningError, require, require_choice
from prunebench.repairs import Repair

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.channels import ChannelMap, Plan
    from prunebench.contracts import Evidence

BORDERS = ("mean", "interior", "map", "refuse")
#: shifts that vary over the map by no more than this part of their size count as constant
EVEN = 1e-6


@dataclass(frozen=True, kw_only=True)
class ShiftFusion(Repair):
    """Folds the constants of cut channels into running means and biases.

    Attributes:
        constant: the constant a cut channel is replaced by: ``zero_input`` (zero out of its ReLU),
            ``relu_beta`` (the ReLU of the norm's shift) or ``relu_mean`` (the mean of a normal
            distribution behind the ReLU). Behind norms without a ReLU it is always their shift.
        border: what to fold where zero padding makes a shift differ near the border: its ``mean``
            over the map, its ``interior`` value, the whole ``map`` as a bias per position (exact,
            for one size of images; its numbers count as parameters), or ``refuse``. Channels that
            are dead on both sides have no such shifts.
        images: number of training images; only channels that a squeeze-and-excitation scales depend
            on them.
    """

    constant: str = "zero_input"
    border: str = "mean"
    images: int = 64

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require_choice("constant", self.constant, CONSTANTS)
        require_choice("border", self.border, BORDERS)
        require(self.images >= 0, f"images must not be negative, got {self.images}")

    @property
    def images_needed(self) -> int:
        """Number of training images."""
        return self.images

    def fold(self, evidence: Evidence, plan: Plan) -> nn.Module:
        """Returns a copy of the network with shifted running means and biases.

        Raises:
            PruningError: a consumer has neither bias nor batch norm to take a shift, is recurrent
                or used twice, or a shift differs over the map in a way that `border` refuses.
        """
        import torch
        from torch.nn.modules.batchnorm import _BatchNorm

        norms = wiring(evidence.network, empty_image(evidence.network, evidence.cmap))
        held = self.constants(evidence, plan, norms)
        shifts = self._shifts(evidence, plan, held)
        folded = deepcopy(evidence.network)
        behind = {norm.fed_by: norm.name for norm in norms.values() if norm.fed_by is not None}
        with torch.no_grad():
            for name, shift in shifts.items():
                if shift.dim() > 1 or not bool(shift.any()):
                    continue
                norm = folded.get_submodule(behind[name]) if name in behind else None
                bias = folded.get_submodule(name).bias
                if isinstance(norm, _BatchNorm) and norm.running_mean is not None:
                    norm.running_mean -= shift.to(norm.running_mean)
                elif isinstance(bias, torch.Tensor):
                    bias += shift.to(bias)
                else:
                    raise PruningError(
                        f"repair=shift_fusion: {name} has neither a bias nor a batch norm right "
                        "behind it to take the constants of the channels cut in front of it; "
                        "choose another repair or leave those channels out with budget.exclude"
                    )
        return folded

    def settle(self, slimmed: nn.Module, evidence: Evidence, plan: Plan) -> None:
        """Under border=map, gives layers whose shift differs over the map a bias per position."""
        if self.border != "map":
            return
        import torch

        from prunebench.channels import add_position_bias

        norms = wiring(evidence.network, empty_image(evidence.network, evidence.cmap))
        shifts = self._shifts(evidence, plan, self.constants(evidence, plan, norms))
        kept = evidence.cmap.keeps(plan)
        weights = {site.module: site.name for g in evidence.cmap.groups for site in g.consumers}
        for name, shift in shifts.items():
            if shift.dim() > 1:
                stays = torch.from_numpy(kept[evidence.cmap.dims[weights[name], 0]])
                add_position_bias(slimmed.get_submodule(name), shift[stays.to(shift.device)])

    def constants(self, evidence: Evidence, plan: Plan, norms: dict[str, Norm]) -> Held:
        """Returns the constants at which norms hold the channels that `plan` cuts."""
        held: Held = {}
        for group in evidence.cmap.groups:
            gone = cut_classes(group.size, plan.kept.get(group.name))
            if bool(gone.any()):
                held |= hold_group(
                    evidence.network,
                    group,
                    gone,
                    norms,
                    standing=standing(evidence.network, group, norms, rho_max=1.0),
                    constant=self.constant,
                )
        return held

    def _shifts(self, evidence: Evidence, plan: Plan, held: Held) -> dict[str, Tensor]:
        """Returns consumer name -> what the cut channels add to its output, [out].

        It is [out, H, W] with ``border=map`` where it differs over the map.
        """
        import torch

        gone: dict[str, Tensor] = {}
        folded = []
        for number, group in enumerate(evidence.cmap.groups):
            if not any(site.module in held for site in group.norms):
                continue  # channels without a batch norm have no known constant
            folded.append(number)
            cut = cut_classes(group.size, plan.kept.get(group.name))
            for site in group.consumers:
                classes = site.classes.cpu()
                mine = cut[classes] & (classes >= 0)
                gone[site.module] = gone.get(site.module, torch.zeros_like(mine)) | mine
        _require_no_recurrent_reader(evidence.cmap, plan, folded)
        example = empty_image(evidence.network, evidence.cmap)
        images = evidence.images[: self.images].to(example)
        shifts: dict[str, Tensor] = {}

        def ask(module: nn.Module, given: Any, name: str) -> None:
            if name in shifts:
                raise PruningError(f"repair=shift_fusion cannot serve {name}: it is used twice")
            shifts[name] = self._shift(module, given[0], gone[name], name)

        names = [name for name, cut in gone.items() if bool(cut.any())]
        hooks = [
            evidence.network.get_submodule(name).register_forward_pre_hook(
                lambda module, given, name=name: ask(module, given, name)
            )
            for name in names
        ]
        try:
            with torch.no_grad(), holding(evidence.network, held):
                if len(images):
                    evidence.task.run(evidence.network, images)
                else:
                    evidence.network(example)
        finally:
            for hook in hooks:
                hook.remove()
        return shifts

    def _shift(self, module: nn.Module, x: Tensor, gone: Tensor, name: str) -> Tensor:
        """Returns what the channels `gone` of input `x` add to the output of `module`."""
        import torch
        from torch import nn

        from prunebench.channels.position_bias import PositionBiasConv2d

        dim = x.dim() - 1 if isinstance(module, nn.Linear) else 1
        gone = gone.repeat(x.shape[dim] // len(gone)).to(x.device)  # the same in every group
        only = x * gone.view([-1 if d == dim else 1 for d in range(x.dim())])
        if isinstance(module, nn.Linear):
            out: Tensor = nn.functional.linear(only, module.weight)
            return out.flatten(0, -2).mean(0)
        assert isinstance(module, nn.modules.conv._ConvNd)
        out = module._conv_forward(only, module.weight, None)
        maps = out.mean(0).flatten(1)
        shift = maps.mean(1)
        spread = float((maps - shift[:, None]).abs().max())
        if self.border == "mean" or spread <= EVEN * float(maps.abs().max()):
            return shift
        if self.border == "map" and type(module) in (nn.Conv2d, PositionBiasConv2d):
            return out.mean(0)
        if self.border in ("map", "refuse"):
            raise PruningError(
                f"repair=shift_fusion: what the cut channels add to {name} differs over the map, "
                "because of zero padding; set repair.border=mean or interior"
            )
        middle = only.mean(0).flatten(1)[:, _centre(only.shape[2:])]
        kernel = module.weight.flatten(2).sum(2)
        inputs = middle.view(module.groups, -1, 1)
        return torch.bmm(kernel.view(module.groups, -1, kernel.shape[1]), inputs).flatten()


def _require_no_recurrent_reader(cmap: ChannelMap, plan: Plan, folded: list[int]) -> None:
    """Raises if a recurrent layer, which can take no shift, reads cut channels of `folded`."""
    import numpy as np

    kept = cmap.keeps(plan)
    for call in cmap.tape.calls:
        inputs = cmap.class_of[call.inputs.numpy()]
        mine = np.isin(cmap.locate[0, inputs], folded)
        if call.kind == "recurrent" and (mine & ~kept[inputs]).any():
            raise PruningError(
                f"repair=shift_fusion cannot fold what is cut into {call.module}, a recurrent "
                "layer; leave its input alone with budget.exclude"
            )


def _centre(shape: Sequence[int]) -> int:
    """Returns the flat index of the middle pixel of a map."""
    place = 0
    for size in shape:
        place = place * size + size // 2
    return place


def cut_classes(size: int, kept: tuple[int, ...] | None) -> Tensor:
    """Returns which classes go, bool [size]; none if `kept` is None."""
    import torch

    gone = torch.zeros(size, dtype=torch.bool)
    if kept is not None:
        gone[:] = True
        gone[list(kept)] = False
    return gone
