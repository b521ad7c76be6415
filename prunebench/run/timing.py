"""Provides the times for a budget in milliseconds, and keeps them for later runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from prunebench.budgets import Budget
from prunebench.budgets.latency import DIVISORS, Latency, Timed
from prunebench.budgets.layer_times import Dim, Grid, Layer, LayerTimes, costly_widths, odd
from prunebench.channels import ChannelMap, Example, Plan, slim
from prunebench.contracts import GroupRank
from prunebench.errors import PruningError
from prunebench.locks import locked
from prunebench.measure import layers as timing
from prunebench.records import LatencyTarget
from prunebench.records.jsonfile import digest
from prunebench.records.widths import BLOCK
from prunebench.run.clock import Clock, machine
from prunebench.run.step import dense_counts

#: name of the folder with the times, in the folder of all runs
LATENCY = "latency"
#: shares of its width at which a layer is timed, beside a single channel
SHARES = (1 / 4, 1 / 2, 1)
#: how often predicted times are corrected by timing a network that is really slimmed
ROUNDS = 2


def timed(
    budget: Budget,
    network: nn.Module,
    cmap: ChannelMap,
    example: Example,
    store: Path | None,
    note: Callable[[str], None],
) -> Budget:
    """Returns `budget`; if it is a `Latency`, with the times of `network` on this machine.

    Args:
        budget: any budget.
        network: dense, traced as `cmap`; left unchanged.
        cmap: channel map of `network`.
        example: image [n, C, H, W] to trace with.
        store: folder of earlier times; None uses no earlier times.
        note: shows the user a line.

    Raises:
        PruningError: the time cannot be reached, or the network takes anything but images.
        ConfigError: the engine is not available.
    """
    if not isinstance(budget, Latency):
        return budget
    if not isinstance(example, Tensor) or example.dim() != 4:
        raise PruningError("budget=latency times networks that take images [n, C, H, W] alone")
    properties = machine(budget.on)
    path = None if store is None else store / f"{digest(properties)[:16]}.json"
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    with (
        locked(path.with_name(f"{path.name}.lock"), note) if path else nullcontext()
    ):  # two processes that time at once would disturb each other
        clock = Clock(budget.on, budget.batch, path)
        before = len(clock.known)
        if not before:
            note(
                f"timing layers on {properties['device']} ({budget.on}, batch {budget.batch}), once"
            )
        try:
            return _timed(budget, network, cmap, example, clock)
        finally:
            if len(clock.known) > before:
                clock.save()


def _timed(
    budget: Latency, network: nn.Module, cmap: ChannelMap, example: Tensor, clock: Clock
) -> Timed:
    """Returns the budget with layer times, corrected by the times of networks really slimmed.

    Raises:
        PruningError: no divisor of widths reaches the time.
    """
    shape = tuple(example.shape[1:])
    names = {group.name for group in budget.select(cmap)}
    layers = list(layers_of(network, cmap, example, names, clock))
    times = LayerTimes(layers, clock.kept_network(network, shape))
    found, refused = list[Timed](), list[PruningError]()
    for divisor in [budget.divisor] if budget.divisor else DIVISORS:
        made = replace(budget.timed(times), divisor=divisor)
        try:
            for _ in range(ROUNDS):
                plan = tentative(made, cmap)
                measured = clock.kept_network(slim(network, cmap, plan).eval(), shape)
                made = replace(made, times=made.times.anchored(cmap, plan, measured))
            tentative(made, cmap)
        except PruningError as error:
            refused.append(error)
        else:
            found.append(made)
    if not found:
        raise refused[0]
    # max takes the first of equals, which has the smaller divisor
    return max(found, key=lambda made: cmap.macs(tentative(made, cmap)))


def layers_of(
    network: nn.Module, cmap: ChannelMap, example: Tensor, names: set[str], clock: Clock
) -> Iterator[Layer]:
    """Yields the layers of `network`, each with its times at the widths pruning may give it.

    `names` are the groups that may be pruned.
    """
    last: Dim | int = 0
    ends: tuple[Dim | int, Dim | int]
    prunable = {number for number, group in enumerate(cmap.groups) if group.name in names}
    group_of = cmap.locate[0]

    def changes(dim: Dim | int) -> bool:
        if isinstance(dim, int) or dim not in cmap.dims:
            return False
        return bool(prunable & {*group_of[cmap.dims[dim]].tolist()})

    kinds = timing.timed_kinds(clock.engine)
    for seen in timing.calls(network, example):
        kind, module, weight = timing.kind(seen.module), seen.module, f"{seen.name}.weight"
        tied = kind not in ("conv", "linear")
        if not tied:
            size = module.get_parameter("weight").shape
            last = (weight, 0)
            ends, widths = ((weight, 1), last), (size[1], size[0])
        else:
            own = (weight, 0) if (weight, 0) in cmap.dims else last
            fits = not isinstance(own, int) and len(cmap.dims.get(own, ())) == seen.shape[0]
            widths = (seen.shape[0], seen.shape[0])
            last = own if fits else last
            ends = (own if fits else widths[0], widths[1])
        if kind in kinds:
            free = (changes(ends[0]), changes(ends[1]))
            grid = measured_grid(seen, widths, free, clock, tied=tied)
            sides = [
                end if changeable else width
                for end, changeable, width in zip(ends, free, widths, strict=True)
            ]
            yield Layer(seen.name, sides[0], sides[1], grid)


def measured_grid(
    seen: timing.Seen, widths: tuple[int, int], free: tuple[bool, bool], clock: Clock, *, tied: bool
) -> Grid:
    """Returns the times of one layer over a grid of widths.

    Args:
        seen: the layer as called in the network.
        widths: its dense numbers of inputs and outputs.
        free: whether pruning may change its inputs, and its outputs.
        clock: takes the times.
        tied: whether inputs and outputs are always equally many.
    """
    places = [points(width, each) for width, each in zip(widths, free, strict=True)]
    if tied:
        places[1] = [widths[1]]
    axes = tuple(places[0]), tuple(places[1])
    tables = []
    for inputs, outputs in (axes, (odd(axes[0]), odd(axes[1]))):
        table = np.empty((len(inputs), len(outputs)))
        for (i, a), (j, b) in product(enumerate(inputs), enumerate(outputs)):
            table[i, j] = clock.layer(seen, a, a if tied else b)
        tables.append(table)
    return Grid(*axes, *tables)


def points(width: int, free: bool) -> list[int]:
    """Returns the widths at which a dimension is timed: 1, multiples of `BLOCK`, the dense one."""
    if not free:
        return [width]
    shares = {min(width, -(-round(width * share) // BLOCK) * BLOCK) for share in SHARES}
    return sorted({1, *shares} - {0})  # a share of very few channels rounds to none


def tentative(budget: Timed, cmap: ChannelMap) -> Plan:
    """Returns a plan within the time that ignores scores: it cuts all groups by the same share.

    Raises:
        PruningError: there is none; the message says how much faster the network can be.
    """
    ranks = {
        group.name: GroupRank(-torch.arange(group.size).double()) for group in budget.select(cmap)
    }
    try:
        uniform = replace(budget, allocation="uniform")
        return uniform.choose(cmap, ranks, dense_counts(cmap), share=1.0)
    except PruningError as error:
        raise PruningError(f"{ceiling(budget, cmap)}; {error}") from error


def ceiling(budget: Timed, cmap: ChannelMap) -> str:
    """Returns a line that says how much faster the network can be at most, and what limits it."""
    floors = Plan({name: range(count) for name, count in budget.floors(cmap).items()})
    times = budget.times
    least, left = times.predicted(cmap, floors), times.by_layer(cmap, floors)
    whole = [(ms, one.name) for ms, one in zip(left, times.layers, strict=True) if not one.changes]
    names = [name for _, name in sorted(whole, reverse=True)]
    slowest = f" ({', '.join(names[:3])}{' ...' * (len(names) > 3)})" if names else ""
    kept = min(1.0, times.dense / times.whole) * sum(ms for ms, _ in whole)
    return (
        f"at most {times.dense / max(least, 1.0):.1f}x on this machine: {least / 1e3:.3g} of "
        f"{times.dense / 1e3:.3g} ms remain with every group at its floor, "
        f"{kept / 1e3:.3g} of them in layers whose widths do not change{slowest} "
        f"and {times.between / 1e3:.3g} between layers"
    )


def outcome(
    budget: Budget, network: nn.Module, cmap: ChannelMap, plan: Plan, example: Tensor
) -> LatencyTarget | None:
    """Returns the outcome of a budget in milliseconds, timed now; None for other budgets.

    `network` is what `plan` leaves of the network that was traced as `cmap`.
    """
    if not isinstance(budget, Timed):
        return None
    clock, properties = Clock(budget.on, budget.batch, None), machine(budget.on)
    return LatencyTarget(
        on=budget.on,
        batch=budget.batch,
        device=str(properties["device"]),
        threads=torch.get_num_threads(),
        divisor=budget.divisor,
        dense_ms=budget.times.dense / 1e3,
        asked_ms=budget.keep * budget.times.dense / 1e3,
        predicted_ms=budget.times.predicted(cmap, plan) / 1e3,
        measured_ms=clock.network(network, tuple(example.shape[1:])) / 1e3,
        costly_widths=costly_widths(budget.times, cmap, plan),
    )
