"""Keeps the measurement of a baseline, so that other runs with the same baseline reuse it.

The file lies beside the entry of the baseline store; for weights trained elsewhere, in a folder of
its own. It is valid for one machine and its settings only, since a speed-up compares latencies.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

from torch import nn

from prunebench import checkpoints
from prunebench.errors import CheckpointError
from prunebench.records.environment import environment
from prunebench.records.jsonfile import digest, write_bytes
from prunebench.records.predictions import PREDICTIONS
from prunebench.run import baseline
from prunebench.run.context import RunContext

#: name of the folder with the measurements
MEASURED = "measured"
#: parts of the environment that the figures depend on, beside the baseline's identity
DECIDING = ("device", "threads", "prunebench", "commit", "dirty")


def measurement(context: RunContext, stage: str, network: nn.Module) -> str:
    """Returns the record of the baseline as JSON, measured now or by an earlier run.

    Either way the predictions on the test images end up in this run's folder.
    """
    if not context.run.baseline.store:
        return context.measured_json(stage, network)
    place = place_of(context, network)
    file = context.folder / PREDICTIONS / f"{stage}.npz"
    if place.exists():
        with suppress(CheckpointError):  # damaged: measured anew
            found = checkpoints.load(place)
            if found["answers"]:
                write_bytes(file, bytes(found["answers"]))
            context.progress.note("baseline: measured before on this machine")
            return str(found["measurement"])
    measured = context.measured_json(stage, network)
    if not context.data.damaged.found:  # a run that skips the measuring could not report them
        with suppress(OSError):  # a read-only store or a full disk must not stop the run
            predictions = file.read_bytes() if file.exists() else None
            checkpoints.save(place, {"measurement": measured, "answers": predictions})
    return measured


def place_of(context: RunContext, network: nn.Module) -> Path:
    """Returns the file for measurements made under the conditions of this process."""
    found = environment(context.device)
    key = {
        "host": socket.gethostname(),
        "latency_batch": context.run.settings.latency_batch,
        **{name: found[name] for name in DECIDING},
    }
    run = context.run
    if baseline.stored_as(run, network, context.data) is not None:
        return baseline.entry(run, network) / MEASURED / f"{digest(key)[:16]}.pt"
    given = baseline.identity(run, network) | {"seed": None, "recipe": None, "processes": None}
    whole = {**key, "given": given, "checkpoint": run.contents.get("baseline.checkpoint")}
    return Path(run.settings.outputs) / MEASURED / f"{digest(whole)[:16]}.pt"
