"""What the processes of one training tell each other; a process on its own hears only itself.

All processes hold the same weights, take their part of every batch, and come by here in the same
order. Process 0 is the run's own: it alone reads and writes files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from prunebench.recipes import Phase

#: the others wait for process 0 while it ranks and measures, and an oracle may take a day
LONGEST_WAIT = timedelta(days=7)
#: for each other, when they were started one by one
LONGEST_START = timedelta(minutes=30)
#: what the processes talk over, by platform
LOOPBACK = {"linux": "lo", "darwin": "lo0"}


@dataclass(frozen=True)
class JointTraining:
    """A training that all processes take part in.

    Attributes:
        network: with its weights.
        phase: how it is trained.
        name: of the stage.
    """

    network: nn.Module
    phase: Phase
    name: str


@contextmanager
def joined(
    rank: int, size: int, store: dist.Store, *, on_one_machine: bool = True
) -> Iterator[None]:
    """Makes this process number `rank` of `size` inside the block.

    Args:
        rank: from 0.
        size: at least 2.
        store: where they meet.
        on_one_machine: whether all are on this one.
    """
    # else gloo looks up this machine's name, and may not find it
    if on_one_machine and sys.platform in LOOPBACK:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK[sys.platform])
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=LONGEST_WAIT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def meeting(rank: int, size: int, address: str, port: int) -> dist.Store:
    """Returns where processes meet that were started one by one, perhaps on several machines.

    It waits for them. torchrun has a place for that, process 0 opens one otherwise.
    """
    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    found = dist.rendezvous("env://", rank, size, timeout=LONGEST_START)
    store: dist.Store = next(found)[0]
    return store


def parted(error: RuntimeError) -> bool:
    """Whether `error` says that another process has gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def rank() -> int:
    """Returns the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_draws() -> tuple[int, ...]:
    """Returns what makes a seed this process's own: nothing for process 0, else its number."""
    return (rank(),) if rank() else ()


def from_first(value: Any) -> Any:
    """Returns process 0's `value`."""
    if size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def invite(training: JointTraining) -> None:
    """Hands `training` from process 0 to the others, if there are any; process 0 trains next."""
    if size() > 1:
        from_first(replace(training, network=deepcopy(training.network).cpu()))


def next_training() -> JointTraining | None:
    """Waits, beside process 0, for a training to take part in; None when there are no more."""
    asked: JointTraining | None = from_first(None)
    return asked


def dismiss() -> None:
    """Tells the others, from process 0, that there are no more trainings."""
    from_first(None)


def from_all(value: Any) -> list[Any]:
    """Returns the `value` of every process, in their order."""
    if size() == 1:
        return [value]
    values = [None] * size()
    dist.all_gather_object(values, value)
    return values


def rows_of_all(tensor: Tensor) -> Tensor:
    """Returns the rows of every process's `tensor`, which are equally many, one below the other."""
    if size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def total(tensor: Tensor) -> Tensor:
    """Returns the sum of `tensor` over the processes."""
    return _reduced(tensor, dist.ReduceOp.SUM)


def lowest(tensor: Tensor) -> Tensor:
    """Returns the least of each element of `tensor` over the processes."""
    return _reduced(tensor, dist.ReduceOp.MIN)


def _reduced(tensor: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
    if size() == 1:
        return tensor
    result = tensor.clone()
    dist.all_reduce(result, how)
    return result


def replicate(network: nn.Module) -> nn.Module:
    """Returns what to call for a forward pass whose gradients become the mean over the processes.

    All take over process 0's weights and buffers now.
    """
    if size() == 1:
        return network
    replica = DistributedDataParallel(network)
    replica.broadcast_buffers = False  # of process 0's at each forward: `average_statistics` shares
    return replica


def shared(forward: object, *, now: bool) -> AbstractContextManager[object]:
    """Returns the block in which a backward of `forward` shares all gradients so far, or waits.

    Args:
        forward: from `replicate`.
        now: whether the gradients are complete.
    """
    if now or not isinstance(forward, DistributedDataParallel):
        return nullcontext()
    return forward.no_sync()


def average_statistics(network: nn.Module) -> None:
    """Replaces the running statistics of all batch norms by their means over the processes."""
    if size() == 1:
        return
    found = [
        statistic
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
        for statistic in (module.running_mean, module.running_var)
        if statistic is not None
    ]
    if found:
        means = torch.split(total(torch.cat(found)) / size(), [len(one) for one in found])
        torch._foreach_copy_(found, list(means))
