"""Mirrors runs in Weights & Biases: online if there is a login, else in the run's folder."""

from __future__ import annotations

import logging
import netrc
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prunebench.errors import require, require_choice
from prunebench.tracking import Outcome, Subject, TrackedRun, Tracker, Untracked
from prunebench.tracking.curves import AXIS
from prunebench.tracking.mirror import Mirror, typed

log = logging.getLogger(__name__)

WANDB_INIT_SECONDS, WANDB_FINISH_SECONDS = 15.0, 30.0
SECRETS = {"api_key", "apikey", "password", "secret", "token"}


@dataclass(frozen=True, kw_only=True)
class WandbTracker(Tracker):
    """Mirrors runs in Weights & Biases.

    Attributes:
        project: to log to.
        entity: user or team; None = the login's own.
        mode: auto, online, offline or disabled; auto = online if a login is found, else offline.
        group: of the run; None = its sweep.
        tags: of the run.
        job_type: of the run; None = none.
        artifacts: whether to upload plan, report and slim network.
        plots: whether to upload the run's plots at its end.
    """

    project: str
    entity: str | None
    mode: str
    group: str | None
    tags: list[str]
    job_type: str | None
    artifacts: bool
    plots: bool

    def __post_init__(self) -> None:
        """Checks the mode and that there is a project."""
        require_choice("mode", self.mode, ("auto", "online", "offline", "disabled"))
        require(bool(self.project), "project must not be empty")
        require(
            not self.plots or find_spec("matplotlib") is not None,
            "tracker.plots needs a package: pip install 'prunebench[plot]'",
        )

    def start(self, subject: Subject) -> TrackedRun:
        """Starts a W&B run; one that mirrors nothing if the mode is disabled."""
        mode = self._mode()
        return Untracked() if mode == "disabled" else WandbRun(self, subject, mode)

    def _mode(self) -> str:
        """Returns online, offline or disabled; online only if W&B will not ask for a login."""
        mode = self.mode
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE", "online" if has_login() else "offline")
        if mode == "online" and not has_login():
            log.warning("wandb: no login found, so this run is kept offline (wandb login)")
            mode = "offline"
        return mode if mode in ("online", "disabled") else "offline"


class WandbRun(Mirror):
    """Mirrors one run in W&B."""

    def __init__(self, tracker: WandbTracker, subject: Subject, mode: str) -> None:
        """Opens the run, online or offline as `mode` says."""
        self._tracker, self._subject, self._mode = tracker, subject, mode
        root = subject.folder.resolve() / "wandb"
        variables = _variables(root, offline=mode == "offline")  # set until the run ends
        self._mirrored = 0
        self._run: Any = None
        self._folder: Path | None = None
        self._before = {key: os.environ.get(key) for key in variables}
        os.environ.update(variables)
        super().__init__("wandb", self._open)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Finishes the run, with exit code 1 after an exception; tells where offline files lie."""
        try:
            super().__exit__(kind, *rest)
        finally:
            for key, value in self._before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value
        if self._folder is not None and self._mode == "offline":
            self._subject.note(
                f"wandb: kept offline; to upload it: wandb sync {typed(self._folder)}"
            )

    def _open(self) -> None:
        import wandb

        known = wandb.Settings.model_fields  # older releases lack some
        wanted: dict[str, Any] = {
            "console": "off",
            "silent": True,
            "disable_git": True,
            "reinit": "finish_previous",
            "x_disable_stats": True,
            "init_timeout": WANDB_INIT_SECONDS,
            "finish_timeout": WANDB_FINISH_SECONDS,
        }
        settings = wandb.Settings(**{k: v for k, v in wanted.items() if k in known})
        tracker, subject = self._tracker, self._subject
        options: dict[str, Any] = {
            "project": tracker.project,
            "entity": tracker.entity,
            "group": tracker.group or subject.sweep or None,
            "tags": list(tracker.tags),
            "job_type": tracker.job_type,
            "name": subject.title,
            "id": subject.identity,
            "config": _without_secrets({**subject.config, "choices": dict(subject.choices)}),
            "mode": self._mode,
            "dir": str(subject.folder.resolve()),
            "resume": "allow" if self._mode == "online" else None,  # offline, some warn of it
        }
        self._run = wandb.init(**options, settings=settings)
        self._folder = Path(str(self._run.dir)).parent
        self._run.define_metric(AXIS)
        self._run.define_metric("*", step_metric=AXIS)
        # A row's step is its number in the run. The server's copy of a resumed online run has the
        # earlier rows already; an offline run is a new one and gets them all.
        self._mirrored = self._run.starting_step

    def _write(self, values: Mapping[str, float], number: int) -> None:
        if number >= self._mirrored:
            self._run.log(dict(values), step=number, commit=True)

    def _conclude(self, outcome: Outcome, number: int) -> None:
        import wandb
        from PIL import Image

        last: dict[str, Any] = {}
        if outcome.layers:
            columns: list[str | int] = list(outcome.layers[0])
            cells = [list(row.values()) for row in outcome.layers]
            last["layers"] = wandb.Table(columns, cells)
        for kind, png in outcome.plots().items() if self._tracker.plots else ():
            last[f"plots/{kind}"] = wandb.Image(Image.open(BytesIO(png)))
        if last:
            self._run.log(last, step=number, commit=True)
        self._run.summary.update(dict(outcome.figures))
        if not self._tracker.artifacts:
            return
        artifact = wandb.Artifact(f"run-{self._subject.identity}", type="pruned-network")
        for name, text in outcome.texts.items():
            with artifact.new_file(name, mode="w", encoding="utf-8") as file:
                file.write(text)
        for path in outcome.files:
            artifact.add_file(str(path), name=path.name)
        self._run.log_artifact(artifact)

    def _close(self, *, failed: bool) -> None:
        if self._run is not None:
            self._run.finish(exit_code=int(failed))

    def _abandon(self) -> None:
        """Kills W&B's service, for which W&B would wait without limit when Python ends."""
        end_children("wandb-core")
        import wandb

        self._guard(wandb.teardown, WANDB_INIT_SECONDS, always=True)


def end_children(name: str) -> None:
    """Kills the children of this process that are called `name`."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # the process has ended since
            called, _, rest = status.read_text().partition("(")[2].rpartition(") ")
            if called == name and int(rest.split()[1]) == os.getpid():
                os.kill(int(status.parent.name), signal.SIGKILL)


def has_login() -> bool:
    """Returns whether W&B can log in without asking, by the environment and the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    try:
        file = os.environ.get("NETRC") or Path.home() / ".netrc"
        return netrc.netrc(str(file)).authenticators(host) is not None
    except (OSError, RuntimeError, netrc.NetrcParseError):
        return False


def _variables(root: Path, *, offline: bool) -> dict[str, str]:
    """Returns environment variables that keep W&B's files in `root`, unless the user set them."""
    places = {
        "WANDB_DIR": root.parent,
        "WANDB_DATA_DIR": root / "data",
        "WANDB_CACHE_DIR": root / "cache",
        "WANDB_CONFIG_DIR": root / "config",
    }
    values = {key: str(path) for key, path in places.items()}
    if offline:
        values["WANDB_ERROR_REPORTING"] = "false"  # error reporting does a DNS lookup even offline
    return {key: os.environ.get(key, value) for key, value in values.items()}


def _without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_secrets(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if str(key).lower() not in SECRETS
    }
