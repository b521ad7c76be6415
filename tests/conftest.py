"""Provides fixtures for all tests: one thread, the command line as users run it, small reports."""

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import pytest
from filelock import FileLock

from prunebench.records import Failure, Latency, Measurement, Report, Score, finish
from tests.composed_once import hasten

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

Completed = subprocess.CompletedProcess[str]
#: modules that every run imports sooner or later
OF_A_RUN = [
    "prunebench.cli", "prunebench.run.runner", "prunebench.run.dry_run", "torch.utils.benchmark",
    "fvcore.nn", "onnxscript", "wandb", "wandb.sdk.launch", "rich._emoji_codes",
    "torch.utils.serialization.config", "hydra._internal.logging_config",
]  # fmt: skip


def pytest_collection_finish() -> None:
    """Makes garbage collection rarer now that all is imported, and Hydra read YAMLs only once."""
    gc.freeze()
    gc.set_threshold(20_000, 10, 50)
    hasten()


@pytest.fixture(autouse=True)
def _leaves_torch_as_it_was() -> Iterator[None]:
    """Fails a test that changes how torch computes, since all later tests would be affected."""
    before = how_torch_computes()
    yield
    assert not before or how_torch_computes() == before


def how_torch_computes() -> dict[str, object]:
    """Returns torch's settings for the whole process; empty if torch is not imported."""
    if (torch := sys.modules.get("torch")) is None:
        return {}
    return {
        "gradients": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "products": torch.get_float32_matmul_precision(),
    }


class Forked:
    """A process forked by the warm python, like a `subprocess.Popen` with readable output."""

    def __init__(self, asking: socket.socket, words: tuple[str, ...], cwd: Path, env: Any):
        self.args = words
        self.returncode: int | None = None
        self.files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 - in __exit__
        socket.send_fds(asking, [b"."], [file.fileno() for file in self.files])
        self.connection = Connection(asking.detach())
        self.connection.send((list(words), str(cwd), env))
        self.pid: int = self.connection.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)
            self.wait()
        self.connection.close()
        for file in self.files:
            file.close()

    def poll(self) -> int | None:
        if self.returncode is None and self.connection.poll():
            self.returncode = self.connection.recv()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not self.connection.poll(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0, self.stdout, self.stderr)
        code = self.poll()
        assert code is not None
        return code

    def wait_for(self, text: str, timeout: float = 120) -> None:
        """Waits until the process has printed `text` to stderr."""
        deadline = time.monotonic() + timeout
        while text not in self.stderr:
            assert self.poll() is None, self.stderr
            assert time.monotonic() < deadline, self.stderr
            time.sleep(0.02)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # the process has just ended
                os.kill(self.pid, number)

    @property
    def stdout(self) -> str:
        """All that the process has printed so far."""
        return self._said(0)

    @property
    def stderr(self) -> str:
        return self._said(1)

    def _said(self, index: int) -> str:
        place = self.files[index].fileno()  # pread leaves the offset, which the process shares
        return os.pread(place, os.fstat(place).st_size, 0).decode()


