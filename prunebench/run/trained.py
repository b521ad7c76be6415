"""What a training leaves to the stages after it, in memory and on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The weights a training came to.

    Attributes:
        last: state dict after the last epoch.
        best: state dict after the (first) epoch of best validation accuracy, on the CPU; None
            without validation images or epochs.
        best_is_last: whether that was the last epoch.
        seconds: of training, over all attempts.
        epochs: the row of metrics of each epoch, of all attempts; none of a baseline that was
            stored by an earlier version.
        head: weights [classes, d] of the head after the last epoch, on the CPU; None without one.
    """

    last: Mapping[str, Tensor]
    best: Mapping[str, Tensor] | None
    best_is_last: bool
    seconds: float
    epochs: Sequence[Mapping[str, Any]] = ()
    head: Tensor | None = None

    def pack(self) -> dict[str, Any]:
        """Returns it as plain values and tensors."""
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
        """Returns what `pack` packed."""
        return cls(
            last=values["network"],
            best=values["best"],
            best_is_last=values["best_is_last"],
            seconds=values["seconds"],
            epochs=values.get("epochs", ()),
            head=values.get("head"),
        )
