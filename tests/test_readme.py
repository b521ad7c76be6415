"""README and its pages are correct: commands and Python run, results match the reports."""

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import prunebench as package
from prunebench.cli import VERBS
from prunebench.models import ModelSpec
from prunebench.options import option
from prunebench.options.files import conf_dir

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
RIVALS = ("l1", "apoz", "sfp", "fpgm", "hrank", "taylor", "slimming")
PAGES = ("tables", "options", "your_own", "tracking", "surgery", "clusters", "export")
METHODS = ("foad", "thinet", "probability", "cac", "aofp", *RIVALS)
#: whose commands run with the slow tests
FURTHER_PAGES = (
    "index",
    "benchmarks",
    "concepts",
    "pictures",
    "faq",
    *(f"methods/{one}" for one in METHODS),
)


def joined(pages):
    return "".join((ROOT / "docs" / f"{page}.md").read_text() for page in pages)


TEXT = README + joined(PAGES)
HELP = (ROOT / "conf" / "config.yaml").read_text().split("template: |")[1].split("The composed")[0]
#: part of a command -> what it needs that is no part of the dev extra
FURTHER = {"model=timm": "timm", "search_ratios": "optuna"}


def commands(text):
    """Every command in blocks of `text`, as written, in their order."""
    found = [
        re.split(r"#|  ", line.strip())[0].strip()
        for line in text.splitlines()
        if line.strip().startswith("prunebench ")
    ]
    return [
        command
        for command in dict.fromkeys(found)
        if all(find_spec(package) for part, package in FURTHER.items() if part in command)
    ]


#: of README, the pages and ``prunebench --help``
COMMANDS = commands(TEXT + HELP)
#: the sizes with which a test can run them
SMALL = [
    "model.width=0.1",
    "dataset.train_size=48",
    "dataset.val_size=16",
    "recipe.baseline.epochs=1",
    "recipe.baseline.warmup_epochs=0",
    "recipe.pruning.warmup_epochs=0",
    "recipe.pruning.epochs=1",
    "recipe.finetune.epochs=1",
    "run.latency_batch=1",
    "run.threads=1",
]
#: the fewest layers, of as many channels as leave a choice
FLAT = ["model.depth=8", "model.width=0.2"]
#: what some need besides: part of a command -> its further sizes
SMALLER = {
    "experiment=quickstart": ["dataset.test_size=50"],
    "method=aofp": [
        "recipe.pruning.epochs=2",
        "recipe.pruning.batch_size=8",
        "criterion.draws_per_half=1",
        "criterion.warmup_steps=1",
        "criterion.theta=0.9",
        "budget.keep=0.95",
    ],
    "method=cac": ["criterion.n_min=1", "recipe.pruning.epochs=6"],
    "model=resnet": FLAT,
    "model=mynet": ["model.width=4"],
    "model=timm": ["model.name=test_resnet"],
    # a tenth of it, or a few images, spend their time between layers on a busy machine
    "budget=latency": ["model.width=1", "budget.batch=8"],
    "experiment=deploy": ["model.width=0.5"],  # multiples of 8 leave a tenth whole
    "experiment=search_ratios": ["hydra.sweeper.n_trials=2", *FLAT],
    "experiment=criteria_cifar10": ["hydra.sweeper.params.criterion=l1", *FLAT],
}
#: one that times what it exports, as tests/export does
TIMED = "-o slim.onnx"
#: what needs a cluster, or more processors; the jobs run one after the other on one thread here
LAUNCHER = ("hydra/launcher=", "hydra.launcher.", "run.threads=")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
#: file name -> those of the blocks that are files
FILES = {block.split()[1].rstrip(";"): block for block in BLOCKS if block.startswith("# ")}
#: an option's YAML as the first line of such a block spells it
OPTION = re.compile(r"(my/\w+/\w+\.yaml) says `([^`]+)`(?: and `([^`]+)`)?")


@pytest.fixture
def folder(tmp_path):
    """A folder with all that the commands name: CIFAR-10 in miniature, an option, a checkpoint."""
    draw = np.random.RandomState(0)
    arrays = {}
    for part, n in (("train", 64), ("test", 16)):
        arrays[f"{part}_images"] = draw.randint(0, 256, (n, 32, 32, 3), np.uint8)
        arrays[f"{part}_labels"] = np.arange(n) % 10
    for place in ("data", "FOLDER"):
        (tmp_path / place).mkdir()
        np.savez(tmp_path / place / "cifar10.npz", **arrays)
    for name, block in FILES.items():
        (tmp_path / name).write_text(block)
        if not (named := OPTION.search(block)):
            continue
        path, *lines = named.groups("")
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("\n".join(lines))
    images, labels = arrays["train_images"], arrays["train_labels"]
    [saving] = [block for block in BLOCKS if "savez" in block]
    exec(saving.replace("mine.npz", str(tmp_path / "mine.npz")), locals())
    spec = option("model", "resnet20", ModelSpec, width=0.1)
    torch.save(spec.build((3, 32, 32), 10).state_dict(), tmp_path / "CHECKPOINT")
    return tmp_path


