"""How long a network takes at any width: tables of its layers, measured once, and interpolated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunebench.records.widths import BLOCK, odd_widths

if TYPE_CHECKING:
    from prunebench.channels import ChannelMap, Plan

#: how much narrower a width is that is timed for those that are none
ODD = 3
#: a dimension of a weight, as a channel map knows it
Dim = tuple[str, int]
Times = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Grid:
    """Microseconds of one kind of layer at some widths; between them they are interpolated.

    Attributes:
        inputs, outputs: the widths, ascending; one alone where it never changes.
        even: [inputs, outputs] at widths that are multiples of `BLOCK` (or dense).
        odd: likewise at widths that are `ODD` less.
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
        table, places = (self.even, [*self.axes]) if suits else (self.odd, [*map(odd, self.axes)])
        for axis in (0, 1):
            table = np.maximum.accumulate(table, axis=axis)
        by_output = [np.interp(outputs, places[1], row) for row in table]
        return float(np.interp(inputs, places[0], by_output))

    @property
    def axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The widths on both sides."""
        return self.inputs, self.outputs


def odd(widths: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the widths that are timed beside `widths`; a single one stays."""
    return widths if len(widths) == 1 else tuple(max(1, width - ODD) for width in widths)


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
    """A network's layers with their times, held against networks that were timed as a whole.

    Attributes:
        layers: in the order of the forward.
        dense: microseconds of the dense network as a whole.
        anchors: of slimmed networks, what their layers gain alone, and what the whole takes.
    """

    layers: Sequence[Layer]
    dense: float
    anchors: tuple[tuple[float, float], ...] = ()

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

    @property
    def between(self) -> float:
        """Microseconds that are spent between layers, which no budget changes."""
        return max(0.0, self.dense - self.whole)

    def gained(self, cmap: ChannelMap, plan: Plan) -> float:
        """Returns the microseconds that the layers gain alone when `plan` slims the network."""
        return self.whole - sum(self.by_layer(cmap, plan))

    def predicted(self, cmap: ChannelMap, plan: Plan) -> float:
        """Returns the microseconds of the network of `cmap` slimmed by `plan`.

        Between networks that were timed it is interpolated, by what the layers gain.
        """
        ends = ((0.0, self.dense), (self.whole, self.between))
        gains, times = np.array(sorted((*ends, *self.anchors))).T
        # the line through these points never rises
        return float(np.interp(self.gained(cmap, plan), gains, np.minimum.accumulate(times)))

    def promised(self, cmap: ChannelMap, plan: Plan) -> float:
        """Returns the same by the layers alone."""
        return replace(self, anchors=()).predicted(cmap, plan)

    def anchored(self, cmap: ChannelMap, plan: Plan, measured: float) -> LayerTimes:
        """Returns these times with the network of `plan`, which takes `measured`, among them."""
        gained = self.gained(cmap, plan)
        if gained <= 0:
            return self
        return replace(self, anchors=(*self.anchors, (gained, measured)))


def costly_widths(times: LayerTimes, cmap: ChannelMap, plan: Plan) -> list[int]:
    """Returns the widths under `plan` that are no multiples of `BLOCK` and cost time by that.

    Empty unless the layers alone would be faster with multiples, or the whole gained much less by
    such widths than its layers promised.
    """
    sizes = {group.name: group.size for group in cmap.groups}
    counts = {name: len(plan.kept.get(name, range(size))) for name, size in sizes.items()}
    odd = {name: n for name, n in counts.items() if n % BLOCK and n < sizes[name]}
    if not odd:
        return []
    rounded = {name: range(min(-(-n // BLOCK) * BLOCK, sizes[name])) for name, n in odd.items()}
    now, promised = times.predicted(cmap, plan), times.promised(cmap, plan)
    then = times.predicted(cmap, type(plan)({**plan.kept, **rounded}))
    costly = then < 0.98 * now or times.dense - now < 0.6 * (times.dense - promised)
    return odd_widths(odd.values()) if costly else []
