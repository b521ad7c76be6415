"""LFW's folder and InsightFace's bins: what is read, and what is refused."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from prunebench.datasets.faces.bins import read_bin
from prunebench.datasets.faces.lfw import pairs_at, read_pairs
from prunebench.datasets.stream import Loading
from prunebench.errors import DataError
from tests.faces import face, write_bin, write_lfw

HERE = Loading(workers=0, prefetch=1, allow_damaged=0.5)
SIZE = (32, 32)


def at(path, size=SIZE):
    return pairs_at(path, size, HERE, "insightface")


def test_a_folder_of_pairs_reads_each_image_once(tmp_path):
    pairs = at(write_lfw(tmp_path / "lfw", folds=2, each=3))
    assert (len(pairs), pairs.folds, len(pairs.images)) == (12, 2, 2 * 3 * 3)
    assert pairs.same.tolist() == [True] * 3 + [False] * 3 + [True] * 3 + [False] * 3
    name = pairs.images.source.name
    assert name(int(pairs.first[3])) == "Ann_0_0/Ann_0_0_0001.jpg"
    assert name(int(pairs.second[3])) == "Bo_0_0/Bo_0_0_0001.jpg"
    assert name(int(pairs.second[0])) == "Ann_0_0/Ann_0_0_0002.jpg"
    assert pairs.images.labels.tolist() == list(range(18))
    assert pairs.images.loading.allow_damaged == 0


def test_a_list_that_says_something_else_is_named(tmp_path):
    root = write_lfw(tmp_path / "lfw", folds=2, each=1)
    listed = root / "pairs.txt"
    good = listed.read_text()
    listed.write_text(good.replace("2\t1\n", "2\t5\n", 1))
    with pytest.raises(DataError, match="has 4 pairs; its first line says 2 folds of 5 pairs"):
        read_pairs(listed)
    listed.write_text(good.replace("Ann_1_0\t1\t2", "Ann_1_0\t1"))
    with pytest.raises(DataError, match="line 4 must read 'person i j'"):
        read_pairs(listed)
    listed.write_text("nothing")
    with pytest.raises(DataError, match="the first line must say folds and pairs"):
        read_pairs(listed)
    listed.write_text(good)
    (root / "Bo_1_0" / "Bo_1_0_0001.jpg").unlink()
    with pytest.raises(DataError, match=r"has no Bo_1_0/Bo_1_0_0001 .* which pairs.txt names"):
        at(root)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_a_bin_of_any_python_is_read(protocol, tmp_path):
    same = [True, False, True]
    images = [face(seed) for seed in range(6)]
    (tmp_path / "agedb_30.bin").write_bytes(pickle.dumps((images, same), protocol=protocol))
    pairs = at(tmp_path / "agedb_30.bin")
    assert (pairs.name, pairs.folds, pairs.same.tolist()) == ("agedb_30", 10, same)
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0, 2, 4], [1, 3, 5])
    assert pairs.images.source.read(3).tobytes() != pairs.images.source.read(2).tobytes()


def test_a_bin_of_python_2_is_read(tmp_path):
    # Python 2: a tuple of a list of str (which are bytes) and a list of bools
    image = face(0)
    raw = b"\x80\x02]" + 2 * (b"T" + len(image).to_bytes(4, "little") + image + b"a")
    (tmp_path / "lfw.bin").write_bytes(raw + b"]\x88a\x86.")
    assert read_bin(tmp_path / "lfw.bin") == ([image, image], [True])


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_code_in_a_bin_is_run(tmp_path):
    victim = tmp_path / "victim"
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps(([b"a", Evil(victim)], [True]), protocol=2))
    with pytest.raises(DataError, match="it asks for posix.mkdir, and its code is never run"):
        at(tmp_path / "lfw.bin")
    assert not victim.exists()
    asks = b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00zipl\x85R."
    (tmp_path / "zip.bin").write_bytes(asks)
    with pytest.raises(DataError):
        at(tmp_path / "zip.bin")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (([b"a"], [True]), "holds 1 images for 1 pairs"),
        (([], []), "holds 0 images for 0 pairs"),
        ((["text", "text"], [True]), "must hold encoded images and bools"),
        (([b"a", b"b"], [1]), "must hold encoded images and bools"),
        ([1, 2, 3], "must hold images and bools"),
    ],
)
def test_a_bin_with_anything_else_is_named(content, why, tmp_path):
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=why):
        at(tmp_path / "lfw.bin")


def test_a_truncated_bin_and_one_without_an_image_are_named(tmp_path):
    path = write_bin(tmp_path / "lfw.bin", [True, False])
    raw = path.read_bytes()
    (tmp_path / "cut.bin").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match=r"cut\.bin is (cut short|no verification set)"):
        at(tmp_path / "cut.bin")
    (tmp_path / "none.bin").write_bytes(pickle.dumps(([b"a", b"b"], [True])))
    with pytest.raises(DataError, match=r"none\.bin image 0: it is no image"):
        at(tmp_path / "none.bin")


def test_faces_of_another_size_are_refused_and_aligned_ones_are_cut(tmp_path):
    path = write_lfw(tmp_path / "lfw", folds=1)
    with pytest.raises(DataError, match=r"32 x 32 is not 48 x 32; dataset\.image_size=\[48, 32\]"):
        at(path, (48, 32))
    shutil.rmtree(path)
    pairs = at(write_lfw(path, folds=1, size=(112, 112)), (112, 96))
    image = pairs.images.source.read(0)
    assert pairs.images.plain(image).tobytes() == image.crop((8, 0, 104, 112)).tobytes()
    with pytest.raises(DataError, match="112 x 112 is not 96 x 96"):
        at(path, (96, 96))


def test_half_of_the_training_images_are_mirrored_and_no_test_image():
    from PIL import Image, ImageOps

    from prunebench.datasets.faces.aligned import Columns

    image = Image.frombytes("RGB", (2, 1), b"abcdef")
    torch.manual_seed(0)
    seen = [Columns(2, flip=True)(image).tobytes() for _ in range(64)]
    assert {*seen} == {b"abcdef", b"defabc"} == {b"abcdef", ImageOps.mirror(image).tobytes()}
    assert 16 < seen.count(b"abcdef") < 48
    assert {Columns(2)(image).tobytes() for _ in range(16)} == {b"abcdef"}
