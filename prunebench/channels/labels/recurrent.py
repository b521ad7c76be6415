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


def recurrent(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Reads labels on the last dimension of the input; what comes out is never cut."""
    x, state, weights = args[:3]
    readers = [w for w in tensors_in(weights) if run.names.get(id(w), "").endswith(_READERS)]
    row = run.row(run.labels(x), x.dim() - 1, x.size(-1)) if readers else None
    if row is None:  # packed sequences, weights that are computed
        return unknown_function(run, name, func, args, kwargs)
    for t in tensors_in(state):
        run.ids.freeze(run.labels(t) >> 1, f"the state of {run.running}")
    for w in readers:
        _read(run, name, x, row, w)
    run.tape.refused[owner(run.names[id(readers[0])])] = "its state is its own"
    others = [w for w in tensors_in(weights) if w.dim() == 2 and all(w is not r for r in readers)]
    run.tape.fixed_macs += x.shape[:-1].numel() * sum(w.numel() for w in others)  # once a step
    return first_step(run, name, func, args, kwargs)


def first_step(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Runs a recurrent layer without data, one time step for all: each is alike, and slow."""
    x = args[0]
    if x.dim() != 3 or len(args) != 9 or x.numel() == 0:  # packed sequences
        return run.run(func, args, kwargs)
    time = 1 if args[8] else 0  # batch_first
    out, *state = run.run(func, (x.narrow(time, 0, 1), *args[1:]), kwargs)
    steps = out.transpose(0, time)
    whole = steps.new_empty(x.size(time), *steps.shape[1:]).transpose(0, time)
    return whole, *state


def _read(run: Labeller, name: str, x: Tensor, row: Row, w: Tensor) -> None:
    """Notes that the columns of `w` read the channels of `row` in every step of `x`."""
    weight, steps = run.names[id(w)], x.shape[:-1].numel()
    run.ids.read(weight, 1, row.ids)
    place = run.place(name, x, takes=True)
    outputs = torch.zeros(w.size(0), dtype=torch.int64)
    run.tape.calls.append(
        Call("recurrent", owner(weight), weight, row.ids, row.live, outputs, steps, 1, place)
    )
