"""CIFAR-10 and CIFAR-100: both forms of the files, and how damage is reported."""

import hashlib
import struct

import numpy as np
import pytest
import torchvision

from prunebench.datasets import cifar
from prunebench.datasets.cifar import Cifar
from prunebench.errors import ConfigError, DataError


def spec(root, variant="cifar10", **changes):
    values = {
        "variant": variant, "root": str(root), "download": False, "mean": [0.5], "std": [0.25],
        "crop_padding": 4, "flip": True, "val_size": 4, "train_size": None, "split_seed": 0,
    }  # fmt: skip
    return Cifar(**values | changes)


def batch(n, seed, classes=10):
    draw = np.random.RandomState(seed)
    return draw.randint(0, 256, (n, 3072), np.uint8), draw.randint(0, classes, n)


def python2_pickle(pixels, labels, key):
    """The bytes that cPickle of Python 2 with protocol 2 made of a batch, opcode by opcode."""

    def short(text):
        return b"U" + bytes([len(text)]) + text

    def number(value):
        return b"J" + struct.pack("<i", value)

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n"
        + (b"cnumpy\nndarray\n" + b"K\x00\x85" + short(b"b") + b"\x87R")
        + (b"(K\x01" + number(pixels.shape[0]) + number(pixels.shape[1]) + b"\x86")
        + (b"cnumpy\ndtype\n" + short(b"u1") + b"K\x00K\x01\x87R")
        + (b"(K\x03" + short(b"|") + b"NNN" + number(-1) + number(-1) + b"K\x00tb")
        + (b"\x89T" + struct.pack("<i", pixels.size) + pixels.tobytes() + b"tb")
    )
    listed = b"](" + b"".join(number(int(label)) for label in labels) + b"e"
    return b"\x80\x02}(" + short(b"data") + array + short(key) + listed + b"u."


def publish(monkeypatch, folder, variant, files, key):
    """Writes batches in the published format and declares their md5 the published ones."""
    folder.mkdir(parents=True)
    listed = []
    for name, (pixels, labels) in files.items():
        raw = python2_pickle(pixels, labels, key)
        (folder / name).write_bytes(raw)
        listed.append([name, hashlib.md5(raw).hexdigest()])
    reader = getattr(torchvision.datasets, variant.upper())
    monkeypatch.setattr(reader, "train_list", [row for row in listed if "test" not in row[0]])
    monkeypatch.setattr(reader, "test_list", [row for row in listed if "test" in row[0]])


@pytest.fixture
def published(monkeypatch, tmp_path):
    files = {f"data_batch_{i}": batch(10, i) for i in (1, 2)} | {"test_batch": batch(6, 9)}
    publish(monkeypatch, tmp_path / "cifar-10-batches-py", "cifar10", files, b"labels")
    return files


def test_published_batches_are_read_in_order(published, tmp_path):
    data = spec(tmp_path).load()
    assert (data.name, data.classes, data.shape, data.note) == ("cifar10", 10, (3, 32, 32), "")
    pixels, labels = published["test_batch"]
    assert np.array_equal(data.test.images.numpy(), pixels.reshape(-1, 3, 32, 32))
    assert data.test.labels.tolist() == labels.tolist()
    every = np.concatenate([published["data_batch_1"][0], published["data_batch_2"][0]])
    seen = {row.tobytes() for split in (data.train, data.val) for row in split.images.numpy()}
    assert seen == {row.tobytes() for row in every}
    assert [len(s) for s in (data.train, data.val)] == [16, 4]


def test_cifar100_takes_the_fine_labels(monkeypatch, tmp_path):
    files = {"train": batch(12, 1, 100), "test": batch(5, 2, 100)}
    publish(monkeypatch, tmp_path / "cifar-100-python", "cifar100", files, b"fine_labels")
    data = spec(tmp_path, "cifar100").load()
    assert data.classes == 100
    assert data.test.labels.tolist() == files["test"][1].tolist()


@pytest.mark.parametrize("damage", [lambda raw: raw[:-5], lambda raw: raw[:-9] + b"x" + raw[-8:]])
def test_a_damaged_file_is_named(published, tmp_path, damage):
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"data_batch_2 is truncated or corrupt \(\d+ bytes, md5"):
        spec(tmp_path).load()


def test_a_missing_batch_is_named(published, tmp_path):
    (tmp_path / "cifar-10-batches-py" / "test_batch").unlink()
    with pytest.raises(DataError, match="test_batch is missing"):
        spec(tmp_path).load()


def test_code_in_a_batch_is_not_run_even_if_the_md5_fits(monkeypatch, published, tmp_path):
    marker = tmp_path / "ran"
    raw = b"\x80\x02cos\nmkdir\nU" + bytes([len(str(marker))]) + str(marker).encode() + b"\x85R."
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(raw)
    listed = [["test_batch", hashlib.md5(raw).hexdigest()]]
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "test_list", listed)
    with pytest.raises(DataError, match="test_batch is no CIFAR file: os.mkdir has no place"):
        spec(tmp_path).load()
    assert not marker.exists()


def test_missing_data_name_the_root_and_the_way_out(tmp_path):
    message = r"cifar100 is not in .*nowhere .*dataset\.download=true or set dataset\.root"
    with pytest.raises(DataError, match=message):
        spec(tmp_path / "nowhere", "cifar100").load()


def test_a_failed_download_is_one_line(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", refuse)
    with pytest.raises(DataError, match=r"could not be downloaded from http.*no route to host"):
        spec(tmp_path, download=True).load()


def npz(path, side=32, classes=10, **changes):
    draw = np.random.RandomState(0)
    arrays = {
        "train_images": draw.randint(0, 256, (12, side, side, 3), np.uint8),
        "train_labels": np.arange(12, dtype=np.uint8) % classes,
        "test_images": draw.randint(0, 256, (5, side, side, 3), np.uint8),
        "test_labels": np.arange(5, dtype=np.uint8) % classes,
    }
    np.savez(path, **arrays | changes)
    return arrays


def test_npz_of_unknown_contents_says_so(tmp_path):
    stored = npz(tmp_path / "cifar10.npz")
    data = spec(tmp_path).load()
    assert data.note == "CIFAR-10 (from cifar10.npz, contents unknown)"
    assert np.array_equal(data.test.images.permute(0, 2, 3, 1).numpy(), stored["test_images"])


def test_a_known_copy_brings_its_note(monkeypatch, tmp_path):
    stored = npz(tmp_path / "cifar10.npz")
    names = ("train_images", "train_labels", "test_images", "test_labels")
    digest = hashlib.sha256(b"".join(stored[name].tobytes() for name in names)).hexdigest()
    monkeypatch.setitem(cifar._KNOWN_COPIES, digest, "a known copy")
    assert spec(tmp_path).load().note == "a known copy"


def test_the_published_folder_comes_before_the_npz(published, tmp_path):
    npz(tmp_path / "cifar10.npz")
    assert spec(tmp_path).load().note == ""


@pytest.mark.parametrize(
    ("variant", "changes", "message"),
    [
        ("cifar10", {"side": 28}, "use dataset=npz for other data"),
        ("cifar10", {"classes": 11}, "labels below 10, got .* and 10"),
    ],
)
def test_other_data_in_the_npz_are_refused(tmp_path, variant, changes, message):
    npz(tmp_path / f"{variant}.npz", **changes)
    with pytest.raises(DataError, match=message):
        spec(tmp_path, variant).load()


def test_an_unknown_variant_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="variant must be one of cifar10, cifar100; got 'cifar'"):
        spec(tmp_path, "cifar")
