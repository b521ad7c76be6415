"""Provides the dense network of a run: trained here, loaded, or read from the baseline store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunebench.channels import in_mode
from prunebench.checkpoints import Checkpoint, load
from prunebench.checkpoints.foreign import load_head, load_weights
from prunebench.checkpoints.slimmed import tracing_image
from prunebench.config import Run
from prunebench.datasets import Data
from prunebench.errors import ConfigError, require
from prunebench.locks import Timeout, locked
from prunebench.models import rationed
from prunebench.records import write_json
from prunebench.records.attempts import begin, read_attempts
from prunebench.records.identity import deciding
from prunebench.records.jsonfile import digest, remove_temporaries
from prunebench.records.unfinished import LOCK
from prunebench.records.waiting import waiting
from prunebench.reproducibility import seed_for
from prunebench.run.ledger import Ledger
from prunebench.run.trained import Trained

#: a job that waits for another's training renews its sign of life after so many seconds
SIGN_SECONDS = 60.0


class Weights(NamedTuple):
    """Describes the trained weights that were put into a network.

    Attributes:
        origin: where they came from, in words for the user.
        head: weights of the head that was trained with them; None if none came with them.
        epochs: the metrics row of each epoch of their training, as far as known.
    """

    origin: str
    head: Tensor | None = None
    epochs: Sequence[Mapping[str, Any]] = ()


def build(run: Run, data: Data, purpose: str = "initial weights") -> nn.Module:
    """Returns the run's network with initial weights, drawn from the run's seed and `purpose`.

    Raises:
        ConfigError: the network cannot take the images of `data`, or returns something else than
            one row of logits per image.
    """
    torch.manual_seed(seed_for(run.settings.seed, purpose))
    source = f"model={run.choices.get('model', type(run.model).__name__)}"
    network = rationed.build(run.model, data.shape, data.classes, source=source)
    check_network(network, data, embeds=run.model.embeds)
    scale = run.baseline.norm_scale
    if scale is not None and not run.model.pretrained(data.classes):
        scale_norms(network, scale)
    return network


def scale_norms(network: nn.Module, scale: float) -> None:
    """Sets the scale (weight) of every batch norm of `network` to `scale`, in place.

    Raises:
        ConfigError: the network has no batch norm with a scale.
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.affine]
    require(
        bool(norms),
        f"baseline.norm_scale={scale} is for scales of batch norms, and this network has none; "
        "set baseline.norm_scale=null",
    )
    for norm in norms:
        nn.init.constant_(norm.weight, scale)


def check_network(network: object, data: Data, *, embeds: bool = False) -> None:
    """Raises ConfigError unless `network` returns at least ``data.classes`` logits per image.

    With `embeds`, rows of any length will do.
    """
    if not isinstance(network, nn.Module):
        raise ConfigError(f"model: build must return a torch.nn.Module, got {network!r:.60}")
    if not any(True for _ in network.parameters()):
        raise ConfigError(
            f"model: a {type(network).__name__} has no parameters; there is nothing to train"
        )
    image = tracing_image(data.shape)
    try:
        with in_mode(network), torch.no_grad():
            logits = network(image)
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(f"model: the network cannot take images {data.shape}: {first}") from error
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if not (isinstance(shape, list) and len(shape) == 2 and (embeds or shape[1] >= data.classes)):
        raise ConfigError(
            f"model: the network must return logits [n, {data.classes}], got {shape} for one image"
        )


def obtain(
    run: Run,
    network: nn.Module,
    ledger: Ledger,
    rehearse: Callable[[], None],
    train: Callable[[nn.Module, Checkpoint], Trained],
    note: Callable[[str], None],
) -> Weights:
    """Trains the baseline in `network`, or reads it from the store; returns where it came from.

    Several runs may need the same entry of the store: the first trains it, the others wait.

    Args:
        run: the run; `given` found no weights for it.
        network: as `build` returns it.
        ledger: of this run; a baseline that is not stored is a stage of its own.
        rehearse: called before a training; raises what would otherwise stop the run only after it.
        train: trains the network passed to it, continuing from the checkpoint.
        note: shows the user a line.

    Raises:
        CheckpointError: the store's entry is damaged.
    """
    found = from_store(run, network)
    if found is not None:
        return found
    rehearse()
    if not run.baseline.store:
        done = ledger.do("baseline", lambda checkpoint: train(network, checkpoint).pack())
        return put(network, done, "trained in this run")
    folder = entry(run, network)
    with waiting_lock(folder, note, ledger.folder.parent):
        found = from_store(run, network)  # the job we waited for may have trained it
        if found is not None:
            return found
        remove_temporaries(folder)
        write_json(folder / "identity.json", identity(run, network))
        begin(folder, {})  # jobs that wait read from it whom they wait for
        shared = Ledger(folder, every_seconds=run.settings.checkpoint_seconds)
        done = shared.do("baseline", lambda checkpoint: train(network, checkpoint).pack())
    return put(network, done, f"trained, now in the baseline store ({folder.name})")


