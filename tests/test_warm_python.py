"""Processes forked by the warm python behave like any other process."""

import os
import signal
import subprocess
import sys

import pytest

#: says where it is, what it was given, and ends as told
ECHO = """
import atexit, os, sys
atexit.register(print, "bye")
print(os.getpid(), os.getcwd(), sys.argv[1:], os.environ.get("WORD"), sys.stdin.read())
print("wrong", file=sys.stderr)
exec(sys.argv[1])
"""


@pytest.mark.parametrize("last", ["pass", "sys.exit()", "sys.exit(3)", "sys.exit('no')", "1 / 0"])
def test_it_ends_as_a_fresh_python_does(python, tmp_path, last):
    words = ["-c", ECHO, last]
    forked = python.run(*words, cwd=tmp_path, WORD="hello")
    fresh = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env={**os.environ, "WORD": "hello"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert forked.returncode == fresh.returncode
    assert forked.stderr.splitlines()[-1] == fresh.stderr.splitlines()[-1]
    own, theirs = (done.stdout.partition(" ") for done in (forked, fresh))
    assert own[0] != theirs[0]
    assert own[2] == theirs[2]


def test_a_signal_ends_it(python, tmp_path):
    with python.start("-c", "import time; time.sleep(60)", cwd=tmp_path) as process:
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL


def test_nothing_is_left_of_what_was_run_before(python, tmp_path):
    python.run("-c", "import os, torch; torch.left = 1; os.environ['LEFT'] = '1'", cwd=tmp_path)
    code = "import os, torch; print(hasattr(torch, 'left'), 'LEFT' in os.environ)"
    assert python.run("-c", code, cwd=tmp_path).stdout == "False False\n"


@pytest.mark.skipif(sys.platform != "linux", reason="finds the threads in /proc")
def test_it_has_no_thread_that_a_fork_would_lose(python, tmp_path):
    parent = python.run("-c", "import os; print(os.getppid())", cwd=tmp_path).stdout.strip()
    assert len(os.listdir(f"/proc/{parent}/task")) == 1


def test_the_torch_free_one_refuses_torch(torch_free, tmp_path):
    done = torch_free.run("-c", "import torch", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("imported torch\n")
