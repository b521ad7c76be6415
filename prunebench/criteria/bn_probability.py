"""BN probability: channels whose batch norm leaves a ReLU nothing but zeros; higher = keep.

Reconstruction of the idea of Zhao et al., J. Computer Science and Technology 37(3), 2022, from its
abstract: the output of a batch norm is taken for N(beta, s^2), a channel is unimportant where
P(output <= 0) = Phi(z) is high, z = -beta / s, and every channel of a depthwise convolution falls
into one of four cases by whether it is dead in front of it and behind it:

1. alive, alive: stays.
2. dead, dead: goes.
3. dead in front only: what comes out is a constant, which has to be folded into the next layer
   (repair=shift_fusion). Goes only if rho = var / (var + eps) of the norm behind is at most
   `rho_max`: otherwise that norm has amplified the rare bursts of the channel to full size.
4. dead behind only: goes if nothing but the depthwise convolution reads the input channel.

The assignment of cases, rho and all defaults are ours. The score is -z of the pair; a class of
several channels (grouped convolutions) is as important as its most important one, so that all
groups stay equally wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from prunebench.analysis.clipped_normal import z_score as z_score
from prunebench.analysis.constants import Held, affine, hold_group, uneven
from prunebench.analysis.norm_wiring import Norm, wiring
from prunebench.criteria import Criterion, Evidence, GroupRank
from prunebench.errors import PruningError, require, require_choice

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.channels import ChannelGroup, Site

LINEAR = ("refuse", "keep")
UNEVEN = ("keep", "cut")
#: scores are finite: z beyond this is as good as infinite
LIMIT = 1e6


@dataclass(frozen=True, kw_only=True)
class BnProbability(Criterion):
    """Scores a channel by how far below zero its batch norm puts it, in deviations.

    Attributes:
        tau: channels with P(output <= 0) of at least this go under ``budget=own``.
        rho_max: largest rho of the norm behind a depthwise convolution in case 3, in [0, 1].
        linear: what becomes of groups without batch norm and ReLU right behind every producer:
            ``refuse`` them, or ``keep`` them whole (with ``budget=own``, or a budget that compares
            scores; one that gives all groups the same ratio would cut them blindly).
        uneven: what becomes of channels dead at `tau` whose constant would reach a next layer as
            more than one value, for which fusion is not exact (zero padding of a further depthwise
            layer, squeeze-and-excitation): ``keep`` or ``cut`` them.
    """

    tau: float
    rho_max: float
    linear: str
    uneven: str

    decides = True

    def __post_init__(self) -> None:
        """Checks ranges."""
        require(0 < self.tau < 1, f"tau must lie in (0, 1), got {self.tau}")
        require(0 <= self.rho_max <= 1, f"rho_max must lie in [0, 1], got {self.rho_max}")
        require_choice("linear", self.linear, LINEAR)
        require_choice("uneven", self.uneven, UNEVEN)

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Ranks by the norms' parameters and buffers alone.

        Raises:
            PruningError: a group has no batch norm with a ReLU behind it (unless ``linear=keep``).
        """
        import torch

        least = NormalDist().inv_cdf(self.tau)
        norms = wiring(evidence.network, example_of(evidence))
        unfit = {group.name: why for group in evidence.groups if (why := misfit(group, norms))}
        if unfit and self.linear == "refuse":
            name, why = next(iter(unfit.items()))
            raise PruningError(
                f"criterion=bn_probability needs a batch norm and a ReLU behind {name}, and {why}; "
                f"set budget.exclude=[{','.join(unfit)}] or criterion.linear=keep"
            )
        found = {
            group.name: standing(evidence.network, group, norms, rho_max=self.rho_max)
            for group in evidence.groups
            if group.name not in unfit
        }
        dead = {name: state.z >= least for name, state in found.items()}
        alive = self._uneven(evidence, norms, found, dead)
        ranks = {}
        for group in evidence.groups:
            if group.name in unfit:
                scores = torch.full((group.size,), LIMIT, dtype=torch.float64)
                ranks[group.name] = GroupRank(scores, tuple(range(group.size)))
                continue
            state, stays = found[group.name], alive[group.name]
            z = torch.where(stays, -LIMIT, state.z.clamp(-LIMIT, LIMIT))
            kept = (~dead[group.name] | stays).nonzero().flatten().tolist()
            counts = {**state.cases(least), "uneven": int(stays.sum())}
            ranks[group.name] = GroupRank(-z, tuple(kept), counts)
        return ranks

    def _uneven(
        self,
        evidence: Evidence,
        norms: dict[str, Norm],
        found: dict[str, Standing],
        dead: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Returns bool [size] for each group: dead classes that stay because they are uneven."""
        if self.uneven == "cut":
            return {name: gone & False for name, gone in dead.items()}
        groups = tuple(group for group in evidence.groups if group.name in found)
        held: Held = {}
        for group in groups:
            held |= hold_group(
                evidence.network,
                group,
                dead[group.name],
                norms,
                standing=found[group.name],
                constant="zero_input",
            )
        differs = uneven(evidence.network, groups, held, example_of(evidence))
        return {name: gone & differs[name] for name, gone in dead.items()}


def example_of(evidence: Evidence) -> Tensor:
    """Returns one empty image that the network takes."""
    import torch

    seen, weight = evidence.cmap.tape.example, next(evidence.network.parameters())
    return torch.zeros((1, *seen.shape[1:]), dtype=weight.dtype, device=weight.device)


def misfit(group: ChannelGroup, norms: dict[str, Norm]) -> str | None:
    """Returns why no probability can be told for `group`; None if it can."""
    followed = 0
    bare = None
    for producer in group.producers:
        behind = [norm for norm in norms.values() if norm.fed_by == producer.module]
        followed += bool(behind)
        if not behind:
            bare = bare or f"no batch norm follows {producer.module}"
        for norm in behind:
            if norm.ceiling is None:
                return f"{norm.name} is not followed by a ReLU"
    # producers of a group that is no residual stream are gates, all but one: they scale zeros
    return None if followed and not group.residual else bare


@dataclass(frozen=True)
class Passage:
    """A depthwise convolution that channels pass, class by class.

    Attributes:
        before: z in front of it, float64 [size].
        behind: z behind it; -inf where no ReLU follows.
        rho: of the norm behind it.
        open: whether nothing else reads its input.
    """

    before: Tensor
    behind: Tensor
    rho: Tensor
    open: bool


@dataclass(frozen=True)
class Standing:
    """How dead the classes of a group are.

    Attributes:
        z: float64 [size]; the least of all norms through which a class leaves the group.
        passages: depthwise convolution -> what happens there.
        rho_max: of the criterion.
    """

    z: Tensor
    passages: dict[str, Passage]
    rho_max: float

    def cases(self, least: float) -> dict[str, int]:
        """Returns how many channels fall into each case at z = `least`, and how many may not go.

        Groups without a depthwise convolution count ``alive`` and ``dead`` channels.
        """
        if not self.passages:
            dead = int((self.z >= least).sum())
            return {"alive": len(self.z) - dead, "dead": dead}
        counts = dict.fromkeys(("case1", "case2", "case3", "case4"), 0)
        counts |= {"case3_amplified": 0, "case4_read_elsewhere": 0}
        for passage in self.passages.values():
            front, back = passage.before >= least, passage.behind >= least
            counts["case1"] += int((~front & ~back).sum())
            counts["case2"] += int((front & back).sum())
            counts["case3"] += int((front & ~back).sum())
            counts["case4"] += int((~front & back).sum())
            counts["case3_amplified"] += int((front & ~back & (passage.rho > self.rho_max)).sum())
            counts["case4_read_elsewhere"] += 0 if passage.open else int((~front & back).sum())
        return counts


def standing(
    network: nn.Module, group: ChannelGroup, norms: dict[str, Norm], *, rho_max: float
) -> Standing:
    """Returns how dead the classes of `group` are.

    Args:
        network: its norms are read.
        group: without a `misfit`.
        norms: wiring of the network.
        rho_max: as in `BnProbability`.
    """
    import torch

    sites = {site.module: site for site in group.norms}
    depthwise = {site.module for site in group.depthwise}
    known: dict[str, Tensor] = {}
    passages: dict[str, Passage] = {}
    z = torch.full((group.size,), torch.inf, dtype=torch.float64)
    passed = {norm.fed_by for norm in norms.values() if norm.name in sites}
    for norm in norms.values():
        if norm.name not in sites:
            continue
        own, rho = _scores(network.get_submodule(norm.name), sites[norm.name], group.size)
        if norm.ceiling is None:
            own = torch.full_like(own, -torch.inf)
        if norm.fed_by in depthwise and known:
            before = known.get(norm.source or "", torch.stack(list(known.values())).amin(0))
            feeder = norms.get(norm.source or "")
            alone = feeder is not None and feeder.reader == norm.fed_by
            passages[norm.fed_by or ""] = Passage(before, own, rho, alone)
            own = torch.maximum(own, torch.where(rho <= rho_max, before, -torch.inf))
        known[norm.name] = own
        if norm.reader is None or norm.reader not in passed:
            z = torch.minimum(z, own)
    return Standing(z, passages, rho_max)


def _scores(norm: nn.Module, site: Site, size: int) -> tuple[Tensor, Tensor]:
    """Returns the least z and the largest rho of each class at one norm, float64 [size].

    Classes that the norm does not see have z = +inf and rho = 0.
    """
    import torch

    inside = (site.classes >= 0).cpu()
    owners = site.classes.cpu()[inside]
    gamma, beta, variance, eps = affine(norm, site.module)
    z = torch.full((size,), torch.inf, dtype=torch.float64)
    z.scatter_reduce_(0, owners, z_score(gamma, beta, variance, eps)[inside], "amin")
    rho = torch.zeros(size, dtype=torch.float64)
    rho.scatter_reduce_(0, owners, (variance / (variance + eps))[inside], "amax")
    return z, rho
