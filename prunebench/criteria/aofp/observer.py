"""Scores random halves of every layer during training, and prunes those that do no damage."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.utils.hooks import RemovableHandle

from prunebench.channels import Plan
from prunebench.channels.consumer_gates import ConsumerFactors
from prunebench.contracts import Assignment, Moment, PruningObserver, RepeatingObserver
from prunebench.criteria.aofp.damage import damages, gram, of_some
from prunebench.criteria.aofp.decide import Decision, decide, met, require_reachable, wanted
from prunebench.criteria.aofp.draws import Draws
from prunebench.criteria.aofp.edges import Edge, find_edges
from prunebench.criteria.aofp.search import Search
from prunebench.criteria.aofp.settings import AofpSettings
from prunebench.reproducibility import seed_for
from prunebench.training import distributed
from prunebench.training.synchronised import is_synchronised


class AofpObserver(PruningObserver, RepeatingObserver):
    """Runs one binary search per layer, all at once, while the network is trained.

    Pruned channels are masked where their consumer reads them. So are the channels of a draw, but
    on a separate path without gradients: all layers before are shared with the training, whose
    running statistics see nothing of the draws. Each process makes its own draws; once a half is
    over, all decide alike from all draws. Draws belong to a step: of a batch that runs in parts
    (`accumulate`) the first part is scored.

    Attributes:
        drawn: layer -> rows of this step's draws, and what each drops (see `Draws.drop`), on the
            device; empty for a layer that adds to its Gram matrix instead.
        pending: the draws that no forward has scored yet.
        scoring: the draws that the running forward scores.
    """

    def __init__(self, settings: AofpSettings, work: Assignment) -> None:
        """Stores settings and work; `start` looks at the network."""
        self.settings, self.work = settings, work
        self.at = (0, -1)  # epoch and step
        self.edges: list[Edge] = []
        self.searches: list[Search] = []
        self.live: list[Tensor | None] = []
        self.drawn: dict[int, list[Tensor]] = {}
        self.pending: dict[int, list[Tensor]] = {}
        self.scoring: dict[int, list[Tensor]] = {}
        self.inputs: dict[int, Tensor] = {}
        self.outputs: dict[int, Tensor] = {}
        self.handles: list[RemovableHandle] = []
        self.tallies: dict[str, dict[str, int]] = {}  # group name -> see `counts`

    # -- the protocol of the training loop -------------------------------------------------------

    def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
        """Finds the scoring edges and puts the hooks on.

        Raises:
            PruningError: a group cannot be scored.
        """
        self.device = next(network.parameters()).device
        self.edges = find_edges(network, self.work.cmap, self.work.groups)
        rows = max(self.settings.draws_per_half, self.settings.confirm)
        self.searches = [Search.over(edge.group.size, rows, self.device) for edge in self.edges]
        self.draws = Draws(self.edges, min(rows, self.settings.draws_per_step), self.device)
        self.factors = ConsumerFactors([edge.group for edge in self.edges])
        require_reachable(self.work, [edge.group.name for edge in self.edges])
        self.factors.alive = [search.alive for search in self.searches]
        self.factors.attach(network)
        self.handles = [network.register_forward_pre_hook(self._open_scoring)]
        for number, edge in enumerate(self.edges):
            take, measure = partial(self._keep_input, number), partial(self._measure, number)
            self.handles.append(edge.consumer.register_forward_pre_hook(take))
            if edge.norm is not None:
                keep = partial(self._keep_output, number)
                self.handles.append(edge.consumer.register_forward_hook(keep))
            self.handles.append((edge.norm or edge.consumer).register_forward_hook(measure))
        self.live = [None for _ in self.edges]
        self._live_outputs()

    def before_step(self, epoch: int, step: int, images: int) -> None:
        """Makes the draws of the layers that are due, and copies them to the device."""
        if self.at != (epoch, step):  # else the step is repeated, with the same draws
            self.at = (epoch, step)
            due = [n for n in range(len(self.edges)) if self._is_due(n, self._step())]
            self.drawn = self.draws.bring({n: self._draw(n, self.searches[n]) for n in due})
        self.pending = self.drawn

    def after_step(self, moment: Moment) -> bool:
        """Decides where a half is over; True when the limits are met or no layer is searched."""
        for number, search in enumerate(self.searches):
            if self._is_over(search):
                self._decide(number, search, self._step() + 1)
                if met(self.work.limits, self.plan()):
                    return True
        return all(search.frozen for search in self.searches)

    def validating(self) -> AbstractContextManager[None]:
        """Forgets the last step's draws, which a replayed step leaves pending."""
        self.drawn = self.pending = {}
        return nullcontext()

    def repeats(self, epoch: int, step: int, steps: int) -> Hashable | None:
        """Returns what a recorded step depends on: which layers are masked, and sizes of draws.

        The masks also tell which outputs count. None where a half ends or a layer adds to its Gram
        matrix: such steps are not recorded.
        """
        if any(map(self._is_over, self.searches)) or not all(self.drawn.values()):
            return None
        sizes = tuple((number, *map(len, parts)) for number, parts in self.drawn.items())
        return self.factors.masked(), sizes

    def finished(self) -> None:
        """Removes the hooks."""
        self.factors.detach()
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def state_dict(self) -> dict[str, Any]:
        """Returns every layer's search."""
        return {
            "tallies": self.tallies,
            "searches": [search.state_dict() for search in self.searches],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.tallies = {name: dict(tally) for name, tally in state["tallies"].items()}
        for search, found in zip(self.searches, state["searches"], strict=True):
            search.load_state_dict(found)
        self.factors.refresh()
        self._live_outputs()

    def plan(self) -> Plan:
        """Returns the plan that keeps the channels that are left."""
        return self.factors.plan()

    def counts(self) -> dict[str, dict[str, int]]:
        """Returns the cost of the search of every layer that came to a decision.

        ``halves``: number of halves; ``passed``: those with small enough damage; ``least_draws``:
        fewest draws behind a channel in any half; ``milliseconds``: scoring in this process (on a
        GPU only the time to launch it, and only at steps that are not replayed).
        """
        return self.tallies

    # -- scoring ---------------------------------------------------------------------------------

    def _step(self) -> int:
        """Returns the number of steps before this one."""
        return self.at[0] * self.work.steps + self.at[1]

    def _begins(self, number: int) -> int:
        """Returns the step at which layer `number` is first scored; staggered layers take turns."""
        settings = self.settings
        half = settings.draws_per_half * settings.score_every // settings.draws_per_step
        turn = number * (half // len(self.edges)) if settings.stagger else 0
        return settings.warmup_steps + turn

    def _is_due(self, number: int, step: int) -> bool:
        """Whether layer `number` is scored at `step` of the training."""
        since = step - self._begins(number)
        due = since >= 0 and since % self.settings.score_every == 0
        return due and not self.searches[number].frozen

    def _is_over(self, search: Search) -> bool:
        """Whether the layer's half has all its draws."""
        return not search.frozen and search.draws >= wanted(self.settings, search)

    def _draw(self, number: int, search: Search) -> list[Tensor]:
        """Makes and counts the draws of a step.

        Returns:
            Their rows, and per draw what it drops; empty for a Gram matrix.
        """
        if self.settings.estimator == "gram" and search.trying is None:
            search.draws += 1
            return []
        first, drops = search.draws, []
        left = wanted(self.settings, search) - first
        # two draws of the same channels on the same images would be one
        most = 1 if search.trying is not None else self.settings.draws_per_step
        for draw in range(min(most, left)):
            source = torch.Generator()
            place = (*self.at, draw, *distributed.own_draws())
            name = self.edges[number].group.name
            source.manual_seed(seed_for(self.work.seed, "aofp", name, *place))
            dropped = search.pick(source)
            search.note(search.draws, dropped)
            search.draws += 1
            drops.append(self.draws.drop(number, dropped))
        return [torch.arange(first, search.draws), *drops]

    def _open_scoring(self, network: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Moves the pending draws to the step's first training forward, which scores them."""
        self.inputs, self.outputs, self.scoring = {}, {}, {}
        if network.training:
            self.scoring, self.pending = dict(self.pending), {}

    def _keep_input(self, number: int, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Keeps the consumer's input, masked already."""
        if number in self.scoring:
            self.inputs[number] = inputs[0].detach()

    def _keep_output(self, number: int, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Keeps the consumer's output, which its norm reads."""
        if number in self.scoring:
            self.outputs[number] = output.detach()

    def _measure(self, number: int, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Scores the draws of layer `number`."""
        if number not in self.scoring:
            return
        began = perf_counter()
        edge, search = self.edges[number], self.searches[number]
        z = output.detach()
        seen = (self.inputs.pop(number), self.outputs.pop(number, z), z)
        some = self.settings.score_samples
        if edge.norm is not None and is_synchronised(edge.norm):
            some = some or len(z)  # so that both paths use statistics of this process's images only
        if some is not None:
            seen = of_some(edge, seen, some)
        match self.scoring.pop(number):
            case [rows, *drops]:
                found = damages(
                    edge,
                    seen,
                    drops,
                    self.live[number],
                    bn_mode=self.settings.bn_mode,
                    reduction=self.settings.reduction,
                )
                search.damages.index_copy_(0, rows, found)
            case _:
                matrix = gram(edge, seen, self.live[number])
                search.gram = matrix if search.gram is None else search.gram + matrix
        search.seconds += perf_counter() - began

    def _live_outputs(self) -> None:
        """Updates, in place, which output channels of each edge's consumer are not pruned."""
        for edge_number, edge in enumerate(self.edges):
            owner, classes = edge.outputs
            alive = torch.ones(len(owner), dtype=torch.bool)
            for number in owner[owner >= 0].unique().tolist():
                mine = owner == number
                alive[mine] = self.searches[number].alive[classes[mine]]
            known = self.live[edge_number]
            if known is not None:
                known.copy_(alive)
            elif not bool(alive.all()):
                self.live[edge_number] = alive.to(self.device)

    # -- deciding --------------------------------------------------------------------------------

    def _decide(self, number: int, search: Search, steps: int) -> None:
        """Ends a half after `steps` steps: decides, masks what goes, and logs it."""
        name, before = self.edges[number].group.name, search.width
        decision = decide(self.settings, search, floor=self.work.floors[name])
        if decision.width < before:
            self.factors.refresh()
            self._live_outputs()
        self._tally(name, decision)
        row: dict[str, Any] = {"stage": f"aofp-{name}-{steps}", **asdict(decision)}
        for limit in self.work.limits if decision.passed else ():
            row[limit.unit] = limit.amount(self.plan())
        self.work.log(row)

    def _tally(self, name: str, decision: Decision) -> None:
        """Adds a half to the counts of its layer."""
        least = decision.least_draws
        known = self.tallies.get(name, {"halves": 0, "passed": 0, "least_draws": least})
        self.tallies[name] = {
            "halves": known["halves"] + 1,
            "passed": known["passed"] + int(decision.passed),
            "least_draws": min(known["least_draws"], least),
            "milliseconds": known.get("milliseconds", 0) + round(1000 * decision.seconds),
        }
