"""The label rule of unknown functions: the channels that go in are frozen."""

from __future__ import annotations

from typing import Any

import torch

from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.tape import owner
from prunebench.channels.labels.tensors import put
from prunebench.channels.tensors import tensors_in


def unknown_function(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Freezes every channel that goes in: what cannot be followed is never guessed."""
    for t in tensors_in([args, kwargs]):
        run.ids.freeze(run.labels(t) >> 1, f"unknown operation {name}")
        if t.dim() > 1 and id(t) in run.names:
            own = run.names[id(t)]
            run.tape.refused.setdefault(owner(own) or own, f"unknown operation {name}")
        if id(t) not in run.names:
            put(t, torch.zeros([1] * t.dim(), dtype=torch.int64))  # it may be changed in place
    return run.run_counted(func, args, kwargs)