def put(network: nn.Module, done: Mapping[str, Any], origin: str) -> Weights:
    """Loads the weights of a finished training, packed as `done`, into `network`."""
    trained = Trained.unpack(done)
    network.load_state_dict(trained.last)
    return Weights(origin, trained.head, trained.epochs)


def given(run: Run, network: nn.Module, data: Data) -> Weights | None:
    """Loads weights trained elsewhere (``baseline.checkpoint`` or pretrained) into `network`.

    Returns:
        Where they came from; None, with `network` unchanged, if the run is given none.

    Raises:
        CheckpointError: ``baseline.checkpoint`` is missing, damaged or of another network.
    """
    if run.baseline.checkpoint is not None:
        file = Path(run.baseline.checkpoint)
        load_weights(network, file)
        head = load_head(file, data.classes) if run.model.embeds else None
        return Weights(f"checkpoint {file.name}", head)
    if run.model.pretrained(data.classes):
        return Weights(f"the weights of model={run.choices['model']}")
    return None


def from_store(run: Run, network: nn.Module) -> Weights | None:
    """Loads the run's baseline from the store into `network`; returns None if it is not there.

    Raises:
        CheckpointError: the store's entry is damaged.
    """
    folder = entry(run, network)
    stored = folder / "stages" / "baseline.pt"
    if not (run.baseline.store and stored.exists()):
        return None
    return put(network, load(stored), f"baseline store ({folder.name})")


def stored_as(run: Run, network: nn.Module, data: Data) -> str | None:
    """Returns the name of the run's entry in the baseline store; None if it is not stored."""
    elsewhere = run.baseline.checkpoint is not None or run.model.pretrained(data.classes)
    return entry(run, network).name if run.baseline.store and not elsewhere else None


def entry(run: Run, network: nn.Module) -> Path:
    """Returns the folder that the run's baseline has in the store, whether it exists or not."""
    return Path(run.settings.outputs) / "baselines" / digest(identity(run, network))[:16]


def identity(run: Run, network: nn.Module) -> dict[str, Any]:
    """Returns all that decides a trained baseline's weights; equal ones share a store entry.

    That is model and dataset (with digests of the user's own files), recipe, seed, device, numbers
    of threads and processes, and library versions. `network` must be on the run's device.
    """
    scale = run.baseline.norm_scale
    return {
        **({} if scale is None else {"norm_scale": scale}),
        **deciding({group: run.config[group] for group in ("model", "dataset")}, run.contents),
        "recipe": deciding(asdict(run.recipe.baseline), {}),
        "seed": run.settings.seed,
        "device": next(network.parameters()).device.type,
        "threads": run.settings.threads,
        "processes": run.settings.processes,
        "torch": torch.__version__,
        "torchvision": version("torchvision"),  # importing it would take a second
    }


def waiting_lock(
    folder: Path, note: Callable[[str], None], own: Path
) -> AbstractContextManager[object]:
    """Returns the lock of a store entry, held; waits while another job trains the entry.

    Args:
        folder: of the entry; created if missing.
        note: shows the user a line.
        own: folder of the run that waits; a file in it says so to status tools.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / LOCK
    try:
        return locked(lock, note, timeout=0)
    except Timeout:
        last = next(reversed(read_attempts(folder)), None)
        who = f"process {last.get('pid')} on {last.get('host')}" if last else "another job"
        whom = f"{who}, which trains this baseline ({folder})"
        note(f"waiting for {whom}")
        with waiting(own, whom) as sign:
            while True:
                with suppress(Timeout):
                    return locked(lock, note, timeout=SIGN_SECONDS)
                sign.touch()
