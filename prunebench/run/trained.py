"""Defines the result of a training, in memory and as the ledger stores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Holds the result of a training.

    Attributes:
        last: state dict after the last epoch.
        best: state dict after the (first) epoch of best validation accuracy, on the CPU; None
            without validation images or epochs.
        best_is_last: whether that was the last epoch.
        seconds: of training, over all attempts.
        epochs: the metrics row of each epoch, of all attempts; empty for a baseline that an earlier
            version stored.
        head: weights [classes, d] of the head after the last epoch, on the CPU; None without one.
    """

    last: Mapping[str, Tensor]
    best: Mapping[str, Tensor] | None
    best_is_last: bool
    seconds: float
    epochs: Sequence[Mapping[str, Any]] = ()
    head: Tensor | None = None

    def pack(self) -> dict[str, Any]:
        """Returns the result as plain values and tensors."""
        return {
            "network": self.last,
            "best": self.best,
            "best_is_last": self.best_is_last,
            "seconds": self.seconds,
            "epochs": list(self.epochs),
            "head": self.head,
        }

    @classmethod
    def unpack(cls, values: Mapping[str, Any]) -> Trained:
        """Returns the result that `pack` packed."""
        return cls(
            last=values["network"],
            best=values["best"],
            best_is_last=values["best_is_last"],
            seconds=values["seconds"],
            epochs=values.get("epochs", ()),
            head=values.get("head"),
        )
