"""Exported files compute what the network does, and their certificates reveal changes."""

import dataclasses
import importlib
import json
import os
import signal
import sys
import time
from functools import cache
from unittest.mock import patch

import pytest
import torch
from torch import nn

import prunebench
from prunebench import cli
from prunebench.channels import Plan, slim, trace
from prunebench.checkpoints import slimmed
from prunebench.cli import export as verb
from prunebench.datasets import DatasetSpec
from prunebench.errors import CheckpointError, ConfigError
from prunebench.export import onnx_file
from prunebench.export.draft import draft_folder
from prunebench.interruption import START_AGAIN
from prunebench.measure import engines, macs, params
from prunebench.models import ModelSpec
from prunebench.options import option
from prunebench.options.files import conf_dir, read_option
from prunebench.records import StepRecord, finish, to_json
from tests.conftest import report

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
FORMATS = ["onnx", "torch_export", "safetensors", "python"]
ENDING = verb.FORMATS
SHAPE = (1, 32, 32)
MODEL = {**read_option(conf_dir() / "model" / "resnet20.yaml"), "depth": 8, "width": 0.5}


@pytest.fixture(scope="module", autouse=True)
def registry():
    """What torch knows of ONNX, which it would gather for each export anew."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    once = staticmethod(cache(ONNXRegistry.from_torchlib))
    with patch.object(ONNXRegistry, "from_torchlib", once):
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a finished run in miniature: a slim network and its report."""
    folder = tmp_path_factory.mktemp("run")
    network = dense()
    plan = Plan({"layer1.0.conv1": (0, 2, 3, 5, 7), "layer3.0.conv1": tuple(range(1, 32, 3))})
    small = slim(network, trace(network, slimmed.tracing_image(SHAPE)), plan).eval()
    data = option("dataset", "digits", DatasetSpec).load()
    made = slimmed.Provenance(MODEL, SHAPE, 10, (plan,), data.mean, data.std)
    slimmed.save(folder / "slim.pt", small, made)
    step = StepRecord(
        name="all", groups=[], share=1.0, kept={}, criterion_seconds=0, seconds=0,
        surgery_error=1e-7, unprunable={},
    )  # fmt: skip
    config = {
        "name": "mini", "model": MODEL, "dataset": read_option(conf_dir() / "dataset/digits.yaml"),
        "baseline": {"checkpoint": None}, "run": {"outputs": "outputs"},
    }  # fmt: skip
    finish(folder, dataclasses.replace(report(config=config), steps=[step]))
    return folder


def dense():
    torch.manual_seed(0)
    return option("model", "resnet20", ModelSpec, depth=8, width=0.5).build(SHAPE, 10).eval()


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """A file of each format; never to be altered."""
    folder = tmp_path_factory.mktemp("exported")
    for name in FORMATS:
        words = ["--format", name, "-o", str(folder / f"{name}{ENDING[name]}"), "--latency", "none"]
        assert verb.main([str(run), *words]) == 0
    return folder


@pytest.fixture
def copy(exported, tmp_path):
    """The same, to be altered."""
    for path in exported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def checked(capsys, path):
    """Exit code and what ``prunebench check`` said."""
    capsys.readouterr()
    code = 0
    try:
        cli.answer(["check", str(path)])
    except SystemExit as error:
        code = error.code or 0
    said = capsys.readouterr()
    return code, said.out, said.err


