"""A run ends with its report, whatever happens to its terminal or log file."""

import pytest

TINY = [
    "model=mlp_512_512", "model.widths=[8,4]", "dataset=digits", "dataset.size=8",
    "dataset.train_size=64", "criterion=l1", "budget=macs", "recipe=quick",
    "recipe.baseline.epochs=1", "recipe.finetune.epochs=1", "run.latency_batch=1",
    "hydra.run.dir=run",
]  # fmt: skip
READER_GONE = "reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1); os.dup2(writer, 2)"
LOG_DISK_FULL = "full = os.open('/dev/full', os.O_WRONLY); os.dup2(full, 1); os.dup2(full, 2)"
CLOSED = "os.closerange(0, 3); sys.stdin = sys.stdout = sys.stderr = None"
#: a terminal that is gone, and whose end the process was started to ignore (nohup)
HUNG_UP = """
import pty, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
screen, terminal = pty.openpty()
for number in (0, 1, 2): os.dup2(terminal, number)
os.close(screen)
"""


@pytest.mark.parametrize("how", [READER_GONE, LOG_DISK_FULL, CLOSED, HUNG_UP])
def test_the_run_goes_on(python, tmp_path, how):
    code = f"import os, sys\n{how}\nfrom prunebench.cli import main\nmain()"
    done = python.run("-c", code, *TINY, cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "run" / "report.json").exists()
    assert not (tmp_path / "run" / "failure.json").exists()
