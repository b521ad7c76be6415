"""Measures how dead the channels of a group are, from batch norms with ReLUs behind them.

The output of a batch norm is taken to be N(beta, s^2); z = -beta / s says how many standard
deviations its mean lies below zero. See `bn_probability` for the four cases of a depthwise
convolution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.analysis.clipped_normal import still, z_score
from prunebench.analysis.norm_wiring import Norm, affine

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.channels import ChannelGroup, Site


def misfit(group: ChannelGroup, norms: Mapping[str, Norm]) -> str | None:
    """Returns why `group` has no z (no batch norm or no ReLU); None if it has."""
    producers = [site.module for site in group.producers]
    behind = [norm for name in producers for norm in norms.values() if norm.fed_by == name]
    for norm in behind:
        if norm.ceiling is None:
            return f"{norm.name} is not followed by a ReLU"
    bare = [name for name in producers if name not in {norm.fed_by for norm in behind}]
    # in a group that is no residual stream, all producers but one are gates, which scale zeros
    return f"no batch norm follows {bare[0]}" if bare and (group.residual or not behind) else None


def misfits(groups: Sequence[ChannelGroup], norms: Mapping[str, Norm]) -> dict[str, str]:
    """Returns the groups without a z, by name, and why."""
    return {group.name: why for group in groups if (why := misfit(group, norms))}


@dataclass(frozen=True)
class Passage:
    """The classes of a group at one depthwise convolution that they pass.

    Attributes:
        before: z before it, float64 [size].
        behind: z behind it, float64 [size]; -inf where no ReLU follows.
        still: which classes are constant before it, dead or not, bool [size].
        rho: var / (var + eps) of the norm behind it, float64 [size].
        open: whether nothing else reads its input.
    """

    before: Tensor
    behind: Tensor
    still: Tensor
    rho: Tensor
    open: bool


@dataclass(frozen=True)
class Standing:
    """How dead the classes of a group are.

    Attributes:
        z: float64 [size]; the least z over all norms through which a class leaves the group.
        passages: name of a depthwise convolution -> the classes there.
        rho_max: the criterion's bound of rho.
    """

    z: Tensor
    passages: dict[str, Passage]
    rho_max: float

    def cases(self, least: float) -> dict[str, int]:
        """Returns how many classes fall into each case at z = `least`, and how many may not go.

        Groups without a depthwise convolution count ``alive`` and ``dead`` classes.
        """
        if not self.passages:
            dead = int((self.z >= least).sum())
            return {"alive": len(self.z) - dead, "dead": dead}
        counts = Counter[str]()
        for passage in self.passages.values():
            front, back = passage.before >= least, passage.behind >= least
            found = {
                "case1": ~front & ~back,
                "case2": front & back,
                "case3": front & ~back,
                "case4": ~front & back,
                "case3_amplified": front & ~back & (passage.rho > self.rho_max),
                "case4_read_elsewhere": ~front & back & (not passage.open),
            }
            counts.update({case: int(those.sum()) for case, those in found.items()})
        return dict(counts)

    def distribution(self) -> dict[str, int]:
        """Returns how many classes have z of at least 1, 2 and 3, and how many a small rho."""
        counts = {f"z>={least}": int((self.z >= least).sum()) for least in (1, 2, 3)}
        for passage in self.passages.values():
            small = int((passage.rho <= self.rho_max).sum())
            counts["rho small"] = counts.get("rho small", 0) + small
        return counts


def standing(
    network: nn.Module,
    group: ChannelGroup,
    norms: Mapping[str, Norm],
    *,
    rho_max: float,
    also_constant: bool = False,
) -> Standing:
    """Returns how dead the classes of `group` are.

    Args:
        network: the network of the group.
        group: a group without a `misfit`.
        norms: wiring of the network.
        rho_max: as in `BnProbability`.
        also_constant: as in `BnProbability`.
    """
    import torch

    sites = {site.module: site for site in group.norms}
    depthwise = {site.module for site in group.depthwise}
    known: dict[str, tuple[Tensor, Tensor]] = {}
    passages: dict[str, Passage] = {}
    z = torch.full((group.size,), torch.inf, dtype=torch.float64)
    passed = {norm.fed_by for norm in norms.values() if norm.name in sites}
    for norm in norms.values():
        if norm.name not in sites:
            continue
        own, rho, constant = _scores(network.get_submodule(norm.name), sites[norm.name], group.size)
        if norm.ceiling is None:
            own = torch.full_like(own, -torch.inf)
        if also_constant:
            own = torch.where(constant, torch.inf, own)
        if norm.fed_by in depthwise and known:
            every = [torch.stack(column) for column in zip(*known.values(), strict=True)]
            before, fixed = known.get(norm.source or "", (every[0].amin(0), every[1].all(0)))
            feeder = norms.get(norm.source or "")
            alone = feeder is not None and feeder.reader == norm.fed_by
            passages[norm.fed_by or ""] = Passage(before, own, fixed, rho, alone)
            passes = (rho <= rho_max) | (fixed & also_constant)
            own = torch.maximum(own, torch.where(passes, before, -torch.inf))
            constant = constant | fixed
        known[norm.name] = own, constant
        if norm.reader is None or norm.reader not in passed:
            z = torch.minimum(z, own)
    return Standing(z, passages, rho_max)


def _scores(norm: nn.Module, site: Site, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns each class's least z and largest rho at one norm, and whether it is constant.

    Classes that do not pass the norm have z = +inf and rho = 0 and count as constant.
    """
    import torch

    inside = site.positions
    owners = site.classes[inside]
    gamma, beta, variance, eps = affine(norm, site.module)
    z = torch.full((size,), torch.inf, dtype=torch.float64)
    z.scatter_reduce_(0, owners, z_score(gamma, beta, variance, eps)[inside], "amin")
    rho = torch.zeros(size, dtype=torch.float64)
    rho.scatter_reduce_(0, owners, (variance / (variance + eps))[inside], "amax")
    loose = torch.zeros(size, dtype=torch.bool)
    loose[owners[~still(gamma, variance, eps)[inside]]] = True
    return z, rho, ~loose