def certificate(path):
    return json.loads(path.with_name(f"{path.name}.certificate.json").read_text())


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_is_checked_and_certified(exported, run, name, capsys):
    path = exported / f"{name}{ENDING[name]}"
    code, said, _ = checked(capsys, path)
    assert code == 0
    assert "matches its certificate (digests are not a signature)" in said
    assert ("the certificate inside is the one beside it" in said) == (name != "python")
    held, small = certificate(path), slimmed.load(run / "slim.pt")
    assert held["difference"]["relative"] < 1e-5
    assert held["difference"]["images"] == "32 test images of digits"
    assert held["counts"]["slim"]["params"] == params(small)
    assert held["counts"]["slim"]["macs"] == macs(small, torch.zeros(1, *SHAPE))
    assert held["counts"]["dense"]["params"] == params(dense())
    assert held["kept"] == {"layer1.0.conv1": 5, "layer3.0.conv1": 11}
    assert held["surgery"]["float64"] < 1e-14 < held["surgery"]["float32"] < 1e-5
    assert held["surgery"]["recorded"] == 1e-7
    assert (held["accuracy"]["slim"]["correct"], held["accuracy"]["slim"]["seen"]) == (880, 1000)
    assert held["base"]["weights"] is None
    assert "not at hand" in held["base"]["origin"]
    assert torch.allclose(
        torch.tensor(held["outputs"]), small(engines_images(2)), atol=1e-5, rtol=1e-4
    )


def engines_images(count):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_onnx_runs_any_batch_elsewhere(exported, run):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        exported / "onnx.onnx", providers=["CPUExecutionProvider"]
    )
    small = slimmed.load(run / "slim.pt")
    for count in (1, 5):
        images = torch.randn(count, *SHAPE)
        [outputs] = session.run(None, {"images": images.numpy()})
        assert torch.allclose(torch.from_numpy(outputs), small(images), atol=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["prunebench.certificate"])["format"] == "onnx"
    assert "normalised: (pixel / 255 - mean) / std with mean [" in metadata["prunebench.input"]


def test_an_onnx_file_is_counted_as_torch_counts():
    """Products over places and of tensors, and a turned convolution, behind a free batch."""
    onnx = pytest.importorskip("onnx")

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.of = nn.ConvTranspose2d(3, 8, 3, stride=2), nn.Linear(8, 5)

        def forward(self, x):
            places = self.up(x).flatten(2).mT  # [n, 81, 8]
            return self.of(places @ places.mT @ places)

    network, example = Mixed().eval(), torch.randn(2, 3, 4, 4)
    found = onnx_file.counted(onnx.load_from_string(engines.onnx_bytes(network, example)))
    turned, products, linear = 3 * 8 * 9 * 16, 2 * 81 * 81 * 8, 81 * 8 * 5
    assert found == {"weights": 216 + 40, "macs": turned + products + linear}
    assert found["macs"] == macs(network, example)


def test_a_network_may_normalise_itself(run, tmp_path):
    file = tmp_path / "slim.py"
    assert verb.main([str(run), "--format", "python", "-o", str(file), "--normalise",
                      "--latency", "none"]) == 0  # fmt: skip
    from prunebench.export.python_file import opened

    small, raw = slimmed.load(run / "slim.pt"), torch.rand(3, *SHAPE)
    assert torch.allclose(opened(file, SHAPE).run(raw), small(small.normalisation(raw)), atol=1e-5)
    assert "values from 0 to 1" in file.read_text()


def test_it_says_where_images_are_random(run, tmp_path, capsys):
    (tmp_path / "slim.pt").write_bytes((run / "slim.pt").read_bytes())
    file = tmp_path / "slim.safetensors"
    words = ["--format", "safetensors", "-o", str(file), "--latency", "none"]
    assert verb.main([str(tmp_path / "slim.pt"), *words]) == 0
    assert "random images, for the data are not at hand (no report.json" in capsys.readouterr().out
    assert certificate(file)["accuracy"] == {}


def test_what_computes_something_else_is_refused(run, tmp_path, monkeypatch, capsys):
    from prunebench.export import tensors

    real = tensors.opened

    def wrong(path, shape):
        found = real(path, shape)
        return dataclasses.replace(found, run=lambda images: found.run(images) + 1e-2)

    monkeypatch.setattr(tensors, "opened", wrong)
    words = ["export", str(run), "--format", "safetensors", "-o", str(tmp_path / "a.safetensors")]
    with pytest.raises(SystemExit) as stopped:
        cli.answer(words)
    assert stopped.value.code == 2
    assert "differs from PyTorch by" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FORMATS)
