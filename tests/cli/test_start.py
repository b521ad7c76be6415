"""What answers before a job runs answers without torch."""

import os
import subprocess
import sys

import prunebench as package
from prunebench.cli import VERBS

NO_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "wandb", "matplotlib", "pandas"):
            raise AssertionError("imported " + name)
sys.meta_path.insert(0, Refuse())
sys.argv = ["prunebench", *sys.argv[1:]]
from prunebench.cli import main
main()
"""


def torch_free(tmp_path, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", NO_TORCH, *arguments],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_groups_options_and_examples(tmp_path):
    done = torch_free(tmp_path, "--help")
    assert done.returncode == 0, done.stderr
    for part in ("criterion: ", "foad", "model: ", "resnet56", "experiment=quickstart", "seed: 0"):
        assert part in done.stdout
    assert not list(tmp_path.iterdir())
    verbs, _, rest = done.stdout.partition("Groups (choose")
    assert "criterion: " in rest
    for verb in VERBS:  # before all else
        assert f"  prunebench {verb} " in verbs


def test_version_is_ours(tmp_path):
    done = torch_free(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"prunebench {package.__version__}\n")


def test_cfg_job_prints_the_composed_configuration(tmp_path):
    done = torch_free(tmp_path, "--cfg", "job", "method=foad", "model=resnet20")
    assert done.returncode == 0, done.stderr
    assert "_target_: prunebench.criteria.foad.Foad" in done.stdout
    assert "shortcut:" in done.stdout


def test_tab_completes_options(tmp_path):
    done = torch_free(
        tmp_path, "-sc", "query=bash", COMP_LINE="prunebench criterion=fo", COMP_POINT="23"
    )
    assert done.returncode == 0, done.stderr
    assert "criterion=foad" in done.stdout


def test_a_method_chooses_its_options_and_the_command_line_overrides_it(tmp_path):
    done = torch_free(tmp_path, "--cfg", "job", "method=foad", "criterion=l1", "recipe=quick")
    assert "prunebench.criteria.l1.L1" in done.stdout


def test_a_mistake_does_not_import_torch(tmp_path):
    done = torch_free(tmp_path, "criterion.t=-1")  # many more in test_mistakes.py
    assert done.returncode == 2, done.stderr
    assert "imported" not in done.stderr
