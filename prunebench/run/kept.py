"""The measurement of a baseline, kept so that the runs that share it share this.

It lies beside a stored baseline; of one that others trained, in a folder of its own.

It holds for a machine and its settings: a latency of elsewhere would be no measure of the speed-up.
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

#: of what was measured; latencies are taken on one machine, with as many threads
MEASURED = "measured"
#: of the environment: on what the figures depend beside the entry's identity
DECIDING = ("device", "threads", "prunebench", "commit", "dirty")


def measurement(context: RunContext, stage: str, network: nn.Module) -> str:
    """Returns the record of the baseline as JSON, measured now or by an earlier run.

    The answers to the test images are left in the folder of the run under way.
    """
    if not context.run.baseline.store:
        return context.measured(stage, network)
    place = place_of(context, network)
    answers = context.folder / PREDICTIONS / f"{stage}.npz"
    if place.exists():
        with suppress(CheckpointError):  # damaged: measured anew
            found = checkpoints.load(place)
            if found["answers"]:
                write_bytes(answers, bytes(found["answers"]))
            context.progress.note("baseline: measured before on this machine")
            return str(found["measurement"])
    measured = context.measured(stage, network)
    if not context.data.damaged.found:  # whose names the next run would not meet
        with suppress(OSError):  # somebody else's store, or a full disk
            said = answers.read_bytes() if answers.exists() else None
            checkpoints.save(place, {"measurement": measured, "answers": said})
    return measured


def place_of(context: RunContext, network: nn.Module) -> Path:
    """Returns where a measurement like this process's is kept."""
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
