"""Label rule of recurrent layers: they read channels, and their state is never cut."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.tape import Call, owner
from prunebench.channels.labels.tensors import Row
from prunebench.channels.labels.unknown import unknown_function
from prunebench.channels.tensors import tensors_in

#: the weights that read the input, forwards and backwards in time
_READERS = ("weight_ih_l0", "weight_ih_l0_reverse")


def recurrent(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Reads labels on the last dimension of the input; what comes out is never cut."""
    x, state, weights = args[:3]
    readers = [w for w in tensors_in(weights) if labeller.names.get(id(w), "").endswith(_READERS)]
    row = labeller.row(labeller.labels(x), x.dim() - 1, x.size(-1)) if readers else None
    if row is None:  # packed sequences, weights that are computed
        return unknown_function(labeller, name, func, args, kwargs)
    for t in tensors_in(state):
        labeller.ids.freeze(labeller.labels(t) >> 1, f"the state of {labeller.running}")
    for w in readers:
        _read(labeller, name, x, row, w)
    labeller.tape.refused[owner(labeller.names[id(readers[0])])] = "its state is its own"
    others = [w for w in tensors_in(weights) if w.dim() == 2 and all(w is not r for r in readers)]
    labeller.tape.fixed_macs += x.shape[:-1].numel() * sum(w.numel() for w in others)  # once a step
    return first_step(labeller, name, func, args, kwargs)


def first_step(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Runs a recurrent layer without data, one time step for all: each is alike, and slow."""
    x = args[0]
    if x.dim() != 3 or len(args) != 9 or x.numel() == 0:  # packed sequences
        return labeller.run(func, args, kwargs)
    time = 1 if args[8] else 0  # batch_first
    out, *state = labeller.run(func, (x.narrow(time, 0, 1), *args[1:]), kwargs)
    steps = out.transpose(0, time)
    whole = steps.new_empty(x.size(time), *steps.shape[1:]).transpose(0, time)
    return whole, *state


def _read(labeller: Labeller, name: str, x: Tensor, row: Row, w: Tensor) -> None:
    """Notes that the columns of `w` read the channels of `row` in every step of `x`."""
    weight, steps = labeller.names[id(w)], x.shape[:-1].numel()
    labeller.ids.read(weight, 1, row.ids)
    place = labeller.place(name, x, takes=True)
    outputs = torch.zeros(w.size(0), dtype=torch.int64)
    labeller.tape.calls.append(
        Call("recurrent", owner(weight), weight, row.ids, row.live, outputs, steps, 1, place)
    )
