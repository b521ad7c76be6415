"""Zeroes filters between the epochs of a training, none of them for good."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn, optim

from prunebench.budgets import Budget
from prunebench.budgets.counts import best, channels, kept_count
from prunebench.budgets.uniform import Uniform
from prunebench.channels import ChannelGroup, Plan, Site, in_mode
from prunebench.contracts import Dense, Evidence, Moment, PruningObserver, RepeatingObserver
from prunebench.criteria import Criterion
from prunebench.criteria.ranked import ranked
from prunebench.errors import PruningError

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.contracts import Assignment


class SoftObserver(PruningObserver, RepeatingObserver):
    """Every few epochs, and after the last, zeroes the filters that would be cut now.

    Only weights are zeroed, as published: biases and batch norms go on, so a zeroed filter gets
    gradients and may come back. Between selections nothing is masked, unless `mask_gradients`
    (FPGM) says so. Its only state is the latest plan; the zeros themselves are in the network.
    """

    def __init__(  # noqa: PLR0913 - what `Soft` holds, each by its name
        self,
        criterion: Criterion,
        budget: Budget,
        dense: Dense,
        work: Assignment,
        *,
        every: int,
        mask_gradients: bool,
        zero_first: bool,
        tied: bool,
    ) -> None:
        """Stores the settings of `Soft`; nothing is zeroed yet."""
        self.criterion, self.budget, self.dense, self.work = criterion, budget, dense, work
        self.every, self.mask_gradients, self.zero_first = every, mask_gradients, zero_first
        self.tied = tied_layers(work, budget) if tied else []
        self.groups = (*work.groups, *self.tied)
        self.chosen: Plan | None = None
        self.zeroed: dict[nn.Parameter, Tensor] = {}  # weight -> where the latest plan zeroes it

    # -- the protocol of the training loop -------------------------------------------------------

    def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
        """Ranks and chooses once, so that what cannot be done is refused before any training.

        Raises:
            PruningError: criterion or budget cannot serve this network, or a weight norm computes
                its filters.
        """
        self.network = network
        sites = [site for group in self.groups for site in group.producers]
        for site in sites:
            if site.normed is not None:
                raise PruningError(
                    f"schedule=soft zeroes filters, and those of {site.module} are computed by a "
                    "weight norm, in which zeros have no direction; remove it before "
                    "(torch.nn.utils.parametrize.remove_parametrizations), or choose another "
                    "schedule"
                )
        weights = [network.get_parameter(site.name) for site in sites]
        self.zeroed = {
            weight: torch.zeros_like(weight, dtype=torch.bool)
            for weight in weights
            if weight.dim() > 1
        }
        if self.zero_first:
            self._select(0)
        else:
            self._choose()

    def after_backward(self, moment: Moment) -> None:
        """Zeroes the gradients of zeroed filters under `mask_gradients`."""
        for weight, zeros in self.zeroed.items() if self.mask_gradients else ():
            if weight.grad is not None:
                weight.grad.masked_fill_(zeros, 0)

    def after_step(self, moment: Moment) -> bool:
        """Selects and zeroes when an epoch is over."""
        if self._due(moment.epoch, moment.step, moment.steps):
            self._select(moment.epoch + 1)
        return False

    def repeats(self, epoch: int, step: int, steps: int) -> bool | None:
        """Returns None at the step that ends with a selection."""
        return None if self._due(epoch, step, steps) else True

    def state_dict(self) -> dict[str, Any]:
        """Returns the latest plan."""
        return {"plan": None if self.chosen is None else self.chosen.to_json()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.chosen = None if state["plan"] is None else Plan.from_json(state["plan"])
        self._mark()

    # -- the selection ---------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Returns the latest selection, in the numbering of the network that is trained.

        Raises:
            PruningError: no epoch has ended yet.
        """
        if self.chosen is None:
            raise PruningError("schedule=soft selects after an epoch, and none has been trained")
        return Plan({group.name: self.chosen.kept[group.name] for group in self.work.groups})

    def counts(self) -> dict[str, dict[str, int]]:
        """Returns nothing: the rows of the log hold all counts."""
        return {}

    def _due(self, epoch: int, step: int, steps: int) -> bool:
        """Whether `step` (like `epoch` counted from 0) ends with a selection."""
        last = (epoch + 1) % self.every == 0 or epoch + 1 == self.work.epochs
        return last and step + 1 == steps

    def _select(self, epoch: int) -> None:
        """Ranks, chooses, zeroes and logs."""
        before, self.chosen = self.chosen, self._choose()
        self._mark()
        with torch.no_grad():
            for weight, zeros in self.zeroed.items():
                weight.masked_fill_(zeros, 0)
        cut = sum(group.size - len(self.chosen.kept[group.name]) for group in self.groups)
        row = {"stage": "selection", "epoch": epoch, "zeroed": cut}
        self.work.log({**row, "returned": returned(before, self.chosen)})

    def _mark(self) -> None:
        """Updates `zeroed` to the latest plan, in place, since recorded steps read it."""
        for zeros in self.zeroed.values():
            zeros.fill_(False)
        if self.chosen is None:
            return
        for group in self.groups:
            stays = torch.zeros(group.size, dtype=torch.bool)
            stays[list(self.chosen.kept[group.name])] = True
            for site in group.producers:
                weight = self.network.get_parameter(site.name)
                if weight in self.zeroed:  # biases and other vectors of one number per channel stay
                    classes, zeros = site.classes.cpu(), self.zeroed[weight]
                    gone = (classes >= 0) & ~stays[classes.clamp(min=0)]
                    zeros.index_fill_(site.dim, gone.nonzero()[:, 0].to(zeros.device), True)

    def _choose(self) -> Plan:
        """Returns the plan that would be cut now, with the tied layers in it."""
        cmap, device = self.work.cmap, next(self.network.parameters()).device
        facts = Evidence(
            network=self.network,
            cmap=cmap,
            groups=self.groups,
            images=torch.empty((0, *cmap.tape.example.shape[1:]), device=device),
            labels=torch.empty(0, dtype=torch.int64, device=device),
            seed=self.work.seed,
        )
        with in_mode(self.network):
            ranks = ranked(self.criterion, facts)
        own = {group.name: ranks[group.name] for group in self.work.groups}
        plan = self.budget.choose(cmap, own, self.dense, share=1.0)
        keep = self._keep(plan)
        alone = {
            group.name: best(
                ranks[group.name].scores, kept_count(self.budget, group.size * keep, group.size)
            )
            for group in self.tied
        }
        return Plan({**plan.kept, **alone})

    def _keep(self, plan: Plan) -> float:
        """Returns the share of tied layers that stays: that of the budget, or of `plan`."""
        if isinstance(self.budget, Uniform):
            return self.budget.keep
        sizes = {group.name: group.size for group in self.work.groups}
        return channels(sizes, plan) / sum(sizes.values())


def tied_layers(work: Assignment, budget: Budget) -> list[ChannelGroup]:
    """Returns each layer that writes to residual streams left whole, as a group of its own.

    A group holds only the filters that write to such streams: the budget cuts the layer's others.
    """
    chosen = {group.name for group in work.groups}
    found: dict[str, tuple[Site, Tensor]] = {}  # under option A a layer writes to several streams
    for group in work.cmap.groups:
        if group.name in chosen or not group.residual or budget.excludes(group.name):
            continue
        for site in group.producers:
            if site.parameter == "weight":
                writes = site.classes >= 0
                _, others = found.get(site.module, (site, torch.zeros_like(writes)))
                found[site.module] = site, others | writes
    layers = []
    for module, (site, writes) in found.items():
        alone = replace(site, classes=torch.where(writes, writes.cumsum(0) - 1, -1))
        size = int(writes.sum())
        layers.append(ChannelGroup(f"{module}, tied", size, (alone,), (), (), (), residual=True))
    return layers


def returned(before: Plan | None, now: Plan) -> int:
    """Returns how many channels are kept now that were zeroed last time."""
    if before is None:
        return 0
    return sum(len(set(kept) - set(before.kept[name])) for name, kept in now.kept.items())
