"""The scripts for a bare GPU machine, rehearsed on a CPU: every command runs to its end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PARTS = ROOT / "scripts/device/parts.py"


def archive(path: Path, images: int = 20) -> dict[str, np.ndarray]:
    """Writes images in CIFAR-10's form, a fifth of them for testing."""
    source = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 4 * images), ("test", images)):
        arrays[f"{split}_images"] = source.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 10).astype(np.uint8)
    np.savez(path, **arrays)
    return arrays


def parts(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PARTS), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_data_set_goes_in_parts_and_comes_back(tmp_path: Path) -> None:
    arrays = archive(
        tmp_path / "cifar10.npz", images=130
    )  # two strips for training, one for testing
    assert parts("pack", tmp_path / "cifar10.npz", tmp_path / "to").returncode == 0
    paths = [tmp_path / f"to/{n}/cifar10-{n}-of-2.npz" for n in (1, 2)]
    paths[0].rename(tmp_path / paths[0].name)
    missing = parts("join", tmp_path, tmp_path / "back" / "cifar10.npz")
    assert missing.returncode == 1
    assert "has 1 parts of cifar10.npz: not all of them" in missing.stderr
    paths[1].rename(tmp_path / paths[1].name)
    assert parts("join", tmp_path, tmp_path / "back" / "cifar10.npz").returncode == 0
    with np.load(tmp_path / "back" / "cifar10.npz") as back:
        assert {*back} == {*arrays}
        assert all(np.array_equal(back[name], arrays[name]) for name in arrays)


@pytest.mark.slow
def test_every_command_runs_to_its_end_on_a_cpu(tmp_path: Path) -> None:
    variables = {
        "REHEARSAL": "1", "WORK": str(tmp_path), "OUT": str(tmp_path / "out"),
        "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    (tmp_path / "data").mkdir()
    archive(tmp_path / "data/cifar10.npz")
    codes: list[list[str]] = []
    for words in (["smoke.sh"], ["results.sh", "3000", "1"]):
        command = ["bash", f"scripts/device/{words[0]}", *words[1:]]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, timeout=3000)
        assert done.returncode == 0
        log = (tmp_path / "out/log.txt").read_text().splitlines()
        codes.append([line for line in log if "exit code" in line])
    of_smoke, of_both = codes
    assert len(of_smoke) == 5 and len(of_both) >= 35
    assert [line for line in of_both if "exit code 0" not in line] == []
    reports = list((tmp_path / "outputs").glob("*/report.json"))
    assert len(reports) == len(of_both) - len(of_smoke)
    names = {json.loads(path.read_text())["config"]["name"] for path in reports}
    assert {"foad_v2023", "r56_thinet-0", "aofp_vgg16", "cac_resnet56"} <= names
    assert "taylor, macs" in (tmp_path / "out/table.txt").read_text()
    for packed in ("found", "reports"):
        assert (tmp_path / f"out/{packed}.tar.gz").stat().st_size > 1000
