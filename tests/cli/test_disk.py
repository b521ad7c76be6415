"""Errors of the operating system are one line that names the file, and no work is lost."""

import errno

import pytest

from prunebench.cli.mistakes import explain_lost, explain_memory, explain_os


@pytest.mark.parametrize(
    ("number", "begun", "said"),
    [
        (errno.ENOSPC, True, "cannot write a/b (No space left on device); make room, then"),
        (errno.EROFS, True, "cannot write a/b (Read-only file system); choose another"),
        (
            errno.ENOLCK,
            True,
            "a/b: No locks available; once that is fixed, continue",
        ),
        (errno.ENOENT, True, "a/b: No such file or directory; once that is fixed"),
        (errno.ENOENT, False, "cannot write a/b (No such file or directory); choose another"),
        (errno.ENAMETOOLONG, True, "name is too long for a folder"),
    ],
)
def test_files(number, begun, said):
    import os

    error = OSError(number, os.strerror(number), "a/b")
    assert explain_os(error, begun=begun).startswith(said)
    assert "\n" not in explain_os(error, begun=begun)


def test_memory():
    assert explain_memory(MemoryError()).startswith("there is not enough memory")
    assert explain_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert explain_memory(RuntimeError("shape mismatch")) == ""
    assert type("OutOfMemoryError", (RuntimeError,), {})
    assert explain_memory(type("OutOfMemoryError", (RuntimeError,), {})("CUDA"))


def test_a_launcher_that_lost_a_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    killed = type("TerminatedWorkerError", (Exception,), {})("long")
    said = explain_lost(killed, tmp_path / "outputs" / "a b")
    assert said.endswith("prunebench status 'outputs/a b' --resume --go completes the sweep")
    assert explain_lost(killed, None) == ""
    assert explain_lost(ValueError("long"), tmp_path) == ""


def test_a_run_folder_that_is_a_file(prunebench, tmp_path):
    (tmp_path / "outputs").write_text("")
    done = prunebench(
        "model=mlp_512_512", "model.widths=[8,4]", "dataset=digits", "dataset.size=8",
        "dataset.train_size=64", "criterion=l1", "budget=macs", "recipe=quick",
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "outputs" in done.stderr
