"""Exchanges what the processes of one training need; with one process, returns its own values.

All processes hold the same weights, compute their part of every batch, and make these calls in the
same order. Process 0 is the run's own: it alone reads and writes files.
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

#: time limit of an exchange: the others wait while process 0 ranks, and an oracle may take a day
LONGEST_WAIT = timedelta(days=7)
#: time limit for separately started processes to find each other
LONGEST_START = timedelta(minutes=30)
#: platform -> the network interface that connects processes of one machine
LOOPBACK = {"linux": "lo", "darwin": "lo0"}


@dataclass(frozen=True)
class JointTraining:
    """Describes a training that all processes take part in.

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
        store: through which the processes find each other.
        on_one_machine: whether all of them run on this machine.
    """
    # without an interface gloo looks up this machine's host name, and may not find it
    if on_one_machine and sys.platform in LOOPBACK:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK[sys.platform])
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=LONGEST_WAIT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def meeting(rank: int, size: int, address: str, port: int) -> dist.Store:
    """Returns the store for processes that were started separately, once all have reached it.

    torchrun provides one at `address` and `port`; otherwise process 0 opens it there.
    """
    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    found = dist.rendezvous("env://", rank, size, timeout=LONGEST_START)
    store: dist.Store = next(found)[0]
    return store


def parted(error: RuntimeError) -> bool:
    """Returns whether `error` is how torch reports that another process has gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def rank() -> int:
    """Returns the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_draws() -> tuple[int, ...]:
    """Returns what to add to a seed to make it this process's own; empty for process 0."""
    return (rank(),) if rank() else ()


def from_first(value: Any) -> Any:
    """Returns the `value` that process 0 passed, in every process."""
    if size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def invite(training: JointTraining) -> None:
    """Sends `training` from process 0 to the others, which then train along with it."""
    if size() > 1:
        from_first(replace(training, network=deepcopy(training.network).cpu()))


def next_training() -> JointTraining | None:
    """Waits for process 0 to `invite`; returns the training, or None after `dismiss`."""
    asked: JointTraining | None = from_first(None)
    return asked


def dismiss() -> None:
    """Tells the other processes, from process 0, that there are no more trainings."""
    from_first(None)


def from_all(value: Any) -> list[Any]:
    """Returns the `value` of every process, ordered by rank."""
    if size() == 1:
        return [value]
    values = [None] * size()
    dist.all_gather_object(values, value)
    return values


def rows_of_all(tensor: Tensor) -> Tensor:
    """Returns the tensors of all processes, which have equally many rows, stacked by rank."""
    if size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def total(tensor: Tensor) -> Tensor:
    """Returns the sum of `tensor` over the processes."""
    return _reduced(tensor, dist.ReduceOp.SUM)


def lowest(tensor: Tensor) -> Tensor:
    """Returns the elementwise minimum of `tensor` over the processes."""
    return _reduced(tensor, dist.ReduceOp.MIN)


def _reduced(tensor: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
    if size() == 1:
        return tensor
    result = tensor.clone()
    dist.all_reduce(result, how)
    return result


def replicate(network: nn.Module) -> nn.Module:
    """Returns a callable like `network` whose gradients become the mean over the processes.

    Calling this copies the weights and buffers of process 0 to all others.
    """
    if size() == 1:
        return network
    replica = DistributedDataParallel(network)
    replica.broadcast_buffers = False  # `average_statistics` shares the running statistics instead
    return replica


def shared(forward: object, *, now: bool) -> AbstractContextManager[object]:
    """Returns a context in which backward averages gradients over the processes, or only adds them.

    Args:
        forward: from `replicate`.
        now: whether the gradients are complete after this backward.
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
