"""Faults of disks, folders, files and clocks: a run continues, or ends in one line."""

import os
import shutil
import signal
import subprocess
import time

import pytest

import prunebench as package
from prunebench.errors import CheckpointError
from prunebench.records import Report, from_json
from prunebench.records.equality import first_difference
from tests.conftest import Command

pytestmark = pytest.mark.slow

RUN = [
    "model=mlp_512_512", "model.widths=[512,256]", "dataset=digits", "dataset.size=8",
    "dataset.train_size=256", "criterion=l1", "budget=macs", "recipe=quick",
    "recipe.baseline.epochs=3", "recipe.finetune.epochs=20", "recipe.finetune.batch_size=16",
    "run.latency_batch=1", "run.checkpoint_seconds=0", "hydra.run.dir=outputs/a",
]  # fmt: skip


def report_in(folder):
    return from_json(Report, (folder / "outputs" / "a" / "report.json").read_text(), "report")


@pytest.fixture(scope="module")
def killed(python, tmp_path_factory):
    """A folder with a run that was killed while it was fine-tuned."""
    folder = tmp_path_factory.mktemp("killed")
    with Command(python, folder).start(*RUN) as process:
        process.wait_for("epoch 3/20")
        process.send_signal(signal.SIGKILL)
        process.wait()
    return folder


@pytest.fixture(scope="module")
def whole(python, killed, tmp_path_factory):
    """The folder of the same run, which has gone on undisturbed."""
    folder = shutil.copytree(killed, tmp_path_factory.mktemp("whole"), dirs_exist_ok=True)
    done = Command(python, folder)(*RUN)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def resume(prunebench, killed, tmp_path):
    """The command in a copy of what was killed."""
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    return lambda *words, **variables: prunebench(*RUN, *words, **variables)


@pytest.fixture
def disk(tmp_path):
    """Mounts file systems of its own, as only root may."""
    mounted = []

    def mount(name, options):
        place = tmp_path / name
        place.mkdir(exist_ok=True)
        again = place in mounted
        command = ["mount", "-o", f"{'remount,' * again}{options}", "-t", "tmpfs", "none", place]
        if os.getuid() or subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("no right to mount")
        mounted.append(place)
        return place

    yield mount
    for place in {*mounted}:
        subprocess.run(["umount", "-l", place], check=True)


def one_line(done):
    """What a command said that was refused by what lies outside it."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint(prunebench, disk, whole, tmp_path):
    place = disk("outputs", "size=1m")
    said = one_line(prunebench(*RUN))
    assert "No space left on device); make room, then continue with run.resume=true" in said
    assert not list(place.rglob("*.tmp"))
    disk("outputs", "size=64m")
    done = prunebench(*RUN, "run.resume=true")
    assert done.returncode == 0, done.stderr
    assert first_difference(report_in(whole), report_in(tmp_path)) == ""


def test_a_place_that_cannot_be_written(prunebench, disk):
    disk("outputs", "ro")
    assert "Read-only file system); choose another run.outputs=FOLDER" in one_line(prunebench(*RUN))


def test_a_folder_that_is_taken_away_under_way(prunebench, whole, tmp_path):
    folder = tmp_path / "outputs" / "a"
    with prunebench.start(*RUN) as process:
        process.wait_for("epoch 3/20")
        folder.rename(tmp_path / "gone")
        code = process.wait(200)
        assert "Traceback" not in process.stderr
        last = process.stderr.splitlines()[-1]
    assert (code, "outputs/a" in last) in [(0, True), (2, True)]  # it makes the folder anew, or not
    assert (folder / "report.json").exists() == (code == 0)
    shutil.rmtree(folder, ignore_errors=True)
    done = prunebench(*RUN)
    assert "baseline: baseline store" in done.stderr
    assert first_difference(report_in(whole), report_in(tmp_path)) == ""


def test_a_clock_that_was_set_back(resume, whole, tmp_path):
    later = time.time() + 10 * 365 * 86400
    for path in (tmp_path / "outputs").rglob("*"):
        os.utime(path, (later, later))
    done = resume("run.resume=true")
    assert done.returncode == 0, done.stderr
    assert first_difference(report_in(whole), report_in(tmp_path)) == ""


def cut_short(raw):
    return raw[: len(raw) // 2]


def altered(raw):
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]


@pytest.mark.parametrize("harm", [cut_short, altered])
@pytest.mark.parametrize(
    "name",
    ["a/stages/prune-oneshot.pt", "a/stages/finetune.partial.pt", "baselines/*/stages/baseline.pt"],
)
def test_a_damaged_file_is_named_and_nothing_is_made_of_it(resume, tmp_path, name, harm):
    [path] = (tmp_path / "outputs").glob(name)
    path.write_bytes(harm(path.read_bytes()))
    said = one_line(resume())
    assert path.name in said
    assert "damaged" in said or "cut short" in said
    assert not (tmp_path / "outputs" / "a" / "report.json").exists()


def test_a_damaged_report_and_slim_file_are_named(prunebench, whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "outputs" / "a"
    for harm in (cut_short, altered):
        (folder / "slim.pt").write_bytes(harm((whole / "outputs/a/slim.pt").read_bytes()))
        with pytest.raises(CheckpointError, match=r"slim\.pt is (cut short|damaged)"):
            package.load(folder / "slim.pt")
    (folder / "report.json").write_bytes(cut_short((folder / "report.json").read_bytes()))
    assert "report.json is not valid JSON" in one_line(prunebench(*RUN))


def test_no_home_and_no_room_for_temporary_files(python, disk, killed, tmp_path):
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    full = disk("full", "size=4k")
    (full / "all").write_bytes(bytes(4096))
    code = "import os; del os.environ['HOME']\nfrom prunebench.cli import main\nmain()"
    done = python.run("-c", code, *RUN, cwd=tmp_path, TMPDIR=str(full))
    assert done.returncode == 0, done.stderr


def test_two_that_go_on_with_one_run_at_once(prunebench, resume, whole, tmp_path):
    with prunebench.start(*RUN) as first:
        first.wait_for("continuing the run")
        second = one_line(resume("run.resume=true"))
        assert second.endswith("is still running in another process")
        assert first.wait(120) == 0, first.stderr
    assert first_difference(report_in(whole), report_in(tmp_path)) == ""
