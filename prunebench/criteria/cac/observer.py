"""Gates drawn at every training step, an estimate of every channel's effect, gradual removal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
        self.sizes = [group.size for group in work.groups]
        self.gates = Gates(settings, self.sizes, work.seed)
        self.gating, self.threshold = True, 0.0
        self.at = (0, 0)  # epoch and step
        self.draw: Draw | None = None
        self.logits: Tensor | None = None
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

    def before_step(self, epoch: int, step: int) -> None:
        """Notes where the gates are drawn."""
        self.at = (epoch, step)

    def after_backward(self, moment: Moment) -> None:
        """Adds the step to the estimates."""
        if self.draw is None:
            return
        assert self.logits is not None
        with torch.no_grad():
            if self.work.held is None:
                # the gradients are of the mean over the batch; one image's own loss is wanted
                slope = self._slope([gate.grad for gate in self._given()]) * moment.mean_over
                found = outcome(self.logits, moment.labels)
            else:
                slope, found = self._on_held(moment, *self.work.held)
            self.estimator.add(self.draw, slope, found)
        self.draw = self.logits = self.factors.gates = None

    def after_step(self, moment: Moment) -> bool:
        """Removes channels when it is time; the training goes on to its end."""
        step = moment.epoch * moment.steps + moment.step + 1
        if self.gating and self.removal.due(step):
            self._remove(step)
        return False

    def repeats(self, epoch: int, step: int, steps: int) -> bool | None:
        """Returns None while gates are drawn; afterwards nothing is left to do."""
        return None if self.gating else True

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
        """Draws the gates of a training forward."""
        if network.training and self.gating:
            self._open(len(inputs[0]), "cac gates", *self.at)
        else:
            self.factors.gates = None

    def _behind(self, network: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> None:
        """Keeps the logits of a training forward."""
        if self.draw is not None:
            self.logits = logits.detach()

    def _open(self, rows: int, what: str, *place: int) -> None:
        """Draws the gates of a forward of `rows` images, as leaves of its graph."""
        self.draw = self.gates.draw(rows, what, *place, *distributed.own_draws())
        parts = torch.split(self.draw.gates, self.sizes, 1)
        self.factors.gates = [part.clone().requires_grad_() for part in parts]

    def _given(self) -> list[Tensor]:
        """Returns the gates of the latest forward, group by group."""
        assert self.factors.gates is not None
        return self.factors.gates

    def _slope(self, grads: Sequence[Tensor | None]) -> Tensor:
        """Returns the gradients of all gates side by side; 0 where the loss asked none."""
        pairs = zip(self._given(), grads, strict=True)
        return torch.cat([torch.zeros_like(g) if d is None else d for g, d in pairs], 1)

    def _on_held(self, moment: Moment, images: Rows, labels: Tensor) -> tuple[Tensor, Outcome]:
        """Returns slope and outcome of as many held images as the step has, with gates anew.

        In eval mode: running statistics are those of disturbed channels, as these are, and every
        image is on its own. The images come in turns; each process has its own.
        """
        count = min(len(moment.labels), len(labels))
        turn = (moment.epoch * moment.steps + moment.step) * distributed.size() + distributed.rank()
        first = turn % (len(labels) // count) * count
        targets = labels[first : first + count]
        with in_mode(self.network), torch.set_grad_enabled(self.estimator.reads_slope):
            self._open(count, "cac held", moment.epoch, moment.step)
            # not called, since `_before` would close the gates for a forward that is not trained on
            logits = self.network.forward(images[first : first + count])
            grads: Sequence[Tensor | None] = [None] * len(self.sizes)
            if self.estimator.reads_slope:
                loss = functional.cross_entropy(logits.float(), targets, reduction="sum")
                grads = torch.autograd.grad(loss, self._given(), allow_unused=True)
        return self._slope(grads), outcome(logits.detach(), targets)

    def _refresh(self) -> None:
        """Brings what is on the device up to date with the channels left."""
        self.factors.refresh()
        self.gates.alive = torch.cat(self.factors.alive).to(self.device)

    def _require_enough(self) -> None:
        """Refuses a training in which no channel's estimate can become good enough."""
        work, settings = self.work, self.settings
        epochs = min(settings.ema_epochs, settings.end * work.epochs)
        chances = self.gates.chances[1 if settings.estimator == "acc_diff" else 0]
        images = work.images if work.held is None else work.steps * len(work.held[1])
        expected = float(chances.min()) * epochs * min(images, work.images)
        if expected < settings.n_min:
            raise PruningError(
                f"criterion=cac would see the rarest channel disturbed {expected:.0f} times where "
                f"criterion.n_min={settings.n_min} are asked for; lower n_min, or raise "
                "criterion.ema_epochs or recipe.pruning.epochs"
            )

    # -- removal ---------------------------------------------------------------------------------

    def _remove(self, step: int) -> None:
        """Removes channels until the counts are down to the ramp's level at `step`."""
        known, before = self._known(), self.plan()
        plan = self.removal.next_plan(step, before, known, self.threshold)
        row: dict[str, Any] = {"stage": f"removal-{step}"}
        if known.errors is not None:
            row |= {
                "held_back": int(self.removal.still_useful(before, known, self.threshold).sum())
            }
            self.threshold = self.removal.raised(self.threshold, before, plan, known.scores)
            row |= {"threshold": self.threshold}
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


def _estimator(
    settings: CacSettings, channels: int, decay: float, device: torch.device
) -> Estimator:
    """Returns the estimator that the settings name."""
    if settings.estimator == "acc_diff":
        return OnOff(channels, decay, device, kind=settings.score)
    return GateGradient(channels, decay, device, soft=settings.estimator == "igg_soft")
