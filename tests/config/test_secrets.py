"""Values of environment variables reach a run, but none of its files."""

import json

import pytest
from omegaconf import OmegaConf

from prunebench.cli.arguments import parsed
from prunebench.config.secrets import hidden, overlaid, redacted, require_no_secret
from prunebench.errors import ConfigError


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("MY_SECRET", "hunter2")


def test_a_value_of_the_environment_is_recorded_as_it_was_written(secret):
    cfg = OmegaConf.create(
        {
            "name": "x-${dataset.root}",
            "dataset": {"root": "/data/${oc.env:MY_SECRET}", "size": 8},
            "tracker": {"mode": "${oc.env:MISSING,offline}"},
        }
    )
    texts = hidden(cfg, {})
    assert texts == {
        "name": "x-/data/${oc.env:MY_SECRET}",
        "dataset.root": "/data/${oc.env:MY_SECRET}",
        "tracker.mode": "${oc.env:MISSING}",
    }
    told = overlaid(OmegaConf.to_container(cfg, resolve=True), texts)
    assert "hunter2" not in str(told)
    assert told["dataset"] == {"root": "/data/${oc.env:MY_SECRET}", "size": 8}
    assert cfg.dataset.root == "/data/hunter2"


def test_a_value_that_decides_the_result_must_be_typed(secret):
    cfg = OmegaConf.create({"criterion": {"t": "${oc.env:MY_SECRET}"}})
    with pytest.raises(ConfigError, match=r"criterion.t=\$\{oc.env:MY_SECRET\} affects the result"):
        hidden(cfg, {})


def test_a_file_is_on_record_by_what_it_holds(secret):
    cfg = OmegaConf.create({"dataset": {"path": "${oc.env:MY_SECRET}"}})
    assert hidden(cfg, {"dataset.path": "abc"}) == {"dataset.path": "${oc.env:MY_SECRET}"}
    with pytest.raises(ConfigError, match="affects the result"):
        hidden(cfg, {})


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hunter2@host/a.npz", "https://hunter2@host/a", "postgresql://me:hunter2@host/db",
        "https://host/a?token=hunter2", "https://host/a?x=1&access_token=hunter2",
        "s3://host/a?X-Amz-Signature=hunter2&b=1", "https://me:hunter2@${oc.env:HOST,host}/a",
    ],
)  # fmt: skip
def test_a_token_in_a_url_is_refused_and_not_repeated(url):
    cfg = OmegaConf.create({"dataset": {"path": url}})
    with pytest.raises(ConfigError, match=r"dataset.path has a token in its URL") as refused:
        hidden(cfg, {})
    assert "hunter2" not in str(refused.value)
    with pytest.raises(ConfigError, match=r"^hydra.sweeper.storage has a token"):
        parsed(["-m", f"hydra.sweeper.storage={url}"])


@pytest.mark.parametrize(
    "url",
    [
        "https://me:${oc.env:MY_SECRET}@host/a", "https://${oc.env:MY_SECRET}@host/a",
        "https://host/a?token=${oc.env:MY_SECRET}&b=1",
    ],
)  # fmt: skip
def test_a_token_of_the_environment_may_be_in_a_url_that_decides(secret, url):
    cfg = OmegaConf.create({"model": {"url": url}})
    assert hidden(cfg, {}) == {"model.url": url}


def test_a_url_without_a_token_is_no_secret():
    urls = ["https://host:80/a?b=token", "ssh://git@host/a", "git@host:a", "/data/a:b@c", "a?b=1"]
    assert hidden(OmegaConf.create({"model": dict(enumerate(urls))}), {}) == {}


def test_no_file_of_a_run_holds_it(prunebench, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SECRET", "hunter2")
    done = prunebench(
        "model=mlp_512_512", "model.widths=[8,4]", "dataset=digits", "dataset.size=8",
        "dataset.train_size=64", "criterion=l1", "budget=macs", "recipe=quick",
        "recipe.baseline.epochs=1", "recipe.finetune.epochs=0", "run.latency_batch=1",
        "name='x-${oc.env:MY_SECRET}'", "hydra.run.dir=a", "tracker=wandb", "tracker.mode=offline",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert json.loads((tmp_path / "a" / "report.json").read_text())["config"]["name"] == (
        "x-${oc.env:MY_SECRET}"
    )
    assert [path for path in files if b"hunter2" in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hydra:\n  help:\n    header: https://me:pass@host/x\n", "has a token in its URL"),
        ("hydra:\n  job:\n    env_set:\n      WANDB_API_KEY: 1234\n", "sets WANDB_API_KEY"),
        ("env_set: {A: 1, WANDB_API_KEY: '1234'}\n", "sets WANDB_API_KEY"),
        ("job:\n  env_copy:\n  - A\n  - B_KEY\n  env_set: {}\n", "sets B_KEY"),
        ("setup: ['export HF_TOKEN=\"1234\"']\n", "sets HF_TOKEN"),
    ],
)
def test_a_yaml_with_a_secret_is_not_read(tmp_path, text, told):
    with pytest.raises(ConfigError, match=f"x.yaml {told}"):
        require_no_secret(tmp_path / "x.yaml", text)


def test_a_yaml_without_a_secret_is_read(tmp_path):
    text = (
        "class_token: 3\nWANDB_API_KEY: ${oc.env:KEY}\nurl: https://${oc.env:T}@host\n# KEY: 1\n"
        "setup: ['export A_KEY=$(cat key)']\nB_KEY: \"${oc.env:KEY}\"\nC_KEY: null\nD_KEY:\nx: 1\n"
        "env_copy: [A]\nE_KEY: ${oc.env:KEY}\n"
    )
    require_no_secret(tmp_path / "x.yaml", text)


@pytest.mark.parametrize(
    "word",
    [
        "hydra.job.env_set.WANDB_API_KEY=hunter2", "+hydra.job.env_set.HF_TOKEN='hunter2'",
        "+hydra.job.env_set={A: 1, PGPASSWORD: hunter2}", "++tracker.api_key=hunter2",
        "+hydra.launcher.setup=['export AWS_SECRET_ACCESS_KEY=\"hunter2\"']",
        "hydra.job.env_copy=[A,WANDB_API_KEY]",
        "+hydra.launcher.ray.init.runtime_env.env_vars={WANDB_API_KEY:hunter2}",
    ],
)  # fmt: skip
def test_a_secret_that_is_typed_is_refused_and_not_repeated(word):
    with pytest.raises(ConfigError, match="set it in the environment") as refused:
        parsed(["-m", word])
    assert "hunter2" not in str(refused.value)


def test_what_names_a_secret_without_its_value_may_be_typed():
    words = [
        "hydra.job.env_copy=[A,B]", "hydra.job.env_set.A_KEY=${oc.env:KEY}",
        "+hydra.launcher.setup=['export A_KEY=$(cat key)']", "+hydra.job.env_set.MONKEY_SIZE=3",
    ]  # fmt: skip
    assert parsed(["-m", *words]).overrides == words


def test_what_an_error_says_of_the_environment_stays_redacted(monkeypatch):
    monkeypatch.setenv("PB_TEST", "hunter22")
    written = {"dataset.path": "https://${oc.env:PB_TEST}@host"}
    said = redacted("no answer from https://hunter22@host: hunter22?", written)
    assert "hunter" not in said and "${oc.env:PB_TEST}?" in said
    assert redacted("GET https://a:b@host/x?token=c failed", {}) == "GET https***host/x*** failed"
