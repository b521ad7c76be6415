"""What W&B receives can be read back from its file, and W&B can never stop a run."""

import contextlib
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import types
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from prunebench.errors import ConfigError
from prunebench.options.files import conf_dir
from prunebench.tracking import NoTracker, Outcome, Subject, mirror
from prunebench.tracking.wandb import WandbTracker, has_login

PLAIN = {
    "project": "bench",
    "entity": None,
    "mode": "offline",
    "group": "sweep",
    "tags": ["a"],
    "job_type": "prune",
    "artifacts": False,
    "plots": False,
}


EPOCH = {
    "stage": "s", "epochs": 9, "lr": 0.1, "loss": 0.5, "correct": 3, "seen": 4, "val_correct": 1,
    "val_seen": 2, "seconds": 1.0,
}  # fmt: skip


def subject(folder: Path, identity: str = "i", **changes: Any) -> Subject:
    """A run that a tracker is to follow."""
    plain: dict[str, Any] = {
        "title": "n", "config": {}, "choices": {}, "sweep": "", "note": print,
    }  # fmt: skip
    return Subject(folder=folder, identity=identity, **plain | changes)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable or login of the machine reaches a test."""
    for key in list(os.environ):
        if key.startswith("WANDB_"):
            monkeypatch.delenv(key)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


def read_offline_run(path: Path) -> Iterator[object]:
    """Yields the protobuf records of a run file: a LevelDB log of 32 KiB blocks."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert struct.unpack("<4sHB", data[:7])[:2] == (b":W&B", 0xBEE1)
    place, message = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        crc, size, kind = struct.unpack("<IHB", data[place : place + 7])
        if left < 7 or kind == 0:
            place += left
            continue
        body = data[place + 7 : place + 7 + size]
        assert zlib.crc32(body, zlib.crc32(bytes([kind]))) == crc
        place += 7 + size
        message = body if kind in (1, 2) else message + body
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(message)
            yield record


def values(items: object) -> dict[str, object]:
    return {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}


def fake_wandb(monkeypatch: pytest.MonkeyPatch, breaks: str) -> list[str]:
    """Puts a wandb in place that raises (or never answers) in the call named `breaks`."""
    calls: list[str] = []

    def call(name: str, result: object = None) -> object:
        def run(*_: object, **named: object) -> object:
            calls.append(f"log {named['step']}" if name == "log" else name)
            if name == breaks:
                raise SystemExit("wandb\nsays no")  # worse than an Exception
            if name + " hangs" == breaks:
                threading.Event().wait(30)
            return result

        return run

    run = types.SimpleNamespace(
        starting_step=2,
        dir="wandb/offline-run/files",
        define_metric=call("define_metric"),
        log=call("log"),
        finish=call("finish"),
        summary=types.SimpleNamespace(update=call("update")),
    )
    module = types.ModuleType("wandb")
    module.Settings = type("Settings", (), {"model_fields": {}})
    module.init = call("init", run)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


