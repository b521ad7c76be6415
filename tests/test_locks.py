"""On file systems without flock, locks are marker files, and users are told."""

import errno
import fcntl

import pytest
from filelock import Timeout

from prunebench.locks import is_held, locked


def test_a_lock_where_there_is_flock_says_nothing(tmp_path):
    said = []
    with locked(tmp_path / ".lock", said.append), pytest.raises(Timeout):
        locked(tmp_path / ".lock", said.append, timeout=0)
    assert not said


@pytest.mark.filterwarnings("error")
def test_a_lock_without_flock_says_what_a_kill_leaves(tmp_path, monkeypatch):
    def missing(descriptor, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    said, path = [], tmp_path / ".lock"
    with locked(path, said.append), pytest.raises(Timeout):
        locked(path, said.append, timeout=0)
    assert len(said) == 1 and f"delete {path} before a process on another" in said[0]
    assert not is_held(path)
    assert not path.exists()  # a marker that stays would be held for ever
