"""Runs the further processes of a run, which help to train, each on a device of its own.

``run.processes=4`` starts three beside the run's own process, number 0, which alone ranks, cuts,
measures and writes. For each training it sends them the network, and every process takes its part
of each batch. torchrun and srun start all processes themselves, on one machine or several; the one
with rank 0 is then number 0.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import distributed as dist
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, spawn

from prunebench.channels import trace
from prunebench.checkpoints.slimmed import tracing_image
from prunebench.config import Run
from prunebench.config.launched import Launched
from prunebench.contracts import Observer
from prunebench.datasets import Data
from prunebench.errors import ConfigError, PrunebenchError, TrainingError
from prunebench.interruption import SIGNALS, stop_if_asked
from prunebench.recipes.sparsity import Sparsity
from prunebench.run.context import FINETUNE, PRUNING, pick_device
from prunebench.run.in_training import observer_of
from prunebench.training import distributed
from prunebench.training.heads import bare
from prunebench.training.loop import train
from prunebench.training.stage import Stage

#: while the others start, seconds between two checks that none has died
LOOK_SECONDS = 0.2
#: after a failure, seconds to wait for the process that caused it to end
LAST_WORDS_SECONDS = 10.0


@contextmanager
def further_processes(run: Run, device: torch.device) -> Iterator[None]:
    """Keeps the run's further processes alive inside the block; this process is number 0.

    Raises:
        ConfigError: there are fewer CUDA devices than processes.
        TrainingError: one of them ended too early.
    """
    size = run.settings.processes
    if size == distributed.size():  # a single process, or torchrun or srun started them all
        with _loss_explained():
            yield
        return
    require_devices(size, device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads(run, size))
    with TemporaryDirectory() as private:
        meeting = Path(private) / "meeting"
        context = spawn(serve, (run, device.type, meeting), size - 1, join=False)
        assert context is not None
        try:
            store = dist.FileStore(str(meeting), size)
            _await(store, context)
            with distributed.joined(0, size, store):
                yield
                distributed.dismiss()
        except RuntimeError:
            stop_if_asked()  # Ctrl-C has ended the other processes, too: that is no failure
            _require_alive(context, LAST_WORDS_SECONDS)  # raises the cause if another process died
            raise
        finally:
            for process in context.processes:
                process.kill()
                process.join()
            torch.set_num_threads(before)


def require_devices(size: int, device: torch.device) -> None:
    """Raises ConfigError on CUDA unless each of `size` processes has a device, from cuda:0 on."""
    if device.type == "cuda" and (device.index or torch.cuda.device_count() < size):
        raise ConfigError(
            f"run.processes={size} trains on cuda:0 to cuda:{size - 1}, and this machine has "
            f"{torch.cuda.device_count()} CUDA devices, with run.device={device}; use fewer "
            "processes, or run.device=cuda or cpu"
        )


def serve(number: int, run: Run, kind: str, meeting: Path) -> None:
    """Takes part in all trainings of `run`, as its process ``number + 1``."""
    # Process 0 handles signals and saves. SIGINT, which torch sends when it dies, ends this one.
    for asked_by in SIGNALS:
        ends = asked_by == signal.SIGINT
        signal.signal(asked_by, signal.SIG_DFL if ends else signal.SIG_IGN)
    rank, size = number + 1, run.settings.processes
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(threads(run, size))
    data = run.dataset.load()
    store = dist.FileStore(str(meeting), size)
    store.set(f"there {rank}", "")
    with distributed.joined(rank, size, store):
        train_along(run, device, data)


def train_along(run: Run, device: torch.device, data: Data | None = None) -> None:
    """Takes part in the trainings that process 0 announces, until it announces the end.

    Without `data` the splits are loaded at the first training, when process 0 has them ready.
    """
    while (asked := distributed.next_training()) is not None:
        images = data = data or run.dataset.load()
        observers: list[Observer] = []
        if asked.phase.penalised:
            observers.append(Sparsity(asked.phase, data.shape))
        if asked.name == FINETUNE and (tail := run.schedule.tail()) is not None:
            observers.append(tail)
        if asked.name == PRUNING:
            cmap = trace(bare(asked.network), tracing_image(data.shape))
            observer, images = observer_of(run, cmap, data, device)
            observers.append(observer)
        stage = Stage(name=asked.name, seed=run.settings.seed, device=device, observers=observers)
        try:
            train(asked.network, images, asked.phase, stage)
        except PrunebenchError:  # process 0 raises the same, and reports it
            return


@contextmanager
def leading(run: Run, place: Launched | None) -> Iterator[None]:
    """Makes this process number 0 of the launched ones, if any, inside the block."""
    if place is None:
        yield
        return
    with _joined(run, place):
        yield
        distributed.dismiss()


def follow(run: Run, place: Launched) -> None:
    """Takes part in `run` as a launched process other than number 0, which tells why it ends.

    Raises:
        ConfigError: there is no CUDA device for it.
    """
    joined = False
    try:
        with _joined(run, place):
            joined = True
            for number in SIGNALS:  # process 0 handles them; when it ends, so does this process
                signal.signal(number, signal.SIG_IGN)
            train_along(run, own_device(run, place))
    except RuntimeError as error:
        # before it has joined, only a closed connection says that another one has gone
        if not (distributed.parted(error) if joined else "by peer" in str(error)):
            raise


def own_device(run: Run, place: Launched) -> torch.device:
    """Returns the device of this launched process.

    Raises:
        ConfigError: its machine has fewer CUDA devices than processes.
    """
    device = pick_device(run.settings.device)
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count()
    if device.index or place.local_rank >= count:
        raise ConfigError(
            f"process {place.rank} is number {place.local_rank + 1} of its machine, which has "
            f"{count} CUDA devices, with run.device={device}; start fewer there, or set "
            "run.device=cuda or cpu"
        )
    return torch.device("cuda", place.local_rank)


@contextmanager
def _joined(run: Run, place: Launched) -> Iterator[None]:
    """Joins the group of launched processes inside the block."""
    device = own_device(run, place)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(threads(run, place.neighbours))
    store = distributed.meeting(place.rank, place.size, place.address, place.port)
    with distributed.joined(place.rank, place.size, store, on_one_machine=place.on_one_machine):
        yield


@contextmanager
def _loss_explained() -> Iterator[None]:
    """Turns the errors that follow the loss of another process into a `TrainingError`.

    Raises:
        TrainingError: another process of the run has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if distributed.size() == 1 or not distributed.parted(error):
            raise
        stop_if_asked()
        raise TrainingError(
            "another process of the run has ended, perhaps killed or out of memory; its own "
            "message comes first; continue with run.resume=true"
        ) from error


def threads(run: Run, neighbours: int) -> int:
    """Returns the CPU threads for one of `neighbours` processes of `run` that share a machine."""
    return run.settings.threads or max(1, torch.get_num_threads() // neighbours)


def _await(store: dist.Store, context: ProcessContext) -> None:
    """Waits until all other processes have started; raises as `_require_alive` if one has died."""
    for rank in range(1, len(context.processes) + 1):
        while not store.check([f"there {rank}"]):
            _require_alive(context, LOOK_SECONDS)


def _require_alive(context: ProcessContext, seconds: float) -> None:
    """Waits up to `seconds` for another process to fail, and raises its error if one does.

    Raises:
        TrainingError: it was killed.
    """
    try:
        context.join(seconds)
    except ProcessExitedException as error:
        raise TrainingError(
            f"process {error.error_index + 1} of the run was killed "
            f"({error.signal_name or error.exit_code}), perhaps for lack of memory; continue "
            "with run.resume=true"
        ) from None