ABOUT = {
    "title": "vgg16-foad seed=3",
    "config": {"seed": 3, "model": {"width": 0.5}, "login": {"api_key": "hush", "user": "me"}},
    "choices": {"criterion": "foad"},
    "sweep": "monday",
}


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The records, by type, of the first of two runs in one process."""
    before, told = dict(os.environ), list[str]()
    tmp_path = tmp_path_factory.mktemp("offline")
    tracker = WandbTracker(**PLAIN | {"group": None, "artifacts": True, "plots": True})
    png = BytesIO()
    Image.new("RGB", (3, 2)).save(png, "png")
    (tmp_path / "slim.pt").write_bytes(b"weights")
    outcome = Outcome(
        figures={"drop_points": 1.25},
        layers=[{"name": "conv1", "channels_after": 3}],
        texts={"plan.json": "{}"},
        files=[tmp_path / "slim.pt"],
        plots=lambda: {"channels": png.getvalue()},
    )
    for identity in ("abc123", "other"):  # a second job of the process gets a run of its own
        with tracker.start(subject(tmp_path, identity, note=told.append, **ABOUT)) as run:
            run.log({**EPOCH, "stage": "baseline", "epoch": 1})
            run.log({**EPOCH, "epoch": 1, "val_seen": 0})
            run.log({"stage": "pruned", "params": 7, "test/top1": 12.5, "not": {"a": "curve"}})
            run.conclude(outcome)
    os.environ.pop("WANDB_SERVICE", None)  # where wandb's own process listens
    assert dict(os.environ) == before
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 2
    (file,) = tmp_path.glob("wandb/offline-run-*/run-abc123.wandb")
    found: dict[str, list[Any]] = {"file": [file], "told": told[:1]}
    for record in read_offline_run(file):
        found.setdefault(record.WhichOneof("record_type"), []).append(record)
    return found


def test_an_offline_run_says_what_it_is_and_where(offline: dict[str, list[Any]]) -> None:
    [file], info = offline["file"], offline["run"][0].run
    [told] = offline["told"]
    assert told == f"wandb: kept offline; to upload it: wandb sync {file.parent}"
    assert (info.run_id, info.project, info.run_group) == ("abc123", "bench", "monday")
    assert (info.job_type, list(info.tags)) == ("prune", ["a"])
    assert info.display_name == "vgg16-foad seed=3"
    logged = values(info.config.update)
    assert logged["choices"] == {"criterion": "foad"}
    assert (logged["seed"], logged["model"]) == (3, {"width": 0.5})
    assert logged["login"] == {"user": "me"}


def test_an_offline_run_reads_back(offline: dict[str, list[Any]]) -> None:
    rows = [values(record.history.item) for record in offline["history"]][:3]
    assert [row["epoch"] for row in rows] == [1, 2, 2]
    assert [row.get("train/top1") for row in rows] == [75.0, 75.0, None]
    assert [row.get("val/top1") for row in rows] == [50.0, None, None]
    assert rows[0]["baseline/val_top1"] == 50.0
    assert (rows[2]["pruned/test_top1"], rows[2]["test/top1"]) == (12.5, 12.5)
    steps = {r.metric.glob_name or r.metric.name: r.metric.step_metric for r in offline["metric"]}
    assert steps["*"] == "epoch"
    assert any(values(r.summary.update).get("drop_points") == 1.25 for r in offline["summary"])
    [table] = offline["file"][0].parent.glob("files/media/table/layers*.json")
    assert json.loads(table.read_text())["data"] == [["conv1", 3]]
    [image] = offline["file"][0].parent.glob("files/media/images/plots/channels*.png")
    assert image.read_bytes().startswith(b"\x89PNG")
    artifacts = [r.artifact for r in offline["artifact"] if r.artifact.type == "pruned-network"]
    [contents] = [[entry.path for entry in each.manifest.contents] for each in artifacts]
    assert contents == ["plan.json", "slim.pt"]
    assert offline["exit"][0].exit.exit_code == 0


SCRIPT = """
import os, sys
from pathlib import Path
from prunebench.tracking import Subject
from prunebench.tracking.wandb import WandbTracker
options = dict(project="p", entity=None, group=None, tags=[], job_type=None, artifacts=True,
    plots=False)
tracker = WandbTracker(**options, mode=sys.argv[2])
about = dict(title="n", config={}, choices={}, identity="id1", sweep="")
def note(line):
    print(line.partition(" wandb sync")[0])
try:
    with tracker.start(Subject(folder=Path(sys.argv[1]), note=note, **about)) as run:
        run.log({"stage": "s", "epoch": 1, "x": 1.0})
        raise ZeroDivisionError("the run's own")
except ZeroDivisionError:
    print("the run ended by itself")