def test_an_altered_file_is_found(copy, name, capsys):
    path = copy / f"{name}{ENDING[name]}"
    raw = path.read_bytes()
    path.write_bytes(raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:])
    code, _, said = checked(capsys, path)
    assert (code, said.count("\n")) == (1, 1)
    assert "was altered: its digest is not that of the certificate" in said


def rewritten(path, **changes):
    """Alters a certificate; with `digest` so that its own digest fits again."""
    from prunebench.export import certificate as certificates

    beside = certificates.beside(path)
    held = certificates.read(beside.read_text(), "")
    changed = dataclasses.replace(held, **changes)
    beside.write_text(to_json(certificates.sealed(changed, changed.files)))


def test_an_altered_certificate_is_found(copy, capsys):
    path = copy / "onnx.onnx"
    beside = copy / "onnx.onnx.certificate.json"
    whole = beside.read_text()
    beside.write_text(whole.replace('"correct": 880', '"correct": 990'))
    code, _, said = checked(capsys, path)
    assert (code, said.count("\n")) == (1, 1)
    assert "certificate.json was altered" in said
    beside.write_text(whole)
    rewritten(path, title="mine")  # with a digest that fits: the copy inside tells
    code, _, said = checked(capsys, path)
    assert code == 1
    assert "the certificate beside onnx.onnx is not the one inside it" in said


def test_outputs_and_counts_are_compared(copy, capsys):
    path = copy / "python.py"
    rewritten(path, outputs=[[1.0] * 10] * 2)
    code, _, said = checked(capsys, path)
    assert code == 1
    assert "from those on record" in said
    path = copy / "torch_export.pt2"
    from prunebench.export import certificate as certificates
    from prunebench.export import program

    held = certificates.read(certificates.beside(path).read_text(), "")
    counts = {**held.counts, "slim": {**held.counts["slim"], "macs": 1}}
    lying = dataclasses.replace(held, counts=counts)
    program.carry(path, to_json(certificates.sealed(lying)))
    rewritten(path, counts=counts, files={path.name: certificates.file_digest(path)})
    code, _, said = checked(capsys, path)
    assert code == 1
    assert "macs are " in said


def test_what_is_missing_is_named(copy, capsys):
    for file, gone in (
        ("python.py", "python.safetensors"),
        ("onnx.onnx", "onnx.onnx"),
        ("torch_export.pt2", "torch_export.pt2.certificate.json"),
    ):
        (copy / gone).unlink()
        code, _, said = checked(capsys, copy / file)
        assert (code, said.count("\n")) == (2, 1)
        assert gone in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "does not exist"),
        (["."], "holds no slim.pt; give the folder of a run that finished"),
        (["nowhere/report.json"], "nowhere does not exist"),
        (["failed"], "holds a run that failed"),
        (["text.pt"], "is cut short, or no checkpoint of prunebench"),
        (["nomeas.json"], "is no report.json; give the folder of a run"),
        (["failed/failure.json"], "is no report.json; give the folder of a run"),
        (["RUN", "-o", "x.txt"], "the format onnx is written to *.onnx"),
        (["RUN", "--format", "safetensors", "--normalise"], "safetensors hold weights alone"),
        (["RUN", "--latency", "fast"], "--latency must be one of eager, compiled, onnxruntime"),
        (["RUN", "--images", "1"], "--images must be at least 2"),
        (["RUN", "--format", "tflite"], "invalid choice: 'tflite'"),
    ],
)
def test_mistakes_are_one_line(run, words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "failure.json").write_text("{}")
    (tmp_path / "text.pt").write_text("no network")
    (tmp_path / "nomeas.json").write_text("{}")
    with pytest.raises(SystemExit) as stopped:
        cli.answer(["export", *(word.replace("RUN", str(run)) for word in words)])
    err = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said in err and err.count("\n") == 1
    assert not list(tmp_path.glob("slim*"))


class Decides(torch.nn.Module):
    """Answers by what a tensor holds, which no ONNX file does."""

    def forward(self, images):
        return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))


class Decomposes(torch.nn.Module):
    """Calls an operation that ONNX has not."""

    def forward(self, images):
        return torch.linalg.eigvals(images).real.mean(1)


