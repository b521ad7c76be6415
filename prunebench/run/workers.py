"""The further processes of a run: each has a device of its own and trains along, no more.

``run.processes=4`` starts three beside the run's own, which alone ranks, cuts, measures and writes.
Whenever it trains, it hands them the network, and all take their parts of every batch.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import distributed as dist
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, spawn

from prunebench.channels import trace
from prunebench.checkpoints.slimmed import tracing_image
from prunebench.config import Run
from prunebench.contracts import Observer
from prunebench.errors import ConfigError, PrunebenchError, TrainingError
from prunebench.interruption import SIGNALS, stop_if_asked
from prunebench.recipes.sparsity import Sparsity
from prunebench.run.in_training import observer_of
from prunebench.training import distributed
from prunebench.training.heads import bare
from prunebench.training.loop import train
from prunebench.training.stage import Stage

#: seconds between two looks at whether the others still live while they start
LOOK_SECONDS = 0.2
#: seconds in which a process that failed has left its traceback
LAST_WORDS_SECONDS = 10.0


@contextmanager
def further_processes(run: Run, device: torch.device) -> Iterator[None]:
    """Keeps the run's further processes inside the block; this one becomes their number 0.

    Raises:
        ConfigError: there are not as many CUDA devices as processes.
    """
    size = run.settings.processes
    if size == 1:
        yield
        return
    require_devices(size, device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads(run))
    with TemporaryDirectory() as private:
        meeting = Path(private) / "meeting"
        context = spawn(  # type: ignore[no-untyped-call]
            serve, (run, device.type, meeting), size - 1, join=False
        )
        assert context is not None
        try:
            store = dist.FileStore(str(meeting), size)
            _await(store, context)
            with distributed.joined(0, size, store):
                yield
                distributed.dismiss()
        except RuntimeError:
            stop_if_asked()  # Ctrl-C ends all processes; the others are gone already
            _require_alive(context, LAST_WORDS_SECONDS)  # else that is what it was
            raise
        finally:
            for process in context.processes:
                process.kill()
                process.join()
            torch.set_num_threads(before)


def require_devices(size: int, device: torch.device) -> None:
    """Raises ConfigError unless there is a CUDA device for each of `size` processes, or none."""
    if device.type == "cuda" and (device.index or torch.cuda.device_count() < size):
        raise ConfigError(
            f"run.processes={size} trains on cuda:0 to cuda:{size - 1}, and this machine has "
            f"{torch.cuda.device_count()} CUDA devices, with run.device={device}; use fewer "
            "processes, or run.device=cuda or cpu"
        )


def serve(number: int, run: Run, kind: str, meeting: Path) -> None:
    """Takes part in all trainings of `run`, as its process ``number + 1``."""
    # Process 0 answers, saves and says what is to be said; its end is a SIGINT here.
    for asked_by in SIGNALS:
        ends = asked_by == signal.SIGINT
        signal.signal(asked_by, signal.SIG_DFL if ends else signal.SIG_IGN)
    rank, size = number + 1, run.settings.processes
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(threads(run))
    data = run.dataset.load()
    store = dist.FileStore(str(meeting), size)
    store.set(f"there {rank}", "")
    with distributed.joined(rank, size, store):
        while (asked := distributed.next_training()) is not None:
            observers: list[Observer] = [Sparsity(asked.phase, data.shape)]
            if asked.prunes:
                cmap = trace(bare(asked.network), tracing_image(data.shape))
                observers.append(observer_of(run, cmap, len(data.train), _ignore))
            stage = Stage(
                name=asked.name, seed=run.settings.seed, device=device, observers=observers
            )
            try:
                train(asked.network, data, asked.phase, stage)
            except PrunebenchError:  # process 0 comes to the same end, and tells
                return


def threads(run: Run) -> int:
    """Returns how many CPU threads each process of `run` takes."""
    if run.settings.threads is not None:
        return run.settings.threads
    return max(1, torch.get_num_threads() // run.settings.processes)


def _await(store: dist.Store, context: ProcessContext) -> None:
    """Waits until the other processes are there; raises what ended one that does not come."""
    for rank in range(1, len(context.processes) + 1):
        while not store.check([f"there {rank}"]):
            _require_alive(context, LOOK_SECONDS)


def _require_alive(context: ProcessContext, seconds: float) -> None:
    """Raises what ended another process, if one ends within `seconds`.

    Raises:
        TrainingError: it was killed.
    """
    try:
        context.join(seconds)
    except ProcessExitedException as error:
        raise TrainingError(
            f"process {error.error_index + 1} of the run was ended from outside "
            f"({error.signal_name or error.exit_code}), perhaps for want of memory; go on with "
            "run.resume=true"
        ) from None


def _ignore(row: Mapping[str, Any]) -> None:
    """Keeps nothing: process 0 logs."""