"""


def run_watched(python: Any, folder: Path, mode: str, **environment: str) -> tuple[str, int]:
    """Runs SCRIPT with a proxy of ours; returns its output and how often the proxy was called."""
    calls = 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        variables = {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "HOME": str(folder / "home")}
        words = ["-c", SCRIPT, str(folder / "run"), mode]
        with python.start(*words, cwd=folder, **variables, **environment) as process:
            while process.poll() is None:
                try:
                    server.accept()[0].close()
                    calls += 1
                except TimeoutError:
                    continue
            output = process.stderr + process.stdout
            assert process.returncode == 0, output
    return output, calls


def test_offline_stays_in_the_folder_and_off_the_network(python: Any, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    output, calls = run_watched(python, tmp_path, "auto")  # no login: auto is offline
    assert output == "wandb: kept offline; to upload it:\nthe run ended by itself\n"
    assert calls == 0
    assert {path.name for path in tmp_path.iterdir()} == {"home", "run"}
    assert not list((tmp_path / "home").iterdir())
    (file,) = tmp_path.glob("run/wandb/offline-run-*/*.wandb")
    exits = [r.exit.exit_code for r in read_offline_run(file) if r.HasField("exit")]
    assert exits == [1]


@pytest.mark.slow
def test_unreachable_server_costs_seconds_not_the_run(python: Any, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    started = time.monotonic()
    output, calls = run_watched(python, tmp_path, "auto", WANDB_API_KEY="0" * 40)
    assert time.monotonic() - started < 120
    assert calls > 0  # so the proxy of the test above would have seen a connection
    assert "tracking is off" in output
    assert "the run ended by itself" in output


@pytest.mark.parametrize("breaks", ["init", "define_metric", "log", "update", "finish"])
def test_broken_wandb_is_reported_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    breaks: str,
) -> None:
    calls = fake_wandb(monkeypatch, breaks)
    with WandbTracker(**PLAIN).start(subject(tmp_path)) as run:
        for epoch in (1, 2, 3, 4):
            run.log({**EPOCH, "epoch": epoch})
        run.conclude(Outcome(figures={"x": 1}))
    assert calls.count("log 2" if breaks == "log" else breaks) == 1
    assert calls[-1] == ("init" if breaks == "init" else "finish")
    assert run.lost == "wandb (SystemExit: wandb)"
    (record,) = caplog.records
    assert record.getMessage() == (
        "wandb: tracking is off for the rest of this run (SystemExit: wandb)"
    )


def test_rows_that_the_server_has_are_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_wandb(monkeypatch, "")  # its run has two rows already
    with WandbTracker(**PLAIN).start(subject(tmp_path)) as run:
        for epoch in (1, 2, 3, 4):
            run.log({**EPOCH, "epoch": epoch})
    assert [name for name in calls if name.startswith("log")] == ["log 2", "log 3"]


def test_a_resumed_run_has_the_curves_of_earlier_attempts(
    prunebench: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    words = [
        "model=mlp_512_512", "model.widths=[8,4]", "dataset=digits", "dataset.size=8",
        "dataset.train_size=64", "criterion=l1", "budget=macs", "recipe=quick",
        "recipe.baseline.epochs=2", "recipe.finetune.epochs=3", "run.latency_batch=1",
    ]  # fmt: skip
    first = prunebench(*words)
    assert first.returncode == 0, first.stderr
    [report] = tmp_path.rglob("report.json")
    report.unlink()  # as if it had been killed before
    done = prunebench(*words, "tracker=wandb", "run.resume=true")
    assert done.returncode == 0, done.stderr
    assert report.exists()
    log = report.with_name("metrics.jsonl").read_text().splitlines()
    [file] = tmp_path.rglob("*.wandb")
    found = [r.history for r in read_offline_run(file) if r.HasField("history")]
    assert [history.step.num for history in found] == list(range(len(log) + 1))  # and the layers
    rows = [values(history.item) for history in found]
    assert [row["epoch"] for row in rows if "train/top1" in row] == [1, 2, 3, 4, 5]
    assert [row["finetune/epoch"] for row in rows if "finetune/epoch" in row] == [1, 2, 3]
    assert sum("val/top1" in row for row in rows) == 5
    assert [round(row["test/top1"]) for row in rows if "test/top1" in row]
    summary = dict(pair for r in read_offline_run(file) if r.HasField("summary")
                   for pair in values(r.summary.update).items())  # fmt: skip
    final = {m["stage"]: m["test"] for m in json.loads(report.read_text())["measurements"]}
    right = final["baseline"]["correct"] - final["finetuned_last"]["correct"]
    assert summary["drop_points"] == pytest.approx(100 * right / final["baseline"]["seen"])
    assert 45 < summary["macs_reduction_percent"] < 65
    [run] = [r.run for r in read_offline_run(file) if r.HasField("run")]
    assert values(run.config.update)["choices"]["criterion"] == "l1"
    assert run.display_name.startswith("mlp_512_512-digits-l1 model.widths=[8,4] dataset.size=8 ")
    assert run.display_name.endswith(" recipe.finetune.epochs=3 seed=0")


def test_missing_wandb_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with WandbTracker(**PLAIN).start(subject(tmp_path)) as run:
        run.log({"stage": "s"})
    assert "ModuleNotFoundError" in caplog.text


def test_hanging_wandb_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_wandb(monkeypatch, "log hangs")
    monkeypatch.setattr(mirror, "LOG_SECONDS", 0.05)
    started = time.monotonic()
    with WandbTracker(**PLAIN).start(subject(tmp_path)) as run:
        for epoch in (1, 2, 3, 4):
            run.log({**EPOCH, "epoch": epoch})
    assert time.monotonic() - started < 10
    assert "no answer within 0.05 s" in caplog.text


def test_the_runs_own_error_passes_and_marks_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_wandb(monkeypatch, "")
    with (
        pytest.raises(KeyboardInterrupt),
        WandbTracker(**PLAIN).start(subject(tmp_path)),
    ):
        raise KeyboardInterrupt
    assert (calls[0], calls[-1]) == ("init", "finish")


@pytest.mark.parametrize(
    ("mode", "variables", "expected"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": "k"}, "online"),
        ("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "offline"),
        ("auto", {"WANDB_MODE": "disabled"}, "disabled"),
        ("online", {}, "offline"),
        ("online", {"WANDB_API_KEY": "k"}, "online"),
        ("offline", {"WANDB_API_KEY": "k"}, "offline"),
        ("disabled", {"WANDB_API_KEY": "k"}, "disabled"),
    ],
)
def test_online_only_with_a_login(
    monkeypatch: pytest.MonkeyPatch, mode: str, variables: dict[str, str], expected: str
) -> None:
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    assert WandbTracker(**PLAIN | {"mode": mode})._mode() == expected


def test_login_is_found_in_the_netrc_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "netrc"
    file.write_text("machine api.wandb.ai login user password " + "0" * 40 + "\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    assert has_login()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not has_login()


def test_bad_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="mode must be one of auto, online, offline, disabled"):
        WandbTracker(**PLAIN | {"mode": "onlin"})
    with pytest.raises(ConfigError, match="project must not be empty"):
        WandbTracker(**PLAIN | {"project": ""})


@pytest.mark.parametrize(("name", "kind"), [("none", NoTracker), ("wandb", WandbTracker)])
def test_option_lists_every_field(name: str, kind: type, caplog: pytest.LogCaptureFixture) -> None:
    option = yaml.safe_load((conf_dir() / "tracker" / f"{name}.yaml").read_text())
    assert option.pop("_target_") == f"{kind.__module__}.{kind.__qualname__}"
    with caplog.at_level(logging.DEBUG):
        tracker = kind(**option)
    assert set(option) == set(vars(tracker))
    assert not {key for key in option if "key" in key or "token" in key}


def test_no_tracker_mirrors_nothing(tmp_path: Path) -> None:
    with NoTracker().start(subject(tmp_path)) as run:
        run.log({"stage": "s"})
        run.conclude(Outcome(figures={}))
    assert not list(tmp_path.iterdir())


HUNG = """
import sys
import time
from pathlib import Path
from prunebench.tracking import Subject, mirror
from prunebench.tracking.wandb import WandbTracker

