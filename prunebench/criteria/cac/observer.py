"""Gates drawn at every training step, an estimate of every channel's effect, gradual removal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.utils.hooks import RemovableHandle

from prunebench.channels import Plan
from prunebench.channels.consumer_gates import ConsumerFactors
from prunebench.contracts import Assignment, Moment
from prunebench.criteria.cac.estimators import Draw, Estimator, GateGradient, OnOff, outcome
from prunebench.criteria.cac.removal import Removal
from prunebench.criteria.cac.settings import CacSettings
from prunebench.errors import PruningError
from prunebench.reproducibility import seed_for
from prunebench.training import distributed

#: below this width the expected number of perturbed channels per image is capped at 1
NARROW = 16


class CacObserver:
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
        self.gating = True
        self.at = (0, 0)  # epoch and step of the forward to come
        self.draw: Draw | None = None
        self.logits: Tensor | None = None
        self.handles: list[RemovableHandle] = []
        self._require_enough()

    # -- the protocol of the training loop -------------------------------------------------------

    def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
        """Puts the hooks on."""
        self.device = next(network.parameters()).device
        self.factors.attach(network)
        self._refresh()
        self.handles = [
            network.register_forward_pre_hook(self._before),
            network.register_forward_hook(self._behind),
        ]
        self.chances = self._chances().to(self.device)
        decay = 1 - 1 / max(1.0, self.settings.ema_epochs * self.work.steps)
        self.estimator = _estimator(self.settings, sum(self.sizes), decay, self.device)

    def after_backward(self, moment: Moment) -> None:
        """Adds the step to the estimates."""
        if self.draw is None:
            return
        assert self.factors.gates is not None
        assert self.logits is not None
        with torch.no_grad():
            # the gradients are of the mean over the batch; one image's own loss is wanted
            slope = (
                torch.cat(
                    [torch.zeros_like(g) if g.grad is None else g.grad for g in self.factors.gates],
                    1,
                )
                * moment.mean_over
            )
            self.estimator.add(self.draw, slope, outcome(self.logits, moment.labels))
        self.draw = self.logits = self.factors.gates = None

    def after_step(self, moment: Moment) -> bool:
        """Removes channels when it is time; the training goes on to its end."""
        step = moment.epoch * moment.steps + moment.step + 1
        last = moment.step + 1 == moment.steps
        self.at = (moment.epoch + 1, 0) if last else (moment.epoch, moment.step + 1)
        if self.gating and self.removal.due(step):
            self._remove(step)
        return False

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
            "at": list(self.at),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned."""
        for name, value in state["sums"].items():
            self.estimator.sums[name].copy_(value)
        self.factors.alive = [alive.cpu().clone() for alive in state["alive"]]
        self._refresh()
        self.gating = state["gating"]
        self.at = (state["at"][0], state["at"][1])

    def plan(self) -> Plan:
        """Returns the channels that are left."""
        return self.factors.plan()

    # -- gates -----------------------------------------------------------------------------------

    def _before(self, network: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Draws the gates of a training forward."""
        if not (network.training and self.gating):
            self.factors.gates = None
            return
        source = torch.Generator(self.device)
        draws = (*self.at, *distributed.own_draws())
        source.manual_seed(seed_for(self.work.seed, "cac gates", *draws))
        rows = 1 if self.settings.scope == "batch" else len(inputs[0])
        draw = draw_gates(self.chances, self.alive, rows, source)
        if rows != len(inputs[0]):
            wide = (len(inputs[0]), -1)
            draw = Draw(draw.gates.expand(wide), draw.uniform.expand(wide), draw.off.expand(wide))
        self.draw = draw
        parts = torch.split(draw.gates, self.sizes, 1)
        self.factors.gates = [part.clone().requires_grad_() for part in parts]

    def _behind(self, network: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> None:
        """Keeps the logits of a training forward."""
        if self.draw is not None:
            self.logits = logits.detach()

    def _refresh(self) -> None:
        """Brings what is on the device up to date with the channels left."""
        self.factors.refresh()
        self.alive = torch.cat(self.factors.alive).to(self.device)

    def _chances(self) -> Tensor:
        """Returns the probabilities of U(0, 1) and of 0 for every channel [2, C]."""
        wanted = torch.tensor([self.settings.p_uniform, self.settings.p_off])
        parts = []
        for size in self.sizes:
            perturbed = float(wanted.sum()) * size
            scale = 1 / perturbed if size < NARROW and perturbed > 1 else 1.0
            parts.append((wanted * scale)[:, None].expand(2, size))
        return torch.cat(parts, 1)

    def _require_enough(self) -> None:
        """Refuses a training in which no channel's estimate can become good enough."""
        work, settings = self.work, self.settings
        epochs = min(settings.ema_epochs, settings.end * work.epochs)
        chances = self._chances()[1 if settings.estimator == "acc_diff" else 0]
        expected = float(chances.min()) * epochs * work.images
        if expected < settings.n_min:
            raise PruningError(
                f"criterion=cac would see the rarest channel disturbed {expected:.0f} times where "
                f"criterion.n_min={settings.n_min} are asked for; lower n_min, or raise "
                "criterion.ema_epochs or recipe.pruning.epochs"
            )

    # -- removal ---------------------------------------------------------------------------------

    def _remove(self, step: int) -> None:
        """Removes channels until the counts are down to the ramp's level at `step`."""
        scores, seen = (value.cpu() for value in self.estimator.scores())
        before = self.plan()
        plan = self.removal.next_plan(step, before, scores, seen)
        for group, alive in zip(self.work.groups, self.factors.alive, strict=True):
            alive.zero_()
            alive[list(plan.kept[group.name])] = True
        self._refresh()
        self.gating = not self.removal.met(plan)
        if plan != before or not self.gating:
            row = {"stage": f"removal-{step}", "gates": self.gating}
            self.work.log({**row, **self.removal.row(plan)})


def draw_gates(chances: Tensor, alive: Tensor, rows: int, source: torch.Generator) -> Draw:
    """Returns gates for `rows` images.

    Args:
        chances: probabilities of U(0, 1) and of 0 [2, C].
        alive: bool [C]; the gate of any other channel is 0 and counts for nothing.
        rows: number of images.
        source: generator, on the device of the others.
    """
    where, value = torch.rand(
        2, rows, alive.numel(), generator=source, device=alive.device
    ).unbind()
    uniform = (where < chances[0]) & alive
    off = (where >= chances[0]) & (where < chances.sum(0)) & alive
    gates = torch.where(uniform, value, (~off).float()) * alive
    return Draw(gates, uniform, off)


def _estimator(
    settings: CacSettings, channels: int, decay: float, device: torch.device
) -> Estimator:
    """Returns the estimator that the settings name."""
    if settings.estimator == "acc_diff":
        return OnOff(channels, decay, device, kind=settings.score)
    return GateGradient(channels, decay, device, soft=settings.estimator == "igg_soft")