@pytest.mark.parametrize(
    ("network", "why"),
    [(Decides(), "data-dependent expression"), (Decomposes(), "No ONNX function found for .*eig")],
)
def test_it_says_what_onnx_cannot_express(network, why):
    with pytest.raises(ConfigError, match=f"cannot be expressed in ONNX: .*{why}") as told:
        engines.onnx_bytes(network.eval(), torch.randn(2, 1, 8, 8))
    assert "\n" not in str(told.value) and "\x1b" not in str(told.value)


@pytest.mark.parametrize(
    ("first", "second"), [("python", "safetensors"), ("safetensors", "python")]
)
def test_an_export_does_not_replace_the_weights_of_another(run, first, second, tmp_path, capsys):
    slim = {name: str(tmp_path / f"slim{ENDING[name]}") for name in (first, second)}
    rest = ["--latency", "none"]
    for _ in range(2):  # its own it may replace
        assert verb.main([str(run), "--format", first, "-o", slim[first], *rest]) == 0
    with pytest.raises(SystemExit) as stopped:
        cli.answer(["export", str(run), "--format", second, "-o", slim[second], *rest])
    assert stopped.value.code == 2
    assert "both keep their weights in slim.safetensors" in capsys.readouterr().err
    assert checked(capsys, slim[first])[0] == 0


def test_files_that_are_exported_already_and_certificates_are_known(exported, capsys):
    with pytest.raises(SystemExit):
        cli.answer(["export", str(exported / "onnx.onnx")])
    assert "is exported already: prunebench check " in capsys.readouterr().err
    code, _, said = checked(capsys, exported / "onnx.onnx.certificate.json")
    assert (code, said.count("\n")) == (2, 1)
    assert f"is a certificate; give the file: {exported / 'onnx.onnx'}" in said
    code, _, said = checked(capsys, exported)
    assert (code, said.count("\n")) == (2, 1)
    assert "prunebench export writes a network and its certificate" in said