mirror.LOG_SECONDS = mirror.CLOSE_SECONDS = 1.0
nothing = {"entity": None, "group": None, "tags": [], "job_type": None}
nothing |= {"artifacts": False, "plots": False}
tracker = WandbTracker(project="p", mode="offline", **nothing)
texts = {"title": "n", "identity": "i", "sweep": "", "note": print}
about = Subject(folder=Path("run"), config={}, choices={}, **texts)
with tracker.start(about) as run:
    run.log({"stage": "s", "a": 1})
    print("under way", file=sys.stderr, flush=True)
    time.sleep(1.5)
print("the report is written", file=sys.stderr)
"""


def test_a_hung_service_cannot_hold_a_finished_run(python: Any, tmp_path: Path) -> None:
    with python.start("-c", HUNG, cwd=tmp_path, HOME=str(tmp_path)) as process:
        process.wait_for("under way")
        (service,) = children(process.pid, "wandb-core")
        os.kill(service, signal.SIGSTOP)
        assert process.wait(60) == 0, process.stderr
        assert "the report is written" in process.stderr
        assert "Traceback" not in process.stderr
    with contextlib.suppress(FileNotFoundError):  # it may wait to be buried
        assert ") Z " in Path(f"/proc/{service}/stat").read_text()


def children(parent: int, name: str) -> list[int]:
    """The processes called `name` that `parent` has started."""
    stats = [path.read_text().rpartition(") ") for path in Path("/proc").glob("[0-9]*/stat")]
    return [
        int(head.partition(" ")[0])
        for head, _, rest in stats
        if head.endswith(f"({name}") and int(rest.split()[1]) == parent
    ]
