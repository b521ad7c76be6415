"""What an epoch adds up to, without waiting for the device at every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prunebench.training import distributed

#: the first bad step where there is none
NEVER = 2**62


class Tally:
    """Sums over an epoch, kept on the device and read once.

    Attributes:
        loss: sum over the images.
        correct: images that were classified right.
        bad_step: the first step whose loss was not finite.
        seen: images.
    """

    def __init__(self, device: torch.device) -> None:
        """Starts at nothing."""
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.loss = torch.zeros((), dtype=exact, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.bad_step = torch.full((), NEVER, dtype=torch.int64, device=device)
        self.seen = 0

    def add(self, step: int | Tensor, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Adds a step's detached loss and its count of right answers, but not to `seen`.

        In place, and on the device alone: a recorded step does the same again.
        """
        self.loss += loss * len(labels)
        self.correct += (logits.argmax(1) == labels).sum()
        # NaN and infinity differ from themselves by NaN; `isfinite` is four operations
        bad = self.bad_step.clamp(max=step)
        self.bad_step.copy_(torch.where(loss - loss == 0, self.bad_step, bad))

    def clear(self) -> None:
        """Starts at nothing again."""
        self.loss.zero_()
        self.correct.zero_()
        self.bad_step.fill_(NEVER)
        self.seen = 0

    def over_all(self) -> Tally:
        """Returns the sums over all processes."""
        whole = Tally(self.loss.device)
        whole.loss, whole.correct = distributed.total(self.loss), distributed.total(self.correct)
        whole.bad_step = distributed.lowest(self.bad_step)
        whole.seen = sum(distributed.from_all(self.seen))
        return whole

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over the sums, on this tally's device."""
        for name in ("loss", "correct", "bad_step"):
            getattr(self, name).copy_(state[name])
        self.seen = state["seen"]


class Lookout:
    """What a GPU has found so far, asked without waiting for it: the answer is of the last time."""

    def __init__(self) -> None:
        """Has heard of nothing bad."""
        self.told = torch.full((), NEVER, dtype=torch.int64, pin_memory=True)
        self.arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def glance(self, bad_step: Tensor) -> int:
        """Returns the first bad step, as far as is known, and asks anew for `bad_step`."""
        if not self.arrived.query():  # type: ignore[no-untyped-call]
            return NEVER
        known = int(self.told)
        self.told.copy_(bad_step, non_blocking=True)
        self.arrived.record()
        return known
