"""Measures how much several runs on one GPU get done together, in steps per second.

    python scripts/bench/shared_gpu.py [--model resnet56] [--batch 128] [--processes 1 2 4]
        [--seconds 3] [--out shared.json]

Each process records a step of its own, as ``recorded_step.py`` does, and all replay theirs at the
same time. Without NVIDIA's MPS (``nvidia-cuda-mps-control -d``) processes alternate on a GPU; with
it their kernels run at the same time.
"""

from __future__ import annotations

import os
import subprocess
import time
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
from recorded_step import Step, recorded, wait
from result import Row, arguments, markdown, write

from prunebench.models import ModelSpec
from prunebench.options import option
from prunebench.records.environment import device_name

ABOUT = """Training steps (forward, loss, backward, SGD with momentum; bf16, channels_last,
recorded and replayed) per second of wall time, summed over all processes that share the device;
times as fast compares with one process alone."""
#: longest wait for all processes to have recorded their steps
READY = 120.0


def work(model: str, batch: int, seconds: float, together: Barrier, done: Any) -> None:
    """Runs in each process: sends the steps per second that it does while all others run."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    shape = (3, 32, 32)
    network = option("model", model, ModelSpec).build(shape, 10).to(device)
    network = network.to(memory_format=torch.channels_last).train()
    images = torch.randn(batch, *shape, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,), device=device)
    step = recorded(Step(network, images, labels), device)
    step()
    wait(device)
    together.wait(READY)
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(10 if device.type == "cuda" else 1):
            step()
            steps += 1
        wait(device)  # kernels run asynchronously: count only steps that are done
    done.put(steps / (time.perf_counter() - start))


def together(model: str, batch: int, seconds: float, processes: int) -> list[float]:
    """Returns the steps per second of each of `processes` processes that run at once."""
    context = get_context("spawn")
    barrier, done = context.Barrier(processes), context.Queue()
    own = [
        context.Process(target=work, args=(model, batch, seconds, barrier, done), daemon=True)
        for _ in range(processes)
    ]
    for process in own:
        process.start()
    try:
        return [done.get(timeout=READY + seconds) for _ in own]
    finally:
        for process in own:
            process.kill()


def mps() -> bool:
    """Returns whether an MPS server is running."""
    control = ["nvidia-cuda-mps-control"]
    try:
        subprocess.run(control, input=b"get_server_list", capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def main() -> None:
    """Prints the table."""
    parser = arguments(__doc__)
    parser.add_argument("--model", default="resnet56")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=3.0)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    side = "with MPS" if mps() else "without MPS"
    title = f"Trainings of {asked.model} that share {device_name(torch.device(device))}, {side}"
    rows: list[Row] = []
    for processes in asked.processes:
        each = together(asked.model, asked.batch, asked.seconds, processes)
        first = rows[0]["steps per second"] if rows else sum(each)
        assert isinstance(first, float)
        rows.append(
            {
                "processes": processes,
                "steps per second": sum(each),
                "slowest": min(each),
                "times as fast": sum(each) / first,
            }
        )
        print(markdown(rows[-1:]).splitlines()[-1], flush=True)
        write(asked, title, ABOUT, rows, device)
    print(f"{title}\n\n{markdown(rows)}")


if __name__ == "__main__":
    main()
