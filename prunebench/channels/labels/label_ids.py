"""The interface from which a labeller gets label ids, and to which it reports their fate."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from prunebench.channels.labels.steps import Entered, Step, Worn


class LabelIds(Protocol):
    """Hands out label ids and hears what happens to them.

    A `Tape` notes it; a `Recheck` compares it with the tape of another network.
    """

    def new(self, count: int) -> Tensor:
        """Returns `count` label ids for channels that are made."""

    def tie(self, a: Tensor, b: Tensor) -> None:
        """Hears that ids `a` and `b` (same shape) meet, so that they are cut together."""

    def read(self, name: str, dim: int, ids: Tensor) -> None:
        """Hears that index i of dimension `dim` of parameter `name` belongs to ``ids[i]``."""

    def freeze(self, ids: Tensor, reason: str) -> None:
        """Hears that `ids` can never be cut."""

    def elsewhere(self, dim: int, *, found: bool) -> bool:
        """Returns whether dimensions other than `dim` hold channels in the dense network.

        `found` says whether they do here; a cut that leaves a single channel hides them.
        """

    def frees(self, name: str, t: Tensor) -> bool:
        """Returns whether the elements of parameter `t` are labelled when it is used directly."""

    @property
    def at(self) -> int:
        """Number of steps so far."""

    def step(self, step: Step) -> None:
        """Hears which tensors and numbers the next function that computes is given."""

    def enter(self, call: Entered) -> None:
        """Hears that a module is called."""

    def leave(self, call: Entered, result: list[Worn]) -> None:
        """Hears the result of a module that moves channels by numbers."""

    def mend(self, labeller: Any, module: nn.Module, call: Entered, error: Exception) -> Any:
        """Returns the result of a failed forward of `module` if it can be mended, else raises."""
