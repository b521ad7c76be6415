"""Adds up loss and accuracy over an epoch without waiting for the device at every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prunebench.training import distributed

#: value of `bad_step` while every loss was finite
NEVER = 2**62


class Tally:
    """Holds sums over an epoch, kept on the device and read once.

    Attributes:
        loss: sum over the images.
        correct: number of images classified correctly.
        bad_step: the first step whose loss was not finite.
        seen: number of images.
    """

    def __init__(self, device: torch.device) -> None:
        """Starts at zero."""
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.loss = torch.zeros((), dtype=exact, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.bad_step = torch.full((), NEVER, dtype=torch.int64, device=device)
        self.seen = 0

    def add(self, step: int | Tensor, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Adds a step's detached mean loss and correct answers; the caller updates `seen`.

        It works in place and only on the device, so that it can be recorded.
        """
        self.loss += loss * len(labels)
        self.correct += (logits.argmax(1) == labels).sum()
        # x - x is NaN for NaN and infinity, else 0; `isfinite` would be four operations
        bad = self.bad_step.clamp(max=step)
        self.bad_step.copy_(torch.where(loss - loss == 0, self.bad_step, bad))

    def clear(self) -> None:
        """Resets everything to zero."""
        self.loss.zero_()
        self.correct.zero_()
        self.bad_step.fill_(NEVER)
        self.seen = 0

    def over_all(self) -> Tally:
        """Returns a tally of the sums over all processes."""
        whole = Tally(self.loss.device)
        whole.loss, whole.correct = distributed.total(self.loss), distributed.total(self.correct)
        whole.bad_step = distributed.lowest(self.bad_step)
        whole.seen = sum(distributed.from_all(self.seen))
        return whole

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums by name."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads the sums onto this tally's device."""
        for name in ("loss", "correct", "bad_step"):
            getattr(self, name).copy_(state[name])
        self.seen = state["seen"]


class Lookout:
    """Reads the first bad step off a GPU without waiting; each answer is that of an earlier ask."""

    def __init__(self) -> None:
        """Starts without a bad step."""
        self.answer = torch.full((), NEVER, dtype=torch.int64, pin_memory=True)
        self.arrived = torch.cuda.Event()

    def glance(self, bad_step: Tensor) -> int:
        """Returns the first bad step that has become known, and asks for the current `bad_step`."""
        if not self.arrived.query():
            return NEVER
        known = int(self.answer)
        self.answer.copy_(bad_step, non_blocking=True)
        self.arrived.record()
        return known
