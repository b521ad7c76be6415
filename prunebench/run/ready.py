"""What the first cut begins with: network and budget as they are before any channel goes."""

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
    """A run that may begin to cut.

    Attributes:
        run: its budget leaves alone what has no score, and knows the times that it may ask for.
        network: dense, as the criterion wants it.
        cmap: its channel map.
        unscored: group that stays whole for want of a score -> why.
    """

    run: Run
    network: nn.Module
    cmap: ChannelMap
    unscored: dict[str, str]


def ready(run: Run, network: nn.Module, example: Tensor, note: Callable[[str], None]) -> Ready:
    """Returns what `run` begins to cut; `network`, in eval mode, is left unchanged.

    Raises:
        PruningError: the criterion scores no group, or a time cannot be reached.
    """
    if not run.schedule.trains:
        network = run.criterion.arranged(network, example)
    cmap = trace(network, example)
    budget, unscored = scored_only(run.criterion, run.budget, network, cmap)
    store = Path(run.settings.outputs) / LATENCY
    budget = timed(budget, network, cmap, example, store, note)
    return Ready(replace(run, budget=budget), network, cmap, unscored)
