"""Gates drawn at every training step, an estimate of every channel's effect, gradual removal."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from prunebench.channels import Plan, in_mode
from prunebench.channels.consumer_gates import ConsumerFactors
from prunebench.contracts import Assignment, Moment, PruningObserver, RepeatingObserver, Rows
from prunebench.criteria.cac.estimators import (
    Draw,
    Estimator,
    GateGradient,
    OnOff,
    Outcome,
    outcome,
)
from prunebench.criteria.cac.gates import Gates
from prunebench.criteria.cac.removal import Estimates, Removal
from prunebench.criteria.cac.settings import CacSettings
from prunebench.errors import PruningError
from prunebench.repairs.bn_recalibration import relearn_statistics
from prunebench.training import distributed

#: images per batch that batch norms learn the undisturbed statistics from
RELEARN_BATCH = 128


class CacObserver(PruningObserver, RepeatingObserver):
    """Draws gates, estimates, and removes the least useful channels along a cubic ramp.

    Gates sit where consumers read, which is behind normalisation and activation. They are drawn
    per image (or per batch) and channel: 0 with one probability, U(0, 1) with another, else 1.
    Once the limits are met they are off for good. Removed channels stay masked; their weights get
    no gradient, and what momentum and decay still do to them nobody reads.
    """

    def __init__(self, settings: CacSettings, work: Assignment) -> None:
        """Prepares; nothing is drawn before the first step.

        Raises:
            PruningError: the training is too short for the estimates.
        """
        self.settings, self.work = settings, work
        self.factors, self.removal = ConsumerFactors(work.groups), Removal(settings, work)
        self.sizes = self.removal.sizes
        self.gates = Gates(settings, self.sizes, work.seed)
        self.gating, self.threshold = True, 0.0
        self.numbers: Tensor | None = None  # of the step's gates
        self.draw: Draw | None = None
        self.parts: list[tuple[list[Tensor], Tensor]] = []  # of the batch: gates and logits
        self.in_parts = False
        self.handles: list[RemovableHandle] = []
        self._require_enough()

    # -- the protocol of the training loop -------------------------------------------------------

    def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
        """Puts the hooks on."""
        self.network, self.device = network, next(network.parameters()).device
        self.gates.to(self.device)
        self.factors.attach(network)
        self._refresh()
        self.handles = [
            network.register_forward_pre_hook(self._before),
            network.register_forward_hook(self._behind),
        ]
        decay = 1 - 1 / max(1.0, self.settings.ema_epochs * self.work.steps)
        self.estimator = _estimator(self.settings, sum(self.sizes), decay, self.device)

    def before_step(self, epoch: int, step: int, images: int) -> None:
        """Draws what the step makes its gates of."""
        if self.gating:
            self.numbers = self._numbers(images, "cac gates", epoch, step)

    def after_backward(self, moment: Moment) -> None:
        """Adds the step to the estimates."""
        if not self.gating:
            return
        with torch.no_grad():
            if self.work.held is None:
                draw, slope, found = self._on_batch(moment)
            else:
                draw, slope, found = self._on_held(moment, *self.work.held)
            # a scale too large for float16 makes infinities; the weights skip such a step, too
            if moment.scale == 1 or bool(slope.isfinite().all()):
                self.estimator.add(draw, slope, found)
        self.draw, self.parts, self.factors.gates = None, [], None

    def after_step(self, moment: Moment) -> bool:
        """Removes channels when it is time; the training goes on to its end."""
        step = moment.epoch * moment.steps + moment.step + 1
        if self.gating and self.removal.due(step):
            self._remove(step)
        return False

    def repeats(self, epoch: int, step: int, steps: int) -> Hashable | None:
        """Returns what the network is multiplied by: gates, or else the masks that there are.

        None where channels may go, where held images are looked at, and where batches go through in
        parts: should a recording break off there, the parts after it would not know their places.
        """
        if not (self.gating and self.network.training):
            return self.factors.masked()
        due = self.removal.due(epoch * steps + step + 1)
        return None if due or self.in_parts or self.work.held is not None else "gates"

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Lets batch norms see the undisturbed network while the gates are on, and takes it back.

        Running statistics are those of disturbed channels until then.
        """
        if not self.gating or self.work.shown is None:
            yield
            return
        buffers = {name: value.clone() for name, value in self.network.named_buffers()}
        images, network = self.work.shown, self.network
        relearn_statistics(network, network, images, count=len(images), batch=RELEARN_BATCH)
        yield
        for name, value in self.network.named_buffers():
            value.copy_(buffers[name])

    def finished(self) -> None:
        """Takes the hooks off."""
        self.factors.detach()
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums of the estimates, the channels left and the place."""
        return {
            "sums": dict(self.estimator.sums),
            "alive": list(self.factors.alive),
            "gating": self.gating,
            "threshold": self.threshold,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned."""
        for name, value in state["sums"].items():
            self.estimator.sums[name].copy_(value)
        self.factors.alive = [alive.cpu().clone() for alive in state["alive"]]
        self._refresh()
        self.gating, self.threshold = state["gating"], state["threshold"]

    def plan(self) -> Plan:
        """Returns the channels that are left."""
        return self.factors.plan()

    def counts(self) -> dict[str, dict[str, int]]:
        """Returns nothing: rows of the log have it."""
        return {}

    # -- gates -----------------------------------------------------------------------------------

    def _before(self, network: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Opens the gates of a training forward, of the whole batch or its next part."""
        self.factors.gates = None
        if not (network.training and self.gating):
            return
        assert self.numbers is not None
        rows, images = len(inputs[0]), self.numbers.size(1)
        if self.draw is None or rows == images:  # a recording that broke off left its own behind
            self.draw, self.parts = self.gates.draw(self.numbers), []
        self.in_parts = self.in_parts or rows < images
        first = sum(len(logits) for _, logits in self.parts)
        self.factors.gates = self._opened(self.draw.gates[first : first + rows])

    def _behind(self, network: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> None:
        """Keeps the gates and logits of a training forward."""
        if self.factors.gates is not None:
            self.parts.append((self.factors.gates, logits.detach()))

    def _numbers(self, rows: int, what: str, *place: int) -> Tensor:
        """Returns random numbers for the gates of `rows` images of this process."""
        return self.gates.numbers(rows, what, *place, *distributed.own_draws())

    def _opened(self, gates: Tensor) -> list[Tensor]:
        """Returns `gates` [N, C] group by group, as leaves of a graph."""
        return [part.clone().requires_grad_() for part in torch.split(gates, self.sizes, 1)]

    def _on_batch(self, moment: Moment) -> tuple[Draw, Tensor, Outcome]:
        """Returns gates, slope and outcome of the images of the step."""
        assert self.draw is not None
        slopes = [_slope(gates, [gate.grad for gate in gates]) for gates, _ in self.parts]
        logits = torch.cat([logits for _, logits in self.parts])
        # the gradients are of the mean over the batch; one image's own loss is wanted
        slope = torch.cat(slopes) * (moment.mean_over / moment.scale)
        return self.draw, slope, outcome(logits, moment.labels)

    def _on_held(
        self, moment: Moment, images: Rows, labels: Tensor
    ) -> tuple[Draw, Tensor, Outcome]:
        """Returns gates, slope and outcome of as many held images as the step has.

        In eval mode: running statistics are those of disturbed channels, as these are, and every
        image is on its own. The images come in turns; each process has its own.
        """
        count = min(len(moment.labels), len(labels))
        turn = (moment.epoch * moment.steps + moment.step) * distributed.size() + distributed.rank()
        first = turn % (len(labels) // count) * count
        targets = labels[first : first + count]
        with in_mode(self.network), torch.set_grad_enabled(self.estimator.reads_slope):
            draw = self.gates.draw(self._numbers(count, "cac held", moment.epoch, moment.step))
            self.factors.gates = gates = self._opened(draw.gates)
            # not called, since `_before` would close the gates for a forward that is not trained on
            logits = self.network.forward(images[first : first + count])
            grads: Sequence[Tensor | None] = [None] * len(gates)
            if self.estimator.reads_slope:
                loss = functional.cross_entropy(logits.float(), targets, reduction="sum")
                grads = torch.autograd.grad(loss, gates, allow_unused=True)
        return draw, _slope(gates, grads), outcome(logits.detach(), targets)

    def _refresh(self) -> None:
        """Brings what is on the device up to date with the channels left, in place."""
        self.factors.refresh()
        self.gates.alive.copy_(torch.cat(self.factors.alive))

    def _require_enough(self) -> None:
        """Refuses a training in which no channel's estimate can become good enough."""
        work, settings = self.work, self.settings
        epochs = min(settings.ema_epochs, settings.end * work.epochs)
        chances = self.gates.chances[1 if settings.estimator == "acc_diff" else 0]
        images = work.images if work.held is None else work.steps * len(work.held[1])
        expected = float(chances.min()) * epochs * min(images, work.images)
        if expected < settings.n_min:
            raise PruningError(
                f"criterion=cac would see the rarest channel disturbed {expected:.0f} times, below "
                f"criterion.n_min={settings.n_min}; lower n_min, or raise "
                "criterion.ema_epochs or recipe.pruning.epochs"
            )

    # -- removal ---------------------------------------------------------------------------------

    def _remove(self, step: int) -> None:
        """Removes channels until the counts are down to the ramp's level at `step`."""
        known, before = self._known(), self.plan()
        plan = self.removal.next_plan(step, before, known, self.threshold)
        row: dict[str, Any] = {"stage": f"removal-{step}"}
        if known.errors is not None:
            row["held_back"] = int(self.removal.still_useful(before, known, self.threshold).sum())
            self.threshold = self.removal.raised(self.threshold, before, plan, known.scores)
            row["threshold"] = self.threshold
        for group, alive in zip(self.work.groups, self.factors.alive, strict=True):
            alive.zero_()
            alive[list(plan.kept[group.name])] = True
        self._refresh()
        self.gating = not self.removal.met(plan)
        if plan != before or not self.gating:
            self.work.log({**row, "gates": self.gating, **self.removal.row(plan)})

    def _known(self) -> Estimates:
        """Returns the estimates so far, with standard errors where somebody asks."""
        scores, seen = (value.cpu() for value in self.estimator.scores())
        asked = self.settings.evidence is not None
        return Estimates(scores, seen, self.estimator.errors().cpu() if asked else None)


def _slope(gates: Sequence[Tensor], grads: Sequence[Tensor | None]) -> Tensor:
    """Returns the gradients of all `gates` side by side; 0 where the loss asked none."""
    pairs = zip(gates, grads, strict=True)
    return torch.cat([torch.zeros_like(g) if d is None else d for g, d in pairs], 1)


def _estimator(
    settings: CacSettings, channels: int, decay: float, device: torch.device
) -> Estimator:
    """Returns the estimator that the settings name."""
    if settings.estimator == "acc_diff":
        return OnOff(channels, decay, device, kind=settings.score)
    return GateGradient(channels, decay, device, soft=settings.estimator == "igg_soft")
