"""One run by several processes that torchrun or srun starts, on one machine or many."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest
import torch

from prunebench.config.launched import first_host, launched, shared_out
from prunebench.errors import ConfigError
from prunebench.run import workers
from tests.cli.test_processes import WHILE_TRAINING

TRAINING = [
    *(
        "experiment=quickstart",
        "model=resnet20",
        "model.depth=8",
        "model.width=0.25",
        "dataset.val_size=101",
        "dataset.test_size=50",
        "dataset.train_size=187",
    ),
    *("recipe.baseline.epochs=2", "recipe.baseline.warmup_epochs=0", "recipe.finetune.epochs=1"),
    *("criterion.num_samples=32", "run.latency_batch=2"),
]
ROOT = Path(__file__).parents[2]
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def by_torchrun(rank: int, port: str) -> dict[str, str]:
    """What torchrun says to the only process of a node, the second of two."""
    return dict(zip(VARIABLES, (str(rank), "2", "0", "1", "127.0.0.1", port), strict=True))


def by_srun(rank: int, job: str) -> dict[str, str]:
    """What srun says to the second of two tasks, on one machine."""
    step = {"SLURM_JOB_ID": job, "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"}
    return {
        **step,
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_PROCID": f"{rank}",
    }


class Both:
    """Two processes of one run."""

    def __init__(self, stack, python, folder, words, variables):
        self.processes = [
            stack.enter_context(
                python.start("-m", "prunebench", *words, cwd=folder, **variables(rank))
            )
            for rank in range(2)
        ]

    def codes(self):
        return [process.wait(120) for process in self.processes]

    def said(self):
        return [process.stderr for process in self.processes]


@pytest.fixture
def both(python, tmp_path):
    with ExitStack() as stack:

        def start(*words, srun=False):
            port = free_port()
            variables = by_srun if srun else by_torchrun
            return Both(stack, python, tmp_path, words, lambda rank: variables(rank, port))

        yield start


def result(folder):
    """What a run came to, without what may differ: weights, epochs, plan and counts."""
    [path] = folder.rglob("report.json")
    report = json.loads(path.read_text())
    rows = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    weights = torch.load(path.parent / "slim.pt", weights_only=True)["network"]
    tests = [measured["test"] for measured in report["measurements"]]
    return report["digest"], report["plan"], tests, rows, weights


@pytest.fixture(scope="module")
def on_one_machine(python, tmp_path_factory):
    """What ``run.processes=2`` comes to."""
    folder = tmp_path_factory.mktemp("one")
    done = python.run("-m", "prunebench", *TRAINING, "run.processes=2", cwd=folder)
    assert done.returncode == 0, done.stderr
    return result(folder)


def require_equal(found, expected):
    assert found[:-1] == expected[:-1]
    assert all(torch.equal(value, expected[-1][name]) for name, value in found[-1].items())


@pytest.fixture
def networks():
    """Two networks and the cable between them, as two machines have: addresses, and its ends."""
    ip = shutil.which("ip") or pytest.skip("networks are made by iproute2")
    spaces = [f"pb{os.getpid()}{end}" for end in "ab"]
    cable = [f"pb{os.getpid() % 10**8}{end}" for end in "ab"]  # names have 15 characters at most
    hosts = ["10.213.0.1", "10.213.0.2"]
    steps = [
        *(["netns", "add", space] for space in spaces),
        ["link", "add", cable[0], "type", "veth", "peer", "name", cable[1]],
    ]
    for space, end, host in zip(spaces, cable, hosts, strict=True):
        steps += [
            ["link", "set", end, "netns", space],
            ["-n", space, "addr", "add", f"{host}/24", "dev", end],
            ["-n", space, "link", "set", end, "up"],
            ["-n", space, "link", "set", "lo", "up"],
        ]
    try:
        if any(subprocess.call([ip, *step], stderr=subprocess.DEVNULL) for step in steps):
            pytest.skip("networks cannot be made here: it takes the rights to")
        yield dict(zip(spaces, hosts, strict=True)), cable
    finally:
        for space in spaces:
            subprocess.call([ip, "netns", "del", space], stderr=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_machines_make_the_run_that_one_makes(networks, tmp_path, on_one_machine):
    """torchrun on each of them, and nothing but a cable between."""
    spaces, cable = networks
    first = next(iter(spaces.values()))
    processes = []
    for rank, (space, end) in enumerate(zip(spaces, cable, strict=True)):
        command = [
            *("ip", "netns", "exec", space, sys.executable, "-m", "torch.distributed.run"),
            *("--nnodes", "2", "--nproc_per_node", "1", "--node_rank", str(rank)),
            *("--master_addr", first, "--master_port", "29517", "-m", "prunebench", *TRAINING),
        ]
        env = {**os.environ, "GLOO_SOCKET_IFNAME": end, "PYTHONPATH": str(ROOT)}
        processes.append(
            subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
        )
    try:
        said = [process.communicate(timeout=500)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    require_equal(result(tmp_path), on_one_machine)


@pytest.mark.parametrize("srun", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_they_make_the_run_that_as_many_on_one_machine_make(both, tmp_path, on_one_machine, srun):
    run = both(*TRAINING, srun=srun)
    assert run.codes() == [0, 0], run.said()
    first, second = run.processes
    assert "baseline  epoch 1/2" in first.stderr
    said = [line for line in second.stdout.splitlines() if not line.startswith("[Gloo]")]
    assert (said, second.stderr) == ([], "")  # torch 2.8 tells of its connections
    require_equal(result(tmp_path), on_one_machine)
    assert (
        len([path for path in tmp_path.rglob("*") if path.is_dir() and not any(path.iterdir())])
        == 0
    )


@pytest.mark.parametrize("lost", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_one_that_is_killed_ends_both_and_they_go_on_later(both, tmp_path, on_one_machine, lost):
    words = [*TRAINING, "run.checkpoint_seconds=0", "hydra.run.dir=here"]
    run = both(*words)
    run.processes[0].wait_for("baseline  epoch 1/2")
    os.kill(run.processes[lost].pid, signal.SIGKILL)
    codes = run.codes()
    assert codes[lost] == -signal.SIGKILL
    assert codes[1 - lost] == (2 if lost else 0)
    if lost:
        assert "another process of the run has ended" in run.said()[0].splitlines()[-1]
        assert json.loads((tmp_path / "here" / "failure.json").read_text())["stage"] == "baseline"
    assert "Traceback" not in "".join(run.said())
    again = both(*words)
    assert again.codes() == [0, 0], again.said()
    assert "continuing the run in" in again.said()[0]
    require_equal(result(tmp_path), on_one_machine)


def test_asked_to_stop_the_first_saves_and_both_end(both):
    run = both(*TRAINING, "recipe.baseline.epochs=40")
    run.processes[0].wait_for("baseline  epoch 1/40")
    for process in reversed(run.processes):
        process.send_signal(signal.SIGTERM)
    assert run.codes() == [75, 0]
    assert "progress is saved" in run.said()[0]
    assert run.said()[1] == ""


def test_a_mistake_ends_both_and_each_says_who_it_is(both):
    run = both("experiment=quickstart", "criterion.t=-1")
    assert run.codes() == [2, 2]
    first, second = run.said()
    assert first.startswith("prunebench: criterion: t must")
    assert second.startswith("prunebench, process 1: criterion: t must")


def test_what_only_the_first_finds_out_ends_the_others_too(both, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("{}")
    run = both(*TRAINING, "hydra.run.dir=other")
    assert run.codes() == [2, 0], run.said()
    assert "other holds another run" in run.said()[0]


@pytest.mark.parametrize(
    ("says", "quiet"),
    [
        ("Gloo connectFullMesh failed with [gloo/pair.cc:534] Connection closed by peer", True),
        ("[gloo/device.cc:81] Unable to find address for: eth7", False),
    ],
)
def test_one_that_joins_as_the_first_ends_leaves_the_message_to_it(monkeypatch, says, quiet):
    @contextmanager
    def joined(run, place):
        raise RuntimeError(says)
        yield

    monkeypatch.setattr(workers, "_joined", joined)
    with nullcontext() if quiet else pytest.raises(RuntimeError, match="eth7"):
        workers.follow(None, None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["experiment=quickstart", "run.processes=3"], "leave run.processes out"),
        (["-m", "experiment=quickstart", "run.seed=0,1"], "start each run of a sweep with them"),
    ],
)
def test_what_does_not_go_together_is_refused(python, tmp_path, words, said):
    done = python.run("-m", "prunebench", *words, cwd=tmp_path, **by_torchrun(0, "1"))
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, None),
        ({"WORLD_SIZE": "2"}, None),
        (by_torchrun(1, "7") | {"WORLD_SIZE": "1", "RANK": "0"}, None),
        (by_torchrun(1, "7"), (1, 2, 0, 1, "127.0.0.1", 7)),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),  # a batch script
        (by_srun(0, "5") | {"SLURM_STEP_NUM_TASKS": "1"}, None),  # a job of submitit's
        (by_srun(1, "5") | {"MASTER_PORT": "9"}, (1, 2, 0, 1, "127.0.0.1", 9)),
        (
            by_srun(1, "5")
            | {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "gpu[07-08]", "MASTER_PORT": "9"}
            | {"SLURM_LOCALID": "1", "CUDA_VISIBLE_DEVICES": "0,1"},
            (1, 2, 1, 1, "gpu07", 9),
        ),
        (by_torchrun(1, "7") | by_srun(0, "5"), (1, 2, 0, 1, "127.0.0.1", 7)),  # srun torchrun
    ],
)
def test_who_has_been_launched(monkeypatch, variables, found):
    for name in (*VARIABLES, *by_srun(0, "")):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    place = launched()
    assert (place and tuple(vars(place).values())) == found
    assert shared_out(1) == (place.size if place else 1)
    if place:
        assert shared_out(2) == 2
        with pytest.raises(ConfigError, match="leave run.processes out"):
            shared_out(3)


def test_two_steps_of_one_job_meet_in_two_places(monkeypatch):
    ports = set()
    for step in ("0", "1"):
        for name, value in (by_srun(0, "5") | {"SLURM_STEP_ID": step}).items():
            monkeypatch.setenv(name, value)
        place = launched()
        assert place is not None
        ports.add(place.port)
    assert len(ports) == 2
    assert all(20000 <= port < 60000 for port in ports)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("a", "a"),
        ("a,b", "a"),
        ("n[3-7,9]", "n3"),
        ("n[03,7]-x,m[1-2]", "n03-x"),
        ("r[1-2]n[4-5]", "r1n4"),
    ],
)
def test_the_first_machine_of_a_list(nodes, first):
    assert first_host(nodes) == first


@pytest.mark.slow
def test_two_nodes_of_torchrun_prune_while_training(python, tmp_path):
    (tmp_path / "one").mkdir()
    done = python.run("-m", "prunebench", *WHILE_TRAINING, cwd=tmp_path / "one")
    assert done.returncode == 0, done.stderr
    (tmp_path / "two").mkdir()
    typed = [word for word in WHILE_TRAINING if word != "run.processes=2"]
    port, nodes = free_port(), []
    for rank in range(2):
        words = [
            *(
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nnodes",
                "2",
                "--node_rank",
                f"{rank}",
            ),
            *("--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", port),
            *("-m", "prunebench", *typed),
        ]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        nodes.append(subprocess.Popen(words, cwd=tmp_path / "two", env=env))
    assert [node.wait(280) for node in nodes] == [0, 0]
    require_equal(result(tmp_path / "two"), result(tmp_path / "one"))
