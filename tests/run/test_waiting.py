"""A job that waits for another job's baseline says for whom it waits."""

import os
import socket
from pathlib import Path

import pytest
from filelock import FileLock

from prunebench.records.attempts import begin
from prunebench.records.waiting import whom_for
from prunebench.run import baseline
from prunebench.run.baseline import waiting_lock


class Told(Exception):
    """What was said; nobody waits after it."""


def tell(text):
    raise Told(text)


def test_whom_a_job_waits_for_is_told(tmp_path):
    with FileLock(tmp_path / ".lock"):
        with pytest.raises(Told, match=r"^waiting for another job, which trains this baseline \("):
            waiting_lock(tmp_path, tell, tmp_path)
        begin(tmp_path, {})
        with pytest.raises(
            Told, match=f"^waiting for process {os.getpid()} on {socket.gethostname()},"
        ):
            waiting_lock(tmp_path, tell, tmp_path)
    with waiting_lock(tmp_path, tell, tmp_path):
        pass


def test_a_job_that_waits_says_so_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(baseline, "SIGN_SECONDS", 0.01)
    own, entry, signs = tmp_path / "run", tmp_path / "entry", []
    entry.mkdir()
    other = FileLock(entry / ".lock")
    other.acquire()

    def look_then_release(sign):
        signs.append(whom_for(own))
        other.release()

    monkeypatch.setattr(Path, "touch", look_then_release)
    with waiting_lock(entry, lambda line: None, own):
        assert signs == [f"another job, which trains this baseline ({entry})"]
        assert not whom_for(own)
