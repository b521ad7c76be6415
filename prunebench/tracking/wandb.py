"""Weights & Biases, kept at arm's length: whatever goes wrong there, the run goes on."""

from __future__ import annotations

import logging
import netrc
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from prunebench.errors import require, require_choice
from prunebench.tracking import TrackedRun, Tracker, Untracked

log = logging.getLogger(__name__)

# Generous for a busy machine, short beside any run. wandb's own limits come first.
INIT_SECONDS, LOG_SECONDS, FINISH_SECONDS = 90.0, 20.0, 90.0
WANDB_INIT_SECONDS, WANDB_FINISH_SECONDS = 15.0, 30.0
SECRETS = {"api_key", "apikey", "password", "secret", "token"}


@dataclass(frozen=True, kw_only=True)
class WandbTracker(Tracker):
    """Weights & Biases.

    Attributes:
        project: to log to.
        entity: user or team; None = the login's own.
        mode: auto, online, offline or disabled; auto = online if a login is found, else offline.
        group, job_type: of the run; None = none.
        tags: of the run.
    """

    project: str
    entity: str | None
    mode: str
    group: str | None
    tags: list[str]
    job_type: str | None

    def __post_init__(self) -> None:
        """Checks the mode and that there is a project."""
        require_choice("mode", self.mode, ("auto", "online", "offline", "disabled"))
        require(bool(self.project), "project must not be empty")

    def start(
        self, folder: str | os.PathLike[str], name: str, config: Mapping[str, Any], run_id: str
    ) -> TrackedRun:
        """Returns a W&B run, or one that mirrors nothing if W&B fails."""
        mode = self._mode()
        if mode == "disabled":
            return Untracked()
        root = Path(folder).resolve() / "wandb"
        options = {
            "project": self.project,
            "entity": self.entity,
            "group": self.group,
            "tags": list(self.tags),
            "job_type": self.job_type,
            "name": name,
            "id": run_id,
            "config": _without_secrets(config),
            "mode": mode,
            "dir": str(root.parent),
            "resume": "allow",
        }
        return WandbRun(options, _places(root, offline=mode == "offline"))

    def _mode(self) -> str:
        """Returns online, offline or disabled; online only where nothing will be asked."""
        mode = self.mode
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE", "online" if has_login() else "offline")
        if mode == "online" and not has_login():
            log.warning("wandb: no login found, so this run is kept offline (wandb login)")
            mode = "offline"
        return mode if mode in ("online", "disabled") else "offline"


class WandbRun(TrackedRun):
    """A W&B run; whatever goes wrong is said once, then W&B is left alone."""

    def __init__(self, options: Mapping[str, Any], places: Mapping[str, str]) -> None:
        """Opens the run.

        Args:
            options: of ``wandb.init``.
            places: environment variables to hold until the run ends.
        """
        self._stages: set[str] = set()
        self._rows = self._mirrored = 0
        self._run: Any = None
        self._on = True
        self._before = {key: os.environ.get(key) for key in places}
        os.environ.update(places)
        self._guard(lambda: self._open(options), INIT_SECONDS)

    def log(self, row: Mapping[str, Any]) -> None:
        """Logs `row` as ``<stage>/<name>`` over ``<stage>/epoch``."""
        step, self._rows = self._rows, self._rows + 1
        self._guard(lambda: self._log(row, step), LOG_SECONDS)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Writes `values` into the run's summary."""
        self._guard(lambda: self._run.summary.update(dict(values)), LOG_SECONDS)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finishes the run, with exit code 1 after an exception."""
        try:
            if self._run is not None:
                # Also after a failure: an unfinished run would receive the next job's rows.
                self._guard(
                    lambda: self._run.finish(exit_code=int(kind is not None)),
                    FINISH_SECONDS,
                    always=True,
                )
        finally:
            for key, value in self._before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value

    def _open(self, options: Mapping[str, Any]) -> None:
        import wandb

        known = wandb.Settings.model_fields  # wandb 0.19 lacks some, and spells reinit as a bool
        old_reinit = "reinit" in known and known["reinit"].annotation is bool
        wanted: dict[str, Any] = {
            "console": "off",
            "silent": True,
            "disable_git": True,
            "reinit": True if old_reinit else "finish_previous",
            "x_disable_stats": True,
            "init_timeout": WANDB_INIT_SECONDS,
            "finish_timeout": WANDB_FINISH_SECONDS,
        }
        settings = wandb.Settings(**{k: v for k, v in wanted.items() if k in known})
        self._run = wandb.init(**options, settings=settings)
        # A row's step is its number in the run. An online run goes on where the server's copy
        # ends, which has the rows before; an offline run is a new one and gets them all.
        self._mirrored = self._run.starting_step

    def _log(self, row: Mapping[str, Any], step: int) -> None:
        stage = str(row["stage"])
        if stage not in self._stages:
            self._run.define_metric(f"{stage}/epoch", hidden=True)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/epoch")
            self._stages.add(stage)
        values = {f"{stage}/{key}": value for key, value in row.items() if key != "stage"}
        if step >= self._mirrored:
            self._run.log(values, step=step, commit=True)

    def _guard(self, call: Callable[[], object], seconds: float, *, always: bool = False) -> None:
        """Carries out `call` beside the run, waits at most `seconds`, and reports one failure.

        The call has a thread of its own so that it can be left behind, and so that an exception
        raised by a signal handler (a cluster's requeue) reaches the run instead of this guard.
        """
        if not (self._on or always):
            return
        failure: list[BaseException] = []

        def attempt() -> None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - a mirror must not stop the run
                failure.append(error)

        thread = threading.Thread(target=attempt, name="wandb-call", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            self._give_up(f"no answer within {seconds:g} s")
        elif failure:
            first = str(failure[0]).strip().partition("\n")[0]
            self._give_up(f"{type(failure[0]).__name__}: {first}")

    def _give_up(self, reason: str) -> None:
        if self._on:
            log.warning("wandb: tracking is off for the rest of this run (%s)", reason)
        self._on = False


def has_login() -> bool:
    """Says whether W&B can log in without asking; reads the environment and the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    try:
        file = os.environ.get("NETRC") or Path.home() / ".netrc"
        return netrc.netrc(str(file)).authenticators(host) is not None
    except (OSError, RuntimeError, netrc.NetrcParseError):
        return False


def _places(root: Path, *, offline: bool) -> dict[str, str]:
    """Returns the environment that keeps W&B's files in `root`, where the user set none."""
    places = {
        "WANDB_DIR": root.parent,
        "WANDB_DATA_DIR": root / "data",
        "WANDB_CACHE_DIR": root / "cache",
        "WANDB_CONFIG_DIR": root / "config",
    }
    values = {key: str(path) for key, path in places.items()}
    if offline:
        values["WANDB_ERROR_REPORTING"] = "false"  # else it looks up a name even when offline
    return {key: os.environ.get(key, value) for key, value in values.items()}


def _without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_secrets(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if str(key).lower() not in SECRETS
    }
