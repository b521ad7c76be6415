"""The wheel holds every configuration and runs from an empty folder; both archives are typed."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel's content, as an installation would lay it out."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(unpacked, folder, code):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(unpacked), "HYDRA_FULL_ERROR": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_yaml_is_inside(unpacked):
    shipped = {p.relative_to(unpacked / "prunebench" / "conf") for p in unpacked.rglob("*.yaml")}
    assert shipped == {p.relative_to(ROOT / "conf") for p in (ROOT / "conf").rglob("*.yaml")}
    assert len(shipped) >= 50


def test_its_annotations_count(unpacked):
    assert (unpacked / "prunebench" / "py.typed").exists()


def test_the_source_archive_holds_the_package(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    [path] = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    package = {
        str(path.relative_to(ROOT))
        for folder in ("prunebench", "conf")
        for path in (ROOT / folder).rglob("*.*")
        if "__pycache__" not in path.parts
    }
    assert package <= names
    assert "prunebench/py.typed" in names


def test_nothing_else_lands_in_site_packages(unpacked):
    assert {p.name for p in unpacked.iterdir() if p.suffix != ".dist-info"} == {"prunebench"}


def test_it_runs_from_an_empty_folder(unpacked, tmp_path):
    code = (
        "import sys; sys.argv = ['prunebench', 'experiment=quickstart', 'run.dry_run=true',"
        "'model.width=0.05']; import prunebench; from prunebench.cli import main; main();"
        "print(prunebench.__file__)"
    )
    done = run(unpacked, tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert str(unpacked) in done.stdout
    assert "MACs:" in done.stdout
