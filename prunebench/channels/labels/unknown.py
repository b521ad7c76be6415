"""The label rule of unknown functions: the channels that go in are frozen."""

from __future__ import annotations

from typing import Any

import torch

from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.tape import owner
from prunebench.channels.labels.tensors import put
from prunebench.channels.tensors import tensors_in


def unknown_function(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Freezes every channel that goes in: what cannot be followed is never guessed."""
    for t in tensors_in([args, kwargs]):
        labeller.ids.freeze(labeller.labels(t) >> 1, f"unknown operation {name}")
        if t.dim() > 1 and id(t) in labeller.names:
            own = labeller.names[id(t)]
            labeller.tape.refused.setdefault(owner(own) or own, f"unknown operation {name}")
        if id(t) not in labeller.names:
            put(t, torch.zeros([1] * t.dim(), dtype=torch.int64))  # it may be changed in place
    return labeller.run_counted(func, args, kwargs)