class WarmPython:
    """Runs command lines in forks of one process, see ``warm_python.py``.

    All processes of pytest-xdist share it. The first that needs it starts it, and waits for its
    end.
    """

    def __init__(self, *modules: str):
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}")
        self.address = f"{tempfile.gettempdir()}/{run[-12:]}{len(modules)}"
        self.process: subprocess.Popen[bytes] | None = None
        script = Path(__file__).with_name("warm_python.py")
        with FileLock(f"{self.address}.lock"):
            if self.is_there():
                return
            self.process = subprocess.Popen(
                [sys.executable, "-P", script, self.address, *modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            while not self.is_there():
                assert self.process.poll() is None
                time.sleep(0.05)

    def is_there(self) -> bool:
        """Returns whether it accepts commands; if so, it stays alive while `line` is open."""
        self.line = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            self.line.connect(self.address)
            self.line.send(b".")
            if self.line.recv(1):
                return True
        self.line.close()
        return False

    def close(self) -> None:
        self.line.close()
        if self.process:
            self.process.wait()
            Path(f"{self.address}.lock").unlink(missing_ok=True)

    def start(self, *words: str, cwd: Path, **variables: str) -> Forked:
        """Starts ``python WORDS`` in the folder `cwd`, with these environment `variables` added."""
        asking = socket.socket(socket.AF_UNIX)
        asking.connect(self.address)
        return Forked(asking, words, cwd, {**os.environ, **variables})

    def run(self, *words: str, cwd: Path, timeout: float = 240, **variables: str) -> Completed:
        """Runs ``python WORDS`` to its end; returns its output and exit code."""
        with self.start(*words, cwd=cwd, **variables) as process:
            code = process.wait(timeout)
            return Completed(process.args, code, process.stdout, process.stderr)


@pytest.fixture(scope="session")
def python() -> Iterator[WarmPython]:
    """A python that has imported everything a run needs."""
    host = WarmPython(*OF_A_RUN)
    yield host
    host.close()


@pytest.fixture(scope="session")
def torch_free() -> Iterator[WarmPython]:
    """A python that has imported prunebench and refuses to import torch."""
    host = WarmPython()
    yield host
    host.close()


class Command:
    """``prunebench`` in a folder: a call returns its output and exit code."""

    def __init__(self, python: WarmPython, folder: Path):
        self.python, self.folder = python, folder

    def __call__(self, *arguments: str, timeout: float = 240, **variables: str) -> Completed:
        words, variables = ("-m", "prunebench", *arguments), {"WANDB_MODE": "offline"} | variables
        return self.python.run(*words, cwd=self.folder, timeout=timeout, **variables)

    def start(self, *arguments: str) -> Forked:
        """Starts the command, and returns its process at once."""
        words = ("-m", "prunebench", *arguments)
        return self.python.start(*words, cwd=self.folder, WANDB_MODE="offline")


@pytest.fixture
def prunebench(python: WarmPython, tmp_path: Path) -> Command:
    """Runs the command in an empty folder of its own."""
    return Command(python, tmp_path)


def measured(
    stage: str,
    correct: int,
    sizes: tuple[int, int] = (2000, 10000),
    times: tuple[float, ...] = (),
    device: str = "CPU X",
) -> Measurement:
    """Returns a measurement on 1000 test images; `sizes` are params and MACs."""
    return Measurement(
        stage=stage,
        params=sizes[0],
        macs=sizes[1],
        size_bytes=4 * sizes[0],
        test=Score(correct=correct, correct_top5=None, seen=1000, loss=0.5),
        val=None,
        latency=[
            Latency(batch=batch, device=device, threads=1, median_ms=ms, iqr_ms=0.1)
            for batch, ms in zip((1, 64), times, strict=False)
        ],
    )


def report(
    seed: int = 0,
    *,
    base: int = 900,
    last: int | None = 880,
    best: int | None = None,
    sizes: tuple[int, int] = (500, 4000),
    config: dict[str, object] | None = None,
    choices: dict[str, str] | None = None,
    device: str = "CPU X",
    note: str = "",
    finished_at: str = "2026-01-01T00:00:00+00:00",
) -> Report:
    """Returns a report of FOAD on a small network."""
    values: dict[str, object] = {"run": {"seed": seed, "resume": False}, "criterion": {"t": 1}}
    measurements = [
        measured("baseline", base, times=(4.0, 100.0), device=device),
        measured("pruned", 200, sizes),
    ]
    if last is not None:
        measurements.append(measured("finetuned_last", last, sizes, (2.0, 40.0), device))
    if best is not None:
        measurements.append(measured("finetuned_best_val", best, sizes))
    return Report(
        config=values | (config or {}),
        choices={
            "model": "lenet5",
            "dataset": "digits",
            "criterion": "foad",
            "budget": "own",
            "repair": "none",
            "schedule": "oneshot",
            "recipe": "quick",
        }
        | (choices or {}),
        seed=seed,
        digest="",
        environment={},
        seconds={},
        plan={},
        layers=[],
        steps=[],
        measurements=measurements,
        convention="conv + linear, one image",
        note=note,
        finished_at=finished_at,
    )


def failure(of: Report, message: str = "loss is nan\nmore") -> Failure:
    """Returns the failure of a run with the settings of `of`."""
    return Failure(
        config=of.config,
        choices=of.choices,
        seed=of.seed,
        digest="",
        environment={},
        seconds={},
        stage="finetune",
        kind="TrainingError",
        message=message,
        traceback="",
        finished_at="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture
def make_report() -> Callable[..., Report]:
    """Returns `report`, for tests that make several."""
    return report


@pytest.fixture
def make_failure() -> Callable[..., Failure]:
    """Returns `failure`, for tests that make several."""
    return failure


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A folder with three seeds of one setting, one run of another, and a failed run of that."""
    for seed, base, last in ((0, 900, 880), (1, 910, 880), (2, 920, 900)):
        finish(tmp_path / f"seed{seed}", report(seed, base=base, last=last, best=last + 5))
    other = report(0, last=850, sizes=(200, 1000), config={"criterion": {"t": 2}})
    finish(tmp_path / "t2", other)
    finish(tmp_path / "t2_failed", failure(other))
    return tmp_path
