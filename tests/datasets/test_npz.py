"""The user's own arrays: which are accepted, and how malformed files are refused."""

import zipfile

import numpy as np
import pytest

from prunebench.datasets.npz import Npz
from prunebench.errors import DataError


def arrays(**changes):
    draw = np.random.RandomState(0)
    return {
        "train_images": draw.randint(0, 256, (20, 5, 4, 3), np.uint8),
        "train_labels": np.arange(20) % 4,
        "test_images": draw.randint(0, 256, (8, 5, 4, 3), np.uint8),
        "test_labels": np.arange(8, dtype=np.uint8) % 4,
    } | changes


def load(path):
    return Npz(
        path=str(path), mean=[0.5], std=[0.25], crop_padding=2, flip=True,
        val_size=4, train_size=None, split_seed=0,
    ).load()  # fmt: skip


def test_pixels_and_labels_arrive_channels_first(tmp_path):
    stored = arrays()
    np.savez(tmp_path / "own.npz", **stored)
    data = load(tmp_path / "own.npz")
    assert (data.name, data.classes, data.shape) == ("own", 4, (3, 5, 4))
    assert (data.crop_padding, data.flip, data.note) == (2, True, "")
    assert np.array_equal(data.test.images.permute(0, 2, 3, 1).numpy(), stored["test_images"])
    assert data.test.labels.tolist() == [0, 1, 2, 3] * 2
    assert [len(s) for s in (data.train, data.val)] == [16, 4]


def test_grey_images_need_no_channel_dimension(tmp_path):
    grey = {f"{part}_images": arrays()[f"{part}_images"][..., 0] for part in ("train", "test")}
    np.savez_compressed(tmp_path / "own.npz", **arrays(**grey))
    assert load(tmp_path / "own.npz").shape == (1, 5, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((20, 5, 4, 3))}, "train_images must be uint8 .* got float64"),
        ({"train_images": np.zeros((20, 3, 5, 4), np.uint8)}, r"with 1 or 3 channels, got uint8"),
        ({"test_images": np.zeros((0, 5, 4, 3), np.uint8)}, "test_images must be"),
        ({"test_images": np.zeros((8, 4, 4, 3), np.uint8)}, "must be of one shape"),
        ({"train_labels": np.arange(19)}, r"train_labels must be integers \[20\]"),
        ({"train_labels": np.zeros(20)}, "train_labels must be integers .* got float64"),
        ({"test_labels": np.arange(8) - 1}, "test_labels must count from 0, got -1"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, changes, message):
    np.savez(tmp_path / "own.npz", **arrays(**changes))
    with pytest.raises(DataError, match=message):
        load(tmp_path / "own.npz")


def test_missing_keys_are_named(tmp_path):
    np.savez(tmp_path / "own.npz", train_images=arrays()["train_images"])
    with pytest.raises(DataError, match="lacks train_labels, test_images, test_labels"):
        load(tmp_path / "own.npz")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*own\.npz"):
        load(tmp_path / "own.npz")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.999])
def test_a_truncated_file_is_named(tmp_path, keep):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(len(whole) * keep)])
    with pytest.raises(DataError, match=r"own\.npz is truncated, corrupt or no \.npz file"):
        load(path)


def test_a_file_of_text_is_not_to_be_unpickled(tmp_path):
    (tmp_path / "own.npz").write_text("train_images, train_labels\n")
    with pytest.raises(DataError, match=r"or no \.npz file \(it holds no numbers\)$"):
        load(tmp_path / "own.npz")


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays())
    raw = bytearray(path.read_bytes())
    raw[raw.index(arrays()["train_images"].tobytes()) + 7] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"own\.npz is truncated, corrupt"):
        load(path)


def test_a_zip_of_another_version_is_named(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays())
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 6] = 99
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"own\.npz is truncated, corrupt or no .*version 9\.9"):
        load(path)


def test_pickles_are_not_opened(tmp_path):
    objects = np.array([object()] * 20, dtype=object)
    np.savez(tmp_path / "own.npz", **arrays(train_labels=objects))
    with pytest.raises(DataError, match="truncated, corrupt or no"):
        load(tmp_path / "own.npz")


def test_a_bare_array_is_refused(tmp_path):
    np.save(tmp_path / "own.npy", arrays()["train_images"])
    with pytest.raises(DataError, match="single array"):
        load(tmp_path / "own.npy")


def test_a_bomb_is_not_unfolded(tmp_path):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key in arrays():
            archive.writestr(f"{key}.npy", bytes(26_000_000))
    with pytest.raises(DataError, match=r"own\.npz unpacks from 0\.. MB to 104 MB"):
        load(path)


def test_a_header_that_claims_more_than_there_is_takes_no_memory(tmp_path):
    np.savez(tmp_path / "whole.npz", **arrays())
    claims = np.lib.format
    with (
        zipfile.ZipFile(tmp_path / "whole.npz") as whole,
        zipfile.ZipFile(tmp_path / "own.npz", "w") as archive,
    ):
        for name in whole.namelist():
            archive.writestr(name, whole.read(name))
            if name == "train_labels.npy":
                break
        with archive.open("test_images.npy", "w") as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 5, 4, 3)}
            claims.write_array_header_1_0(member, header)
        archive.writestr("test_labels.npy", whole.read("test_labels.npy"))
    with pytest.raises(DataError, match="test_images.npy claims to be uint8"):
        load(tmp_path / "own.npz")
