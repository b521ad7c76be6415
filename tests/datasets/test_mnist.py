"""MNIST and Fashion-MNIST: where files are found, and how damage is reported."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

from prunebench.datasets import mnist
from prunebench.datasets.mnist import Mnist
from prunebench.errors import ConfigError, DataError

NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def spec(root, **changes):
    values = {
        "variant": "mnist", "root": str(root), "download": False, "mean": [0.13], "std": [0.31],
        "crop_padding": 0, "flip": False, "val_size": 4, "train_size": None, "split_seed": 0,
    }  # fmt: skip
    return Mnist(**values | changes)


@pytest.fixture
def contents(monkeypatch):
    """Four small idx files, their digests declared the published ones."""
    draw = np.random.RandomState(0)
    files = {}
    for part, n in (("train", 12), ("test", 5)):
        images = draw.randint(0, 256, (n, 28, 28), np.uint8)
        labels = draw.randint(0, 10, n).astype(np.uint8)
        header = struct.pack(">IIII", 0x803, n, 28, 28)
        files[NAMES[part][0]] = header + images.tobytes()
        files[NAMES[part][1]] = struct.pack(">II", 0x801, n) + labels.tobytes()
    digests = {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}
    monkeypatch.setitem(mnist._DIGESTS, "mnist", digests)
    return files


def write(folder, files, *, level=9, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(raw, level) if suffix else raw)


@pytest.mark.parametrize("place", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize(("level", "suffix"), [(9, ".gz"), (1, ".gz"), (0, "")])
def test_files_are_read_wherever_and_however_compressed(tmp_path, contents, place, level, suffix):
    write(tmp_path / place, contents, level=level, suffix=suffix)
    data = spec(tmp_path).load()
    assert (data.shape, data.classes, len(data.train), len(data.val)) == ((1, 28, 28), 10, 8, 4)
    assert data.test.images.numpy().tobytes() == contents[NAMES["test"][0]][16:]
    assert bytes(data.test.labels.tolist()) == contents[NAMES["test"][1]][8:]


def test_a_truncated_archive_is_named(tmp_path, contents):
    write(tmp_path, contents)
    path = tmp_path / f"{NAMES['train'][0]}.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is truncated or corrupt"):
        spec(tmp_path).load()


def test_other_contents_are_named(tmp_path, contents):
    contents[NAMES["test"][1]] = contents[NAMES["test"][1]][:-1] + b"\x0b"
    write(tmp_path, contents)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is truncated, corrupt or of"):
        spec(tmp_path).load()


def test_a_missing_file_is_named(tmp_path, contents):
    del contents[NAMES["test"][0]]
    write(tmp_path, contents)
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz is missing"):
        spec(tmp_path).load()


def test_missing_data_name_the_root_and_the_way_out(tmp_path):
    message = r"fashion_mnist is not in .*dataset\.download=true or set dataset\.root"
    with pytest.raises(DataError, match=message):
        spec(tmp_path, variant="fashion_mnist").load()


def test_a_failed_download_is_one_line(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise RuntimeError("Error downloading")

    monkeypatch.setattr("torchvision.datasets.MNIST", refuse)
    with pytest.raises(DataError, match=r"could not be downloaded \(Error downloading\)"):
        spec(tmp_path, download=True).load()


def test_an_unknown_variant_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="variant must be one of mnist, fashion_mnist"):
        spec(tmp_path, variant="kmnist")
