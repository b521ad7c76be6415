"""BN probability: channels go whose batch norm leaves their ReLU only zeros; higher = keep.

Reconstruction of the idea of Zhao et al., J. Computer Science and Technology 37(3), 2022, from its
abstract: the output of a batch norm is taken to be N(beta, s^2), and a channel is unimportant where
P(output <= 0) = Phi(z), z = -beta / s, is high. Each channel of a depthwise convolution falls into
one of four cases, by whether it is dead before and behind that convolution:

1. alive, alive: stays.
2. dead, dead: goes.
3. dead before only: its output is a constant, which must be folded into the next layer
   (repair=shift_fusion). Goes only if rho = var / (var + eps) of the norm behind is at most
   `rho_max`: otherwise that norm has amplified the channel's rare bursts to full size.
4. dead behind only: goes if nothing but the depthwise convolution reads the channel.

What happens in each case, rho and all defaults are ours. The score is -z of the pair. A class of
several channels (grouped convolutions, whose groups must stay equally wide) is as important as its
most important channel; `regroup` chooses beforehand which channels form a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from prunebench.analysis.clipped_normal import z_score as z_score
from prunebench.analysis.constants import Held, hold_group, uneven
from prunebench.analysis.dead_channels import Standing, misfit, misfits, standing
from prunebench.analysis.norm_wiring import Norm, empty_image, wiring
from prunebench.criteria import Criterion, Evidence, GroupRank
from prunebench.errors import PruningError, require, require_choice

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.channels import ChannelGroup, ChannelMap, Example, Shuffle

LINEAR = ("refuse", "keep")
UNEVEN = ("keep", "cut")
#: scores are finite: z beyond this is as good as infinite
LIMIT = 1e6
#: a channel whose z lies below this counts as alive: it is positive with probability 0.16 or more
ALIVE = 1.0


@dataclass(frozen=True, kw_only=True)
class BnProbability(Criterion):
    """Scores a channel by how far below zero its batch norm puts it, in deviations.

    Attributes:
        tau: channels with P(output <= 0) of at least this go under ``budget=own``.
        rho_max: largest rho of the norm behind a depthwise convolution in case 3, in [0, 1].
        linear: what to do with groups that lack a batch norm and ReLU right behind some producer
            and so have no score: ``refuse`` them, or ``keep`` them whole, so that the other groups
            must meet the budget.
        uneven: what to do with channels dead at `tau` whose constant would reach a next layer as
            more than one value, so that fusion is not exact (zero padding of a further depthwise
            layer, squeeze-and-excitation): ``keep`` or ``cut`` them.
        also_constant: whether channels whose output is a constant above zero go, too. With
            ``repair.border=map`` their fusion is exact, except behind squeeze-and-excitation,
            even where zero padding makes their constant uneven (``uneven=cut``).
        regroup: whether grouped convolutions with a shuffle between are rearranged, so that equally
            dead channels, one of each group, go together; else the k-th of all groups do. For
            `prunebench.prune`, call `arranged` yourself.
    """

    tau: float = 0.97725
    rho_max: float = 0.1
    linear: str = "refuse"
    uneven: str = "keep"
    also_constant: bool = False
    regroup: bool = True

    decides = True

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(0 < self.tau < 1, f"tau must lie in (0, 1), got {self.tau}")
        require(0 <= self.rho_max <= 1, f"rho_max must lie in [0, 1], got {self.rho_max}")
        require_choice("linear", self.linear, LINEAR)
        require_choice("uneven", self.uneven, UNEVEN)

    def unscored(
        self, network: nn.Module, cmap: ChannelMap, groups: Sequence[ChannelGroup]
    ) -> dict[str, str]:
        """Returns the groups without batch norm and ReLU under ``linear=keep``, and why."""
        if self.linear == "refuse":
            return {}
        return misfits(groups, wiring(network, empty_image(network, cmap)))

    def arranged(self, network: nn.Module, example: Example) -> nn.Module:
        """Returns `network` with equally dead channels at the same position in all groups.

        Raises:
            PruningError: rearranging changes what it computes.
        """
        from prunebench.channels import regroup, trace

        if not self.regroup:
            return network
        cmap = trace(network, example)
        if not any(call.kind == "gather" for call in cmap.tape.calls):
            return network
        norms = wiring(network, empty_image(network, cmap))

        def dead(shuffle: Shuffle) -> Tensor | None:
            if misfit(shuffle.alone, norms) is not None:
                return None
            group = shuffle.alone
            own = standing(
                network, group, norms, rho_max=self.rho_max, also_constant=self.also_constant
            )
            return own.z.clamp(-LIMIT, LIMIT)

        return regroup(network, cmap, example, dead)

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Ranks by the parameters and buffers of batch norms alone.

        Raises:
            PruningError: a group has no batch norm with a ReLU behind it.
        """
        import torch

        least = NormalDist().inv_cdf(self.tau)
        norms = wiring(evidence.network, empty_image(evidence.network, evidence.cmap))
        unfit = misfits(evidence.groups, norms)
        if unfit:
            name, why = next(iter(unfit.items()))
            raise PruningError(
                f"criterion=bn_probability needs a batch norm and a ReLU behind {name}, and {why}; "
                f"set budget.exclude=[{','.join(unfit)}] or criterion.linear=keep"
            )
        found = {
            group.name: standing(
                evidence.network,
                group,
                norms,
                rho_max=self.rho_max,
                also_constant=self.also_constant,
            )
            for group in evidence.groups
        }
        dead = {name: state.z >= least for name, state in found.items()}
        alive = self._uneven(evidence, norms, found, dead)
        ranks = {}
        for group in evidence.groups:
            state, stays = found[group.name], alive[group.name]
            z = torch.where(stays, -LIMIT, state.z.clamp(-LIMIT, LIMIT))
            kept = (~dead[group.name] | stays).nonzero().flatten().tolist()
            counts = {**state.cases(least), "uneven": int(stays.sum()), **state.distribution()}
            living = tuple((state.z < ALIVE).nonzero().flatten().tolist())
            ranks[group.name] = GroupRank(-z, tuple(kept), counts, living)
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
        held: Held = {}
        for group in evidence.groups:
            held |= hold_group(
                evidence.network,
                group,
                dead[group.name],
                norms,
                standing=found[group.name],
                constant="zero_input",
            )
        differs = uneven(
            evidence.network, evidence.groups, held, empty_image(evidence.network, evidence.cmap)
        )
        return {name: gone & differs[name] for name, gone in dead.items()}
