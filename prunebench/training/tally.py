"""What an epoch adds up to, without waiting for the device at every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Tally:
    """Sums over an epoch, kept on the device and read once."""

    def __init__(self, device: torch.device) -> None:
        """Starts at nothing."""
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.loss = torch.zeros((), dtype=exact, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        self.seen = 0

    def add(self, step: int, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Adds a step's detached loss and its count of right answers."""
        self.loss += loss * len(labels)
        self.correct += (logits.argmax(1) == labels).sum()
        first_bad = ~loss.isfinite() & (self.bad_step < 0)
        self.bad_step = torch.where(first_bad, step, self.bad_step)
        self.seen += len(labels)

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over the sums, on this tally's device."""
        for name in ("loss", "correct", "bad_step"):
            getattr(self, name).copy_(state[name])
        self.seen = state["seen"]
