"""Target latency: the slimmed network may take at most a given time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.budgets import Budget
from prunebench.budgets.layer_times import LayerTimes
from prunebench.budgets.target import ALLOCATIONS, Target
from prunebench.contracts import Dense, GroupRank
from prunebench.errors import PruningError, require, require_choice
from prunebench.records.widths import BLOCK

if TYPE_CHECKING:
    from prunebench.channels import ChannelMap, Plan

#: where the network is timed
ENGINES = ("cpu", "cuda", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Latency(Budget):
    """Keeps as many channels as a time allows, once the network's layers are timed.

    Attributes:
        keep: up to 1 the fraction of the dense network's time, above 1 milliseconds.
        on: where it is timed: ``cpu``, ``cuda`` or ``onnxruntime``.
        batch: images per pass.
        allocation, floor_share: as in `Target`.
        divisor: kept counts are rounded up to a multiple of it; 0 chooses 1 or 8, whichever leaves
            the larger network within the time.
    """

    keep: float
    on: str = "cpu"
    batch: int = 64
    allocation: str = "uniform"
    floor_share: float = 0.0
    divisor: int = 0

    limits_training = True
    chooses_divisor = True

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        super().__post_init__()
        require(self.keep > 0, f"keep must be positive, got {self.keep}")
        require_choice("on", self.on, ENGINES)
        require(self.batch >= 1, f"batch must be at least 1, got {self.batch}")
        require_choice("allocation", self.allocation, ALLOCATIONS)

    @property
    def needs_comparable(self) -> bool:  # type: ignore[override]
        """Whether channels of different groups are ranked against each other."""
        return self.allocation == "global"

    def choose(
        self, cmap: ChannelMap, ranks: Mapping[str, GroupRank], dense: Dense, *, share: float
    ) -> Plan:
        """Raises: times are needed, and `timed` returns the budget that has them.

        Raises:
            PruningError: always.
        """
        raise PruningError("budget=latency chooses for a network that was timed; see timed()")

    def timed(self, times: LayerTimes) -> Timed:
        """Returns the budget for a network with these `times`; divisor 0 becomes 1.

        Raises:
            PruningError: the dense network already takes less.
        """
        keep = self.keep if self.keep <= 1 else 1e3 * self.keep / times.dense
        if keep > 1:
            raise PruningError(
                f"budget.keep={self.keep:g} ms exceeds the {times.dense / 1e3:.3g} ms of the dense "
                f"network ({self.on}, batch {self.batch})"
            )
        return Timed(**{**vars(self), "keep": keep, "divisor": self.divisor or 1}, times=times)


@dataclass(frozen=True, kw_only=True)
class Timed(Target):
    """The target of a timed network, as `Latency.timed` returns it; no option of its own.

    Attributes:
        on, batch: as in `Latency`.
        times: the times of the dense network's layers.
    """

    on: str
    batch: int
    times: LayerTimes

    unit = "microseconds"

    def amount(self, cmap: ChannelMap, plan: Plan) -> int:
        """Returns the predicted microseconds of the network slimmed by `plan`."""
        return round(self.times.predicted(cmap, plan))

    def dense_amount(self, dense: Dense) -> int:
        """Returns the microseconds of the unpruned network."""
        return round(self.times.dense)


#: divisors that are tried for divisor=0, smallest first
DIVISORS = (1, BLOCK)
