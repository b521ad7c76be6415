"""How long a network takes at any width: tables of its layers, measured once, and interpolated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from prunebench.channels import ChannelMap, Plan

#: widths that are multiples of this suit the blocked layouts of fast engines; the others may not
BLOCK = 8
#: a dimension of a weight, as a channel map knows it
Dim = tuple[str, int]
Times = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Grid:
    """Microseconds of one kind of layer at some widths; between them they are interpolated.

    Attributes:
        inputs, outputs: the widths, ascending; one alone where it never changes.
        even: [inputs, outputs] at widths that are multiples of `BLOCK` (or dense).
        odd: likewise at widths a little below that are none.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    even: Times
    odd: Times

    def at(self, inputs: int, outputs: int) -> float:
        """Returns the microseconds at these widths; wider is never faster."""
        suits = all(
            width % BLOCK == 0 or width >= known[-1] or len(known) == 1
            for width, known in ((inputs, self.inputs), (outputs, self.outputs))
        )
        table = self.even if suits else self.odd
        for axis in (0, 1):
            table = np.maximum.accumulate(table, axis=axis)
        by_output = [np.interp(outputs, self.outputs, row) for row in table]
        return float(np.interp(inputs, self.inputs, by_output))


@dataclass(frozen=True, eq=False)
class Layer:
    """One call of a layer.

    Attributes:
        name: of its module.
        inputs, outputs: the dimension whose kept positions are its width, or the width itself.
        grid: its times.
    """

    name: str
    inputs: Dim | int
    outputs: Dim | int
    grid: Grid

    @property
    def changes(self) -> bool:
        """Whether the budget may change a width of it."""
        return len(self.grid.inputs) > 1 or len(self.grid.outputs) > 1


@dataclass(frozen=True, eq=False)
class LayerTimes:
    """A network's layers with their times, held against two networks that were timed as a whole.

    Attributes:
        layers: in the order of the forward.
        dense: microseconds of the dense network as a whole.
        slope: microseconds that the whole gains for one that its layers gain.
    """

    layers: Sequence[Layer]
    dense: float
    slope: float = 1.0

    def by_layer(self, cmap: ChannelMap, plan: Plan) -> list[float]:
        """Returns the microseconds of every layer of the network of `cmap`, slimmed by `plan`."""
        keeps, counts = cmap.keeps(plan), dict[Dim, int]()

        def width(of: Dim | int) -> int:
            if isinstance(of, int):
                return of
            if of not in counts:
                known = of in cmap.dims
                counts[of] = int(keeps[cmap.dims[of]].sum()) if known else cmap.shapes[of[0]][of[1]]
            return counts[of]

        return [layer.grid.at(width(layer.inputs), width(layer.outputs)) for layer in self.layers]

    @property
    def whole(self) -> float:
        """Microseconds of all layers of the dense network."""
        return float(sum(layer.grid.even[-1, -1] for layer in self.layers))

    def predicted(self, cmap: ChannelMap, plan: Plan) -> float:
        """Returns the microseconds of the network of `cmap` slimmed by `plan`."""
        gained = self.whole - sum(self.by_layer(cmap, plan))
        return max(self.dense - self.slope * gained, 0.0)


def fitted(layers: Sequence[Layer], dense: float) -> LayerTimes:
    """Returns the times of a network that takes `dense` microseconds as a whole.

    Where its layers take longer alone than together, they are scaled down.
    """
    bare = LayerTimes(layers, dense)
    return LayerTimes(layers, dense, min(1.0, dense / bare.whole) if bare.whole else 0.0)


def anchored(times: LayerTimes, cmap: ChannelMap, plan: Plan, measured: float) -> LayerTimes:
    """Returns `times` such that they are right for `plan`, whose network takes `measured`.

    Mismeasured ones, which would make a smaller network no faster, change little.
    """
    gained = times.whole - sum(times.by_layer(cmap, plan))
    if gained <= 0:
        return times
    slope = min(max((times.dense - measured) / gained, times.slope / 4), 2 * times.slope)
    return LayerTimes(times.layers, times.dense, slope)


def costly_widths(times: LayerTimes, cmap: ChannelMap, plan: Plan) -> list[int]:
    """Returns the widths under `plan` that are no multiples of `BLOCK` and cost time by that.

    Empty unless rounding them up to multiples would make the whole faster.
    """
    counts = {
        group.name: len(plan.kept.get(group.name, range(group.size))) for group in cmap.groups
    }
    sizes = {group.name: group.size for group in cmap.groups}
    odd = {name: n for name, n in counts.items() if n % BLOCK and n < sizes[name]}
    if not odd:
        return []
    from prunebench.channels import Plan as Kept

    rounded = {name: range(min(-(-n // BLOCK) * BLOCK, sizes[name])) for name, n in odd.items()}
    before = times.predicted(cmap, plan)
    after = times.predicted(cmap, Kept({**plan.kept, **rounded}))
    return list(dict.fromkeys(odd.values())) if after < 0.98 * before else []
