"""Prepares network and budget for the first cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from prunebench.channels import ChannelMap, trace
from prunebench.config import Run
from prunebench.run.scored import scored_only
from prunebench.run.timing import LATENCY, timed


class Ready(NamedTuple):
    """Holds a run that is ready for its first cut.

    Attributes:
        run: its budget leaves out the groups without a score; one in milliseconds has its times.
        network: dense, arranged as the criterion wants it.
        cmap: channel map of `network`.
        unscored: group that stays whole because it has no score -> why.
    """

    run: Run
    network: nn.Module
    cmap: ChannelMap
    unscored: dict[str, str]


def ready(run: Run, network: nn.Module, example: Tensor, note: Callable[[str], None]) -> Ready:
    """Returns `run` and its network, ready for the first cut; `network` is left unchanged.

    Raises:
        PruningError: the criterion scores no group, or the time asked for cannot be reached.
    """
    if not run.schedule.trains:
        network = run.criterion.arranged(network, example)
    cmap = trace(network, example)
    budget, unscored = scored_only(run.criterion, run.budget, network, cmap)
    store = Path(run.settings.outputs) / LATENCY
    budget = timed(budget, network, cmap, example, store, note)
    return Ready(replace(run, budget=budget), network, cmap, unscored)