def test_missing_packages_are_named(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(SystemExit) as stopped:
        cli.answer(["export", str(run), "-o", str(tmp_path / "slim.onnx")])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "onnxscript is not installed; pip install 'prunebench[export]'" in said


OWN = """from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.down, self.up = nn.Conv2d(3, width, 3, 2, 1), nn.ConvTranspose2d(width, 2, 2, 2)

    def forward(self, images):
        return self.up(self.down(images).relu())

def built(width):
    return Net(width)
"""


@pytest.mark.parametrize("name", FORMATS)
def test_a_network_of_ones_own_is_exported_by_the_name_of_what_builds_it(
    tmp_path, monkeypatch, capsys, name
):
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    net = importlib.import_module("mine").Net
    small = prunebench.prune(net(8), torch.randn(1, 3, 8, 8), macs=0.7).eval()
    prunebench.save(small, "own.pt")
    file = f"own{ENDING[name]}"
    words = ["own.pt", "--format", name, "-o", file, "--latency", "none"]
    assert verb.main([*words, "--model", "mine.Net", "--kwargs", "{width: 8}"]) == 0
    held = certificate(tmp_path / file)
    assert held["kept"] == {"down": small.down.out_channels}
    assert held["title"].startswith("Net, slimmed")
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(torch.tensor(held["outputs"]), small(images).flatten(1), atol=1e-6)
    code, said, _ = checked(capsys, tmp_path / file)
    assert code == 0
    assert "matches its certificate" in said


def test_what_is_to_be_said_of_a_network_of_ones_own(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "theirs.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten())
    prunebench.save(prunebench.prune(network, torch.randn(1, 3, 8, 8), macs=0.7), "own.pt")
    for words, said in (
        (["own.pt"], "own.pt holds a Sequential of your own, and no code; say what builds"),
        (["own.pt", "--model", "Net"], "--model must name a class as Python imports it"),
        (["own.pt", "--model", "theirs.Nothing"], "--model: cannot find theirs.Nothing"),
        (["own.pt", "--model", "theirs.Net"], "theirs.Net cannot be built (TypeError: "),
        (
            ["own.pt", "--model", "theirs.built", "--kwargs", "{width: 8}"],
            "another Sequential",
        ),
        (["own.pt", "--kwargs", "{width: 8}"], "--kwargs holds the arguments of --model"),
        (
            ["own.pt", "--model", "a.B", "--kwargs", "8"],
            "8 is no mapping of keywords",
        ),
        (["own.pt", "--model", "collections.OrderedDict"], "makes a OrderedDict"),
        ([str(run), "--model", "theirs.Net"], "comes from a run and says of what"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.answer(["export", *words])
        err = capsys.readouterr().err
        assert (stopped.value.code, err.count("\n")) == (2, 1), words
        assert said in err


def test_a_killed_export_leaves_nothing_or_is_swept(run, prunebench, tmp_path):
    words = [
        "export", str(run), "--format", "safetensors", "-o", "out/slim.safetensors",
        "--latency", "eager",
    ]  # fmt: skip

    def begun():
        process = prunebench.start(*words)
        while not list(tmp_path.glob("out/.export-*/slim.safetensors")):
            assert process.poll() is None, process.stderr
            time.sleep(0.01)
        return process

    with begun() as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == START_AGAIN
        assert process.stderr == "prunebench: interrupted by SIGTERM; nothing was written\n"
    assert not list((tmp_path / "out").iterdir())
    with begun() as process:
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    assert len(list((tmp_path / "out").iterdir())) == 1
    with draft_folder(tmp_path / "out") as busy:  # is swept now, and not while it is in use
        assert list((tmp_path / "out").iterdir()) == [busy]
        done = prunebench(*words[:-2], "--latency", "none")
        assert done.returncode == 0, done.stderr
        assert busy.is_dir()
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["slim.safetensors", "slim.safetensors.certificate.json"]


def safetensors(run, folder):
    """What exports `run` to `folder`, and what is there then."""
    file = folder / "slim.safetensors"
    words = [str(run), "--format", "safetensors", "-o", str(file), "--latency", "none"]
    return verb.main(words), [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("told", [True, False])
def test_an_export_that_torch_takes_the_signal_from_leaves_nothing(
    run, tmp_path, monkeypatch, capsys, told
):
    from prunebench.export import tensors

    real = tensors.opened

    def opened(path, shape):
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            if told:
                raise CheckpointError(f"{path} is damaged") from error
        return real(path, shape)

    monkeypatch.setattr(tensors, "opened", opened)
    assert safetensors(run, tmp_path) == (START_AGAIN, [])
    assert capsys.readouterr().err == "prunebench: interrupted by SIGTERM; nothing was written\n"


def test_a_file_never_stays_without_its_certificate(run, tmp_path, monkeypatch):
    real = os.replace

    def replace(*places):
        signal.raise_signal(signal.SIGTERM)
        real(*places)

    monkeypatch.setattr(os, "replace", replace)
    code, left = safetensors(run, tmp_path)  # which was all but done
    assert (code, len(left)) == (0, 2)


def test_a_check_that_is_stopped_says_nothing_of_the_file(copy, monkeypatch, capsys):
    def load(*_, **__):
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            raise RuntimeError("We ran into an error when deserializing") from error

    monkeypatch.setattr(torch.export, "load", load)
    code, _, said = checked(capsys, copy / "torch_export.pt2")
    assert (code, said) == (START_AGAIN, "prunebench: interrupted by SIGTERM\n")


def test_timings_name_engine_and_batch(run, tmp_path, capsys):
    file = tmp_path / "slim.py"
    words = ["--format", "python", "-o", str(file), "--latency", "eager", "--batch", "2"]
    assert verb.main([str(run), *words]) == 0
    said = capsys.readouterr().out
    assert "eager, batch 1: " in said and "eager, batch 2: " in said
    timed = [(t["network"], t["latency"]["batch"]) for t in certificate(file)["latency"]]
    assert timed == [("dense", 1), ("dense", 2), ("slim", 1), ("slim", 2)]
