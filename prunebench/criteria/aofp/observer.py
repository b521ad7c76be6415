"""Scores random halves of every layer beside the training, and prunes where nothing is lost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn, optim
from torch.utils.hooks import RemovableHandle

from prunebench.channels import Plan
from prunebench.channels.consumer_gates import ConsumerFactors
from prunebench.contracts import Moment
from prunebench.criteria.aofp.damage import damages, gram
from prunebench.criteria.aofp.edges import Edge, find_edges
from prunebench.criteria.aofp.search import (
    Search,
    greedy,
    mean_damage,
    predicted,
    ridge_damage,
)
from prunebench.errors import PruningError
from prunebench.reproducibility import seed_for
from prunebench.training import distributed

if TYPE_CHECKING:
    from prunebench.contracts import Assignment
    from prunebench.criteria.aofp import Aofp


class AofpObserver:
    """Runs one binary search per layer, all at once, while the network is trained.

    Pruned channels are masked where their consumer reads them, and so are, on a path of their own
    without gradients, the channels of a draw: what lies before is shared with the training, and
    its statistics see nothing of the draws. Several processes draw each their own, and decide alike
    over all draws once a half is over.
    """

    def __init__(self, criterion: Aofp, work: Assignment) -> None:
        """Prepares; the network is looked at when the training starts."""
        self.criterion, self.work = criterion, work
        self.steps = 0  # done
        self.at = (0, 0)  # epoch and step of the forward to come
        self.edges: list[Edge] = []
        self.searches: list[Search] = []
        self.pending: dict[int, list[Tensor]] = {}
        self.inputs: dict[int, Tensor] = {}
        self.outputs: dict[int, Tensor] = {}
        self.handles: list[RemovableHandle] = []

    # -- the protocol of the training loop -------------------------------------------------------

    def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
        """Finds the scoring edges and puts the hooks on.

        Raises:
            PruningError: no group can be scored.
        """
        self.device = next(network.parameters()).device
        self.edges, missing = find_edges(network, self.work.cmap, self.work.groups)
        if missing:
            self.work.log({"stage": "aofp-edges", "not_scored": missing})
        rows = max(self.criterion.draws_per_half, self.criterion.confirm)
        self.searches = [Search.over(edge.group.size, rows, self.device) for edge in self.edges]
        self.factors = ConsumerFactors([edge.group for edge in self.edges])
        require_reachable(self.work, [edge.group.name for edge in self.edges])
        self._share_masks()
        self.factors.attach(network)
        self.handles = [network.register_forward_pre_hook(self._before)]
        for number, edge in enumerate(self.edges):
            take, measure = partial(self._take, number), partial(self._measure, number)
            self.handles.append(edge.consumer.register_forward_pre_hook(take))
            if edge.norm is not None:
                keep = partial(self._keep, number)
                self.handles.append(edge.consumer.register_forward_hook(keep))
            self.handles.append((edge.norm or edge.consumer).register_forward_hook(measure))
        self._live_outputs()

    def after_backward(self, moment: Moment) -> None:
        """Does nothing: scores come from the forward."""

    def after_step(self, moment: Moment) -> bool:
        """Decides where a half is over; True when the limits are met or no layer is searched."""
        last = moment.step + 1 == moment.steps
        self.at = (moment.epoch + 1, 0) if last else (moment.epoch, moment.step + 1)
        self.steps += 1
        for number, search in enumerate(self.searches):
            if not search.frozen and search.draws >= self._wanted(search):
                self._decide(number, search)
                if self._met():
                    return True
        return all(search.frozen for search in self.searches)

    def finished(self) -> None:
        """Takes the hooks off."""
        self.factors.detach()
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def state_dict(self) -> dict[str, Any]:
        """Returns every layer's search and the place."""
        return {
            "steps": self.steps,
            "at": list(self.at),
            "searches": [search.state_dict() for search in self.searches],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned."""
        self.steps, self.at = state["steps"], (state["at"][0], state["at"][1])
        for search, found in zip(self.searches, state["searches"], strict=True):
            search.load_state_dict(found)
        self._share_masks()
        self.factors.refresh()
        self._live_outputs()

    def plan(self) -> Plan:
        """Returns the channels that are left."""
        return self.factors.plan()

    # -- scoring ---------------------------------------------------------------------------------

    def _wanted(self, search: Search) -> int:
        """Returns the number of draws (or batches) after which to decide."""
        if search.trying is not None:
            return self.criterion.confirm
        if self.criterion.estimator == "gram":
            return self.criterion.gram_batches
        return self.criterion.draws_per_half

    def _begins(self, number: int) -> int:
        """Returns the step at which layer `number` is first scored; layers take turns."""
        criterion = self.criterion
        half = criterion.draws_per_half * criterion.score_every // criterion.draws_per_step
        turn = number * (half // len(self.edges)) if criterion.stagger else 0
        return criterion.warmup_steps + turn

    def _before(self, network: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Draws what the layers due at this training step drop."""
        self.pending, self.inputs, self.outputs = {}, {}, {}
        if not network.training:
            return
        for number, search in enumerate(self.searches):
            since = self.steps - self._begins(number)
            if search.frozen or since < 0 or since % self.criterion.score_every:
                continue
            self.pending[number] = self._draw(number, search)

    def _draw(self, number: int, search: Search) -> list[Tensor]:
        """Returns the consumer's input positions that each draw drops; none for a Gram matrix."""
        if self.criterion.estimator == "gram" and search.trying is None:
            return []
        edge, drops = self.edges[number], []
        left = self._wanted(search) - search.draws
        for draw in range(min(self.criterion.draws_per_step, left)):
            source = torch.Generator()
            place = (*self.at, draw, *distributed.own_draws())
            source.manual_seed(seed_for(self.work.seed, "aofp", edge.group.name, *place))
            dropped = search.pick(source)
            search.note(search.draws + draw, dropped)
            where = torch.cat([edge.positions[c] for c in dropped.tolist()])
            drops.append(where.to(self.device, non_blocking=True))
        return drops

    def _take(self, number: int, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Keeps what the consumer reads, masked already."""
        if number in self.pending:
            self.inputs[number] = inputs[0].detach()

    def _keep(self, number: int, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Keeps what the consumer gives to its norm."""
        if number in self.pending:
            self.outputs[number] = output.detach()

    def _measure(self, number: int, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Scores the draws of a layer."""
        if number not in self.pending:
            return
        edge, search, drops = self.edges[number], self.searches[number], self.pending.pop(number)
        z = output.detach()
        seen = (self.inputs.pop(number), self.outputs.pop(number, z), z)
        if drops:
            found = damages(
                edge,
                seen,
                drops,
                self.live[number],
                bn_mode=self.criterion.bn_mode,
                reduction=self.criterion.reduction,
            )
            search.damages[search.draws : search.draws + len(drops)] = found
            search.draws += len(drops)
        else:
            matrix = gram(edge, seen, self.live[number])
            search.gram = matrix if search.gram is None else search.gram + matrix
            search.draws += 1

    def _live_outputs(self) -> None:
        """Finds for every edge which output channels of its consumer count."""
        self.live: list[Tensor | None] = []
        for edge in self.edges:
            owner, classes = edge.outputs
            alive = torch.ones(len(owner), dtype=torch.bool)
            for number in owner[owner >= 0].unique().tolist():
                mine = owner == number
                alive[mine] = self.searches[number].alive[classes[mine]]
            self.live.append(None if bool(alive.all()) else alive.to(self.device))

    def _share_masks(self) -> None:
        self.factors.alive = [search.alive for search in self.searches]

    # -- deciding --------------------------------------------------------------------------------

    def _decide(self, number: int, search: Search) -> None:
        """Ends a half: prunes, narrows, or gives the move up."""
        criterion, edge = self.criterion, self.edges[number]
        searched, size = len(search.space), search.granularity
        confirming = search.trying is not None
        chosen, worst = self._choose(search)
        room = search.width - self.work.floors[edge.group.name]
        passed = worst <= criterion.theta and len(chosen) > 0
        if passed and room > 0 and not confirming and criterion.confirm:
            search.confirm(chosen[:room])
        elif passed and room > 0:
            search.remove(chosen[:room])
            self.factors.refresh()
            self._live_outputs()
        elif room > 0 and len(chosen) > 1:
            self._narrow(search, chosen)
        else:
            search.fails += 1
            search.restart()
        spent = criterion.on_fail == "freeze" and search.fails >= criterion.freeze_after
        search.frozen = spent or search.width <= self.work.floors[edge.group.name]
        row: dict[str, Any] = {"stage": f"aofp-{edge.group.name}-{self.steps}"}
        row |= {"searched": searched, "granularity": size, "damage": worst, "width": search.width}
        row |= {"confirmed": confirming, "passed": passed, "frozen": search.frozen}
        for limit in self.work.limits if passed else ():
            row[limit.unit] = limit.amount(self.plan())
        self.work.log(row)

    def _choose(self, search: Search) -> tuple[Tensor, float]:
        """Returns the channels that would go, least harmful first, and the damage that decides."""
        masks = distributed.rows_of_all(search.masks[: search.draws])
        damage = distributed.rows_of_all(search.damages[: search.draws]).cpu()
        if search.trying is not None:
            return search.trying, float(damage.mean())
        if search.gram is not None:
            joint = distributed.total(search.gram) / (search.draws * distributed.size())
            most = len(search.space) - 1
            return greedy(joint, search.space, max(1, most), self.criterion.theta)
        if self.criterion.estimator == "ridge":
            slopes = ridge_damage(masks, damage, strength=self.criterion.ridge)
            order = slopes[search.space].argsort(stable=True)
            chosen = search.space[order[: search.granularity]]
            return chosen, predicted(masks, damage, slopes, chosen)
        means = mean_damage(masks, damage)[search.space]
        order = means.argsort(stable=True)[: search.granularity]
        return search.space[order], float(means[order].max())

    def _narrow(self, search: Search, chosen: Tensor) -> None:
        """Goes on with the better half; without draws, with the first half of what failed."""
        if self.criterion.estimator == "gram":
            search.confirm(chosen[: len(chosen) // 2])
        else:
            search.narrow(chosen)

    def _met(self) -> bool:
        """Whether every limit is met; never without limits."""
        limits = self.work.limits
        plan = self.plan()
        return bool(limits) and all(limit.amount(plan) <= limit.target for limit in limits)


def require_reachable(work: Assignment, scored: list[str]) -> None:
    """Refuses limits that lie below what the floors of the scored groups allow.

    Raises:
        PruningError: a limit cannot be reached.
    """
    least = Plan({name: range(work.floors[name]) for name in scored})
    for limit in work.limits:
        found = limit.amount(least)
        if found > limit.target:
            raise PruningError(
                f"criterion=aofp can reach {found:,} {limit.unit} at the least with the groups it "
                f"scores, and the budget asks for {limit.target:,}; ask for less"
            )
