"""What a labeller asks of whoever hands out labels and hears what happens to them."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from prunebench.channels.labels.steps import Entered, Step, Worn


class LabelIds(Protocol):
    """Hands out label ids, and is told what happens to them; a `Tape` notes it."""

    def new(self, count: int) -> Tensor:
        """Returns `count` label ids for channels that are made."""

    def tie(self, a: Tensor, b: Tensor) -> None:
        """Hears that ids `a` and `b` (same shape) meet, so that they live and die together."""

    def read(self, name: str, dim: int, ids: Tensor) -> None:
        """Hears that index i of dimension `dim` of parameter `name` belongs to ``ids[i]``."""

    def freeze(self, ids: Tensor, reason: str) -> None:
        """Hears that `ids` can never be cut."""

    def elsewhere(self, dim: int, *, found: bool) -> bool:
        """Hears whether others than `dim` hold channels; is it so, but for cuts that left one?"""

    def frees(self, name: str, t: Tensor) -> bool:
        """Returns whether the elements of parameter `t` are labelled when it is used directly."""

    @property
    def at(self) -> int:
        """How many steps were heard of."""

    def step(self, step: Step) -> None:
        """Hears what the next function that computes is given."""

    def enter(self, call: Entered) -> None:
        """Hears that a module is called."""

    def leave(self, call: Entered, result: list[Worn]) -> None:
        """Hears what a module returns that moves channels by numbers."""

    def mend(self, labeller: Any, module: nn.Module, call: Entered, error: Exception) -> Any:
        """Hears that the forward of `module` failed; returns its result if that can be mended."""