def in_small(command):
    """The words of a command with its sizes behind it."""
    words = [word for word in shlex.split(command) if not word.startswith(LAUNCHER)]
    if words[1] in VERBS or {"--help", "--cfg"} & {*words}:  # these take no such words
        return [*words, "--latency", "none"] if command.endswith(TIMED) else words
    more = [value for part, values in SMALLER.items() if part in command for value in values]
    unsized = any(word in ("model=import", "model=timm") for word in words)
    small = [word for word in SMALL if not (unsized and word.startswith("model."))]
    return [*words, *small, *more]


def run(folder, words, timeout=580):
    """Runs a command with the variables of a user who has followed the README."""
    paths = {"PYTHONPATH": [".", os.environ.get("PYTHONPATH", "")]}
    paths["PATH"] = [str(Path(sys.executable).parent), os.environ["PATH"]]
    variables = {name: os.pathsep.join(places) for name, places in paths.items()}
    return subprocess.run(
        words, cwd=folder, env={**os.environ, **variables},
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "typed",
    [COMMANDS, pytest.param(commands(TEXT + joined(FURTHER_PAGES)), marks=pytest.mark.slow)],
    ids=["main", "all"],
)
def test_every_command_runs_as_written(python, folder, typed):
    ran = set()
    for command in typed:
        some = next(folder.glob("outputs/quickstart/*/report.json"), folder)
        words = in_small(command.replace("outputs/.../report.json", str(some)))
        if (*words,) in ran:  # commands that differ in what launches their jobs
            continue
        ran.add((*words,))
        done = python.run("-m", *words, cwd=folder)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout or " --out " in command, command
    reports, begun = (list(folder.rglob(name)) for name in ("report.json", "run.json"))
    assert len(reports) == len(begun)
    # among them two sweeps with the seeds 0, 1 and 2 (two criteria, and one), and four controls
    assert len(reports) > 27
    for style, mark in (
        ("markdown", "| resnet20 |"),
        ("latex", "resnet20 &"),
        ("csv", "resnet20,"),
    ):
        table = run(folder, ["prunebench", "table", "outputs", "--format", style])
        assert table.returncode == 0, table.stderr
        assert mark in table.stdout
    assert len(list(folder.rglob("*.wandb"))) == 1  # left by the tracker in its run
    slim = next(folder.rglob("slim.pt"))
    assert not package.load(str(slim)).training


def test_there_are_commands():
    assert len(COMMANDS) >= 14
    assert {"--help", "--cfg", "-m"} <= {word for line in COMMANDS for word in line.split()}
    assert TEXT.index("make demo") < TEXT.index("make test") < TEXT.index("prunebench exp")


@pytest.mark.slow
def test_the_script_that_is_named_runs(folder):
    [command] = re.findall(r"`(sh scripts/reproduce/[^`]+)`", TEXT)
    (folder / "scripts").symlink_to(ROOT / "scripts")
    done = run(folder, [*shlex.split(command), "random,l1", *SMALL])
    assert done.returncode == 0, done.stderr
    assert len(list(folder.rglob("report.json"))) == 6


def test_the_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = option("model", "resnet20", ModelSpec).build((3, 32, 32), 10).eval()
    example = torch.randn(1, 3, 32, 32)
    pruning = [block for block in BLOCKS if "small = " in block]  # a command above runs the others
    assert len(pruning) == 2
    for block in pruning:
        names = {"model": network, "example": example}
        exec(block, names)
        assert names["small"].layer1[0].conv1.out_channels in (3, 8)
        assert names["small"](example).shape == (1, 10)


def test_results_are_the_committed_reports(torch_free, tmp_path):
    script = str(ROOT / "scripts" / "reproduce" / "readme.py")
    done = torch_free.run(script, "--check", cwd=tmp_path)
    assert done.returncode == 0, f"python scripts/reproduce/readme.py is due: {done.stdout}"
    first = README.partition("\n## ")[0]
    table = [line for line in first.splitlines() if line.startswith("|")]
    assert table[2].startswith("| fpgm, macs, recipe short | 90.46 |")
    assert "| FPGM-only 30 % [2] |" in first  # and a published figure beside it
    assert {line.count("|") for line in table} == {5}  # four columns


def test_every_committed_report_is_in_a_table():
    reports = (ROOT / "outputs" / "reference").rglob("report.json")
    folders = {path.relative_to(ROOT / "outputs" / "reference").parts[0] for path in reports}
    assert folders
    for name in folders:
        assert f"outputs/reference/{name}/table.md" in (ROOT / "docs" / "results.md").read_text()


def test_the_table_of_combinations_is_printed(python, tmp_path):
    script = "scripts/reproduce/compatibility.py"
    assert f"`python {script}`" in TEXT
    done = python.run(str(ROOT / script), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {line.split("`")[1]: line for line in done.stdout.splitlines() if line.startswith("| `")}
    assert rows.keys() == {path.stem for path in (conf_dir() / "criterion").glob("*.yaml")}
    assert rows["foad"].count("x") < rows["l2"].count("x") == 8
    assert "the criterion prunes while the network is trained: `aofp` `cac`" in done.stdout


def test_it_is_short():
    assert README.count("\n") <= 150


def test_links_lead_somewhere():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#]+)", page.read_text())
        if "://" not in link
    ]
    assert len(links) > 20
    assert not [link for page, link in links if not (page.parent / link).exists()]
