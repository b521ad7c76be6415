"""Trackers: what W&B is given comes back from its file, and W&B can never stop a run."""

import json
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import types
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from prunebench.errors import ConfigError
from prunebench.options import conf_dir
from prunebench.tracking import NoTracker
from prunebench.tracking import wandb as mirror
from prunebench.tracking.wandb import WandbTracker

PLAIN = {
    "project": "bench",
    "entity": None,
    "mode": "offline",
    "group": "sweep",
    "tags": ["a"],
    "job_type": "prune",
}


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


def test_offline_run_reads_back(tmp_path: Path) -> None:
    before = dict(os.environ)
    tracker = WandbTracker(**PLAIN)
    config = {"seed": 3, "model": {"width": 0.5}, "login": {"api_key": "hush", "user": "me"}}
    for name in ("abc123", "other"):  # a second job of the same process gets a run of its own
        with tracker.start(tmp_path, "vgg16-foad", config, name) as run:
            run.log({"stage": "finetune", "epoch": 1, "train/loss": 0.5, "val/top1": 90.0})
            run.log({"stage": "finetune", "epoch": 2, "train/loss": 0.25, "val/top1": 91.0})
            run.log({"stage": "pruned", "test/top1": 12.5})
            run.summary({"macs_after": 7})
    os.environ.pop("WANDB_SERVICE", None)  # where wandb's own process listens
    assert dict(os.environ) == before
    (file,) = tmp_path.glob("wandb/offline-run-*/run-abc123.wandb")
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 2
    found: dict[str, list[object]] = {}
    for record in read_offline_run(file):
        found.setdefault(record.WhichOneof("record_type"), []).append(record)
    info = found["run"][0].run
    assert (info.run_id, info.project, info.run_group) == ("abc123", "bench", "sweep")
    assert (info.job_type, list(info.tags), info.display_name) == ("prune", ["a"], "vgg16-foad")
    logged = values(info.config.update)
    assert {key: logged[key] for key in config} == {
        "seed": 3,
        "model": {"width": 0.5},
        "login": {"user": "me"},
    }
    rows = [values(record.history.item) for record in found["history"]]
    assert [row.get("finetune/epoch") for row in rows] == [1, 2, None]
    assert [row.get("finetune/train/loss") for row in rows] == [0.5, 0.25, None]
    assert rows[2]["pruned/test/top1"] == 12.5
    steps = {r.metric.glob_name or r.metric.name: r.metric.step_metric for r in found["metric"]}
    assert steps["finetune/*"] == "finetune/epoch"
    assert any(values(r.summary.update).get("macs_after") == 7 for r in found["summary"])
    assert found["exit"][0].exit.exit_code == 0


SCRIPT = """
import os, sys
from prunebench.tracking.wandb import WandbTracker
options = dict(project="p", entity=None, group=None, tags=[], job_type=None)
tracker = WandbTracker(**options, mode=sys.argv[2])
try:
    with tracker.start(sys.argv[1], "n", {}, "id1") as run:
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
    assert output == "the run ended by itself\n"
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
    with WandbTracker(**PLAIN).start(tmp_path, "n", {}, "i") as run:
        for epoch in (1, 2, 3, 4):
            run.log({"stage": "s", "epoch": epoch})
        run.summary({"x": 1})
    assert calls.count("log 2" if breaks == "log" else breaks) == 1
    assert calls[-1] == ("init" if breaks == "init" else "finish")
    (record,) = caplog.records
    assert record.getMessage() == (
        "wandb: tracking is off for the rest of this run (SystemExit: wandb)"
    )


def test_rows_that_the_server_has_are_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_wandb(monkeypatch, "")  # its run has two rows already
    with WandbTracker(**PLAIN).start(tmp_path, "n", {}, "i") as run:
        for epoch in (1, 2, 3, 4):
            run.log({"stage": "s", "epoch": epoch})
    assert [name for name in calls if name.startswith("log")] == ["log 2", "log 3"]


def test_a_resumed_run_has_the_rows_of_earlier_attempts(
    prunebench: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    words = [
        "model=mlp_512_512", "model.widths=[8,4]", "dataset=digits", "dataset.size=8",
        "dataset.train_size=64", "criterion=l1", "budget=macs", "recipe=quick",
        "recipe.baseline.epochs=1", "recipe.finetune.epochs=3", "run.latency_batch=1",
    ]  # fmt: skip
    first = prunebench(*words)
    assert first.returncode == 0, first.stderr
    [report] = tmp_path.rglob("report.json")
    report.unlink()  # as if it had been killed before
    assert prunebench(*words, "tracker=wandb", "run.resume=true").returncode == 0
    assert report.exists()
    lines = report.with_name("metrics.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    [file] = tmp_path.rglob("*.wandb")
    found = [r.history for r in read_offline_run(file) if r.HasField("history")]
    assert [history.step.num for history in found] == list(range(len(log)))
    for row, history in zip(log, found, strict=True):
        mirrored = values(history.item)
        if "epoch" in row:
            assert mirrored[f"{row['stage']}/epoch"] == row["epoch"]
        assert any(key.startswith(f"{row['stage']}/") for key in mirrored)


def test_missing_wandb_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with WandbTracker(**PLAIN).start(tmp_path, "n", {}, "i") as run:
        run.log({"stage": "s"})
    assert "ModuleNotFoundError" in caplog.text


def test_hanging_wandb_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_wandb(monkeypatch, "log hangs")
    monkeypatch.setattr(mirror, "LOG_SECONDS", 0.05)
    started = time.monotonic()
    with WandbTracker(**PLAIN).start(tmp_path, "n", {}, "i") as run:
        for epoch in (1, 2, 3, 4):
            run.log({"stage": "s", "epoch": epoch})
    assert time.monotonic() - started < 10
    assert "no answer within 0.05 s" in caplog.text


def test_the_runs_own_error_passes_and_marks_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_wandb(monkeypatch, "")
    with (
        pytest.raises(KeyboardInterrupt),
        WandbTracker(**PLAIN).start(tmp_path, "n", {}, "i"),
    ):
        raise KeyboardInterrupt
    assert calls == ["init", "finish"]


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
    assert mirror.has_login()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not mirror.has_login()


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
    with NoTracker().start(tmp_path, "n", {}, "i") as run:
        run.log({"stage": "s"})
        run.summary({})
    assert not list(tmp_path.iterdir())
