"""A job that needs a baseline which another one trains says whom it waits for."""

import os
import socket

import pytest
from filelock import FileLock

from prunebench.records.attempts import begin
from prunebench.run.baseline import waiting_lock


class Told(Exception):
    """What was said; nobody waits after it."""


def tell(text):
    raise Told(text)


def test_whom_a_job_waits_for_is_told(tmp_path):
    with FileLock(tmp_path / ".lock"):
        with pytest.raises(Told, match=r"^waiting for another job, which trains this baseline \("):
            waiting_lock(tmp_path, tell)
        begin(tmp_path, {})
        with pytest.raises(
            Told, match=f"^waiting for process {os.getpid()} on {socket.gethostname()},"
        ):
            waiting_lock(tmp_path, tell)
    with waiting_lock(tmp_path, tell):
        pass
