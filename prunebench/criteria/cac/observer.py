"""Draws gates at every training step, estimates each channel's effect, removes gradually."""

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

    Gates multiply the input of consumers, behind normalisation and activation. They are drawn per
    image (or per batch) and channel: 0 with one probability, U(0, 1) with another, else 1. Once the
    limits are met they are off for good. Removed channels stay masked: their weights get no
    gradient, and changes by momentum and weight decay have no effect.
    """

    def __init__(self, settings: CacSettings, work: Assignment) -> None:
        """Prepares gates and ramp.

        Raises:
            PruningError: the training is too short for the estimates.
        """
        self.settings, self.work = settings, work
        self.factors, self.removal = ConsumerFactors(work.groups), Removal(settings, work)
        self.sizes = self.removal.sizes
        self.gates = Gates(settings, self.sizes, work.seed)
        self.gating, self.threshold = True, 0.0
        self.numbers: Tensor | None = None  # random numbers of the step's gates
        self.draw: Draw | None = None
        self.parts: list[tuple[list[Tensor], Tensor]] = []  # (gates, logits) per part of the batch
        self.in_parts = False
        self.handles: list[RemovableHandle] = []
        self._require_enough()

    # -- the protocol of the training loop -------------------------------------------------------

    def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
        """Attaches the hooks and makes the estimator."""
        self.network, self.device = network, next(network.parameters()).device
        self.gates.to(self.device)
        self.factors.attach(network)
        self._refresh()
        self.handles = [
            network.register_forward_pre_hook(self._set_gates),
            network.register_forward_hook(self._keep_logits),
        ]
        decay = 1 - 1 / max(1.0, self.settings.ema_epochs * self.work.steps)
        self.estimator = _estimator(self.settings, sum(self.sizes), decay, self.device)

    def before_step(self, epoch: int, step: int, images: int) -> None:
        """Draws the random numbers of the step's gates."""
        if self.gating:
            self.numbers = self._draw_numbers(images, "cac gates", epoch, step)

    def after_backward(self, moment: Moment) -> None:
        """Adds the step to the estimates."""
        if not self.gating:
            return
        with torch.no_grad():
            if self.work.held is None:
                draw, slope, found = self._on_batch(moment)
            else:
                draw, slope, found = self._on_held(moment, *self.work.held)
            # a loss scale too large for float16 gives infinities: the optimizer skips it, too
            if moment.scale == 1 or bool(slope.isfinite().all()):
                self.estimator.add(draw, slope, found)
        self.draw, self.parts, self.factors.gates = None, [], None

    def after_step(self, moment: Moment) -> bool:
        """Removes channels when they are due; the training always goes on to its end."""
        step = moment.epoch * moment.steps + moment.step + 1
        if self.gating and self.removal.due(step):
            self._remove(step)
        return False

    def repeats(self, epoch: int, step: int, steps: int) -> Hashable | None:
        """Returns what a recorded step depends on: gates, or else which masks there are.

        None (not recorded) where channels may go, where held-out images are used, and where batches
        run in parts: if a recording broke off there, later parts would not know their images.
        """
        if not (self.gating and self.network.training):
            return self.factors.masked()
        due = self.removal.due(epoch * steps + step + 1)
        return None if due or self.in_parts or self.work.held is not None else "gates"

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Gives batch norms statistics of the undisturbed network within the block.

        While gates are on, running statistics are those of disturbed channels; they are restored.
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
        """Removes the hooks."""
        self.factors.detach()
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums of the estimates, the channels left, and gates and threshold."""
        return {
            "sums": dict(self.estimator.sums),
            "alive": list(self.factors.alive),
            "gating": self.gating,
            "threshold": self.threshold,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        for name, value in state["sums"].items():
            self.estimator.sums[name].copy_(value)
        self.factors.alive = [alive.cpu().clone() for alive in state["alive"]]
        self._refresh()
        self.gating, self.threshold = state["gating"], state["threshold"]

    def plan(self) -> Plan:
        """Returns the plan that keeps the channels that are left."""
        return self.factors.plan()

    def counts(self) -> dict[str, dict[str, int]]:
        """Returns nothing: the rows of the log hold all counts."""
        return {}

    # -- gates -----------------------------------------------------------------------------------

    def _set_gates(self, network: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Sets the gates of a training forward, for the whole batch or its next part."""
        self.factors.gates = None
        if not (network.training and self.gating):
            return
        assert self.numbers is not None
        rows, images = len(inputs[0]), self.numbers.size(1)
        if self.draw is None or rows == images:  # drop the draw of a recording that broke off
            self.draw, self.parts = self.gates.draw(self.numbers), []
        self.in_parts = self.in_parts or rows < images
        first = sum(len(logits) for _, logits in self.parts)
        self.factors.gates = self._opened(self.draw.gates[first : first + rows])

    def _keep_logits(self, network: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> None:
        """Keeps the gates and logits of a training forward."""
        if self.factors.gates is not None:
            self.parts.append((self.factors.gates, logits.detach()))

    def _draw_numbers(self, rows: int, what: str, *place: int) -> Tensor:
        """Returns random numbers for the gates of `rows` images of this process."""
        return self.gates.numbers(rows, what, *place, *distributed.own_draws())

    def _opened(self, gates: Tensor) -> list[Tensor]:
        """Returns `gates` [N, C] split by group, as leaves that require gradients."""
        return [part.clone().requires_grad_() for part in torch.split(gates, self.sizes, 1)]

    def _on_batch(self, moment: Moment) -> tuple[Draw, Tensor, Outcome]:
        """Returns draw, slope and outcome of the images of the step."""
        assert self.draw is not None
        slopes = [_slope(gates, [gate.grad for gate in gates]) for gates, _ in self.parts]
        logits = torch.cat([logits for _, logits in self.parts])
        # gradients are of the scaled mean over the batch; wanted are those of each image's own loss
        slope = torch.cat(slopes) * (moment.mean_over / moment.scale)
        return self.draw, slope, outcome(logits, moment.labels)

    def _on_held(
        self, moment: Moment, images: Rows, labels: Tensor
    ) -> tuple[Draw, Tensor, Outcome]:
        """Returns draw, slope and outcome of as many held-out images as the step has.

        The forward runs in eval mode: running statistics are those of disturbed channels, which
        suits gated images, and images do not interact. Images take turns; each process has its own.
        """
        count = min(len(moment.labels), len(labels))
        turn = (moment.epoch * moment.steps + moment.step) * distributed.size() + distributed.rank()
        first = turn % (len(labels) // count) * count
        targets = labels[first : first + count]
        with in_mode(self.network), torch.set_grad_enabled(self.estimator.reads_slope):
            draw = self.gates.draw(self._draw_numbers(count, "cac held", moment.epoch, moment.step))
            self.factors.gates = gates = self._opened(draw.gates)
            # forward() skips the hook `_set_gates`, which removes gates outside of training
            logits = self.network.forward(images[first : first + count])
            grads: Sequence[Tensor | None] = [None] * len(gates)
            if self.estimator.reads_slope:
                loss = functional.cross_entropy(logits.float(), targets, reduction="sum")
                grads = torch.autograd.grad(loss, gates, allow_unused=True)
        return draw, _slope(gates, grads), outcome(logits.detach(), targets)

    def _refresh(self) -> None:
        """Copies which channels are left to the device, in place."""
        self.factors.refresh()
        self.gates.alive.copy_(torch.cat(self.factors.alive))

    def _require_enough(self) -> None:
        """Raises if the training is too short for some channel to be disturbed `n_min` times."""
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
        """Removes channels until the counts reach the ramp's level at `step`, and logs it."""
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
        """Returns the estimates so far, with standard errors if `evidence` needs them."""
        scores, seen = (value.cpu() for value in self.estimator.scores())
        asked = self.settings.evidence is not None
        return Estimates(scores, seen, self.estimator.errors().cpu() if asked else None)


def _slope(gates: Sequence[Tensor], grads: Sequence[Tensor | None]) -> Tensor:
    """Returns the gradients of all `gates` side by side; 0 where the loss does not depend on it."""
    pairs = zip(gates, grads, strict=True)
    return torch.cat([torch.zeros_like(g) if d is None else d for g, d in pairs], 1)


def _estimator(
    settings: CacSettings, channels: int, decay: float, device: torch.device
) -> Estimator:
    """Returns the estimator that the settings name."""
    if settings.estimator == "acc_diff":
        return OnOff(channels, decay, device, kind=settings.score)
    return GateGradient(channels, decay, device, soft=settings.estimator == "igg_soft")
