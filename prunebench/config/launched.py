"""Tells which of several processes this is, if torchrun or srun started them for one run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32

from prunebench.errors import require

#: environment variables that torchrun and similar launchers set for each process
TORCHRUN = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
#: first port at which the processes of a SLURM step may meet, and number of such ports
PORTS = 20000, 40000


@dataclass(frozen=True)
class Launched:
    """Describes one of several launched processes.

    Attributes:
        rank: its number, from 0; process 0 is the run's own.
        size: number of processes.
        local_rank: its number among those that see the same CUDA devices.
        neighbours: number of processes that share its CPUs, itself included.
        address, port: where they meet, on the machine of process 0.
    """

    rank: int
    size: int
    local_rank: int
    neighbours: int
    address: str
    port: int

    @property
    def on_one_machine(self) -> bool:
        """Whether all are known to be on one machine."""
        return self.address in ("127.0.0.1", "localhost")


def launched() -> Launched | None:
    """Returns which of several launched processes this is; None if there is only this one."""
    env = os.environ
    if env.keys() >= TORCHRUN:
        place = Launched(
            rank=int(env["RANK"]),
            size=int(env["WORLD_SIZE"]),
            local_rank=int(env.get("LOCAL_RANK", 0)),
            neighbours=int(env.get("LOCAL_WORLD_SIZE", 1)),
            address=env["MASTER_ADDR"],
            port=int(env["MASTER_PORT"]),
        )
    elif {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"} <= env.keys():
        place = _by_srun(env)
    else:  # SLURM_NTASKS proves nothing: a batch script, a single process, has it too
        return None
    return place if place.size > 1 else None


def _by_srun(env: Mapping[str, str]) -> Launched:
    """Returns which task of a SLURM step this is."""
    alone = env.get("SLURM_STEP_NUM_NODES", "1") == "1"
    first = "127.0.0.1" if alone else first_host(env["SLURM_STEP_NODELIST"])
    step = f"{env.get('SLURM_JOB_ID')}.{env.get('SLURM_STEP_ID')}"
    begin, count = PORTS
    several = "," in env.get("CUDA_VISIBLE_DEVICES", "")  # otherwise each task sees only its own
    return Launched(
        rank=int(env["SLURM_PROCID"]),
        size=int(env["SLURM_STEP_NUM_TASKS"]),
        local_rank=int(env.get("SLURM_LOCALID", 0)) if several else 0,
        neighbours=1,  # SLURM binds each task to CPUs of its own
        address=env.get("MASTER_ADDR", first),
        port=int(env.get("MASTER_PORT", begin + crc32(step.encode()) % count)),
    )


def first_host(nodes: str) -> str:
    """Returns the first machine in SLURM's compact list, such as ``node[03-07,9]-a,login1``."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def shared_out(processes: int) -> int:
    """Returns the number of processes of a run: those launched, or else `processes`.

    Raises:
        ConfigError: the two differ.
    """
    place = launched()
    if place is None:
        return processes
    require(
        processes in (1, place.size),
        f"run.processes={processes} contradicts the {place.size} processes that torchrun or srun "
        "has started; leave run.processes out",
    )
    return place.size
