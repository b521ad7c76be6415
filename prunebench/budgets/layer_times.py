"""Predicts the time of a network at any widths, by interpolating measured times of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunebench.records.widths import BLOCK, odd_widths

if TYPE_CHECKING:
    from prunebench.channels import ChannelMap, Plan

#: widths that are no multiples of `BLOCK` are timed at so many channels less than a multiple
ODD = 3
#: a dimension of a weight, as a channel map knows it
Dim = tuple[str, int]
Times = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Grid:
    """Microseconds of one kind of layer at some widths, interpolated between them.

    Attributes:
        inputs, outputs: the timed widths, ascending; a single one where the width never changes.
        even: [inputs, outputs]; times at widths that are multiples of `BLOCK` (or dense).
        odd: [inputs, outputs]; times at widths that are `ODD` less.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    even: Times
    odd: Times

    def at(self, inputs: int, outputs: int) -> float:
        """Returns the microseconds at these widths, made never to fall as widths grow."""
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
        """The timed widths of inputs and outputs."""
        return self.inputs, self.outputs


def odd(widths: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the widths `ODD` below `widths`, which are timed as well; a single one stays."""
    return widths if len(widths) == 1 else tuple(max(1, width - ODD) for width in widths)


@dataclass(frozen=True, eq=False)
class Layer:
    """One call of a layer.

    Attributes:
        name: name of its module.
        inputs, outputs: the parameter dimension whose kept positions count its width, or the width.
        grid: the times of the layer.
    """

    name: str
    inputs: Dim | int
    outputs: Dim | int
    grid: Grid

    @property
    def changes(self) -> bool:
        """Whether the budget may change one of its widths."""
        return len(self.grid.inputs) > 1 or len(self.grid.outputs) > 1


@dataclass(frozen=True, eq=False)
class LayerTimes:
    """The times of a network's layers, corrected by whole networks that were timed.

    Attributes:
        layers: in the order of the forward.
        dense: microseconds of the dense network as a whole.
        anchors: per timed slim network the microseconds that its layers gain, and those of the
            whole.
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
        """Microseconds of all layers of the dense network, added up."""
        return float(sum(layer.grid.even[-1, -1] for layer in self.layers))

    @property
    def between(self) -> float:
        """Microseconds of the dense network outside its layers, which no budget changes."""
        return max(0.0, self.dense - self.whole)

    def gained(self, cmap: ChannelMap, plan: Plan) -> float:
        """Returns the microseconds that `plan` saves in the layers, added up."""
        return self.whole - sum(self.by_layer(cmap, plan))

    def predicted(self, cmap: ChannelMap, plan: Plan) -> float:
        """Returns the microseconds of the network of `cmap` slimmed by `plan`.

        The time is interpolated between networks that were timed, by what their layers gain.
        """
        ends = ((0.0, self.dense), (self.whole, self.between))
        gains, times = np.array(sorted((*ends, *self.anchors))).T
        # more gain never takes more time
        return float(np.interp(self.gained(cmap, plan), gains, np.minimum.accumulate(times)))

    def promised(self, cmap: ChannelMap, plan: Plan) -> float:
        """Returns the same from the times of layers alone."""
        return replace(self, anchors=()).predicted(cmap, plan)

    def anchored(self, cmap: ChannelMap, plan: Plan, measured: float) -> LayerTimes:
        """Returns these times with an anchor: the network of `plan`, which takes `measured` us."""
        gained = self.gained(cmap, plan)
        if gained <= 0:
            return self
        return replace(self, anchors=(*self.anchors, (gained, measured)))


def costly_widths(times: LayerTimes, cmap: ChannelMap, plan: Plan) -> list[int]:
    """Returns the widths under `plan` that are no multiples of `BLOCK`, if they cost time.

    They do if rounding them up to multiples would be faster, or if the whole network gained much
    less than its layers promised.
    """
    sizes = {group.name: group.size for group in cmap.groups}
    counts = {name: len(plan.kept.get(name, range(size))) for name, size in sizes.items()}
    uneven = {name: n for name, n in counts.items() if n % BLOCK and n < sizes[name]}
    if not uneven:
        return []
    rounded = {name: range(min(-(-n // BLOCK) * BLOCK, sizes[name])) for name, n in uneven.items()}
    now, promised = times.predicted(cmap, plan), times.promised(cmap, plan)
    then = times.predicted(cmap, type(plan)({**plan.kept, **rounded}))
    costly = then < 0.98 * now or times.dense - now < 0.6 * (times.dense - promised)
    return odd_widths(uneven.values()) if costly else []
